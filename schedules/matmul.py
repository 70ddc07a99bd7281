"""The register tile of a matrix product: `rows` pixels × `columns` channels accumulated over K, weights packed in panels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.layers import Clamp
from tvmmobile.schedules.emit import Buffer, Expr, Kernel
from tvmmobile.schedules.machine import LANES, round_up
from tvmmobile.schedules.template import Array


@dataclass(frozen=True)
class Panel:
    """Panels of equal width: consecutive output channels whose weights lie together.

    Attributes:
        count: how many of them follow each other.
        columns: channels in a panel that exist.
        offset: element at which the first of these panels begins in the packed weights.
        channel: first output channel.
    """

    count: int
    columns: int
    offset: int
    channel: int

    @property
    def width(self) -> int:
        """Channels with the padding to whole vectors."""
        return round_up(self.columns, LANES)


def panels(channels: int, width: int, depth: int) -> list[Panel]:
    """Panels of `width` channels, then a narrower one for what remains; `depth` is K."""
    whole, rest = divmod(channels, width)
    found = [Panel(whole, width, 0, 0)] if whole else []
    if rest:
        found.append(Panel(1, rest, whole * width * depth, whole * width))
    return found


def pack_panels(weight: Array, width: int) -> Array:
    """Pack (K, N) weights as [panel][K][width], the last panel narrower, padded with zeros to whole vectors.

    Returns a flat array.
    """
    depth, channels = weight.shape
    blocks = []
    for panel in panels(channels, width, depth):
        for index in range(panel.count):
            start = panel.channel + index * panel.width
            block = np.zeros((depth, panel.width), np.float32)
            block[:, : panel.columns] = weight[:, start : start + panel.columns]
            blocks.append(block.ravel())
    return np.concatenate(blocks)


def pack_bias(bias: Array) -> Array:
    """The bias padded with zeros to whole vectors."""
    return np.pad(bias.astype(np.float32), (0, round_up(len(bias), LANES) - len(bias)))


@dataclass(frozen=True)
class MatmulTile:
    """Emits register tiles of one matrix product C[row, n] = clamp(Σ_k A[row, k] · W[k, n] + bias[n]).

    Attributes:
        a, w, bias, c: flat buffers; A and C row-major with `depth` and `channels` columns.
        unroll: K steps per loop iteration, a multiple of 4.
    """

    kernel: Kernel
    a: Buffer
    w: Buffer
    bias: Buffer
    c: Buffer
    depth: int
    channels: int
    unroll: int
    bounds: Clamp

    def emit(
        self, row: Expr, target: Expr, rows: int, panel: Panel, index: Expr, k_start: Expr, k_count: int, first: bool, last: bool
    ) -> None:
        """One tile.

        Args:
            row, target, rows: first row of A, first row of C, and number of rows.
            panel, index: which panel of its kind.
            k_start, k_count: the part of K to add.
            first, last: whether to begin with the bias (else with what C holds) and whether to clamp.
        """
        T = self.kernel.T  # noqa: N806
        vectors = panel.width // LANES
        channel = panel.channel + index * panel.width
        weights = panel.offset + index * (panel.width * self.depth) + k_start * panel.width
        acc = self.kernel.accumulators(rows * panel.width)
        for i in range(rows):
            for j in range(vectors):
                begin = (self.bias, channel + j * LANES) if first else (self.c, (target + i) * self.channels + channel + j * LANES)
                self.kernel.store(acc, self.kernel.load(*begin), i * panel.width + j * LANES)
        whole, rest = divmod(k_count, self.unroll)
        if whole > 1:
            with T.serial(0, whole) as step:
                self._multiply(acc, row, rows, panel.width, weights, k_start, step * self.unroll, self.unroll)
        elif whole:
            self._multiply(acc, row, rows, panel.width, weights, k_start, 0, self.unroll)
        if rest:
            self._multiply(acc, row, rows, panel.width, weights, k_start, whole * self.unroll, rest)
        for i in range(rows):
            for j in range(vectors):
                value: Any = self.kernel.load(acc, i * panel.width + j * LANES)
                if last:
                    value = self.kernel.clamp(value, self.bounds)
                lanes = min(LANES, panel.columns - j * LANES)
                self.kernel.store_part(self.c, value, (target + i) * self.channels + channel + j * LANES, lanes)

    def _multiply(self, acc: Buffer, row: Expr, rows: int, width: int, weights: Expr, k_start: Expr, step: Expr, count: int) -> None:
        """acc += A[rows, k .. k + count) · W[k .. k + count), K unrolled; A is read four K values at a time."""
        load = self.kernel.load
        for begin in range(0, count, LANES):
            lanes = min(LANES, count - begin)
            source = [(row + i) * self.depth + k_start + step + begin for i in range(rows)]
            for lane in range(lanes):
                for j in range(width // LANES):
                    w = load(self.w, weights + (step + begin + lane) * width + j * LANES)
                    for i in range(rows):
                        if lanes == LANES:
                            a = self.kernel.lane(load(self.a, source[i]), lane)
                        else:
                            a = self.kernel.splat(self.a[source[i] + lane])
                        position = i * width + j * LANES
                        self.kernel.store(acc, load(acc, position) + w * a, position)
