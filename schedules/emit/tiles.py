"""Partitions a layer's output rows and columns into tiles, and groups tiles with the same taps inside the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvmmobile.graph.layers import WindowLayer

#: For each output along an axis, the taps [low, high) that fall inside the input.
Taps = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Run:
    """Consecutive equal tiles along one output axis.

    Attributes:
        start: first output index.
        count: number of tiles.
        size: outputs per tile.
        taps: taps of a tile's outputs, the same for all tiles of the run.
    """

    start: int
    count: int
    size: int
    taps: Taps


def taps_along(layer: WindowLayer, axis: int) -> list[tuple[int, int]]:
    """Return, for each output row (axis 0) or column (axis 1), the taps [low, high) that fall inside the input."""
    outputs, inputs = ((layer.out_height, layer.height), (layer.out_width, layer.width))[axis]
    kernel, step = layer.kernel[axis], layer.dilation[axis]
    origins = [output * layer.stride[axis] - layer.padding[axis] for output in range(outputs)]
    return [(min(max(0, -(origin // step)), kernel), max(0, min(kernel, -((origin - inputs) // step)))) for origin in origins]


def partition(layer: WindowLayer, axis: int, tile: int) -> list[Run]:
    """Cut a layer's output rows (axis 0) or columns (axis 1) into tiles; neighbours with the same taps form a run."""
    return cut(taps_along(layer, axis), tile)


def cut(taps: Sequence[tuple[int, int]], tile: int) -> list[Run]:
    """Cut the outputs with these taps into tiles; neighbours with the same taps form a run. Starts are relative to the first output."""
    runs: list[Run] = []
    for start in range(0, len(taps), tile):
        needed = tuple(taps[start : start + tile])
        last = runs[-1] if runs else None
        if last and last.taps == needed:
            runs[-1] = Run(last.start, last.count + 1, last.size, last.taps)
        else:
            runs.append(Run(start, 1, len(needed), needed))
    return runs


def joined(runs: Sequence[Run]) -> list[Run]:
    """Join neighbouring runs of tiles of the same size, whose `taps` then are those of the first tile."""
    result: list[Run] = []
    for run in runs:
        if result and result[-1].size == run.size:
            result[-1] = replace(result[-1], count=result[-1].count + run.count)
        else:
            result.append(run)
    return result
