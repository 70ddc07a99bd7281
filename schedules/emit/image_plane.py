"""The products of one input channel in a register tile of an image convolution: pixels of a row × output channels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from tvmmobile.graph.layers import Conv2d
from tvmmobile.schedules.emit.in_order_block import Multiplication, VectorPlace, multiply_in_order
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.tiles import Taps

#: A tile: rows of the layer's kernel that lie inside the image, the taps of each pixel along a row, and the number of channels.
ImageTile = tuple[range, Taps, int]


def add_plane(
    kernel: Kernel,
    acc: Buffer,
    layer: Conv2d,
    tile: ImageTile,
    lines: Sequence[tuple[Buffer, Expr]],
    weights: tuple[Buffer, Callable[[int, int], Expr]],
) -> None:
    """Add one input channel's products to a tile's sums, in our own instruction order on in-order cores.

    Args:
        lines: (input buffer, index of the first pixel's first tap) for each kernel row of the tile.
        weights: the buffer, and a function that maps a tap's row and column to the index of its first weight.
    """
    (taps_y, taps_x, width), (buffer, element_of), lanes = tile, weights, kernel.lanes
    reached = [x * layer.stride[1] + tap for x, (low, high) in enumerate(taps_x) for tap in range(low, high)]
    low, high = (min(reached), max(reached) + 1) if reached else (0, 0)
    if kernel.inner and high - low >= lanes:
        multiplications = list(_multiplications(kernel, layer, tile, low, high))
        pointers = [(data, line + low) for data, line in lines]
        weight = (buffer, element_of(taps_y.start, 0))
        if multiply_in_order(kernel, acc, multiplications, len(taps_x) * width // lanes, [*pointers, weight]):
            return
    for tap_y, (data, line) in zip(taps_y, lines, strict=True):
        for tap_x, j in itertools.product(range(layer.kernel[1]), range(0, width, lanes)):
            values = kernel.load(buffer, element_of(tap_y, tap_x) + j)
            for x, (first, end) in enumerate(taps_x):
                if first <= tap_x < end:
                    position = x * width + j
                    pixel = kernel.lane_within(data, line, x * layer.stride[1] + tap_x, low, high)
                    kernel.store(acc, kernel.load(acc, position) + values * pixel, position)


def _multiplications(kernel: Kernel, layer: Conv2d, tile: ImageTile, low: int, high: int) -> Iterator[Multiplication]:
    """Yield the tile's products; pixels come from lanes of vectors in the columns [low, high) of its lines."""
    (taps_y, taps_x, width), lanes, size = tile, kernel.lanes, kernel.bytes
    for y, tap_x, j in itertools.product(range(len(taps_y)), range(layer.kernel[1]), range(width // lanes)):
        for x, (first, end) in enumerate(taps_x):
            if first <= tap_x < end:
                offset = x * layer.stride[1] + tap_x
                vector = min(low + (offset - low) // lanes * lanes, high - lanes)
                w = VectorPlace(len(taps_y), ((y * layer.kernel[1] + tap_x) * width + j * lanes) * size)
                yield Multiplication(x * width // lanes + j, w, VectorPlace(y, (vector - low) * size), offset - vector)
