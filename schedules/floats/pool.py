"""The mean of every channel over all pixels: a few vectors of channels are summed at a time, and every line of the input is read once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, LayerParameters, Pool
from tvmmobile.graph.layouts import channel_block
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel, VectorGroup, vector_groups
from tvmmobile.schedules.space import Knobs, Space, up_to, waste
from tvmmobile.schedules.template import STORAGE, THREADS, Template, layer_of

#: Vectors of a cache line. Fewer at a time would read every line again (28 × 28 with 120 channels: 37 µs with 6 vectors, 85 with one);
#: as many sums also hide the latency of an addition (Cortex-A72: 4 cycles, one load a cycle).
LINE_VECTORS = 4
#: Registers for the values read and the factor.
OTHERS = 4


class PoolMean(Template):
    """Takes one average pool over all pixels, channels together or in blocks. Threads share the channels.

    Knobs:
        vectors: vectors of channels that are summed together.
        pixels: pixels in flight, each with sums of its own.
    """

    name = "pool"
    version = 1
    handles = THREADS | STORAGE | {"in_layout=blocked"}
    enough_trials = 12

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not isinstance(layer, Pool):
            return None
        options = {
            "vectors": up_to((1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24), channel_block(layer.in_layout, layer.channels) // task.lanes),
            "pixels": up_to((1, 2, 3, 4, 6, 7, 8), layer.height * layer.width),
        }
        least = min(LINE_VECTORS, max(options["vectors"]))

        def fits(knobs: Knobs) -> bool:
            sums = knobs["vectors"] * knobs["pixels"] * task.precision.vectors_of_totals
            return knobs["vectors"] >= least and sums <= task.machine.registers - OTHERS

        return Space(self.name, self.version, options, fits, {"vectors": 4, "pixels": 4})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, block of channels, sums, and what the last group of vectors and the last step of pixels waste."""
        layer = layer_of(task, Pool)
        pixels, block = layer.height * layer.width, channel_block(layer.in_layout, layer.channels)
        return [
            math.log2(pixels),
            math.log2(layer.channels),
            math.log2(block),
            knobs["vectors"] * knobs["pixels"],
            waste(max(block // task.lanes, 1), knobs["vectors"]),
            waste(pixels, knobs["pixels"]),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Pool)
        kernel, pixels = Kernel(task), layer.height * layer.width
        with kernel.body(data=layer.input_shape, share=(1,), output=layer.output_shape) as (data, share, output):
            source = Activation(data, pixels, layer.channels, channel_block(layer.in_layout, layer.channels))
            for group in vector_groups(source.block, task.lanes, knobs["vectors"]):
                _Means(kernel, source, group, knobs["pixels"], PixelShare(share, pixels), output).emit(task.threads)
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return a pixel's share of the mean. (Relax checks whether a kernel of one argument is a reshape; it fails without blocks.)"""
        layer = layer_of(task, Pool)
        return [np.array([1 / (layer.height * layer.width)], task.precision.arithmetic.numpy)]


@dataclass(frozen=True)
class PixelShare:
    """A pixel's share of the mean of an image.

    Attributes:
        buffer: holds it in the kernel's precision.
        pixels: their number.
    """

    buffer: Buffer
    pixels: int

    def of(self, kernel: Kernel, lanes: int) -> Expr:
        """Return the share in all lanes of a vector of totals. Half precision has only a few digits of those of large images."""
        if self.pixels > 1 / kernel.least_normal:
            return kernel.splat(kernel.total(1 / self.pixels), lanes)
        return kernel.widened(kernel.splat(self.buffer[0], lanes), lanes)


@dataclass(frozen=True)
class _Means:
    """Emits the means of a group's channels, in every block.

    Attributes:
        group: channels of a block that are summed together.
        pixels: number of pixels in flight.
        share: a pixel's share of the mean.
    """

    kernel: Kernel
    source: Activation
    group: VectorGroup
    pixels: int
    share: PixelShare
    output: Buffer

    def emit(self, threads: int) -> None:
        """Emit all groups of this size, shared by `threads`."""
        total = self.source.channels // self.source.block * self.group.count
        with self.kernel.T.parallel(0, total) if threads > 1 and total > 1 else self.kernel.loop(total) as index:
            self._emit_group(index)

    def _emit_group(self, index: Expr) -> None:
        """Emit the means of one group: sums begin with the first pixels, and are added up in the end."""
        kernel, group, pixels = self.kernel, self.group, self.pixels
        size = group.size
        channel = index // group.count * self.source.block + group.first + index % group.count * size
        corner = self.source.at(0, channel)
        sums = kernel.totals(pixels * size)
        self._add(sums, corner, 0, pixels, first=True)
        steps, rest = divmod(self.source.pixels, pixels)
        if steps > 1:
            with kernel.loop(steps - 1) as step:
                self._add(sums, corner, (step + 1) * pixels, pixels)
        if rest:
            self._add(sums, corner, steps * pixels, rest)
        share = self.share.of(kernel, group.lanes)
        for offset in range(0, size, group.lanes):
            terms = [kernel.load(sums, pixel * size + offset, group.lanes) for pixel in range(pixels)]
            kernel.store(self.output, kernel.narrowed(_sum(terms) * share, group.lanes), channel + offset, group.lanes)

    def _add(self, sums: Buffer, corner: Expr, pixel: Expr, count: int, first: bool = False) -> None:
        """Add `count` pixels to as many sums, or start the sums with them."""
        kernel, lanes, size = self.kernel, self.group.lanes, self.group.size
        for place in range(0, count * size, lanes):
            stored = kernel.load(self.source.buffer, corner + (pixel + place // size) * self.source.block + place % size, lanes)
            value = kernel.widened(stored, lanes)
            kernel.store(sums, value if first else kernel.load(sums, place, lanes) + value, place, lanes)


def _sum(terms: list[Expr]) -> Expr:
    """Return the sum of the accumulators, added in pairs."""
    if len(terms) == 1:
        return terms[0]
    return _sum(terms[: len(terms) // 2]) + _sum(terms[len(terms) // 2 :])
