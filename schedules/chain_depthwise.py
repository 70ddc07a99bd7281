"""The depthwise convolutions of a chain: a step's rows, from the region's input with its borders, or from a buffer that has the padding."""

from __future__ import annotations

import itertools

from tvmmobile.schedules.chain_geometry import taps_of
from tvmmobile.schedules.chain_memory import readers
from tvmmobile.schedules.chain_place import Place, Taps
from tvmmobile.schedules.emit import Expr, cut


def emit_depthwise(place: Place) -> None:
    """All rows of a step; steps whose rows need other taps than those of the steps before them are told apart at run time."""
    rows, step = place.stage.rows, place.moment.step
    position = -rows.lead
    for kind, group in itertools.groupby(_kinds(place)):
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
                    _rows(place, place.first_row + (inside[0] + run.start + number * run.size), run.taps)


def _kinds(place: Place) -> list[tuple[tuple[int, int] | None, ...]]:
    """For every step the taps of its rows, `None` for rows outside the image."""
    rows, layer = place.stage.rows, place.layer
    whole = (0, layer.kernel[0])
    if place.source is not None and not place.last:
        # Rows outside are computed from whatever the buffer holds: nobody reads them.
        return [(whole,) * rows.step] * (rows.lead + rows.pieces)
    taps = [whole] * rows.size if place.source is not None else taps_of(readers([layer], 0)[0], layer.height)
    firsts = [step * rows.step + rows.offset for step in range(-rows.lead, rows.pieces)]
    return [tuple(taps[row] if 0 <= row < rows.size else None for row in range(first, first + rows.step)) for first in firsts]


def _rows(place: Place, row: Expr, taps_y: Taps) -> None:
    """A row of tiles."""
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
            # The buffer before a layer has the channels of one block.
            source = vector * lanes
            left = column * layer.stride[1] - layer.padding[1]
            windows = [(line.buffer, line.at(first + left, source), line.block) for line, first in lines]
            outputs = [(target.buffer, target.at(first + column, channel), target.block) for target, first in targets]
            _tile(place, windows, outputs, (taps_y, taps_x), channel)


def _tile(
    place: Place,
    windows: list[tuple[object, Expr, int]],
    outputs: list[tuple[object, Expr, int]],
    taps: tuple[Taps, Taps],
    channel: Expr,
) -> None:
    """One tile of one vector of channels.

    Args:
        windows, outputs: for each row the buffer, the element of the tile's first column, and the elements from column to column.
    """
    kernel, layer, (taps_y, taps_x) = place.kernel, place.layer, taps
    size, width = layer.kernel[0] * layer.kernel[1], len(taps_x)
    buffer, weights = place.weights
    lanes = kernel.lanes
    acc = kernel.accumulators(len(taps_y) * width * lanes)
    for position in range(len(taps_y) * width):
        kernel.store(acc, kernel.load(place.bias, channel), position * lanes)
    for y, (data, line, pitch) in enumerate(windows):
        for out_y, (low, high) in enumerate(taps_y):
            tap_y = y - out_y * layer.stride[0]
            if not low <= tap_y < high:
                continue
            for tap_x, (out_x, (first, end)) in itertools.product(range(layer.kernel[1]), enumerate(taps_x)):
                if first <= tap_x < end:
                    value = kernel.load(data, line + (out_x * layer.stride[1] + tap_x) * pitch)
                    tap = kernel.load(buffer, weights + channel * size + (tap_y * layer.kernel[1] + tap_x) * lanes)
                    position = (out_y * width + out_x) * lanes
                    kernel.store(acc, kernel.load(acc, position) + value * tap, position)
    for (out_y, (data, line, pitch)), x in itertools.product(enumerate(outputs), range(width)):
        kernel.store(data, kernel.clamp(kernel.load(acc, (out_y * width + x) * lanes), layer.clamp), line + x * pitch)
