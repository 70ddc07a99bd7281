"""The partition of a layer's output rows and columns into tiles that need the same taps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvmmobile.graph.layers import WindowLayer

#: For each output along an axis its taps [low, high) that fall inside the input.
Taps = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Run:
    """Equal tiles in a row along one output axis.

    Attributes:
        start: first output index.
        count: number of tiles.
        size: outputs per tile.
        taps: taps of a tile's outputs; equal for all tiles of a run.
    """

    start: int
    count: int
    size: int
    taps: Taps


def taps_along(layer: WindowLayer, axis: int) -> list[tuple[int, int]]:
    """Return for each output row (axis 0) or column (1) its taps [low, high) that fall inside the input."""
    outputs, inputs = ((layer.out_height, layer.height), (layer.out_width, layer.width))[axis]
    kernel, step = layer.kernel[axis], layer.dilation[axis]
    origins = [output * layer.stride[axis] - layer.padding[axis] for output in range(outputs)]
    return [(min(max(0, -(origin // step)), kernel), max(0, min(kernel, -((origin - inputs) // step)))) for origin in origins]


def partition(layer: WindowLayer, axis: int, tile: int) -> list[Run]:
    """Return a layer's output rows or columns in tiles, joined where neighbours need the same taps; border tiles stand alone."""
    return cut(taps_along(layer, axis), tile)


def cut(taps: Sequence[tuple[int, int]], tile: int) -> list[Run]:
    """Cut outputs that need these taps into tiles, and join neighbours that need the same ones; starts count from the first output."""
    runs: list[Run] = []
    for start in range(0, len(taps), tile):
        needed = tuple(taps[start : start + tile])
        last = runs[-1] if runs else None
        if last and last.taps == needed:
            runs[-1] = Run(last.start, last.count + 1, last.size, last.taps)
        else:
            runs.append(Run(start, 1, len(needed), needed))
    return runs
