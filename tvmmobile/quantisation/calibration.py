"""Converts a float32 network to integers on calibration data: ranges, equalisation, bias correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tvmmobile.graph.curves import CURVES
from tvmmobile.graph.layers import Array, Layer, SumLayer
from tvmmobile.graph.network import INPUT
from tvmmobile.quantisation.equalisation import ChannelRange, equalised, pairs_among
from tvmmobile.quantisation.flow import Flow, FlowStep
from tvmmobile.quantisation.histogram import RANGES, Histogram
from tvmmobile.quantisation.integers import IntegerNetwork, IntegerStep, has_floats, has_integers, integer_step, with_bias
from tvmmobile.quantisation.moves import joined_scales, read_as_integers
from tvmmobile.quantisation.scales import Scale
from tvmmobile.system.errors import UserError

#: Returns whether a kernel takes an integer layer.
Accepts = Callable[[Layer], bool]
#: Most images on which errors of layers are measured, and most numbers that a tensor may have for all of them.
_MEASURED, MOST_TENSOR_ELEMENTS = 64, 8_000_000
_BATCH = 8
#: Largest magnitude of a layer's sums; its square is still finite.
_LARGEST_SUM = 1e30


@dataclass(frozen=True)
class Method:
    """Options of quantisation.

    Attributes:
        ranges: choice of activations' ranges, one of `RANGES`.
        equalise: true if channels are equalised across layers.
        correct: true if biases compensate each channel's mean error.
        per_channel: true if weights have a scale for each output channel, as in kernels; otherwise all share the largest one.
        seven_bit_steps: numbers of steps whose weights are smaller than int8 allows, so that kernels are faster (`integer_step`).
    """

    ranges: str = next(iter(RANGES))
    equalise: bool = True
    correct: bool = True
    per_channel: bool = True
    seven_bit_steps: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class Images:
    """Calibration data that are read anew for each pass over them.

    Attributes:
        count: number of inputs.
        read: returns a batch of inputs by their numbers, NCHW, float32.
        labels: the class of each; empty where that is not known.
    """

    count: int
    read: Callable[[Sequence[int]], Array]
    labels: tuple[int, ...] = ()

    def batches(self) -> Iterator[Array]:
        """Yield all inputs, a few at a time."""
        for first in range(0, self.count, _BATCH):
            yield self.read(range(first, min(first + _BATCH, self.count)))

    def some(self, most: int) -> Images:
        """Return at most `most` inputs, evenly spaced."""
        count = min(self.count, most)
        return self.part([place * self.count // count for place in range(count)])

    def all(self) -> Array:
        """Return all inputs as one batch."""
        return self.read(range(self.count))

    def part(self, numbers: Sequence[int]) -> Images:
        """Return the inputs with these numbers."""
        labels = tuple(self.labels[number] for number in numbers) if self.labels else ()
        return Images(len(numbers), lambda chosen: self.read([numbers[place] for place in chosen]), labels)


@dataclass(frozen=True, eq=False)
class Observed:
    """A network after calibration, equalised or not.

    Attributes:
        given: the network before it was equalised.
        ranges: ranges of its channels that it was equalised by; empty if it was not.
        histograms: values of the input and of each step's output, by number.
        looked_up: values that steps with a `curve` look up, by number.
        read_as_integers: numbers of the steps that `moves.read_as_integers` returns.
        some: inputs on which errors of layers are measured.
    """

    given: Flow
    ranges: Mapping[int, ChannelRange]
    flow: Flow
    histograms: Mapping[int, Histogram]
    looked_up: Mapping[int, Histogram]
    read_as_integers: Collection[int]
    some: Array


def observe(flow: Flow, images: Images, equalise: bool) -> Observed:
    """Run a network on calibration data, equalised first if asked, and record its values."""
    given, ranges = flow, channel_ranges(flow, images.batches()) if equalise else {}
    if equalise:
        flow = equalised(given, ranges)
    measured = images.some(min(_MEASURED, max(1, MOST_TENSOR_ELEMENTS // largest_tensor(flow))))
    return Observed(given, ranges, flow, *histograms_of(flow, images.batches()), read_as_integers(flow), measured.all())


def largest_tensor(flow: Flow) -> int:
    """Return the number of elements in the largest output of a step."""
    return max(math.prod(step.layer.output_shape) for step in flow.steps)


def quantise(flow: Flow, images: Images, method: Method, accepts: Accepts = lambda layer: True) -> IntegerNetwork:
    """Quantise a network; layers that are not accepted, or that have no integer form, stay in float32."""
    return quantised(observe(flow, images, method.equalise), method, accepts)


def quantised(observed: Observed, method: Method, accepts: Accepts, in_float32: Collection[int] = ()) -> IntegerNetwork:
    """Quantise a network that was observed; steps in `in_float32`, by number, stay in float32 too."""
    network = _Quantisation(observed, method).network(accepts, in_float32)
    left = [step.number for step in observed.flow.steps if step.number not in network.steps]
    kept = pairs_among(observed.given, left) if observed.ranges else []
    return replace(network, flow=equalised(observed.given, observed.ranges, kept)) if kept else network


def channel_ranges(flow: Flow, batches: Iterable[Array]) -> dict[int, ChannelRange]:
    """Return the range of each channel of each convolution and matrix product."""
    found: dict[int, ChannelRange] = {}
    for batch in batches:
        for step, sums, output in flow.run(batch):
            _check(step, sums)
            if step.summing:
                axes = tuple(range(output.ndim - 1))
                power, count = np.square(sums, dtype=np.float64).sum(axes), sums.size // sums.shape[-1]
                now = ChannelRange(np.abs(output).max(axes), sums.max(axes), power, count)
                found[step.number] = found[step.number].joined(now) if step.number in found else now
    return found


def _check(step: FlowStep, sums: Array) -> None:
    """Raise `UserError` for sums that no scale fits."""
    if not np.abs(sums).max(initial=0.0) <= _LARGEST_SUM:
        raise UserError(
            f"{step.layer.name} (node {step.number}) computes sums of the calibration data that are not finite or exceed {_LARGEST_SUM:g}.",
            "Check the network's weights and the normalisation of the data.",
        )


def histograms_of(flow: Flow, batches: Iterable[Array]) -> tuple[dict[int, Histogram], dict[int, Histogram]]:
    """Return histograms of the input and each step's output by number, one for tensors of one scale; and of sums before a `curve`."""
    looked_up = {step.number: Histogram() for step in flow.steps if step.curve}
    joined = joined_scales(flow)
    numbers = (INPUT, *(step.number for step in flow.steps))
    found = {number: Histogram() for number in numbers if number not in joined}
    found |= {number: found[first] for number, first in joined.items()}
    for batch in batches:
        for step, sums, output in flow.run(batch):
            _check(step, sums)
            found[step.number].add(output)
            if step.curve:
                looked_up[step.number].add(sums)
        found[INPUT].add(batch)
    return found, looked_up


class _Quantisation:
    """A network while its steps become integers, one after another, on images that all of them see."""

    def __init__(self, observed: Observed, method: Method) -> None:
        self.flow, self.histograms, self.looked_up, self.method = observed.flow, observed.histograms, observed.looked_up, method
        self.read_as_integers = observed.read_as_integers
        self.scales: dict[int, Scale] = {}
        #: What each tensor that is still read holds in float32, and in the network of integers.
        self.exact: dict[int, Array] = {INPUT: observed.some}
        self.values: dict[int, Array] = {INPUT: observed.some}
        #: Those of the step at hand in float32, if it finishes them.
        self.sums: Array | None = None

    def network(self, accepts: Accepts, in_float32: Collection[int]) -> IntegerNetwork:
        """Quantise all steps but those that are not accepted or are in `in_float32`."""
        network = IntegerNetwork(self.flow, {}, {})
        for step in self.flow.steps:
            number = step.number
            inputs = step.read(self.exact)
            self.sums = step.sums(inputs) if step.finishes else None
            self.exact[number] = step.output(inputs) if self.sums is None else step.finished(self.sums)
            tried = self._tried(step) if number not in in_float32 and has_integers(step) else ()
            found = next((one for one in tried if accepts(one.layer)), None)
            if found is not None:
                network.steps[number] = found
                if found.written is not None:
                    network.scales[number] = found.written
            self.values[number] = network.output(step, self.values)
            for values in (self.exact, self.values):
                self.flow.release(values, number)
        return network

    def _tried(self, step: FlowStep) -> Iterator[IntegerStep]:
        """Quantise a step in the ways that there are, the best one first: what no integer layer reads is not rounded."""
        floats = has_floats(step)
        if floats and step.number not in self.read_as_integers:
            yield self._integer(step, None)
        if not floats or step.number in self.flow.readers:
            yield self._integer(step, self._scale(step.number))

    def _integer(self, step: FlowStep, written: Scale | None) -> IntegerStep:
        """Quantise a step, with a scale of its output unless that is float32."""
        read, *others = (self._scale(source) for source in step.sources if isinstance(source, int))
        seven_bits = step.number in self.method.seven_bit_steps
        lookup_scale = self.looked_up[step.number].looked_up(CURVES[step.curve].exact, written) if step.curve and written else None
        found = integer_step(
            step, read, written, others[0] if others else None, self.method.per_channel, seven_bits, lookup_scale=lookup_scale
        )
        return self._corrected(found) if self.method.correct and isinstance(step.layer, SumLayer) else found

    def _corrected(self, found: IntegerStep) -> IntegerStep:
        """Correct a step's bias, so that the mean of each channel's sums is that of float32 in spite of earlier steps' errors."""
        step = found.step
        assert step.parameters is not None
        wanted = step.sums(step.read(self.exact)) if self.sums is None else self.sums
        excess = (found.sums(step.read(self.values)) - wanted).mean(tuple(range(wanted.ndim - 1)))
        return with_bias(found, step.parameters.bias - excess)

    def _scale(self, number: int) -> Scale:
        """Return the scale of a tensor; the same each time."""
        if number not in self.scales:
            self.scales[number] = RANGES[self.method.ranges](self.histograms[number])
        return self.scales[number]
