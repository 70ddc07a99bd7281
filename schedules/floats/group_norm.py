"""Group norm in three passes over the image: means of channel groups, variances, results."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import add
from typing import Any

from tvmmobile.graph.layers import GroupNorm
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel, parts_of, share, vector_groups
from tvmmobile.schedules.floats.norm import Norm, norm_shapes
from tvmmobile.schedules.space import Knobs, Space, up_to, waste
from tvmmobile.schedules.template import layer_of

#: Maps a value to a term of a sum.
_Term = Callable[[Expr], Expr]


class ThreePassGroupNorm(Norm):
    """Accepts one group norm, NHWC. Every thread computes the statistics of all groups; threads share the pixels of the result.

    Knobs:
        vectors: vectors of channels per pass, each with its own sums.
    """

    name = "group_norm"
    version = 1
    enough_trials = 3

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not isinstance(layer, GroupNorm):
            return None
        options = {"vectors": up_to((1, 2, 4), layer.channels // task.lanes)}
        return Space(self.name, self.version, options, lambda knobs: True, {"vectors": 4})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return pixels, channels, groups, and the waste of the last vectors."""
        layer = layer_of(task, GroupNorm)
        extents = (layer.height * layer.width, layer.channels, layer.groups)
        return [*map(math.log2, extents), waste(layer.channels, knobs["vectors"] * task.lanes)]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer, kernel = layer_of(task, GroupNorm), Kernel(task)
        with kernel.named_body(**norm_shapes(layer)) as buffers, kernel.team(task.threads) as thread:
            statistics = [kernel.scratch(layer.channels, totals=True) for _ in range(2)]
            image = _Image(kernel, layer, knobs["vectors"], buffers, statistics[0], statistics[1])
            image.find_means()
            image.find_factors()
            image.emit(*share(thread, task.threads, layer.height * layer.width))
        return kernel.finish()


@dataclass(frozen=True)
class _Image:
    """Emits the passes over an image.

    Attributes:
        vectors: see `ThreePassGroupNorm`.
        buffers: buffers by argument name.
        means, factors: mean and reciprocal standard deviation of each channel's group.
    """

    kernel: Kernel
    layer: GroupNorm
    vectors: int
    buffers: dict[str, Buffer]
    means: Buffer
    factors: Buffer

    def find_means(self) -> None:
        """Emit the first pass, which fills `means`."""
        self._sum(self.means, lambda channel, lanes: lambda value: value)
        self._per_group(self.means, lambda mean: mean)

    def find_factors(self) -> None:
        """Emit the second pass, which fills `factors`."""
        kernel = self.kernel

        def term(channel: Expr, lanes: int) -> _Term:
            mean = kernel.T.bind(kernel.load(self.means, channel, lanes))

            def squared(value: Expr) -> Expr:
                value = kernel.T.bind(value - mean)
                return value * value

            return squared

        def factor(variance: Expr) -> Expr:
            return kernel.total(1.0) / kernel.T.sqrt(variance + kernel.total(self.layer.epsilon))

        self._sum(self.factors, term)
        self._per_group(self.factors, factor)

    def emit(self, first: Expr, last: Expr) -> None:
        """Emit the third pass: the results of pixels [first, last)."""
        kernel = self.kernel
        for group in vector_groups(self.layer.channels, kernel.lanes, self.vectors):
            lanes = group.lanes
            with kernel.pieces(group.first, group.count, group.size) as panel:
                channels = [panel + place * lanes for place in range(group.vectors)]
                means, factors = (
                    [kernel.T.bind(kernel.load(buffer, channel, lanes)) for channel in channels] for buffer in (self.means, self.factors)
                )
                weights, biases = (
                    [kernel.widened(kernel.T.bind(kernel.load(self.buffers[name], channel, lanes)), lanes) for channel in channels]
                    for name in ("weight", "bias")
                )
                scales = [kernel.T.bind(factor * weight) for factor, weight in zip(factors, weights, strict=True)]
                with kernel.span(first, last) as pixel:
                    for channel, mean, scale, bias in zip(channels, means, scales, biases, strict=True):
                        value = (self._value(pixel, channel, lanes) - mean) * scale + bias
                        place = pixel * self.layer.channels + channel
                        kernel.store(self.buffers["output"], kernel.narrowed(value, lanes), place, lanes)

    def _sum(self, target: Buffer, term_of: Callable[[Expr, int], _Term]) -> None:
        """Emit each channel's sum of terms over all pixels, as a sum of row sums, because one long sum would lose digits.

        Args:
            term_of: maps a vector's first channel and number of lanes to the function that computes its terms.
        """
        kernel, layer = self.kernel, self.layer
        for group in vector_groups(layer.channels, kernel.lanes, self.vectors):
            lanes, vectors = group.lanes, group.vectors
            with kernel.pieces(group.first, group.count, group.size) as panel:
                channels = [panel + place * lanes for place in range(vectors)]
                terms = [term_of(channel, lanes) for channel in channels]
                total = kernel.totals(vectors * lanes)
                kernel.fill(total, kernel.total(0.0), vectors, lanes)
                with kernel.loop(layer.height) as y:
                    row = kernel.totals(vectors * lanes)
                    for place, (channel, term) in enumerate(zip(channels, terms, strict=True)):
                        kernel.store(row, term(self._value(y * layer.width, channel, lanes)), place * lanes, lanes)
                    if layer.width > 1:
                        with kernel.loop(layer.width - 1) as x:
                            for place, (channel, term) in enumerate(zip(channels, terms, strict=True)):
                                value = term(self._value(y * layer.width + x + 1, channel, lanes))
                                kernel.store(row, kernel.load(row, place * lanes, lanes) + value, place * lanes, lanes)
                    for place in range(0, vectors * lanes, lanes):
                        kernel.store(total, kernel.load(total, place, lanes) + kernel.load(row, place, lanes), place, lanes)
                for place, channel in enumerate(channels):
                    kernel.store(target, kernel.load(total, place * lanes, lanes), channel, lanes)

    def _per_group(self, buffer: Buffer, finished: Callable[[Expr], Expr]) -> None:
        """Replace each channel's sum by `finished(mean of its group's terms)`."""
        kernel, layer = self.kernel, self.layer
        channels = layer.channels // layer.groups
        with kernel.loop(layer.groups) as group:
            total = kernel.reduced(group * channels, channels, partial(kernel.load, buffer), add)
            mean = kernel.T.bind(total * kernel.total(1 / (channels * layer.height * layer.width)))
            statistic = kernel.T.bind(finished(mean))
            for lanes, steps, start in parts_of(channels, kernel.lanes, 1):
                with kernel.loop(steps) as step:
                    kernel.store(buffer, kernel.splat(statistic, lanes), group * channels + start + step * lanes, lanes)

    def _value(self, pixel: Expr, channel: Expr, lanes: int) -> Expr:
        """Return a vector of a pixel's channels in the type of totals."""
        return self.kernel.widened(self.kernel.load(self.buffers["data"], pixel * self.layer.channels + channel, lanes), lanes)
