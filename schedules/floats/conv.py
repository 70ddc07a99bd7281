"""Direct convolution of any kernel size: one matrix product per tap, accumulated in registers, without im2col."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters, TapWindow
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import input_of, output_of, pieces_of_group
from tvmmobile.schedules.emit.epilogue import Epilogue, k_blocks, layer_body, pack_constants, panel_spots
from tvmmobile.schedules.emit.expansion import Expansion, is_expandable, stored_taps
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel, share
from tvmmobile.schedules.emit.matmul import Extent, Panel, TileSums, depth_blocks, good_tile, pack_panels, packed_elements, panels
from tvmmobile.schedules.emit.pairs import PAIRS, conv_group, grouped, tile_of
from tvmmobile.schedules.emit.tiles import Run, partition
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import ADDED, BLOCKED, EPILOGUE, PIECES, SHUFFLED, STORAGE, THREADS, Template, layer_of

#: Terms of a sum that half precision may add in one chain across taps: with 576 terms the error is below half a percent of the largest
#: output, with 2,304 it is 1.6 %.
_FEW_TERMS = 512


class Conv(Template):
    """Accepts one convolution that neither `Depthwise` nor `Pointwise` accepts: any kernel size, stride, dilation, padding and number of
    groups, with or without a residual.

    Layouts are NHWC, or blocked if there is one group. If the input consists of pieces, these are NHWC, and K is one cache block. Taps
    outside the windows of a layer (`Conv2d.windows`) are skipped.

    Knobs:
        rows, columns: register tile in output pixels of a row and output channels.
        k_block: input channels per cache block, 0 for all of them; partial sums are kept in the output.
        order: loop order: 0 has panels inside output rows, 1 output rows inside panels.
        axis: loop that threads share: 0 rows, 1 panels.
    """

    name = "conv"
    version = 1
    multiplies = True
    handles = BLOCKED | SHUFFLED | EPILOGUE | PIECES | THREADS | STORAGE | ADDED | {"residual", "dilation", "windows"}
    enough_trials = 32

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not isinstance(layer, Conv2d) or layer.is_depthwise:
            return None
        if layer.groups == 1 and layer.kernel == (1, 1) and not any(layer.padding):
            return None  # one product over all pixels: `Pointwise`
        if (layer.groups > 1 or layer.pieces) and (layer.in_layout, layer.out_layout) != ("NHWC", "NHWC"):
            return None
        depth, channels = layer.in_channels // layer.groups, _part_channels(layer)
        options = {
            "rows": up_to((1, 2, 3, 4, 5, 6, 7, 8), layer.out_width),
            "columns": up_to((1, 2, 4, 6), round_up(channels, task.lanes), task.lanes),
            "k_block": k_blocks(layer, task, depth, channels),
            "order": (0, 1),
            "axis": (0, 1) if task.threads > 1 else (0,),
        }

        streamed = task.threads > 1 and _is_streamed(task, layer)

        def fits(knobs: Knobs) -> bool:
            # Several threads would be memory-bound: on a Pi 5, 320² × 16 → 32 would wait twice as long as it computes.
            reads_again = streamed and (knobs["order"] or knobs["axis"])
            return not reads_again and good_tile(task.machine, task.lanes, knobs["rows"], knobs["columns"], layer.out_width, channels)

        rows, vectors = (7, 2) if conv_group(layer, task) == 1 else PAIRS
        usual = {"rows": rows, "columns": vectors * task.lanes, "k_block": 64, "order": 1, "axis": 0}
        by_panels = waste(-(-channels // usual["columns"]), task.threads) <= waste(layer.out_height, task.threads)
        if task.threads > 1 and by_panels and not streamed:
            usual["axis"] = 1  # each thread reads its own weights, and no others
        return Space(self.name, self.version, options, fits, usual)

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, taps, tile, registers used, size of a panel's weights, and the tile's waste at the edges."""
        layer = layer_of(task, Conv2d)
        depth, taps = layer.in_channels // layer.groups, sum(map(_tap_count, layer.part_windows)) / len(layer.part_windows)
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
            waste(_part_channels(layer), knobs["columns"]),
            len(layer.pieces),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Conv2d)
        group = conv_group(layer, task)
        kernel = Kernel(task, knobs, grouped(group, "weight"))
        elements = layer.groups * sum(_elements(layer, knobs, task.lanes))
        with layer_body(kernel, layer, elements, task.lanes) as (buffers, epilogue):
            _ConvNest(epilogue, layer, knobs, buffers, group).emit(task.threads)
        return kernel.finish()

    def expansion(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> Expansion | None:
        """Return the packing of weights in fewer bits."""
        layer = layer_of(task, Conv2d)
        if not (parameters[0].stored and is_expandable(layer)):
            return None
        return Expansion(*stored_taps(parameters[0]), None, knobs["columns"], knobs["k_block"] or layer.in_channels)

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return weights as a flat array [group or window][panel][K block][tap][K][channel], then the constants."""
        layer = layer_of(task, Conv2d)
        depth, channels = layer.in_channels // layer.groups, _part_channels(layer)
        weight = parameters[0].weight.reshape(*layer.kernel, depth, -1, channels)
        block = knobs["k_block"] or depth
        pieces = []
        for number in range(weight.shape[3]):
            top, bottom, left, right = layer.part_windows[number if layer.windows else 0]
            taps = weight[top:bottom, left:right, :, number].reshape(-1, depth, channels)
            for panel in panels(channels, knobs["columns"], task.lanes):
                for index in range(panel.count):
                    first = panel.channel + index * panel.width
                    columns = taps[:, :, first : first + panel.columns]
                    for start in range(0, depth, block):
                        part = columns[:, start : start + block].reshape(-1, panel.columns)
                        pieces.append(pack_panels(part, panel.width, task.lanes, group=conv_group(layer, task)))
        return [np.concatenate(pieces), *pack_constants(parameters[0], task.lanes)]


def _is_streamed(task: Task, layer: Conv2d) -> bool:
    """Return whether the weights stay in L2 but a thread's part of the image does not, so that each panel would read it from memory."""
    image = layer.height * layer.width * layer.in_channels // task.threads
    bytes_each, cache = task.precision.bytes, task.machine.l2_bytes
    return bytes_each * image > cache and 2 * bytes_each * math.prod(layer.weight_shape) <= cache


def _part_channels(layer: Conv2d) -> int:
    """Return the number of output channels per part, see `_Part`."""
    return layer.part_channels // layer.groups


def _tap_count(window: TapWindow) -> int:
    """Return the number of taps of a window."""
    top, bottom, left, right = window
    return (bottom - top) * (right - left)


def _elements(layer: Conv2d, knobs: Knobs, lanes: int) -> list[int]:
    """Return the number of packed weights of each window, for one group."""
    depth, channels = layer.weight_shape[2], _part_channels(layer)
    return [packed_elements(channels, knobs["columns"], _tap_count(window) * depth, lanes) for window in layer.part_windows]


@dataclass(frozen=True)
class _Part:
    """The output channels of a group, or of a window, which share their input channels and taps.

    Attributes:
        number: index of the part.
        weights: index of the part's first packed weight.
        depth: first input channel of the part.
        window: taps of the part, see `Conv2d.windows`.
    """

    number: Expr
    weights: Expr
    depth: Expr
    window: TapWindow


class _ConvNest:
    """The loop nest over parts, panels, K blocks, rows and tiles; taps outside the image are skipped, those of rows by loop bounds at run
    time.
    """

    def __init__(self, epilogue: Epilogue, layer: Conv2d, knobs: Knobs, buffers: Mapping[str, Buffer], group: int) -> None:
        self.kernel = kernel = epilogue.kernel
        self.T, self.layer, self.knobs, self.epilogue = kernel.T, layer, knobs, epilogue
        self.depth, self.channels = layer.in_channels // layer.groups, _part_channels(layer)
        a, self.pieces = input_of(layer, buffers)
        self.c = output_of(layer, buffers["output"])
        long = self.depth * max(map(_tap_count, layer.part_windows)) > _FEW_TERMS
        self.tile = tile_of(group)(kernel, a, buffers["weight"], self.c, kernel.lanes, epilogue, layer.stride[1], apart=long)
        self.columns = partition(layer, 1, knobs["rows"])

    def emit(self, threads: int) -> None:
        """Emit the whole nest. Threads share rows, or panels; a single panel goes to the last thread."""
        by_rows = self.knobs["axis"] == 0
        with self.kernel.team(threads) as thread:
            rows = share(thread if by_rows else None, threads, self.layer.out_height)
            for panel in panels(self.channels, self.knobs["columns"], self.kernel.lanes):
                shared = not by_rows and panel.count > 1
                alone = [] if by_rows or shared or thread is None else [thread == threads - 1]
                columns = share(thread if shared else None, threads, panel.count)
                with self.kernel.where(*alone):
                    for parts in self._parts():
                        with parts as part:
                            self._panels(panel, columns, rows, part)

    def _parts(self) -> Iterator[AbstractContextManager[_Part]]:
        """Yield contexts that emit the parts: groups in one loop, or unrolled if they have pieces; windows unrolled."""
        elements = _elements(self.layer, self.knobs, self.kernel.lanes)
        if self.layer.windows:
            self.tile = replace(self.tile, pieces=self.pieces)
            for number, window in enumerate(self.layer.windows):
                yield nullcontext(_Part(number, sum(elements[:number]), 0, window))
            return
        [window], [size] = self.layer.part_windows, elements
        if not self.pieces:
            yield self._groups(window, size)
            return
        tile = self.tile
        for group in range(self.layer.groups):
            self.tile = replace(tile, pieces=pieces_of_group(self.pieces, group, self.depth))
            yield nullcontext(_Part(group, group * size, group * self.depth, window))

    @contextmanager
    def _groups(self, window: TapWindow, size: int) -> Iterator[_Part]:
        with self.kernel.span(0, self.layer.groups) as group:
            yield _Part(group, group * size, group * self.depth, window)

    def _panels(self, panel: Panel, span: tuple[Expr, Expr], rows: tuple[Expr, Expr], part: _Part) -> None:
        """Emit panels of equal width."""
        if self.knobs["order"] == 1:
            with self.kernel.span(*span) as index:
                for blocks in depth_blocks(self.kernel, self.depth, self.knobs["k_block"] or self.depth):
                    with blocks as extent, self.kernel.span(*rows) as row:
                        self._row(panel, index, row, part, extent)
        else:
            with self.kernel.span(*rows) as row:
                for blocks in depth_blocks(self.kernel, self.depth, self.knobs["k_block"] or self.depth):
                    with blocks as extent, self.kernel.span(*span) as index:
                        self._row(panel, index, row, part, extent)

    def _row(self, panel: Panel, index: Expr, row: Expr, part: _Part, extent: Extent) -> None:
        """Emit one row of the output × one panel × one block of K."""
        for run in self.columns:
            with self.kernel.tiles(run) as column:
                self._tile(panel, index, row, run, column, part, extent)

    def _tile(self, panel: Panel, index: Expr, row: Expr, run: Run, column: Expr, part: _Part, extent: Extent) -> None:
        layer, kernel, width = self.layer, self.kernel, panel.width
        first_y, _, first_x, end_x = part.window
        channel = part.number * self.channels + panel.channel + index * width
        target = row * layer.out_width + column
        acc = kernel.accumulators(run.size * width)
        vector = kernel.lanes
        spots = panel_spots(self.c, [target + x for x in range(run.size)], channel, panel.columns, vector)
        self.epilogue.fill(acc, spots, None if extent.first else self.c.buffer)
        top = row * layer.stride[0] - layer.padding[0]
        # Index of the first weight of this panel's K block, for all taps.
        weights = part.weights + (panel.channel + index * width) * (_tap_count(part.window) * self.depth)
        weights = weights + extent.start * (_tap_count(part.window) * width)
        depth = Extent(part.depth + extent.start, extent.count, extent.first, extent.last)
        with self._rows_inside(top, part.window) as tap_y:
            for tap_x, first, count in self._columns_inside(run, part.window):
                with self.kernel.span(first_x, end_x) if tap_x is None else nullcontext(tap_x) as tap:
                    left = (column + first) * layer.stride[1] - layer.padding[1] + tap * layer.dilation[1]
                    at = weights + ((tap_y - first_y) * (end_x - first_x) + tap - first_x) * (extent.count * width)
                    source = (top + tap_y * layer.dilation[0]) * layer.width + left
                    self.tile.accumulate(TileSums(acc, count, width, first), source, at, depth)
        self.epilogue.drain(acc, spots, self.c.buffer, extent.last)

    def _columns_inside(self, run: Run, window: TapWindow) -> Iterator[tuple[int | None, int, int]]:
        """Yield (tap column, first pixel of the tile that it reaches, number of pixels); `None` means all taps, each of the whole tile."""
        _, _, start, end = window
        if all(low <= start and end <= high for low, high in run.taps):
            yield None, 0, run.size
            return
        for tap in range(start, end):
            reached = [x for x, (low, high) in enumerate(run.taps) if low <= tap < high]
            if reached:
                yield tap, reached[0], len(reached)

    @contextmanager
    def _rows_inside(self, top: Expr, window: TapWindow) -> Iterator[Expr]:
        """Emit a loop over the tap rows that fall inside the image; yield the tap row."""
        start, end, _, _ = window
        height, step = self.layer.height, self.layer.dilation[0]
        highest, lowest = -self.layer.padding[0], (self.layer.out_height - 1) * self.layer.stride[0] - self.layer.padding[0]
        if highest + start * step >= 0 and lowest + (end - 1) * step < height:
            with self.kernel.span(start, end) as tap:
                yield tap
            return
        first, last = (-top, height - top) if step == 1 else ((step - 1 - top) // step, (height - top + step - 1) // step)
        with self.kernel.span(self.T.max(start, first), self.T.min(end, last)) as tap:
            yield tap
