"""Computes networks in exact integer arithmetic on the host, bit for bit as their int8 kernels do."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tvmmobile.graph.curves import CURVES
from tvmmobile.graph.integers import (
    HIGHEST,
    INTEGER_CURVES,
    LEAST_CONVERTED_SUM,
    LOOKED_UP,
    LOWEST,
    MOST_TOGETHER,
    NARROW_TERMS,
    SEVEN_BITS,
    TABLE,
    TAPS_TOGETHER,
    IntegerParameters,
    is_bounded,
    short_multipliers,
    tap_triple_sums,
)
from tvmmobile.graph.layers import Array, IntegerLayer
from tvmmobile.graph.network import INPUT, by_number
from tvmmobile.graph.precision import FLOAT32, INT8
from tvmmobile.kernels.integer_reference import compute_integers
from tvmmobile.kernels.reference import decibels
from tvmmobile.quantisation.flow import Batch, Flow, FlowStep
from tvmmobile.quantisation.scales import Scale

#: Largest magnitude of a bias: sums of products stay below 2^30, so that the total fits in int32.
BIAS_MOST = 2.0**29
#: Tolerance for biases that count as integers, in steps of the sums.
_BIAS_TOLERANCE = 2.0**-10


@dataclass(frozen=True, eq=False)
class IntegerStep:
    """One step of a network in integers.

    Attributes:
        step: the float32 step.
        layer: the step's layer in integers.
        parameters: constants of the layer.
        weight_scale: scale of each output channel's weights; for a pool, the weight of a pixel; for a gate, its scale.
        read, written: scales of the first input and of the output; `None` for an output in float32.
        side: scale of the residual or gate, if there is one.
        lookup_scale: scale of the argument of a curve's lookup table.
        most: upper bound of each output channel, as an integer, if the bounds differ; no kernel supports that.
    """

    step: FlowStep
    layer: IntegerLayer
    parameters: IntegerParameters
    weight_scale: Array
    read: Scale
    written: Scale | None
    side: Scale | None = None
    lookup_scale: Scale | None = None
    most: Array | None = None

    def sums(self, inputs: Sequence[Array]) -> Array:
        """Compute the real sums of a batch, before bounds and curve, from the inputs of `output`."""
        data, *others = self._integers(inputs)
        sums: Array = self.layer.integer_sums(data, self.parameters) * (self.read.step * self.weight_scale.astype(np.float64))
        return sums + self.side.real(others[0]) if self.side is not None else sums

    def output(self, inputs: Sequence[Array]) -> Array:
        """Compute a batch; inputs are int8, or float32 from a float32 step. The output is int8, or float32 if `written` is `None`."""
        data, *others = self._shaped(inputs) if self.layer.reads else self._integers(inputs)
        output = compute_integers(self.layer, data, self.parameters, dict(zip(self.layer.side_shapes, others, strict=True)))
        return output if self.most is None else np.minimum(output, self.most)

    @property
    def scales(self) -> tuple[Scale, ...]:
        """The scales of all inputs."""
        return (self.read,) if self.side is None else (self.read, self.side)

    def _shaped(self, inputs: Sequence[Array]) -> list[Array]:
        """Reshape a batch of each input as the layer reads it: single-channel images may have their channel first."""
        return [array.reshape(-1, *shape[1:]) for array, shape in zip(inputs, self.layer.read_shapes, strict=True)]

    def _integers(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the inputs in int8, quantising those in float32."""
        arrays = zip(self._shaped(inputs), self.scales, strict=True)
        return [array if array.dtype == np.int8 else scale.quantised(array) for array, scale in arrays]


def has_integers(step: FlowStep, curves: Collection[str] = INTEGER_CURVES | LOOKED_UP) -> bool:
    """Return whether a step has an integer form, and its curve, if it has one, is among `curves`."""
    return all(isinstance(source, int) for source in step.sources) and step.layer.has_integer_form(curves)


def reads_input(step: FlowStep) -> bool:
    """Return whether a step's first source is an input of the network."""
    return isinstance(step.sources[0], int) and step.sources[0] <= INPUT


def has_floats(step: FlowStep) -> bool:
    """Return whether an integer step can write float32."""
    return isinstance(step.layer, IntegerLayer) and step.layer.can_write_floats


def integer_step(
    step: FlowStep,
    read: Scale,
    written: Scale | None,
    side: Scale | None = None,
    per_channel: bool = True,
    seven_bits: bool = False,
    weight_scales: Array | None = None,
    keep_remainders: bool = False,
    input_type: str = FLOAT32.name,
    lookup_scale: Scale | None = None,
) -> IntegerStep:
    """Quantise a step for which `has_integers` holds.

    Args:
        read: scale of the first input.
        written: scale of the output; `None` for float32, which needs `has_floats`.
        side: scale of the residual or gate, if there is one.
        per_channel: give each output channel's weights their own scale, not one for all.
        seven_bits: limit weights so that kernels with 16-bit sums are fastest, see `_weight_steps`.
        weight_scales: given scale of each output channel's weights, in place of one that fits the largest; such weights are integers from
            -128 to 127.
        keep_remainders: keep multipliers of full precision, and add the rounding errors of biases as an addend.
        input_type: type in which the network's input is stored.
        lookup_scale: scale of the argument of a curve's lookup table.
    """
    assert isinstance(step.layer, IntegerLayer)
    reads = input_type if reads_input(step) and input_type != INT8.name else ""
    layer = step.layer.as_integers(reads, FLOAT32.name * (written is None))
    if not layer.has_weights:
        share = np.full(layer.output_shape[-1], layer.term_scale(1.0 if side is None else side.step))
        constants = _constants(step, np.zeros(0, np.int8), read, written)
        return _scaled(IntegerStep(step, layer, constants, share, read, written, side), keep_remainders, np.zeros_like(share))
    assert step.parameters is not None
    weight, bias = step.parameters.weight.astype(np.float64), step.parameters.bias.astype(np.float64)
    largest = _weight_steps(layer, weight, seven_bits)
    largest = largest if per_channel else np.full_like(largest, largest.max())
    # A channel of tiny weights and a large bias has coarser weights, so that its sums fit. All-zero channels may have any scale.
    scale = np.maximum(largest, np.abs(bias) / read.step / BIAS_MOST)
    scale = np.where(scale > np.finfo(np.float32).tiny / min(read.step, 1.0), scale, 1.0) if weight_scales is None else weight_scales
    scale = scale.astype(np.float32)
    integers = np.clip(np.rint(weight / scale), -HIGHEST if weight_scales is None else LOWEST, HIGHEST).astype(np.int8)
    constants = _constants(step, integers, read, lookup_scale or written)
    if lookup_scale is not None and written is not None:
        constants = replace(constants, table=_table(step.curve, lookup_scale, written))
    addend = keep_remainders and bool(_is_fractional(bias / (read.step * scale.astype(np.float64))).any())
    layer, most = layer.with_facts(addend=addend), _most(step, written)
    return _scaled(IntegerStep(step, layer, constants, scale, read, written, side, lookup_scale, most), keep_remainders, bias)


def _table(curve: str, lookup_scale: Scale, written: Scale) -> Array:
    """Return a curve's lookup table: its quantised values for all bytes, int8[256]."""
    bytes_of_scale = np.arange(TABLE).astype(np.uint8).view(np.int8)
    return written.quantised(CURVES[curve].exact(lookup_scale.real(bytes_of_scale).astype(np.float64)))


def _weight_steps(layer: IntegerLayer, weight: Array, seven_bits: bool) -> Array:
    """Return the smallest scale of each output channel with which its weights fit in int8. With `seven_bits`, they fit in 7 bits; those of
    a depthwise layer fit in int8, and the sums of three taps in `MOST_TOGETHER`, however they are rounded.
    """
    largest = np.abs(weight).max(tuple(range(weight.ndim - 1)), initial=0.0)
    if not seven_bits:
        return np.asarray(largest / HIGHEST)
    if layer.is_depthwise:
        return np.asarray(np.maximum(largest / HIGHEST, tap_triple_sums(weight).max(0) / (MOST_TOGETHER - TAPS_TOGETHER / 2)))
    return np.asarray(largest / SEVEN_BITS)


def _is_fractional(numbers: Array) -> Array:
    """Return a mask of the numbers that differ from integers by more than float32's rounding."""
    return np.asarray(np.abs(numbers - np.rint(numbers)) > np.maximum(_BIAS_TOLERANCE, np.abs(numbers) * 2.0**-22))


def _constants(step: FlowStep, weight: Array, read: Scale, written: Scale | None) -> IntegerParameters:
    """Return the parameters of a step, with zeros for its bias and multiplier."""
    low, high = LOWEST, HIGHEST
    if step.summing and written is not None:
        bounds = written.quantised(np.array([step.bounds[0], np.max(step.bounds[1])], np.float32))
        low, high = map(int, bounds)
    empty = np.zeros(step.layer.output_shape[-1], np.int32)
    zero_out = 0 if written is None else written.zero
    return IntegerParameters(
        weight, empty, multiplier=empty, zero_in=read.zero, zero_out=zero_out, low=low, high=high, per_scale_in=read.per_step
    )


def _most(step: FlowStep, written: Scale | None) -> Array | None:
    """Quantise a step's upper bounds, if they differ by channel (`IntegerStep.most`)."""
    most = None if step.most is None or written is None else written.quantised(step.most)
    return most if most is not None and most.min() < most.max() else None


def _scaled(step: IntegerStep, keep_remainders: bool, bias: Array) -> IntegerStep:
    """Set the step's multipliers and its bias, which is given in real numbers and also compensates its input's zero point."""
    scale = step.read.step * step.weight_scale.astype(np.float64)
    parameters, stored = step.parameters, step.lookup_scale or step.written
    written = 1.0 if stored is None else stored.step
    if step.layer.curve:
        parameters, written = replace(parameters, sixth=float(np.float32(1 / (6 * written)))), 1.0
    if step.side is not None:
        parameters = replace(parameters, zero_side=step.side.zero)
    if step.side is not None and step.layer.residual:
        parameters = replace(parameters, scale_side=float(np.float32(step.side.step / written)))
    multiplier = (scale / written).astype(np.float32)
    if not keep_remainders and step.layer.scales_at_once and step.layer.terms <= NARROW_TERMS and multiplier.max(initial=0.0) <= 1:
        short = with_bias(replace(step, parameters=replace(parameters, multiplier=short_multipliers(multiplier))), bias)
        # Larger sums are converted, and the multiplier of a channel of tiny weights and a large bias would lose most of its bits.
        converted = short.layer.largest_sums(short.parameters) >= LEAST_CONVERTED_SUM
        multiplier = np.where(converted, multiplier, short.parameters.multiplier)
    step = replace(step, parameters=replace(parameters, multiplier=multiplier))
    if keep_remainders and step.layer.terms <= NARROW_TERMS and step.layer.rounds_otherwise(step.parameters):
        step = replace(step, layer=step.layer.with_facts(addend=True))
    return with_bias(step, bias)


def with_bias(step: IntegerStep, bias: Array) -> IntegerStep:
    """Set the step's bias from a real one for each channel; the addend, if the layer has one, holds the rounding errors."""
    exact = bias / (step.read.step * step.weight_scale.astype(np.float64))
    whole = np.rint(exact)
    if step.layer.integers.addend:
        addend = ((exact - whole) * step.parameters.multiplier).astype(np.float32)
        step = replace(step, parameters=replace(step.parameters, addend=addend))
    return _biased(step, whole)


def _biased(step: IntegerStep, bias: Array) -> IntegerStep:
    """Set the step's bias, given in steps of the sums, including the effect of the input's zero point."""
    layer, ones = step.layer, step.layer.weight_sums(step.parameters.weight)
    parameters = replace(step.parameters, bias=(bias - step.read.zero * ones).astype(np.int32))
    layer = layer.with_facts(wide=layer.is_wide(parameters), bounded=is_bounded(parameters))
    return replace(step, layer=layer, parameters=parameters)


def with_output_bounds(step: IntegerStep, low: int, high: int) -> IntegerStep:
    """Tighten the step's output bounds to `low` and `high`, integers of int8."""
    parameters = replace(step.parameters, low=max(step.parameters.low, low), high=min(step.parameters.high, high))
    return replace(step, layer=step.layer.with_facts(bounded=is_bounded(parameters)), parameters=parameters)


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """A network with integer steps, and the float32 network that it represents.

    Attributes:
        flow: network in float32, equalised except between steps that stay in float32.
        steps: integer steps, by number; the other steps of the flow stay in float32.
        scales: output scale of each step that returns integers, by number; includes roundings, which are not in `steps`.
    """

    flow: Flow
    steps: dict[int, IntegerStep]
    scales: dict[int, Scale]

    def real(self, number: int, output: Array) -> Array:
        """Dequantise a step's int8 output; network inputs, indices and float32 outputs are unchanged."""
        return self.scales[number].real(output) if number in self.scales and output.dtype == np.int8 else output

    def output(self, step: FlowStep, values: Mapping[int, Array]) -> Array:
        """Compute a step from the outputs of earlier steps, by number."""
        integers = self.steps.get(step.number)
        if integers is not None:
            return integers.output(step.read(values))
        output = step.output(tuple(self.real(source, values[source]) if isinstance(source, int) else source for source in step.sources))
        return self.scales[step.number].quantised(output) if step.number in self.scales else output

    def run(self, values: dict[int, Array]) -> Iterator[tuple[FlowStep, Array]]:
        """Compute a batch; yield each step of the flow with its output, in order.

        Args:
            values: the inputs by number, images in NCHW; outputs are added to it, and removed after their last use.
        """
        for step in self.flow.steps:
            values[step.number] = output = self.output(step, values)
            yield step, output
            self.flow.release(values, step.number)

    def results(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Return the network's outputs for a batch, with int8 outputs dequantised."""
        values = by_number(inputs)
        for _ in self.run(values):
            pass
        return self.flow.outputs_in({number: self.real(number, value) for number, value in values.items()})

    def outputs(self, *inputs: Array) -> Array:
        """Return the outputs for a batch, `Flow.joined`."""
        return self.flow.joined(self.results(inputs), len(inputs[0]))

    def signal_to_noise_db(self, batches: Iterable[Batch], flow: Flow) -> dict[int, float]:
        """Return the signal-to-noise ratio of each step's output in decibels, by the number of the step.

        Args:
            flow: reference network, which computes the same function in float32, such as `self.flow`.
        """
        signal, noise = (dict.fromkeys((step.number for step in flow.steps), 0.0) for _ in range(2))
        for batch in batches:
            for (step, _, expected), (_, output) in zip(flow.run(*batch), self.run(by_number(batch)), strict=True):
                signal[step.number] += float(np.square(expected, dtype=np.float64).sum())
                noise[step.number] += float(np.square(self.real(step.number, output).astype(np.float64) - expected).sum())
        ratios = {number: decibels(signal[number], noise[number]) for number in signal}
        return {number: math.inf if ratio is None else ratio for number, ratio in ratios.items()}
