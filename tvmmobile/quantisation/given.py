"""Converts networks quantised by other tools to integers with the scales of their files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile.graph.composed import ComposedLayer
from tvmmobile.graph.integers import HIGHEST, INTEGER_CURVES, LOWEST
from tvmmobile.graph.layers import Array, Layer, Rounding, SumLayer
from tvmmobile.graph.network import Float32Layer, read_network
from tvmmobile.graph.passes.pipeline import compose_quantised, lower_in_nhwc
from tvmmobile.graph.passes.roundings import is_sum
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.graph.tasks import Task
from tvmmobile.networks.quantised import WeightScales
from tvmmobile.quantisation.calibration import Accepts
from tvmmobile.quantisation.flow import Flow, FlowStep, flow_of
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
from tvmmobile.quantisation.lowering import LoweredNetwork, lower_quantised
from tvmmobile.quantisation.mixed import chosen_layers
from tvmmobile.quantisation.scales import Scale
from tvmmobile.schedules import template_for

#: How far weights may be from integers, in steps: float32 has 24 bits, of which these take 8.
_OFF = 2.0**-14


def prepare_given(
    module: Any,
    scales: WeightScales,
    task_of: Callable[[tuple[Layer, ...]], Task],
    is_composed: Accepts,
    keep: Collection[str],
    dump_dir: Path | None,
) -> LoweredNetwork | str:
    """Convert the layers of an imported network to integers of the file's scales.

    Args:
        task_of: returns the task of a region's layers.
        is_composed: returns whether a template takes a layer, perhaps in float32.
        keep: see `chosen_layers`.

    Returns:
        The network; or, where no int8 kernel takes a layer, the reason that most layers have.
    """

    def accepts(layer: Layer) -> bool:
        return template_for(task_of((layer,))) is not None

    def composes(layer: Layer) -> bool:
        return accepts(layer) if is_sum(layer) else is_composed(layer)

    def least(layer: Layer) -> int:
        exact = "dot" in task_of((layer,)).machine.has and not layer.is_depthwise  # others add two products in 16 bits
        return LOWEST if exact else -HIGHEST

    def accepts_sums(found: ComposedLayer) -> bool:
        weight, returns_floats = found.parameters.weight, dict[str, Any](writes=FLOAT32.name)
        return accepts(replace(found.layer, **returns_floats)) and not _unfit_weights(weight, scales.of(weight), least(found.layer))

    composed = compose_quantised(module, accepts, composes, accepts_sums, dump_dir)
    wide = read_network(*lower_in_nhwc(composed))
    flow = flow_of(wide)
    network, reasons = _IntegerConverter(flow, scales, accepts, least).converted(chosen_layers(flow, keep))
    if not network.steps:
        return max(reasons.values(), key=list(reasons.values()).count, default="there is none")
    lowered = lower_quantised(network, composed, wide, accepts)
    floats = tuple(
        Float32Layer(lowered.nodes[number], flow.steps[number].layer.name, why)
        for number, why in reasons.items()
        if number in lowered.nodes  # a gate in float32 is a product again
    )
    return replace(lowered, network=replace(lowered.network, float32_layers=floats))


class _IntegerConverter:
    """A flow while its layers become integers: those whose inputs and output are rounded, and whose weights are integers of the file.

    Args:
        least: returns the least weight of a layer in steps that its kernels take.
    """

    def __init__(self, flow: Flow, scales: WeightScales, accepts: Accepts, least: Callable[[Layer], int]) -> None:
        self.flow, self.scales, self.accepts, self.least = flow, scales, accepts, least
        self.steps = {step.number: step for step in flow.steps}
        #: Numbers of roundings that a layer does, or reads the input before, and of what takes their place.
        self.instead: dict[int, int] = {}

    def converted(self, float32_reasons: Mapping[int, str]) -> tuple[IntegerNetwork, dict[int, str]]:
        """Return the network, whose flow has only the roundings that no integer layer does, and the reason for each layer in float32, by
        number; `float32_reasons` are those of layers that are not to be converted.
        """
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
        return IntegerNetwork(_without_unread(Flow(tuple(steps), self._instead(self.flow.results))), integers, scales), floats

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
            given = self.scales.of(step.parameters.weight)
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


def _unfit_weights(weight: Array, given: Array | None, least: int) -> str:
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
    why = _unfit_weights(step.parameters.weight, given, least)
    if why or given is None:
        return why
    return f"biases beyond ±{BIAS_MOST:g} steps" if np.abs(step.parameters.bias / (given * read.step)).max() > BIAS_MOST else ""


def _without_unread(flow: Flow) -> Flow:
    """Remove roundings that nothing reads any more."""
    read = flow.readers.keys() | {result for result in flow.results if isinstance(result, int)}
    return replace(flow, steps=tuple(step for step in flow.steps if step.number in read or not isinstance(step.layer, Rounding)))
