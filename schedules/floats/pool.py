"""Global average pool: sums a few vectors of channels at a time, and reads each cache line of the input once."""

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

#: Vectors per cache line. Fewer vectors at a time would read each line again (28 × 28 with 120 channels: 37 µs with 6 vectors, 85 µs with
#: one); this many sums also hide the latency of an addition (Cortex-A72: 4 cycles, one load per cycle).
LINE_VECTORS = 4
#: Registers for loaded values and the factor, in addition to the sums.
OTHERS = 4


class PoolMean(Template):
    """Accepts one global average pool, NHWC or blocked. Threads share the channels.

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
        """Return the size, channels per block, number of sums, and the waste of the last group of vectors and last step of pixels."""
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
        """Return the factor from sum to mean, one over the number of pixels; shape (1,).

        It is an argument because Relax checks whether a kernel with a single input is a reshape, and that check fails without TIR blocks.
        """
        layer = layer_of(task, Pool)
        return [np.array([1 / (layer.height * layer.width)], task.precision.arithmetic.numpy)]


@dataclass(frozen=True)
class PixelShare:
    """The factor from sum to mean, one over the number of pixels.

    Attributes:
        buffer: buffer of the factor in the kernel's precision, shape (1,).
        pixels: number of pixels.
    """

    buffer: Buffer
    pixels: int

    def of(self, kernel: Kernel, lanes: int) -> Expr:
        """Return the factor broadcast to a vector of totals; a wider constant where it is subnormal in half precision (large images)."""
        if self.pixels > 1 / kernel.least_normal:
            return kernel.splat(kernel.total(1 / self.pixels), lanes)
        return kernel.widened(kernel.splat(self.buffer[0], lanes), lanes)


@dataclass(frozen=True)
class _Means:
    """Emits the means of a group's channels, in every block.

    Attributes:
        group: channels of a block that are summed together.
        pixels: number of pixels in flight, each with its own sums.
        share: factor from sum to mean.
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
        """Emit the means of one group: sums are initialised with the first pixels, and reduced at the end."""
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
        """Add `count` pixels to as many sums, or initialise the sums with them if `first`."""
        kernel, lanes, size = self.kernel, self.group.lanes, self.group.size
        for place in range(0, count * size, lanes):
            stored = kernel.load(self.source.buffer, corner + (pixel + place // size) * self.source.block + place % size, lanes)
            value = kernel.widened(stored, lanes)
            kernel.store(sums, value if first else kernel.load(sums, place, lanes) + value, place, lanes)


def _sum(terms: list[Expr]) -> Expr:
    """Return the pairwise sum of the terms."""
    if len(terms) == 1:
        return terms[0]
    return _sum(terms[: len(terms) // 2]) + _sum(terms[len(terms) // 2 :])
