"""Quantises a float32 network to int8 with calibration data: ranges, equalisation, bias correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tvmmobile.graph.curves import CURVES
from tvmmobile.graph.layers import Array, Layer, SumLayer
from tvmmobile.graph.network import by_number
from tvmmobile.quantisation.equalisation import ChannelRange, equalised, pairs_among
from tvmmobile.quantisation.flow import Batch, Flow, FlowStep
from tvmmobile.quantisation.histogram import RANGES, Histogram
from tvmmobile.quantisation.integers import IntegerNetwork, IntegerStep, has_floats, has_integers, integer_step, with_bias
from tvmmobile.quantisation.moves import joined_scales, read_as_integers
from tvmmobile.quantisation.scales import Scale
from tvmmobile.system.errors import UserError

#: Returns whether some kernel accepts an int8 layer.
Accepts = Callable[[Layer], bool]
#: Most samples on which errors of layers are measured, and most elements of a tensor for all of them.
_MEASURED, MOST_TENSOR_ELEMENTS = 64, 8_000_000
_BATCH = 8
#: Largest magnitude of a layer's sums; its square is still finite.
_LARGEST_SUM = 1e30


@dataclass(frozen=True)
class Method:
    """Options of quantisation.

    Attributes:
        ranges: method of choosing the ranges of activations, one of `RANGES`.
        equalise: true if channels are equalised across layers.
        correct: true if biases are corrected for each channel's mean error.
        per_channel: true if weights have a scale per output channel, as in kernels; false if all channels share the largest scale.
        seven_bit_steps: numbers of steps with smaller weights than int8 allows, for faster kernels (`seven_bits` of `integer_step`).
    """

    ranges: str = next(iter(RANGES))
    equalise: bool = True
    correct: bool = True
    per_channel: bool = True
    seven_bit_steps: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class CalibrationSamples:
    """Calibration data, which are read again for each pass over them. A sample has a value for each input of the network.

    Attributes:
        count: number of samples.
        read: returns the samples with the given numbers.
        labels: class of each sample; empty if unknown.
    """

    count: int
    read: Callable[[Sequence[int]], Batch]
    labels: tuple[int, ...] = ()

    def batches(self) -> Iterator[Batch]:
        """Yield all samples, a few at a time."""
        for first in range(0, self.count, _BATCH):
            yield self.read(range(first, min(first + _BATCH, self.count)))

    def some(self, most: int) -> CalibrationSamples:
        """Return at most `most` samples, evenly spaced."""
        count = min(self.count, most)
        return self.part([place * self.count // count for place in range(count)])

    def all(self) -> Batch:
        """Return all samples as one batch."""
        return self.read(range(self.count))

    def part(self, numbers: Sequence[int]) -> CalibrationSamples:
        """Return the samples with these numbers."""
        labels = tuple(self.labels[number] for number in numbers) if self.labels else ()
        return CalibrationSamples(len(numbers), lambda chosen: self.read([numbers[place] for place in chosen]), labels)


@dataclass(frozen=True, eq=False)
class Observed:
    """A network with the statistics of its values on calibration data.

    Attributes:
        given: network before equalisation.
        ranges: channel ranges for equalisation; empty if the network is not equalised.
        flow: network after equalisation, if any.
        histograms: histograms of each input and of each step's output, by number.
        looked_up: histograms of the arguments of curves, by number of the step.
        read_as_integers: result of `moves.read_as_integers`.
        some: samples on which errors of layers are measured.
    """

    given: Flow
    ranges: Mapping[int, ChannelRange]
    flow: Flow
    histograms: Mapping[int, Histogram]
    looked_up: Mapping[int, Histogram]
    read_as_integers: Collection[int]
    some: Batch


def observe(flow: Flow, samples: CalibrationSamples, equalise: bool) -> Observed:
    """Run a network on calibration data, after equalisation if `equalise`, and collect statistics of its values.

    Raises:
        UserError: if a layer's sums are not finite, or are too large.
    """
    given, ranges = flow, channel_ranges(flow, samples.batches()) if equalise else {}
    if equalise:
        flow = equalised(given, ranges)
    measured = samples.some(min(_MEASURED, max(1, MOST_TENSOR_ELEMENTS // largest_tensor(flow))))
    return Observed(given, ranges, flow, *histograms_of(flow, samples.batches()), read_as_integers(flow), measured.all())


def largest_tensor(flow: Flow) -> int:
    """Return the number of elements in the largest output of a step."""
    return max(math.prod(step.layer.output_shape) for step in flow.steps)


def quantise(flow: Flow, samples: CalibrationSamples, method: Method, accepts: Accepts = lambda layer: True) -> IntegerNetwork:
    """Quantise a network; layers that no kernel accepts, or that have no integer form, stay in float32."""
    return quantised(observe(flow, samples, method.equalise), method, accepts)


def quantised(observed: Observed, method: Method, accepts: Accepts, in_float32: Collection[int] = ()) -> IntegerNetwork:
    """Quantise an observed network as `quantise` does; the steps with the numbers `in_float32` stay in float32, too."""
    network = _Quantisation(observed, method).network(accepts, in_float32)
    left = [step.number for step in observed.flow.steps if step.number not in network.steps]
    kept = pairs_among(observed.given, left) if observed.ranges else []
    return replace(network, flow=equalised(observed.given, observed.ranges, kept)) if kept else network


def channel_ranges(flow: Flow, batches: Iterable[Batch]) -> dict[int, ChannelRange]:
    """Return the channel ranges of each `summing` step's output, by number."""
    ranges: dict[int, ChannelRange] = {}
    for batch in batches:
        for step, sums, output in flow.run(*batch):
            _check(step, sums)
            if step.summing:
                axes = tuple(range(output.ndim - 1))
                power, count = np.square(sums, dtype=np.float64).sum(axes), sums.size // sums.shape[-1]
                now = ChannelRange(np.abs(output).max(axes), sums.max(axes), power, count)
                ranges[step.number] = ranges[step.number].joined(now) if step.number in ranges else now
    return ranges


def _check(step: FlowStep, sums: Array) -> None:
    """Raise `UserError` for sums that are not finite, or too large."""
    if not np.abs(sums).max(initial=0.0) <= _LARGEST_SUM:
        raise UserError(
            f"{step.layer.name} (node {step.number}) computes sums of the calibration data that are not finite or exceed {_LARGEST_SUM:g}.",
            "Check the network's weights and the normalisation of the data.",
        )


def histograms_of(flow: Flow, batches: Iterable[Batch]) -> tuple[dict[int, Histogram], dict[int, Histogram]]:
    """Return histograms of each input and of each step's output, and histograms of the arguments of curves, both by number.

    Tensors that share a scale share a histogram.
    """
    looked_up = {step.number: Histogram() for step in flow.steps if step.curve}
    joined = joined_scales(flow)
    numbers = (*flow.inputs, *(step.number for step in flow.steps))
    histograms = {number: Histogram() for number in numbers if number not in joined}
    histograms |= {number: histograms[first] for number, first in joined.items()}
    for batch in batches:
        for step, sums, output in flow.run(*batch):
            _check(step, sums)
            histograms[step.number].add(output)
            if step.curve:
                looked_up[step.number].add(sums)
        for number, array in by_number(batch).items():
            histograms[number].add(array)
    return histograms, looked_up


class _Quantisation:
    """Quantises a network step by step, while it runs on samples both in float32 and as quantised so far."""

    def __init__(self, observed: Observed, method: Method) -> None:
        self.flow, self.histograms, self.looked_up, self.method = observed.flow, observed.histograms, observed.looked_up, method
        self.read_as_integers = observed.read_as_integers
        self.scales: dict[int, Scale] = {}
        #: Values of each tensor that is still read: in float32, and in the quantised network.
        self.exact = by_number(observed.some)
        self.values = by_number(observed.some)
        #: The current step's sums in float32, if it `finishes` them.
        self.sums: Array | None = None

    def network(self, accepts: Accepts, in_float32: Collection[int]) -> IntegerNetwork:
        """Quantise all steps except those that no kernel accepts and those in `in_float32`."""
        network = IntegerNetwork(self.flow, {}, {})
        for step in self.flow.steps:
            number = step.number
            inputs = step.read(self.exact)
            self.sums = step.sums(inputs) if step.finishes else None
            self.exact[number] = step.output(inputs) if self.sums is None else step.finished(self.sums)
            candidates = self._candidates(step) if number not in in_float32 and has_integers(step) else ()
            chosen = next((candidate for candidate in candidates if accepts(candidate.layer)), None)
            if chosen is not None:
                network.steps[number] = chosen
                if chosen.written is not None:
                    network.scales[number] = chosen.written
            self.values[number] = network.output(step, self.values)
            for values in (self.exact, self.values):
                self.flow.release(values, number)
        return network

    def _candidates(self, step: FlowStep) -> Iterator[IntegerStep]:
        """Yield the ways to quantise a step, best first: with an output in float32 if no int8 layer reads it, then in int8."""
        floats = has_floats(step)
        if floats and step.number not in self.read_as_integers:
            yield self._integer(step, None)
        if not floats or step.number in self.flow.readers:
            yield self._integer(step, self._scale(step.number))

    def _integer(self, step: FlowStep, written: Scale | None) -> IntegerStep:
        """Quantise a step; `written` is the scale of its output, `None` for float32."""
        read, *sides = (self._scale(source) for source in step.sources if isinstance(source, int))
        seven_bits = step.number in self.method.seven_bit_steps
        lookup_scale = self.looked_up[step.number].looked_up(CURVES[step.curve].exact, written) if step.curve and written else None
        integers = integer_step(
            step, read, written, sides[0] if sides else None, self.method.per_channel, seven_bits, lookup_scale=lookup_scale
        )
        return self._corrected(integers) if self.method.correct and isinstance(step.layer, SumLayer) else integers

    def _corrected(self, integers: IntegerStep) -> IntegerStep:
        """Correct a step's bias so that the mean of each channel's sums equals that in float32, despite the errors of earlier steps."""
        step = integers.step
        assert step.parameters is not None
        exact = step.sums(step.read(self.exact)) if self.sums is None else self.sums
        excess = (integers.sums(step.read(self.values)) - exact).mean(tuple(range(exact.ndim - 1)))
        return with_bias(integers, step.parameters.bias - excess)

    def _scale(self, number: int) -> Scale:
        """Return the scale of a tensor, which is computed once."""
        if number not in self.scales:
            self.scales[number] = RANGES[self.method.ranges](self.histograms[number])
        return self.scales[number]
