"""The first convolution of a chain, which reads the image: one step's rows, one after another."""

from __future__ import annotations

import itertools

from tvmmobile.schedules.chain_geometry import taps_of
from tvmmobile.schedules.chain_memory import readers
from tvmmobile.schedules.chain_place import Place, Taps
from tvmmobile.schedules.emit import Expr
from tvmmobile.schedules.matmul import Panel, panels


def emit_image(place: Place) -> None:
    """All rows of a step that lie inside the image."""
    layer = place.layer
    kinds = itertools.groupby(enumerate(taps_of(readers([layer], 0)[0], layer.height)), lambda item: item[1])
    runs = [(tap, [index for index, _ in group]) for tap, group in kinds]
    for panel in panels(place.stage.channels, place.knobs["image_columns"], place.kernel.lanes):
        with place.kernel.loop(panel.count) as index, place.kernel.loop(place.stage.rows.step) as number:
            row = place.first_row + number
            for (low, high), inside in runs:
                with place.kernel.where(row >= inside[0], row <= inside[-1]):
                    for taps, columns in place.bordered_tiles(place.knobs["image_pixels"]):
                        with columns() as column:
                            _tile(place, row, column, (range(low, high), taps), panel, index)


def _tile(place: Place, row: Expr, column: Expr, taps: tuple[range, Taps], panel: Panel, index: Expr) -> None:
    """Pixels of a row × a panel of channels."""
    kernel, layer, (taps_y, taps_x) = place.kernel, place.layer, taps
    width, pixels = panel.width, len(taps_x)
    channel = panel.channel + index * width
    size, stride = layer.kernel[0] * layer.kernel[1], layer.stride[1]
    buffer, weights = place.weights
    target, first = place.target(row)
    acc = kernel.accumulators(pixels * width)
    for x, j in itertools.product(range(pixels), range(0, width, kernel.lanes)):
        kernel.store(acc, kernel.load(place.bias, channel + j), x * width + j)
    reached = [x * stride + tap for x, (low, high) in enumerate(taps_x) for tap in range(low, high)]
    window = (min(reached), max(reached) + 1) if reached else (0, 0)
    left = column * stride - layer.padding[1]
    # With all input channels unrolled LLVM hoists weights out of the loop over pixels, and spills them.
    with place.kernel.loop(layer.in_channels) as plane:
        for tap_y in taps_y:
            line = (plane * layer.height + row * layer.stride[0] - layer.padding[0] + tap_y) * layer.width + left
            for tap_x, j in itertools.product(range(layer.kernel[1]), range(0, width, kernel.lanes)):
                number = plane * size + tap_y * layer.kernel[1] + tap_x
                values = kernel.load(buffer, weights + channel * (layer.in_channels * size) + number * width + j)
                for x, (low, high) in enumerate(taps_x):
                    if low <= tap_x < high:
                        position = x * width + j
                        pixel = _pixel(place, line, x * stride + tap_x, *window)
                        kernel.store(acc, kernel.load(acc, position) + values * pixel, position)
    for x, j in itertools.product(range(pixels), range(0, width, kernel.lanes)):
        value = kernel.clamp_bits(kernel.load(acc, x * width + j), layer.clamp)
        kernel.store(target.buffer, value, target.at(first + column + x, channel + j))


def _pixel(place: Place, line: Expr, offset: int, low: int, high: int) -> Expr:
    """The input at `line + offset` in all lanes, out of vectors that stay within [low, high)."""
    lanes = place.kernel.lanes
    if high - low < lanes:
        return place.kernel.splat(place.data[line + offset])
    vector = min(low + (offset - low) // lanes * lanes, high - lanes)
    return place.kernel.lane(place.kernel.load(place.data, line + vector), offset - vector)
