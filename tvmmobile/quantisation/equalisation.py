"""Cross-layer equalisation: scales channels to similar ranges without changing the function that the network computes.

Dividing an output channel's filters and bias by s, and multiplying the weights that read the channel by s, changes nothing if bounds scale
too (0 does). A tensor has one scale for all channels, weights have one per output channel; so two ranges matter: that of a channel's
activations, and that of the weights that read it, relative to those that read other channels.

An upper bound such as ReLU6's stays equal for all channels. Channels that reach it on the calibration data share one factor, so that the
bound has the same effect as before; the others stay below it.

References:
    Nagel et al., Data-free quantization through weight equalization and bias correction, arXiv 1906.04721; with activations in place of
    the first weights as in SmoothQuant, arXiv 2211.10438
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tvmmobile.graph.layers import Array, LayerParameters, SumLayer
from tvmmobile.quantisation.flow import Flow, FlowStep

#: Largest factor by which a channel is enlarged relative to the largest one, since channels may be almost zero.
_MOST_GAIN = 2.0**20
#: Relative distance from a bound within which sums count as reaching it.
_NEAR = 0.01


@dataclass(frozen=True)
class LayerPair:
    """The numbers of a step and of its output's only reader, perhaps with pools in between."""

    first: int
    second: int


def pairs_of(flow: Flow) -> Iterator[LayerPair]:
    """Yield the pairs of a network that can be equalised, in execution order."""
    at = {step.number: step for step in flow.steps}
    for step in flow.steps:
        if not _scalable(step):
            continue
        last, readers = step.number, flow.readers.get(step.number, ())
        while len(readers) == 1 and at[readers[0]].layer.passes_factors:
            last, readers = readers[0], flow.readers.get(readers[0], ())
        # Other steps may read a constant first.
        if len(readers) == 1 and at[readers[0]].layer.takes_factors(step.layer.output_shape[-1]) and at[readers[0]].sources[0] == last:
            yield LayerPair(step.number, readers[0])


def _steps_of(flow: Flow, pair: LayerPair) -> Iterator[int]:
    """Yield the numbers of a pair's steps and of the steps between them."""
    number = pair.first
    while number != pair.second:
        yield number
        (number,) = flow.readers[number]
    yield number


def _scalable(step: FlowStep) -> bool:
    return step.summing and step.layer.gives_factors and step.bounds[0] in (0.0, -np.inf)


def scaled(flow: Flow, pair: LayerPair, factors: Array) -> Flow:
    """Divide each channel between a pair of steps, and its upper bound, by a factor; the network's function stays the same.

    Args:
        factors: a positive factor per output channel of the first step.
    """
    at = {step.number: step for step in flow.steps}
    first, second = at[pair.first], at[pair.second]
    assert first.parameters is not None and second.parameters is not None
    weight, bias = (array / factors for array in (first.parameters.weight, first.parameters.bias))
    most = (first.bounds[1] / factors).astype(np.float32) if np.isfinite(first.bounds[1]).any() else first.most
    first = replace(first, parameters=_constants(first, weight, bias), most=most)
    weight = second.parameters.weight * (factors if second.layer.is_depthwise else factors[:, None])
    return flow.changed(first, replace(second, parameters=_constants(second, weight, second.parameters.bias)))


def _constants(step: FlowStep, weight: Array, bias: Array) -> LayerParameters:
    assert step.parameters is not None
    return LayerParameters(weight.astype(np.float32), bias.astype(np.float32), step.parameters.operands)


@dataclass(frozen=True)
class ChannelRange:
    """Statistics of the channels of a step's output; arrays have the shape (channels,).

    Attributes:
        magnitude: largest magnitude of each channel's outputs.
        sums: largest of each channel's sums, before the bounds.
        power: sum of the squares of each channel's sums.
        count: number of values per channel.
    """

    magnitude: Array
    sums: Array
    power: Array
    count: int

    def joined(self, other: ChannelRange) -> ChannelRange:
        """Return the statistics of both sets of values together."""
        magnitude, sums = np.maximum(self.magnitude, other.magnitude), np.maximum(self.sums, other.sums)
        return ChannelRange(magnitude, sums, self.power + other.power, self.count + other.count)

    @property
    def size(self) -> Array:
        """Size of each channel: the root mean square of its sums, in float64.

        With the largest value instead, every channel would fill the tensor's range, and be clipped by the next image that exceeds it. Sums
        are used because channels that the bounds silence on the calibration data have a size, too.
        """
        return np.asarray(np.sqrt(self.power / self.count))


def pairs_among(flow: Flow, numbers: Collection[int]) -> list[LayerPair]:
    """Return the pairs whose steps, including those in between, all have one of these numbers."""
    return [pair for pair in pairs_of(flow) if set(numbers).issuperset(_steps_of(flow, pair))]


def equalised(flow: Flow, ranges: Mapping[int, ChannelRange], kept: Collection[LayerPair] = ()) -> Flow:
    """Equalise all pairs by the channel ranges of their first steps on calibration data.

    Args:
        kept: pairs that are not equalised, because they stay in float32.
    """
    for pair in [pair for pair in pairs_of(flow) if pair not in kept]:
        at = {step.number: step for step in flow.steps}
        factors, end = _factors(at[pair.first], at[pair.second], ranges[pair.first])
        flow = scaled(flow, pair, factors)
        flow = flow.changed(_bounded(flow.steps[at[pair.first].number], end))
    return flow


def _bounded(step: FlowStep, end: float | None) -> FlowStep:
    """Return the step with the upper bound `end` for all channels."""
    layer = step.layer
    assert isinstance(layer, SumLayer) and isinstance(layer.clamp, tuple)
    return replace(step, layer=layer.with_clamp((layer.clamp[0], end)), most=None)


def _factors(first: FlowStep, second: FlowStep, ranges: ChannelRange) -> tuple[Array, float | None]:
    """Return each channel's divisor, and the resulting upper bound of all channels, `None` if no channel reaches a bound."""
    size, bound = ranges.size, np.broadcast_to(first.bounds[1], ranges.magnitude.shape)
    free, live = ranges.sums < bound * (1 - _NEAR), size > 0
    end = None if free.all() else float(bound[~free].max())
    if not live.any():
        return np.ones_like(size), end
    size = np.maximum(size, size.max() / _MOST_GAIN)
    # In a depthwise layer, each input channel's weights have their own scale, so only activations matter.
    divisors = size if second.layer.is_depthwise else size / np.sqrt(_share(second, size))
    divisors *= float((ranges.magnitude / divisors)[live].max())  # so that the tensor's largest magnitude is 1
    if end is None:
        return np.where(live, divisors, 1.0), end
    divisors = np.maximum(divisors, ranges.magnitude) / end  # no channel exceeds the bound
    return np.where(free, np.where(live, divisors, 1.0), bound / end), end


def _share(step: FlowStep, size: Array) -> Array:
    """Return each input channel's largest contribution to any output channel, relative to that channel's largest contribution; at most 1.

    Contributions are weights times the size of the activations, so that the result of equalisation does not depend on how a network's
    channels are scaled.
    """
    assert step.parameters is not None
    weight = np.abs(step.parameters.weight.astype(np.float64))
    products = weight.reshape(-1, *weight.shape[-2:]).max(0) * size[:, None]
    share: Array = np.maximum((products / np.maximum(products.max(0), 1e-30)).max(1), 1 / _MOST_GAIN)
    return share
