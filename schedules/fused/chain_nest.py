"""The loop nest of a chain: parts of columns, blocks of channels, steps of rows, and in each step every layer in turn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task, in_place
from tvmmobile.schedules.emit.epilogue import Epilogue, Spot, constant_shapes
from tvmmobile.schedules.emit.image_plane import add_plane
from tvmmobile.schedules.emit.in_order_block import multiply_window
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel, share
from tvmmobile.schedules.emit.matmul import Extent, Panel, panels
from tvmmobile.schedules.emit.pairs import group_of, tile_of
from tvmmobile.schedules.emit.tiles import Taps, cut, taps_along
from tvmmobile.schedules.emit.window_nest import window_products
from tvmmobile.schedules.fused.chain_memory import arrange
from tvmmobile.schedules.fused.chain_place import LoopPosition, Place
from tvmmobile.schedules.space import Knobs


def panel_width(channels: int, blocks: int, wanted: int, lanes: int) -> int:
    """Return the channels per panel: `wanted`, or with several blocks the largest width up to it that divides a block."""
    if blocks == 1:
        return wanted
    return next(width for width in range(wanted, 0, -lanes) if channels // blocks % width == 0)


def emit_product(place: Place) -> None:
    """Emit a 1×1 convolution's rows of a step, those inside the image."""
    width = panel_width(place.layer.out_channels, place.knobs["blocks"], place.knobs["columns"], place.kernel.lanes)
    widths = panels(place.stage.channels, width, place.kernel.lanes)
    if place.knobs["order"] == 1:
        for panel in widths:
            with place.kernel.loop(panel.count) as index, place.kernel.loop(place.stage.rows.step) as row:
                _product_row(place, place.first_row + row, [(panel, 1, index)])
    else:
        with place.kernel.loop(place.stage.rows.step) as row:
            _product_row(place, place.first_row + row, [(panel, panel.count, 0) for panel in widths])


def _product_row(place: Place, row: Expr, widths: list[tuple[Panel, int, Expr]]) -> None:
    """Emit one row of a 1×1 convolution; `widths` has (panel, number of panels, index of the first one) for each width."""
    rows, layer = place.stage.rows, place.layer
    always = rows.offset == 0 and rows.lead == 0 and rows.size % rows.step == 0
    inside = [] if always else [row >= 0, row < rows.size]
    with place.kernel.where(*inside):
        a, first_a = place.input(row)
        c, first_c = place.target(row)
        buffer, weights = place.weights
        tile, columns = place.tiles(place.knobs["rows"])
        shift = 0 if place.last else row * layer.out_width
        product = tile_of(group_of(place.kernel.group, layer.in_channels))
        matmul = product(place.kernel, a, buffer, c, place.kernel.lanes, place.epilogue, shift=shift)
        with columns as column:
            for panel, count, first in widths:
                with place.kernel.loop(count) as number:
                    index = place.moment.block * (place.stage.channels // panel.width) + first + number
                    at = weights + (panel.channel + index * panel.width) * layer.in_channels
                    part = Extent(0, layer.in_channels, True, True)
                    matmul.emit(first_a + column, first_c + column, tile, panel, index, part, at)


def emit_image(place: Place) -> None:
    """Emit an image convolution's rows of a step, those inside the image."""
    layer = place.layer
    kinds = itertools.groupby(enumerate(taps_along(layer, 0)), lambda item: item[1])
    runs = [(tap, [index for index, _ in group]) for tap, group in kinds]
    for panel in panels(place.stage.channels, place.knobs["image_columns"], place.kernel.lanes):
        with place.kernel.loop(panel.count) as index, place.kernel.loop(place.stage.rows.step) as number:
            row = place.first_row + number
            for (low, high), inside in runs:
                with place.kernel.where(row >= inside[0], row <= inside[-1]):
                    for taps, columns in place.bordered_tiles(place.knobs["image_pixels"]):
                        with columns() as column:
                            _image_tile(place, row, column, (range(low, high), taps), panel, index)


def _image_tile(place: Place, row: Expr, column: Expr, taps: tuple[range, Taps], panel: Panel, index: Expr) -> None:
    """Emit one tile of an image convolution: pixels of a row × a panel of channels."""
    kernel, layer, (taps_y, taps_x) = place.kernel, place.layer, taps
    width, pixels = panel.width, len(taps_x)
    channel = panel.channel + index * width
    size = math.prod(layer.kernel)
    buffer, weights = place.weights
    target, first = place.target(row)
    acc = kernel.accumulators(pixels * width)
    spots = [
        place.spot(target.at(first + column + x, channel + j), row, column + x, channel + j)
        for x, j in itertools.product(range(pixels), range(0, width, kernel.lanes))
    ]
    place.epilogue.fill(acc, spots)
    left = column * layer.stride[1] - layer.padding[1]
    # With input channels unrolled, LLVM would hoist weights out of the loop over pixels, and spill them.
    with place.kernel.loop(layer.in_channels) as plane:
        lines = [(plane * layer.height + row * layer.stride[0] - layer.padding[0] + tap) * layer.width + left for tap in taps_y]

        def element(tap_y: int, tap_x: int, plane: Expr = plane) -> Expr:
            number = plane * size + tap_y * layer.kernel[1] + tap_x
            return weights + channel * (layer.in_channels * size) + number * width

        add_plane(kernel, acc, layer, (taps_y, taps_x, width), [(place.data, line) for line in lines], (buffer, element))
    place.epilogue.drain(acc, spots, target.buffer)


def emit_depthwise(place: Place) -> None:
    """Emit a depthwise convolution's rows of a step; run-time conditions select the code for steps whose rows need different taps."""
    rows, step = place.stage.rows, place.moment.step
    position = -rows.lead
    for kind, group in itertools.groupby(_row_kinds(place)):
        count = len(list(group))
        conditions = []
        if position > -rows.lead:
            conditions.append(step >= position)
        if position + count < rows.pieces:
            conditions.append(step < position + count)
        position += count
        inside = [index for index, taps in enumerate(kind) if taps is not None]
        if not inside:
            continue
        with place.kernel.where(*conditions):
            for run in cut([taps for taps in kind if taps is not None], place.knobs["dw_rows"]):
                with place.kernel.loop(run.count) as number:
                    _depthwise_rows(place, place.first_row + (inside[0] + run.start + number * run.size), run.taps)


def _row_kinds(place: Place) -> list[tuple[tuple[int, int] | None, ...]]:
    """Return the taps of each row of each step; `None` for rows outside the image."""
    rows, layer = place.stage.rows, place.layer
    whole = (0, layer.kernel[0])
    if place.source is not None and not place.last:
        # Rows outside the image are computed from arbitrary data, but never read.
        return [(whole,) * rows.step] * (rows.lead + rows.pieces)
    taps = [whole] * rows.size if place.source is not None else taps_along(layer, 0)
    firsts = [step * rows.step + rows.offset for step in range(-rows.lead, rows.pieces)]
    return [tuple(taps[row] if 0 <= row < rows.size else None for row in range(first, first + rows.step)) for first in firsts]


def _depthwise_rows(place: Place, row: Expr, taps_y: Taps) -> None:
    """Emit a row of depthwise tiles."""
    T, layer, lanes = place.kernel.T, place.layer, place.kernel.lanes  # noqa: N806
    top = row * layer.stride[0] - layer.padding[0]
    height = (len(taps_y) - 1) * layer.stride[0] + layer.kernel[0]
    lines = [place.input(top + y) for y in range(height)]
    targets = [place.target(row + y) for y in range(len(taps_y))]
    kinds = list(place.bordered_tiles(place.knobs["dw_columns"])) if place.source is None else []
    if place.source is not None:
        tile, columns = place.tiles(place.knobs["dw_columns"])
        kinds = [(((0, layer.kernel[1]),) * tile, lambda: columns)]
    for taps_x, loop in kinds:
        with loop() as column, T.serial(0, place.stage.channels // lanes) as vector:
            channel = place.first_channel + vector * lanes
            # The buffer before a layer holds the channels of one block.
            source = vector * lanes
            left = column * layer.stride[1] - layer.padding[1]
            windows = [(line.buffer, line.at(first + left, source), line.block) for line, first in lines]
            spots = [
                place.spot(target.at(first + column, channel) + x * target.block, row + y, column + x, channel)
                for y, (target, first) in enumerate(targets)
                for x in range(len(taps_x))
            ]
            _depthwise_tile(place, windows, targets[0][0].buffer, spots, (taps_y, taps_x), channel)


def _depthwise_tile(
    place: Place, windows: list[tuple[object, Expr, int]], output: Buffer, spots: list[Spot], taps: tuple[Taps, Taps], channel: Expr
) -> None:
    """Emit one depthwise tile of one vector of channels.

    Args:
        windows: (buffer, index of the tile's first element, elements from one column to the next) for each input row.
    """
    kernel, layer, (taps_y, taps_x) = place.kernel, place.layer, taps
    buffer, weights = place.weights
    lanes = kernel.lanes
    acc = kernel.accumulators(len(taps_y) * len(taps_x) * lanes)
    place.epilogue.fill(acc, spots)
    products = list(window_products(layer, taps_y, taps_x))
    tap_0 = weights + channel * math.prod(layer.kernel)
    if not (kernel.inner and multiply_window(kernel, acc, products, dict(enumerate(windows)), (buffer, tap_0))):
        for out, y, x, number in products:
            data, line, pitch = windows[y]
            value, tap = kernel.load(data, line + x * pitch), kernel.load(buffer, tap_0 + number * lanes)
            kernel.store(acc, kernel.load(acc, out * lanes) + value * tap, out * lanes)
    place.epilogue.drain(acc, spots, output)


def emit_borders(place: Place) -> None:
    """Emit the padding of the rows that a layer has written in a step; rows outside the image are filled with zeros."""
    T, stage = place.kernel.T, place.stage  # noqa: N806
    with place.kernel.loop(stage.rows.step) as number:
        row = place.first_row + number
        start = T.bind(place.row_at(stage, row))
        with T.If(T.And(row >= 0, row < stage.rows.size)):
            with T.Then():
                _sides(place, row, start)
            with T.Else():
                _zeros(place, start, stage.row)


def _sides(place: Place, row: Expr, start: Expr) -> None:
    """Emit the columns left and right of the computed ones: padding, and columns kept from the part before."""
    stage, axis, part = place.stage, place.stage.columns, place.moment.part
    if axis.padding:
        with place.kernel.where(*([part == 0] if axis.pieces > 1 else [])):
            _zeros(place, start, axis.padding * stage.channels)
    for piece in range(axis.pieces):
        missing = axis.needed(piece) - axis.size
        if missing > 0:
            with place.kernel.where(*([part == piece] if axis.pieces > 1 else [])):
                _zeros(place, start + (axis.size - axis.base(piece)) * stage.channels, missing * stage.channels)
    if not stage.kept:
        return
    kept = stage.kept + place.moment.block * stage.kept_block
    kept = kept + (row - place.moment.first * stage.rows.step - stage.rows.offset) * stage.kept_row
    with place.kernel.where(part > 0):
        _copy(place, start, kept, stage.kept_row)
    with place.kernel.where(part < axis.pieces - 1):
        following = (part + 1) * axis.step + axis.offset - axis.halo
        _copy(place, kept, start + (following - place.base(axis)) * stage.channels, stage.kept_row)


def _zeros(place: Place, start: Expr, count: int) -> None:
    with place.kernel.loop(count // place.kernel.lanes) as index:
        place.kernel.store(place.scratch, place.kernel.splat(place.kernel.number(0)), start + index * place.kernel.lanes)


def _copy(place: Place, target: Expr, source: Expr, count: int) -> None:
    with place.kernel.loop(count // place.kernel.lanes) as index:
        place.kernel.store(
            place.scratch, place.kernel.load(place.scratch, source + index * place.kernel.lanes), target + index * place.kernel.lanes
        )


class ChainNest:
    """The loop nest of the whole kernel. Threads share steps; each has its own rings and begins with the rows that its first step needs."""

    def __init__(self, kernel: Kernel, layers: Sequence[Conv2d], knobs: Knobs, task: Task, buffers: Mapping[str, Buffer]) -> None:
        self.kernel, self.T, self.knobs, self.threads = kernel, kernel.T, knobs, task.threads
        self.data, self.output = buffers["data"], buffers["output"]
        self.weights = [buffers[in_place("weight", index)] for index in range(len(layers))]
        self.epilogues = []
        for index, layer in enumerate(layers):
            constants = {name: buffers[in_place(name, index)] for name in constant_shapes(layer)}
            self.epilogues.append(Epilogue(kernel, layer, {**constants, **task.sides_of(index, buffers)}))
        self.memory = arrange(layers, knobs, task)
        self.stages = self.memory.stages

    def emit(self) -> None:
        """Emit the whole nest. Each thread first runs the `lead` steps that compute its halos."""
        lead = self.stages[0].rows.lead
        with self.kernel.team(self.threads) as thread:
            begin, end = share(thread, self.threads, self.stages[-1].rows.pieces)
            scratch = self.kernel.scratch(self.memory.elements)
            with self.kernel.loop(self.stages[-1].columns.pieces) as part, self.kernel.loop(self.knobs["blocks"]) as block:
                if self.knobs["gather"]:
                    self._gather(scratch, block)
                with self.T.serial(0, end - begin + lead) as count:
                    # They are bound to variables because TVM's region analysis would divide by zero on their expressions.
                    step = self.T.bind(begin - lead + count)
                    opaque = part if isinstance(part, int) else self.T.bind(part)
                    moment = LoopPosition(block, opaque, step, begin - lead)
                    for index in range(len(self.stages)):
                        self._layer(index, scratch, moment, count)

    def _layer(self, index: int, scratch: Buffer, moment: LoopPosition, count: Expr) -> None:
        """Emit one layer's work in a step, except in the first steps where no later layer needs it."""
        stage = self.stages[index]
        source = self.stages[index - 1] if index else None
        last = stage is self.stages[-1]
        build = partial(Place, self.kernel, self.knobs, stage, source, last, moment, self.data, self.output, scratch)
        place = build(self.weights[index], self.epilogues[index])
        late = self.stages[0].rows.lead - stage.rows.lead
        with self.kernel.where(*([count >= late] if late else [])):
            if stage.layer.is_depthwise:
                emit_depthwise(place)
            elif stage.layer.is_pointwise:
                emit_product(place)
            else:
                emit_image(place)
            if stage.padded:
                emit_borders(place)

    def _gather(self, scratch: Buffer, block: Expr) -> None:
        """Emit the copy of a block's weights into the scratch memory next to the rings, so that neither evicts the other."""
        for stage, weight in zip(self.stages, self.weights, strict=True):
            assert stage.weights is not None
            with self.T.serial(0, stage.weight_elements // self.kernel.lanes) as index:
                value = self.kernel.load(weight, block * stage.weight_elements + index * self.kernel.lanes)
                self.kernel.store(scratch, value, stage.weights + index * self.kernel.lanes)
