"""Converts a float32 network to integers on calibration data: ranges, equalisation, bias correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tvmmobile.graph.curves import CURVES
from tvmmobile.graph.layers import Array, Layer, SumLayer
from tvmmobile.graph.network import INPUT
from tvmmobile.quantisation.equalisation import ChannelRange, equalised, pairs_among, pairs_of
from tvmmobile.quantisation.flow import Flow, FlowStep
from tvmmobile.quantisation.histogram import RANGES, Histogram
from tvmmobile.quantisation.integers import IntegerNetwork, IntegerStep, has_floats, has_integers, integer_step, reads_input, with_bias
from tvmmobile.quantisation.moves import joined_scales, read_as_integers
from tvmmobile.quantisation.scales import Scale
from tvmmobile.system.errors import UserError

#: Returns whether a kernel takes an integer layer.
Accepts = Callable[[Layer], bool]
#: Most images on which errors of layers are measured, and most numbers that a tensor may have for all of them.
_MEASURED, _MOST_TENSOR_ELEMENTS = 64, 8_000_000
_BATCH = 8
#: Largest magnitude of a layer's sums; its square is still finite.
_LARGEST_SUM = 1e30
#: Images on which methods are compared: at most, and with large tensors at least.
_TRIED, _LEAST_TRIED = 64, 16
#: Decibels by which uncorrected biases must improve the output to be chosen: both are computed from few inputs.
_CLEARLY_DB = 1.0
#: Decibels of the output's signal-to-noise ratio that 7-bit weights may cost. The
#: trained network of docs/quantisation.md loses 1.8, and no top-1.
MOST_LOST_DB = 2.0


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
    measured = images.some(min(_MEASURED, max(1, _MOST_TENSOR_ELEMENTS // largest_tensor(flow))))
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


def best_method(flow: Flow, images: Images, accepts: Accepts = lambda layer: True) -> Method:
    """Find the method with the least error in the network's output. Each is calibrated on half of some images and tried on the others.
    Ranges and equalisation are chosen with corrected biases, which are kept unless the output is clearly better without them.
    """
    seen, unseen = _halves(flow, images)
    last, best, most = flow.steps[-1].number, None, -math.inf
    for equalise in (False, True) if any(pairs_of(flow)) else (False,):
        observed = observe(flow, seen, equalise)
        for method in (Method(ranges, equalise) for ranges in RANGES):
            network = quantised(observed, method, accepts)
            ratio = network.signal_to_noise_db(unseen.batches(), flow)[last]
            if best is None or ratio > most:
                best, most = (observed, method, network), ratio
    assert best is not None
    observed, method, network = best
    plain, expected = replace(method, correct=False), _outputs(flow, unseen)
    lost, lost_plain = (share_lost(_outputs(one, unseen), expected) for one in (network, quantised(observed, plain, accepts)))
    return plain if lost_plain * 10 ** (_CLEARLY_DB / 10) < lost else method


def share_lost(outputs: Array, expected: Array) -> float:
    """Return the noise's share of the output's power, at most 1, averaged over slices along the axis where it is largest.

    Slices give scores the same weight as pixel coordinates beside them. The first axis, the batch, is not tried.
    """
    noise, power = (np.square(array, dtype=np.float64) for array in (outputs.astype(np.float64) - expected, expected))

    def along(axis: int) -> float:
        others = tuple(other for other in range(expected.ndim) if other != axis)
        found = [array.sum(others) for array in (noise, power)]
        return float(np.mean(np.minimum(found[0], found[1]) / np.maximum(found[1], np.finfo(np.float64).tiny)))

    return max(map(along, range(min(1, expected.ndim - 1), expected.ndim)))


def _outputs(network: Flow | IntegerNetwork, images: Images) -> Array:
    return np.concatenate([network.outputs(batch) for batch in images.batches()])


def with_seven_bit_weights(flow: Flow, images: Images, method: Method, accepts: Accepts, gains: Callable[[Layer, Array], bool]) -> Method:
    """Give smaller weights to the layers that gain by them if the network's output loses little, judged as in `best_method`.
    If not all of them can have smaller weights, the network's first layer keeps its bits, or the depthwise layers do, or both; failing
    that, so do others as well, those with the fewest multiply-adds first.

    Args:
        gains: returns whether the kernel of an integer layer with such weights is faster with smaller ones.
    """
    seen, unseen = _halves(flow, images)
    observed = observe(flow, seen, method.equalise)
    network = quantised(observed, method, accepts)
    found = {number for number, step in network.steps.items() if step.step.summing and gains(step.layer, step.parameters.weight)}
    if not found:
        return method
    first = {number for number in found if reads_input(network.steps[number].step)}
    depthwise = {number for number in found if network.steps[number].layer.is_depthwise}
    last = flow.steps[-1].number
    before = network.signal_to_noise_db(unseen.batches(), flow)[last]

    def loses_little(some: Iterable[int]) -> bool:
        smaller = quantised(observed, replace(method, seven_bit_steps=frozenset(some)), accepts)
        return before - smaller.signal_to_noise_db(unseen.batches(), flow)[last] <= MOST_LOST_DB

    choices = dict.fromkeys(frozenset(found - kept) for kept in (set[int](), first, depthwise, first | depthwise))
    for some in filter(None, choices):
        if loses_little(some):
            return replace(method, seven_bit_steps=some)
    others = sorted(found - first - depthwise, key=lambda number: -network.steps[number].layer.macs)
    few, too_many = 0, len(others)
    while too_many - few > 1:
        half = (few + too_many) // 2
        few, too_many = (half, too_many) if loses_little(others[:half]) else (few, half)
    return replace(method, seven_bit_steps=frozenset(others[:few]))


def _halves(flow: Flow, images: Images) -> tuple[Images, Images]:
    """Split some images into a half to calibrate on and a half to try methods on; a single image is in both."""
    tried = images.some(min(_TRIED, max(_LEAST_TRIED, 2 * _MOST_TENSOR_ELEMENTS // largest_tensor(flow))))
    numbers = range(tried.count)
    return tried.part(numbers[::2]), tried.part(numbers[1::2] or numbers)


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
