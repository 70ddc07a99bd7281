"""Equalises layers: scales their channels to similar sizes without changing what the network computes.

Dividing the filters and bias of an output channel by s, and multiplying what reads the channel by s, changes nothing where bounds scale
along (0 does). A tensor has one scale for all channels, weights have one for each output channel, so that what matters are the ranges of a
channel's activations, and of the weights that read it beside those that read the other channels.

An upper bound such as ReLU6's stays the same for all channels. Channels that reach it on the calibration data are scaled by a common
factor, so that the bound means the same as before; in the others it never acts, and they stay below it.

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

#: A channel is made at most this many times larger beside the largest; it may hold next to nothing.
_MOST_GAIN = 2.0**20
#: Sums within this share of a bound count as reaching it.
_NEAR = 0.01


@dataclass(frozen=True)
class LayerPair:
    """A step and its channels' only reader, perhaps with a pool between."""

    first: int
    second: int


def pairs_of(flow: Flow) -> Iterator[LayerPair]:
    """Return the pairs of a network, in execution order."""
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
    """Yield the numbers of a pair's steps and of those between them."""
    number = pair.first
    while number != pair.second:
        yield number
        (number,) = flow.readers[number]
    yield number


def _scalable(step: FlowStep) -> bool:
    return step.summing and step.layer.gives_factors and step.bounds[0] in (0.0, -np.inf)


def scaled(flow: Flow, pair: LayerPair, factors: Array) -> Flow:
    """Divide each channel between a pair by its factor, upper bounds included; the flow computes the same.

    Args:
        factors: above 0, for each output channel of the first step.
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
    """Statistics of the channels of a step's output.

    Attributes:
        magnitude: the largest of each.
        sums: the largest sum of each before the bounds.
        power: sum of squares of the sums of each.
        count: number of values of each channel.
    """

    magnitude: Array
    sums: Array
    power: Array
    count: int

    def joined(self, other: ChannelRange) -> ChannelRange:
        """Combine the statistics of two sets of values."""
        magnitude, sums = np.maximum(self.magnitude, other.magnitude), np.maximum(self.sums, other.sums)
        return ChannelRange(magnitude, sums, self.power + other.power, self.count + other.count)

    @property
    def size(self) -> Array:
        """Each channel's size: the root mean square of its sums, float64.

        By its largest value, every channel would end where the tensor's range does, and be cut off by the next image that goes further; and
        channels that bounds silence on the calibration data have a size too.
        """
        return np.asarray(np.sqrt(self.power / self.count))


def pairs_among(flow: Flow, numbers: Collection[int]) -> list[LayerPair]:
    """Return the pairs of which all steps have one of these numbers, those between them included."""
    return [pair for pair in pairs_of(flow) if set(numbers).issuperset(_steps_of(flow, pair))]


def equalised(flow: Flow, ranges: Mapping[int, ChannelRange], kept: Collection[LayerPair] = ()) -> Flow:
    """Equalise all pairs by the channel ranges of their first steps on calibration data.

    Args:
        kept: pairs in float32, which keep their weights, and their bounds on all data.
    """
    for pair in [pair for pair in pairs_of(flow) if pair not in kept]:
        at = {step.number: step for step in flow.steps}
        factors, end = _factors(at[pair.first], at[pair.second], ranges[pair.first])
        flow = scaled(flow, pair, factors)
        flow = flow.changed(_bounded(flow.steps[at[pair.first].number], end))
    return flow


def _bounded(step: FlowStep, end: float | None) -> FlowStep:
    """Give the step one upper bound for all channels."""
    layer = step.layer
    assert isinstance(layer, SumLayer) and isinstance(layer.clamp, tuple)
    return replace(step, layer=layer.with_clamp((layer.clamp[0], end)), most=None)


def _factors(first: FlowStep, second: FlowStep, found: ChannelRange) -> tuple[Array, float | None]:
    """Return each channel's divisor and resulting upper bound, `None` where none acts."""
    size, bound = found.size, np.broadcast_to(first.bounds[1], found.magnitude.shape)
    free, live = found.sums < bound * (1 - _NEAR), size > 0
    end = None if free.all() else float(bound[~free].max())
    if not live.any():
        return np.ones_like(size), end
    size = np.maximum(size, size.max() / _MOST_GAIN)
    # Where each input channel has weights of its own, and they have a scale of their own, activations alone matter.
    wanted = size if second.layer.is_depthwise else size / np.sqrt(_share(second, size))
    wanted *= float((found.magnitude / wanted)[live].max())  # so that the tensor ends at 1
    if end is None:
        return np.where(live, wanted, 1.0), end
    wanted = np.maximum(wanted, found.magnitude) / end  # no channel goes beyond the bound
    return np.where(free, np.where(live, wanted, 1.0), bound / end), end


def _share(step: FlowStep, size: Array) -> Array:
    """Return each input channel's largest share in an output channel, relative to the largest of all; at most 1.

    Weights count with the size of what they multiply, so that the shares, and with them what equalisation makes of a network, stay the same
    however its channels are scaled.
    """
    assert step.parameters is not None
    weight = np.abs(step.parameters.weight.astype(np.float64))
    products = weight.reshape(-1, *weight.shape[-2:]).max(0) * size[:, None]
    share: Array = np.maximum((products / np.maximum(products.max(0), 1e-30)).max(1), 1 / _MOST_GAIN)
    return share
