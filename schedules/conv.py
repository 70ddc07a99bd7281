"""Convolution of any kernel size: a matrix product for each tap, accumulated in registers; no patch of the input is copied."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.layouts import channel_block
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit import Buffer, Expr, Kernel, Run, input_of, output_of, partition, pieces_of_group, share, tiles
from tvmmobile.schedules.epilogue import Epilogue, layer_body, pack_constants, panel_spots, stores_vectors
from tvmmobile.schedules.matmul import Extent, MatmulTile, Panel, good_tile, pack_panels, packed_elements, panels
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import BLOCKED, EPILOGUE, PIECES, SHUFFLED, STORAGE, THREADS, Template, layer_of


class Conv(Template):
    """Takes one convolution that neither `Depthwise` nor `Pointwise` takes: any kernel size, stride, dilation, padding and
    number of groups, with or without a residual.

    Channels lie together, or in blocks if there is one group. If the input consists of pieces, these are NHWC, and K is one
    cache block.

    Knobs:
        rows, columns: register tile in output pixels of a row and output channels.
        k_block: input channels per cache block, 0 for all of them; partial sums stay in the output.
        order: 0 runs over the panels of channels for each row of the output, 1 over the rows for each panel.
        axis: what threads share: 0 rows, 1 panels.
    """

    name = "conv"
    version = 1
    multiplies = True
    handles = BLOCKED | SHUFFLED | EPILOGUE | PIECES | THREADS | STORAGE | {"residual", "dilation"}
    enough_trials = 32

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not isinstance(layer, Conv2d) or layer.is_depthwise:
            return None
        if layer.groups == 1 and layer.kernel == (1, 1) and not any(layer.padding):
            return None  # one product over all pixels: `Pointwise`
        if (layer.groups > 1 or layer.pieces) and (layer.in_layout, layer.out_layout) != ("NHWC", "NHWC"):
            return None
        depth, channels = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        in_block = channel_block(layer.in_layout, layer.in_channels)
        k_blocks = (
            [k for k in (32, 64, 128, 256) if k < depth and (in_block % k == 0 or k % in_block == 0)]
            if channels % task.lanes == 0 and not layer.pieces and task.keeps_sums and stores_vectors(layer, task.lanes)
            else []
        )
        options = {
            "rows": up_to((1, 2, 3, 4, 5, 6, 7, 8), layer.out_width),
            "columns": up_to((1, 2, 4, 6), round_up(channels, task.lanes), task.lanes),
            "k_block": (0, *k_blocks),
            "order": (0, 1),
            "axis": (0, 1) if task.threads > 1 else (0,),
        }

        def fits(knobs: Knobs) -> bool:
            return good_tile(task.machine, task.lanes, knobs["rows"], knobs["columns"], layer.out_width, channels)

        return Space(self.name, self.version, options, fits, {"rows": 7, "columns": 2 * task.lanes, "k_block": 64, "order": 1, "axis": 0})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Size, taps, tile, registers used, weights that a panel reads again, and what the tile wastes at the edges."""
        layer = layer_of(task, Conv2d)
        depth, taps = layer.in_channels // layer.groups, math.prod(layer.kernel)
        vectors = knobs["columns"] // task.lanes
        return [
            math.log2(layer.out_height * layer.out_width),
            math.log2(depth),
            math.log2(layer.out_channels),
            taps,
            layer.stride[1],
            knobs["rows"] * vectors,
            knobs["rows"] * vectors + knobs["rows"] + vectors,
            math.log2((knobs["k_block"] or depth) * taps * knobs["columns"]),
            waste(layer.out_width, knobs["rows"]),
            waste(layer.out_channels // layer.groups, knobs["columns"]),
            len(layer.pieces),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Conv2d)
        kernel = Kernel(task, knobs)
        with layer_body(kernel, layer, layer.groups * _group_elements(layer, knobs, task.lanes), task.lanes) as (buffers, epilogue):
            _Nest(epilogue, layer, knobs, buffers).emit(task.threads)
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Weights as [group][panel][K block][tap][K][channel]."""
        layer = layer_of(task, Conv2d)
        depth, taps = layer.in_channels // layer.groups, math.prod(layer.kernel)
        weight = parameters[0].weight.reshape(taps, depth, layer.groups, -1)
        block = knobs["k_block"] or depth
        pieces = []
        for group in range(layer.groups):
            for panel in panels(layer.out_channels // layer.groups, knobs["columns"], task.lanes):
                for index in range(panel.count):
                    first = panel.channel + index * panel.width
                    columns = weight[:, :, group, first : first + panel.columns]
                    for start in range(0, depth, block):
                        pieces.append(pack_panels(columns[:, start : start + block].reshape(-1, panel.columns), panel.width, task.lanes))
        return [np.concatenate(pieces), *pack_constants(parameters[0], task.lanes)]


def _group_elements(layer: Conv2d, knobs: Knobs, lanes: int) -> int:
    """Elements of the packed weights of a group."""
    return packed_elements(layer.out_channels // layer.groups, knobs["columns"], math.prod(layer.weight_shape[:3]), lanes)


class _Nest:
    """Loops over groups, panels, blocks of K, rows and tiles; taps that fall outside the image are left out, by row at run time."""

    def __init__(self, epilogue: Epilogue, layer: Conv2d, knobs: Knobs, buffers: Mapping[str, Buffer]) -> None:
        self.kernel = kernel = epilogue.kernel
        self.T, self.layer, self.knobs, self.epilogue = kernel.T, layer, knobs, epilogue
        self.depth, self.channels = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        a, self.pieces = input_of(layer, buffers)
        self.c = output_of(layer, buffers["output"])
        self.tile = MatmulTile(kernel, a, buffers["weight"], self.c, kernel.lanes, epilogue, layer.stride[1])
        self.columns = partition(layer, 1, knobs["rows"])

    def emit(self, threads: int) -> None:
        """The whole nest, shared by `threads`."""
        with self.kernel.team(threads) as thread:
            self._share(thread, threads)

    def _share(self, thread: Expr, threads: int) -> None:
        """A thread's rows, or its panels; a single panel goes to the last thread."""
        by_rows = self.knobs["axis"] == 0
        rows = share(thread if by_rows else None, threads, self.layer.out_height)
        for panel in panels(self.channels, self.knobs["columns"], self.kernel.lanes):
            shared = not by_rows and panel.count > 1
            alone = [] if by_rows or shared or thread is None else [thread == threads - 1]
            columns = share(thread if shared else None, threads, panel.count)
            with self.kernel.where(*alone):
                for groups in self._groups():
                    with groups as group:
                        self._panels(panel, columns, rows, group)

    def _groups(self) -> Iterator[AbstractContextManager[Expr]]:
        """The groups in a loop, or one after another if each has its own pieces."""
        if not self.pieces:
            yield self.kernel.span(0, self.layer.groups)
            return
        tile = self.tile
        for group in range(self.layer.groups):
            self.tile = replace(tile, pieces=pieces_of_group(self.pieces, group, self.depth))
            yield nullcontext(group)

    def _panels(self, panel: Panel, span: tuple[Expr, Expr], rows: tuple[Expr, Expr], group: Expr) -> None:
        """Panels of equal width."""
        if self.knobs["order"] == 1:
            with self.kernel.span(*span) as index:
                for part in self._depth_parts():
                    with part as extent, self.kernel.span(*rows) as row:
                        self._row(panel, index, row, group, extent)
        else:
            with self.kernel.span(*rows) as row:
                for part in self._depth_parts():
                    with part as extent, self.kernel.span(*span) as index:
                        self._row(panel, index, row, group, extent)

    def _depth_parts(self) -> Iterator[Any]:
        """Blocks of K: the first one, those between in a loop, the last one."""
        block = self.knobs["k_block"] or self.depth
        count = -(-self.depth // block)
        yield self._depth_part(0, 1, block if count > 1 else self.depth, True, count == 1)
        if count > 2:
            yield self._depth_part(block, count - 2, block, False, False)
        if count > 1:
            yield self._depth_part((count - 1) * block, 1, self.depth - (count - 1) * block, False, True)

    @contextmanager
    def _depth_part(self, start: int, count: int, size: int, first: bool, last: bool) -> Iterator[Extent]:
        with self.kernel.span(0, count) as index:
            yield Extent(start + index * size, size, first, last)

    def _row(self, panel: Panel, index: Expr, row: Expr, group: Expr, part: Extent) -> None:
        """One row of the output × one panel × one block of K."""
        for run in self.columns:
            with tiles(run) as column:
                self._tile(panel, index, row, run, column, group, part)

    def _tile(self, panel: Panel, index: Expr, row: Expr, run: Run, column: Expr, group: Expr, part: Extent) -> None:
        layer, kernel, width = self.layer, self.kernel, panel.width
        taps_y, taps_x = layer.kernel
        channel = group * self.channels + panel.channel + index * width
        target = row * layer.out_width + column
        acc = kernel.accumulators(run.size * width)
        vector = kernel.lanes
        spots = panel_spots(self.c, [target + x for x in range(run.size)], channel, panel.columns, vector)
        self.epilogue.fill(acc, spots, None if part.first else self.c.buffer)
        top = row * layer.stride[0] - layer.padding[0]
        # Where this panel's block of K begins, all its taps.
        weights = group * _group_elements(layer, self.knobs, vector) + (panel.channel + index * width) * (taps_y * taps_x * self.depth)
        weights = weights + part.start * (taps_y * taps_x * width)
        depth = Extent(group * self.depth + part.start, part.count, part.first, part.last)
        with self._rows_inside(top) as tap_y:
            for tap_x, first, count in self._taps(run):
                with self.kernel.span(0, count if tap_x is None else 1) as number:
                    tap = number if tap_x is None else tap_x
                    rows = run.size if tap_x is None else count
                    left = (column + first) * layer.stride[1] - layer.padding[1] + tap * layer.dilation[1]
                    at = weights + (tap_y * taps_x + tap) * (part.count * width)
                    self.tile.accumulate(acc, (top + tap_y * layer.dilation[0]) * layer.width + left, rows, width, at, depth, first)
        self.epilogue.drain(acc, spots, self.c.buffer, part.last)

    def _taps(self, run: Run) -> Iterator[tuple[int | None, int, int]]:
        """(tap, first pixel of the tile that it reaches, how many); (None, 0, taps) for a tile that every tap reaches entirely."""
        taps_x = self.layer.kernel[1]
        if all(reach == (0, taps_x) for reach in run.taps):
            yield None, 0, taps_x
            return
        for tap in range(taps_x):
            reached = [x for x, (low, high) in enumerate(run.taps) if low <= tap < high]
            if reached:
                yield tap, reached[0], len(reached)

    @contextmanager
    def _rows_inside(self, top: Expr) -> Iterator[Expr]:
        """A loop over the taps of a column that fall inside the image."""
        taps, height, step = self.layer.kernel[0], self.layer.height, self.layer.dilation[0]
        before, _, after, _ = self.layer.padding
        if not before and not after:
            with self.kernel.span(0, taps) as tap:
                yield tap
            return
        first, end = (-top, height - top) if step == 1 else ((step - 1 - top) // step, (height - top + step - 1) // step)
        with self.kernel.span(self.T.max(0, first), self.T.min(taps, end)) as tap:
            yield tap
