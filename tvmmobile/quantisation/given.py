"""Converts networks that other tools have quantised to integer layers, keeping the scales of their files."""

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
from tvmmobile.quantisation.kept import chosen_layers
from tvmmobile.quantisation.lowering import LoweredNetwork, lower_quantised
from tvmmobile.quantisation.scales import Scale
from tvmmobile.schedules import template_for

#: Tolerance for weights that should be integers, relative to the largest integer: float32 has 24 bits, of which int8 weights take 8.
_INTEGER_TOLERANCE = 2.0**-14


def prepare_given(
    module: Any,
    scales: WeightScales,
    task_of: Callable[[tuple[Layer, ...]], Task],
    is_composed: Accepts,
    keep: Collection[str],
    dump_dir: Path | None,
) -> LoweredNetwork | str:
    """Convert the layers of an imported network to integers with the file's scales.

    Args:
        scales: scales of the file's weights.
        task_of: returns the task of a region's layers.
        is_composed: returns whether a template supports a layer, perhaps in float32.
        keep: patterns of the layers to keep in float32, see `chosen_layers`.

    Returns:
        The network; or, if no layer has an int8 kernel, the most frequent reason.
    """

    def accepts(layer: Layer) -> bool:
        return template_for(task_of((layer,))) is not None

    def composes(layer: Layer) -> bool:
        if is_sum(layer):
            return accepts(layer)
        chooses = layer.apart_in_integers and not isinstance(layer, SumLayer)  # sums get their steps apart in `steps_apart`
        return not chooses and is_composed(layer)

    def least(layer: Layer) -> int:
        exact = "dot" in task_of((layer,)).machine.has and not layer.is_depthwise  # other kernels add two products in 16 bits
        return LOWEST if exact else -HIGHEST

    def accepts_sums(candidate: ComposedLayer) -> bool:
        weight, returns_floats = candidate.parameters.weight, dict[str, Any](writes=FLOAT32.name)
        return accepts(replace(candidate.layer, **returns_floats)) and not _unfit_weights(weight, scales.of(weight), least(candidate.layer))

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
    """Converts the layers of a flow whose inputs and output are rounded, and whose weights are integers in the file.

    Args:
        least: returns the least integer weight that a layer's kernels support.
    """

    def __init__(self, flow: Flow, scales: WeightScales, accepts: Accepts, least: Callable[[Layer], int]) -> None:
        self.flow, self.scales, self.accepts, self.least = flow, scales, accepts, least
        self.steps = {step.number: step for step in flow.steps}
        self.returned = {result for result in flow.results if isinstance(result, int)}
        #: The number of the integer layer that replaces each rounding of its output, by the rounding's number.
        self.replacements: dict[int, int] = {}

    def converted(self, float32_reasons: Mapping[int, str]) -> tuple[IntegerNetwork, dict[int, str]]:
        """Return the network, whose flow keeps only the roundings that no integer layer performs, and the reason for each layer in float32,
        by number.

        Args:
            float32_reasons: reasons of layers that are not to be converted.
        """
        integers: dict[int, IntegerStep] = {}
        scales: dict[int, Scale] = {}
        steps, floats = [], {}
        for step in self.flow.steps:
            if isinstance(step.layer, Rounding):
                if step.number not in self.replacements:
                    scales[step.number] = _scale(step.layer)
                    steps.append(replace(step, sources=self._sources(step)))
                continue
            converted = float32_reasons.get(step.number) or self._integer(step)
            if isinstance(converted, IntegerStep):
                integers[step.number] = converted
                if converted.written is not None:
                    scales[step.number] = converted.written
                steps.append(converted.step)
                continue
            if step.parameters is not None:
                floats[step.number] = converted
            steps.append(replace(step, sources=self._sources(step)))
        return IntegerNetwork(_without_unread(Flow(tuple(steps), self._replaced(self.flow.results))), integers, scales), floats

    def _sources(self, step: FlowStep) -> tuple[int | Array, ...]:
        return self._replaced(step.sources)

    def _replaced(self, numbers: Sequence[int | Array]) -> tuple[int | Array, ...]:
        return tuple(self.replacements.get(number, number) if isinstance(number, int) else number for number in numbers)

    def _integer(self, step: FlowStep) -> IntegerStep | str:
        """Convert a layer to integers, or return the reason why it stays in float32."""
        read = [self._rounding(source) for source in step.sources if isinstance(source, int)]
        if not has_integers(step, INTEGER_CURVES):
            return "no integer form"
        if not all(read):
            return "reads a tensor that is not quantised"
        first, *others = [_scale(layer) for layer in read if layer is not None]
        written = self._written(step)
        if written is None and not has_floats(step):
            return "its output is not quantised"
        weight_scales = None
        if isinstance(step.layer, SumLayer):
            assert step.parameters is not None
            weight_scales = self.scales.of(step.parameters.weight)
            if why := _unfit(step, weight_scales, first, self.least(step.layer)):
                return why
        layer = None if written is None else self.steps[written].layer
        assert layer is None or isinstance(layer, Rounding)
        sources = self._sources(step)
        if (stored := self._input_stored(step)) is not None:
            number, kind = stored
            direct = self._integer_step(replace(step, sources=(number, *sources[1:])), first, layer, others, weight_scales, kind)
            if self.accepts(direct.layer):
                return self._noted(direct, written)
        converted = self._integer_step(replace(step, sources=sources), first, layer, others, weight_scales)
        return self._noted(converted, written) if self.accepts(converted.layer) else "no int8 kernel"

    def _rounding(self, source: int) -> Rounding | None:
        layer = self.steps[source].layer if source in self.steps else None
        return layer if isinstance(layer, Rounding) else None

    def _written(self, step: FlowStep) -> int | None:
        """Return the number of the rounding that alone needs a step's output; `None` if there is none."""
        readers = self.flow.readers.get(step.number, ())
        alone = len(readers) == 1 and step.number not in self.returned
        return readers[0] if alone and self._rounding(readers[0]) is not None else None

    def _input_stored(self, step: FlowStep) -> tuple[int, str] | None:
        """Return the number and the stored type of the network input that a step can read directly, in place of a rounding to all 256
        integers; `None` for other steps.
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
        converted = integer_step(step, read, written, side, weight_scales=weight_scales, keep_remainders=True, input_type=input_type)
        return converted if layer is None else with_output_bounds(converted, layer.low, layer.high)

    def _noted(self, converted: IntegerStep, written: int | None) -> IntegerStep:
        if written is not None:
            self.replacements[written] = converted.step.number
        return converted


def _scale(layer: Rounding) -> Scale:
    return Scale(layer.step, layer.zero)


def _unfit_weights(weight: Array, scales: Array | None, least: int) -> str:
    """Return why no kernel supports these weights; "" if one does.

    Args:
        weight: real values, with output channels last.
        scales: scale of each output channel.
        least: least integer weight that the kernel supports.
    """
    if scales is None:
        return "its weights are not quantised, or not by output channel"
    integers = weight / scales
    if np.abs(integers - np.rint(integers)).max(initial=0.0) > _INTEGER_TOLERANCE * HIGHEST:
        return "its weights are not quantised"
    fits = integers.min(initial=0.0) > least - 0.5 and integers.max(initial=0.0) < HIGHEST + 0.5
    return "" if fits else f"weights beyond {least} to {HIGHEST} steps"


def _unfit(step: FlowStep, scales: Array | None, read: Scale, least: int) -> str:
    """Return why no kernel supports a layer's weights and biases; "" if one does. See `_unfit_weights`."""
    assert step.parameters is not None
    why = _unfit_weights(step.parameters.weight, scales, least)
    if why or scales is None:
        return why
    return f"biases beyond ±{BIAS_MOST:g} steps" if np.abs(step.parameters.bias / (scales * read.step)).max() > BIAS_MOST else ""


def _without_unread(flow: Flow) -> Flow:
    """Remove roundings that no step or result reads any more."""
    read = flow.readers.keys() | {result for result in flow.results if isinstance(result, int)}
    return replace(flow, steps=tuple(step for step in flow.steps if step.number in read or not isinstance(step.layer, Rounding)))
