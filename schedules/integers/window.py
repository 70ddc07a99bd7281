"""Int8 convolutions of any window by im2col: the windows of a block of output pixels are packed as A of a matrix product.

A window's rows are contiguous in NHWC, so packing a row copies a few vectors, with the zero point in place of padding. A block of windows
stays in cache while it is multiplied by the weights of all channels. Of several groups of channels, each has a product of its own: its
windows are packed, one tap at a time, and multiplied before those of the next group.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from tvmmobile.graph.layers import Conv2d, Layer
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Span, share
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, Panel
from tvmmobile.schedules.emit.matmul_nest import MatmulNest, Pixels
from tvmmobile.schedules.emit.tiles import Run, partition
from tvmmobile.schedules.floats.winograd import Winograd
from tvmmobile.schedules.integers.ends import IntegerEnds
from tvmmobile.schedules.integers.image import is_image
from tvmmobile.schedules.integers.kernel import LANES, VECTOR_BYTES
from tvmmobile.schedules.integers.long import LongProduct
from tvmmobile.schedules.integers.product import DotProduct, IntegerProduct, is_product
from tvmmobile.schedules.integers.template import is_integer_layer
from tvmmobile.schedules.space import Knobs, round_up, up_to

#: Vectors per iteration of the copy loop.
_UNROLLED = 4
#: Bytes that one store can copy.
_LANES = (1, 2, 4, 8, VECTOR_BYTES)
#: A position in the buffer of windows: the index of the pixel, then terms of the offset in its window.
Place = tuple[Expr, ...]
#: Values of the knob `m_block`.
_TILES = (1, 2, 4, 8, 16, 32)
#: Fewest input channels per group, of which a tap is copied at once.
_FEWEST = 4


class IntegerWindow(IntegerProduct):
    """The base class of templates for int8 convolutions of any window, stride, dilation and padding, with any number of groups whose output
    channels are whole vectors of sums.

    Knobs:
        rows, columns, order: see `IntegerProduct`; `columns` divides the output channels of a group.
        axis: loop that threads share: 0 pixel tiles, 1 panels, for which each thread packs every window, or groups if there are several.
        m_block: tiles of pixels whose windows are packed together.
        n_block, outer: 0.
    """

    handles = IntegerProduct.handles | {"dilation"}

    def covers(self, task: Task) -> bool:
        """Return whether a task is a convolution that neither product nor image templates accept."""
        return is_window(task) and not is_product(task, (DotProduct if self.dot else LongProduct).group)

    def extents(self, layer: Layer) -> tuple[Pixels, int, int]:
        """Return pixels, K and a group's output channels; K is a window of a group's channels, padded to whole elements."""
        assert isinstance(layer, Conv2d)
        terms = layer.kernel[0] * layer.kernel[1] * layer.in_channels // layer.groups
        return Pixels(layer.out_height * layer.out_width), round_up(terms, self.group), layer.out_channels // layer.groups

    def columns_of(self, layer: Layer) -> tuple[int, ...]:
        """Return the widths of tiles; a group of several is whole panels."""
        assert isinstance(layer, Conv2d)
        columns, channels = super().columns_of(layer), self.extents(layer)[2]
        return columns if layer.groups == 1 else tuple(width for width in columns if channels % width == 0)

    def blocks(self, task: Task, layer: Layer) -> dict[str, tuple[int, ...]]:
        """Return the values of the knobs of cache blocks; a block of windows takes at most half of L2."""
        _, depth, _ = self.extents(layer)
        return {"m_block": up_to(_TILES, task.machine.l2_bytes // 2 // (max(self.rows) * depth)), "n_block": (0,), "outer": (0,)}

    def first_order(self, depth: int) -> int:
        """Return 1: a panel of weights stays in L1 while the block's tiles are multiplied by it."""
        return 1

    def first_axis(self, task: Task, layer: Layer) -> int:
        """Return 1 if a core has an L2 of its own that cannot keep the weights: then each thread reads its own ones, and packs all
        windows. In an L2 that all cores share, as many windows would evict the weights.
        """
        assert isinstance(layer, Conv2d)
        return int(layer.groups == 1 and task.machine.l3_bytes > 0 and math.prod(layer.weight_shape) > task.machine.l2_bytes)

    def nest(self, ends: IntegerEnds, tile: MatmulTile, knobs: Knobs, pixels: Pixels, widths: list[Panel], threads: int) -> MatmulNest:
        """Return the loop nest around the tile, which packs windows first."""
        assert isinstance(ends.layer, Conv2d)
        depth = self.extents(ends.layer)[1]
        return IntegerWindowNest(ends, ends.layer, depth, tile, knobs, pixels, widths, threads)


def is_window(task: Task) -> bool:
    """Return whether a task is one int8 convolution that image templates do not accept, with groups large enough to be products."""
    layer = task.region[0]
    if not (isinstance(layer, Conv2d) and is_integer_layer(task, writes=("", "float32"))):
        return False
    if layer.groups == 1:
        return not is_image(layer)
    return layer.in_channels >= _FEWEST * layer.groups and layer.out_channels // layer.groups % LANES == 0


class DotWindow(IntegerWindow, DotProduct):
    """Accepts one int8 convolution of any window on cores with SDOT."""

    name = "dot_window"
    handles = IntegerWindow.handles
    group = VECTOR_BYTES


class LongWindow(IntegerWindow, LongProduct):
    """Accepts one int8 convolution of any window on cores without SDOT."""

    name = "long_window"

    def faster_in_floats(self, task: Task) -> bool:
        """Return whether Winograd's algorithm in float32 is estimated to be faster than this template in int8."""
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and self.suits(task)):
            return False
        sizes = layer.height, layer.width, layer.in_channels, layer.out_channels, layer.kernel, layer.stride, layer.padding, layer.groups
        floats = Task((Conv2d(*sizes, dilation=layer.dilation),), threads=task.threads, machine=task.machine)
        return Winograd().share(floats) < task.machine.winograd_wins


class IntegerWindowNest(MatmulNest):
    """`MatmulNest` whose A is a buffer of windows, packed for each block of pixels.

    Args:
        pitch: bytes per window.

    Attributes:
        together: number of windows that are interleaved.
        group: index of the group of channels whose windows are packed.
        groups: groups that the thread multiplies.
    """

    together = 1

    def __init__(
        self,
        ends: IntegerEnds,
        layer: Conv2d,
        pitch: int,
        tile: MatmulTile,
        knobs: Knobs,
        pixels: Pixels,
        widths: list[Panel],
        threads: int,
    ) -> None:
        super().__init__(tile, knobs, pixels, widths, threads)
        self.ends, self.layer, self.pitch = ends, layer, pitch
        self.depth = layer.in_channels // layer.groups
        self.first: Expr = 0
        self.group: Expr = 0
        self.groups: Span = (0, layer.groups)
        self.windows: Buffer = None

    def _panels(self, thread: Expr) -> None:
        """Emit a thread's share, with a buffer per thread."""
        most = min(self.knobs["m_block"], self.tiles) * self.knobs["rows"] + self.rest
        self.windows = self.kernel.scratch(round_up(most, self.together) * self.pitch)
        self.tile = replace(self.tile, a=replace(self.tile.a, buffer=self.windows))
        if self.layer.groups == 1:
            super()._panels(thread)
            return
        by_pixels = self.knobs["axis"] == 0
        self.groups = share(None if by_pixels else thread, self.threads, self.layer.groups)
        tiles = share(thread if by_pixels else None, self.threads, self.tiles)
        for panel in self.widths:
            self._outer(panel, (0, panel.count), tiles, thread if by_pixels else None)

    def _outer(self, panel: Panel, panels: Span, tiles: Span, thread: Expr) -> None:
        """Emit the loop over blocks of pixels, and over groups: packing, then all panels."""
        with self._blocks(tiles, self.knobs["m_block"]) as rows:
            height = self.knobs["rows"]
            self.first, last = rows[0] * height, rows[1] * height
            if self.rest:
                last = last + (self.rest if isinstance(last, int) else self.T.if_then_else(rows[1] == self.tiles, self.rest, 0))
            with self.kernel.span(*self.groups) as self.group:
                self._lay_out(self.first, last)
                channel = self.group * (self.layer.out_channels // self.layer.groups) + panel.channel
                self._depth(replace(panel, channel=channel), panels, rows, self._ends(rows, tiles, thread))

    def _tile(self, line: Expr, pixel: Expr, rows: int, panel: Panel, columns: Span, index: Expr, part: Extent) -> None:
        """Emit `rows` pixels, from `pixel` on, × one panel."""
        self.tile.emit(pixel - self.first, pixel, rows, panel, index, part, self._weights(panel, columns, index, part))

    def _lay_out(self, first: Expr, last: Expr) -> None:
        """Emit the windows of pixels [first, last), by output row and window row."""
        layer, width = self.layer, self.layer.out_width
        with self.kernel.span(first // width, (last + width - 1) // width) as y, self.kernel.loop(layer.kernel[0]) as tap:
            line = y * layer.stride[0] - layer.padding[0] + tap * layer.dilation[0]
            pixels = first - y * width, last - y * width
            if layer.padding[0] or layer.padding[2]:
                with self.T.If(self.T.And(line >= 0, line < layer.height)):
                    with self.T.Then():
                        self._row(y, tap, line, pixels)
                    with self.T.Else():
                        self._row(y, tap, None, pixels)
            else:
                self._row(y, tap, line, pixels)

    def _row(self, y: Expr, tap: Expr, line: Expr, pixels: Span) -> None:
        """Emit one window row for the pixels of an output row, from an input row, or from padding if `line` is `None`."""
        layer, taps = self.layer, self.layer.kernel[1]
        size = self.depth
        runs = partition(layer, 1, 1) if line is not None else [Run(0, layer.out_width, 1, ((0, 0),))]
        for run in runs:
            low, high = run.taps[0] if run.taps[0][0] < run.taps[0][1] else (0, 0)
            together = max(high - low, 1) if layer.dilation[1] == 1 and layer.groups == 1 else 1
            begin, end = self.T.max(run.start, pixels[0]), self.T.min(run.start + run.count, pixels[1])
            with self.kernel.span(begin, end) as x:
                window = (y * layer.out_width + x - self.first, tap * (taps * size))
                self._fill(window, low * size)
                for place in range(low, high, together):
                    column = x * layer.stride[1] - layer.padding[1] + place * layer.dilation[1]
                    source = (line * layer.width + column) * layer.in_channels + self.group * size
                    self._copy(source, (*window, place * size), together * size)
                self._fill((*window, high * size), (taps - high) * size)

    def _copy(self, source: Expr, target: Place, count: int) -> None:
        """Emit the copy of `count` bytes of the input."""
        self._vectors(target, count, lambda place, lanes: self.ends.kernel.bytes_at(self.ends.buffers["data"], source + place, lanes))

    def _fill(self, target: Place, count: int) -> None:
        """Emit stores of `count` zero points."""
        self._vectors(target, count, lambda place, lanes: self._zeros(lanes))

    def _zeros(self, lanes: int) -> Expr:
        """Return the zero point in all lanes; a single lane is extracted from a vector."""
        return self.ends.zero_in(lanes) if lanes > 1 else self.T.Shuffle([self.ends.zero_in(VECTOR_BYTES)], [0])

    def _vectors(self, target: Place, count: int, value: Callable[[Expr, int], Expr]) -> None:
        """Emit stores of `count` bytes in whole vectors; the last vector overlaps with the one before it."""
        step, lanes = _UNROLLED * VECTOR_BYTES, self._lanes(count)
        whole = count // step * step
        if whole:
            with self.kernel.loop(count // step) as number:
                for place in range(0, step, lanes):
                    self._vector(target, number * step + place, lanes, value)
        for place in range(whole, count, lanes):
            self._vector(target, min(place, count - lanes), lanes, value)

    def _lanes(self, count: int) -> int:
        """Return the number of bytes, of `count`, that one store writes."""
        return max(lanes for lanes in _LANES if lanes <= max(count, 1))

    def _vector(self, target: Place, place: Expr, lanes: int, value: Callable[[Expr, int], Expr]) -> None:
        """Emit the store of one vector of bytes."""
        at = self._at(target, place)
        self.T.buffer_store(self.windows, value(place, lanes), [self.T.Ramp(at, 1, lanes) if lanes > 1 else at])

    def _at(self, target: Place, place: Expr) -> Expr:
        """Return the index of a byte in the buffer of windows."""
        pixel, *offsets = target
        return sum(offsets, pixel * self.pitch) + place
