"""Converts networks quantised by other tools to integers with the scales of their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tvmmobile.graph.integers import HIGHEST, INTEGER_CURVES, LOWEST
from tvmmobile.graph.layers import Array, Layer, Rounding, SumLayer
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.quantisation.calibration import Accepts
from tvmmobile.quantisation.flow import Flow, FlowStep
from tvmmobile.quantisation.integers import (
    BIAS_MOST,
    IntegerNetwork,
    IntegerStep,
    has_floats,
    has_integers,
    integer_step,
    reads_input,
    with_output_bounds,
)
from tvmmobile.quantisation.scales import Scale

#: From weights, output channels last, to the scale of each channel; `None` where the file has none.
WeightScalesOf = Callable[[Array], Array | None]
#: How far weights may be from integers, in steps: float32 has 24 bits, of which these take 8.
_OFF = 2.0**-14


@dataclass(frozen=True, eq=False)
class Given:
    """A quantised network.

    Attributes:
        network: network whose flow has only the roundings that no integer layer does.
        floats: reason for each layer that stays in float32, by number.
    """

    network: IntegerNetwork
    floats: dict[int, str]


def with_stored_scales(
    flow: Flow, scales: WeightScalesOf, accepts: Accepts, least: Callable[[Layer], int], float32_reasons: Mapping[int, str]
) -> Given:
    """Convert every layer with rounded inputs and output, and with integer weights in the file, to integers.

    Args:
        least: the least weight of a layer in steps that its kernels take.
        float32_reasons: numbers of layers that stay in float32, and why.
    """
    return _IntegerConverter(flow, scales, accepts, least).given(float32_reasons)


class _IntegerConverter:
    """A flow while its layers become integers."""

    def __init__(self, flow: Flow, scales: WeightScalesOf, accepts: Accepts, least: Callable[[Layer], int]) -> None:
        self.flow, self.scales, self.accepts, self.least = flow, scales, accepts, least
        self.steps = {step.number: step for step in flow.steps}
        #: Numbers of roundings that a layer does, or reads the input before, and of what takes their place.
        self.instead: dict[int, int] = {}

    def given(self, float32_reasons: Mapping[int, str]) -> Given:
        """Convert all steps."""
        integers: dict[int, IntegerStep] = {}
        scales: dict[int, Scale] = {}
        steps, floats = [], {}
        for step in self.flow.steps:
            if isinstance(step.layer, Rounding):
                if step.number not in self.instead:
                    scales[step.number] = _scale(step.layer)
                    steps.append(replace(step, sources=self._sources(step)))
                continue
            found = float32_reasons.get(step.number) or self._integer(step)
            if isinstance(found, IntegerStep):
                integers[step.number] = found
                if found.written is not None:
                    scales[step.number] = found.written
                steps.append(found.step)
                continue
            if step.parameters is not None:
                floats[step.number] = found
            steps.append(replace(step, sources=self._sources(step)))
        return Given(IntegerNetwork(_without_unread(Flow(tuple(steps), self._instead(self.flow.results))), integers, scales), floats)

    def _sources(self, step: FlowStep) -> tuple[int | Array, ...]:
        return self._instead(step.sources)

    def _instead(self, numbers: Sequence[int | Array]) -> tuple[int | Array, ...]:
        return tuple(self.instead.get(number, number) if isinstance(number, int) else number for number in numbers)

    def _integer(self, step: FlowStep) -> IntegerStep | str:
        """Return a layer in integers, or the reason why it stays in float32."""
        read = [self._rounding(source) for source in step.sources if isinstance(source, int)]
        if not has_integers(step, INTEGER_CURVES):
            return "no integer form"
        if not all(read):
            return "reads a tensor that is not quantised"
        first, *others = [_scale(layer) for layer in read if layer is not None]
        written = self._written(step)
        if written is None and not has_floats(step):
            return "its output is not quantised"
        given = None
        if isinstance(step.layer, SumLayer):
            assert step.parameters is not None
            given = self.scales(step.parameters.weight)
            if why := _unfit(step, given, first, self.least(step.layer)):
                return why
        layer = None if written is None else self.steps[written].layer
        assert layer is None or isinstance(layer, Rounding)
        sources = self._sources(step)
        if (stored := self._input_stored(step)) is not None:
            number, kind = stored
            direct = self._integer_step(replace(step, sources=(number, *sources[1:])), first, layer, others, given, kind)
            if self.accepts(direct.layer):
                return self._noted(direct, written)
        found = self._integer_step(replace(step, sources=sources), first, layer, others, given)
        return self._noted(found, written) if self.accepts(found.layer) else "no int8 kernel"

    def _rounding(self, source: int) -> Rounding | None:
        layer = self.steps[source].layer if source in self.steps else None
        return layer if isinstance(layer, Rounding) else None

    def _written(self, step: FlowStep) -> int | None:
        """Return the number of the rounding that alone reads a step."""
        readers = self.flow.readers.get(step.number, ())
        return readers[0] if len(readers) == 1 and self._rounding(readers[0]) is not None else None

    def _input_stored(self, step: FlowStep) -> tuple[int, str] | None:
        """Return the number of a network input and its stored type, if the step reads it as integers or rounded to all 256 integers,
        as its kernel can; `None` for other steps.
        """
        (first, *_) = (source for source in step.sources if isinstance(source, int))
        layer = self._rounding(first)
        if layer is None or not reads_input(self.steps[first]) or (layer.low, layer.high) != (LOWEST, HIGHEST):
            return None
        (number,) = self.steps[first].sources
        assert isinstance(number, int)
        return number, layer.stored or FLOAT32.name

    def _integer_step(
        self,
        step: FlowStep,
        read: Scale,
        layer: Rounding | None,
        others: list[Scale],
        weight_scales: Array | None,
        input_type: str = FLOAT32.name,
    ) -> IntegerStep:
        written, side = None if layer is None else _scale(layer), others[0] if others else None
        found = integer_step(step, read, written, side, weight_scales=weight_scales, keep_remainders=True, input_type=input_type)
        return found if layer is None else with_output_bounds(found, layer.low, layer.high)

    def _noted(self, found: IntegerStep, written: int | None) -> IntegerStep:
        if written is not None:
            self.instead[written] = found.step.number
        return found


def _scale(layer: Rounding) -> Scale:
    return Scale(layer.step, layer.zero)


def unfit_weights(weight: Array, given: Array | None, least: int) -> str:
    """Return why no kernel takes weights with these scales of output channels; "" if one does.

    Args:
        least: integer that the kernel takes.
    """
    if given is None:
        return "its weights are not quantised, or not by output channel"
    integers = weight / given
    if np.abs(integers - np.rint(integers)).max(initial=0.0) > _OFF * HIGHEST:
        return "its weights are not quantised"
    fits = integers.min(initial=0.0) > least - 0.5 and integers.max(initial=0.0) < HIGHEST + 0.5
    return "" if fits else f"weights beyond {least} to {HIGHEST} steps"


def _unfit(step: FlowStep, given: Array | None, read: Scale, least: int) -> str:
    """Return why no kernel takes a layer's weights and biases; "" if one does."""
    assert step.parameters is not None
    why = unfit_weights(step.parameters.weight, given, least)
    if why or given is None:
        return why
    return f"biases beyond ±{BIAS_MOST:g} steps" if np.abs(step.parameters.bias / (given * read.step)).max() > BIAS_MOST else ""


def _without_unread(flow: Flow) -> Flow:
    """Remove roundings that nothing reads any more."""
    read = flow.readers.keys() | {result for result in flow.results if isinstance(result, int)}
    return replace(flow, steps=tuple(step for step in flow.steps if step.number in read or not isinstance(step.layer, Rounding)))
