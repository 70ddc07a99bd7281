"""Layer norm over the channels of each pixel: three passes (mean, variance, result) over a few pixels at a time. An RMS norm has no mean
and no bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from tvmmobile.graph.layers import ChannelNorm
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel, parts_of, share
from tvmmobile.schedules.floats.norm import Norm, norm_constants, norm_shapes
from tvmmobile.schedules.space import Knobs, Space, up_to, waste
from tvmmobile.schedules.template import layer_of


class PixelwiseChannelNorm(Norm):
    """Accepts one layer norm or RMS norm over channels, NHWC. Threads share the pixels.

    Knobs:
        pixels: pixels per step, whose independent sums hide the latency of additions.
    """

    name = "channel_norm"
    version = 1
    handles = Norm.handles | {"centred"}
    enough_trials = 4

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not isinstance(layer, ChannelNorm):
            return None
        options = {"pixels": up_to((1, 2, 4, 6), layer.height * layer.width)}
        return Space(self.name, self.version, options, lambda knobs: True, {"pixels": 4})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return pixels, channels, and the waste of the last step."""
        layer = layer_of(task, ChannelNorm)
        pixels = layer.height * layer.width
        return [math.log2(pixels), math.log2(layer.channels), waste(pixels, knobs["pixels"])]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer, kernel = layer_of(task, ChannelNorm), Kernel(task)
        with kernel.named_body(**norm_shapes(layer)) as buffers, kernel.team(task.threads) as thread:
            first, last = share(thread, task.threads, layer.height * layer.width)
            count = knobs["pixels"]
            steps = (last - first) // count
            with kernel.loop(steps) as step:
                _Pixels(kernel, layer, buffers, first + step * count, count).emit()
            with kernel.span(first + steps * count, last) as pixel:
                _Pixels(kernel, layer, buffers, pixel, 1).emit()
        return kernel.finish()


@dataclass(frozen=True)
class _Pixels:
    """Emits the results of a few consecutive pixels.

    Attributes:
        buffers: buffers by argument name.
        first, count: first pixel, and number of pixels.
    """

    kernel: Kernel
    layer: ChannelNorm
    buffers: dict[str, Buffer]
    first: Expr
    count: int

    def emit(self) -> None:
        """Emit all passes: three, or two for an RMS norm."""
        kernel, bind, channels = self.kernel, self.kernel.T.bind, self.layer.channels
        share = kernel.widened(kernel.number(1 / channels), 1)
        means = [bind(total * share) for total in self._totals(lambda value, pixel, lanes: value)] if self.layer.centred else []

        def centred(value: Expr, pixel: int, lanes: int) -> Expr:
            return value - kernel.splat(means[pixel], lanes) if means else value

        def squared(value: Expr, pixel: int, lanes: int) -> Expr:
            value = bind(centred(value, pixel, lanes))
            return value * value

        factors = []
        for total in self._totals(squared):
            spread = kernel.T.sqrt(total * share + kernel.T.Cast(total.ty.dtype, self.layer.epsilon))
            factors.append(bind(kernel.T.Cast(total.ty.dtype, 1.0) / spread))
        for lanes, steps, start in parts_of(channels, kernel.lanes, 1):
            with kernel.loop(steps) as step:
                channel = start + step * lanes
                weight, *bias = (
                    kernel.widened(bind(kernel.load(self.buffers[name], channel, lanes)), lanes) for name in norm_constants(self.layer)
                )
                for pixel in range(self.count):
                    value = centred(self._value(pixel, channel, lanes), pixel, lanes)
                    value = sum(bias, value * kernel.splat(factors[pixel], lanes) * weight)
                    kernel.store(self.buffers["output"], kernel.narrowed(value, lanes), self._place(pixel, channel), lanes)

    def _totals(self, term: Callable[[Expr, int, int], Expr]) -> list[Expr]:
        """Return the sum of `term(value, pixel, lanes)` over the channels of each pixel."""
        kernel, channels, totals = self.kernel, self.layer.channels, []
        sums = [(lanes, steps, start, kernel.totals(self.count * lanes)) for lanes, steps, start in parts_of(channels, kernel.lanes, 1)]
        for lanes, steps, start, buffer in sums:
            for pixel in range(self.count):
                kernel.store(buffer, term(self._value(pixel, start, lanes), pixel, lanes), pixel * lanes, lanes)
            if steps == 1:
                continue
            with kernel.loop(steps - 1) as step:
                for pixel in range(self.count):
                    value = term(self._value(pixel, start + (step + 1) * lanes, lanes), pixel, lanes)
                    kernel.store(buffer, kernel.load(buffer, pixel * lanes, lanes) + value, pixel * lanes, lanes)
        for pixel in range(self.count):
            terms = [kernel.load(buffer, pixel * lanes + lane, 1) for lanes, _, _, buffer in sums for lane in range(lanes)]
            totals.append(kernel.T.bind(reduce(add, terms)))
        return totals

    def _place(self, pixel: int, channel: Expr) -> Expr:
        return (self.first + pixel) * self.layer.channels + channel

    def _value(self, pixel: int, channel: Expr, lanes: int) -> Expr:
        """Return a vector of a pixel's channels in the type of totals."""
        return self.kernel.widened(self.kernel.load(self.buffers["data"], self._place(pixel, channel), lanes), lanes)
