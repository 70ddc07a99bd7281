"""Integer convolutions of any window: those of a block of output pixels are laid out one after another, as A of a matrix product.

A window's rows lie together in NHWC, so that laying one out is a copy of a few vectors for each row, with the zero point where it reaches
into padding. The block stays in a cache while all channels' weights are multiplied by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tvmmobile.graph.layers import Conv2d, Layer
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Span
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, Panel
from tvmmobile.schedules.emit.matmul_nest import MatmulNest, Pixels
from tvmmobile.schedules.emit.tiles import Run, partition
from tvmmobile.schedules.floats.winograd import Winograd
from tvmmobile.schedules.integers.ends import IntegerEnds
from tvmmobile.schedules.integers.image import is_image
from tvmmobile.schedules.integers.kernel import VECTOR_BYTES
from tvmmobile.schedules.integers.long import LongProduct
from tvmmobile.schedules.integers.product import DotProduct, IntegerProduct, is_product
from tvmmobile.schedules.integers.template import is_integer_layer
from tvmmobile.schedules.space import Knobs, round_up, up_to

#: Vectors that a pass of a loop copies.
_UNROLLED = 4
#: Bytes that are copied at once.
_LANES = (1, 2, 4, 8, VECTOR_BYTES)
#: A window by the number of its pixel, and a place in it as a sum.
Place = tuple[Expr, ...]
#: Tiles of pixels that are laid out together.
_TILES = (1, 2, 4, 8, 16, 32)


class IntegerWindow(IntegerProduct):
    """The base class of templates for integer convolutions with windows: one group, any stride, dilation and padding.

    Knobs:
        rows, columns, order, axis: see `IntegerProduct`; threads that share panels lay out every window each.
        m_block: tiles of pixels whose windows are laid out together.
        n_block, outer: 0.
    """

    handles = IntegerProduct.handles | {"dilation"}

    def covers(self, task: Task) -> bool:
        """Return whether a task is a convolution with windows that neither products nor images' templates take."""
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and is_integer_layer(task, writes=("", "float32")) and layer.groups == 1 and not is_image(layer)):
            return False
        return not is_product(task, (DotProduct if self.dot else LongProduct).group)

    def extents(self, layer: Layer) -> tuple[Pixels, int, int]:
        """Return pixels, K and output channels; K is a window, filled up to a whole group."""
        assert isinstance(layer, Conv2d)
        terms = layer.kernel[0] * layer.kernel[1] * layer.in_channels
        return Pixels(layer.out_height * layer.out_width), round_up(terms, self.group), layer.out_channels

    def blocks(self, task: Task, layer: Layer) -> dict[str, tuple[int, ...]]:
        """Return the values of the knobs of cache blocks: windows take up to half of the second-level cache."""
        _, depth, _ = self.extents(layer)
        return {"m_block": up_to(_TILES, task.machine.l2_bytes // 2 // (max(self.rows) * depth)), "n_block": (0,), "outer": (0,)}

    def first_order(self, depth: int) -> int:
        """A panel of weights stays in the first level while the block's tiles are multiplied by it."""
        return 1

    def nest(self, ends: IntegerEnds, tile: MatmulTile, knobs: Knobs, pixels: Pixels, widths: list[Panel], threads: int) -> MatmulNest:
        """Return the loops around a tile, which lay windows out first."""
        assert isinstance(ends.layer, Conv2d)
        depth = self.extents(ends.layer)[1]
        return IntegerWindowNest(ends, ends.layer, depth, tile, knobs, pixels, widths, threads)


class DotWindow(IntegerWindow, DotProduct):
    """Takes one integer convolution with windows on cores with SDOT."""

    name = "dot_window"
    handles = IntegerWindow.handles
    group = VECTOR_BYTES


class LongWindow(IntegerWindow, LongProduct):
    """Takes one integer convolution with windows on cores without SDOT."""

    name = "long_window"

    def faster_in_floats(self, task: Task) -> bool:
        """Return whether Winograd's algorithm in float32 is faster than this template in integers, by that algorithm's estimate."""
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and self.suits(task)):
            return False
        sizes = layer.height, layer.width, layer.in_channels, layer.out_channels, layer.kernel, layer.stride, layer.padding, layer.groups
        floats = Task((Conv2d(*sizes, dilation=layer.dilation),), threads=task.threads, machine=task.machine)
        return Winograd().share(floats) < task.machine.winograd_wins


class IntegerWindowNest(MatmulNest):
    """`MatmulNest`'s loops, for windows that are laid out in a buffer, block after block of pixels.

    Args:
        pitch: bytes of a window.

    Attributes:
        together: windows of which parts follow each other.
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
        self.first: Expr = 0
        self.windows: Buffer = None

    def _panels(self, thread: Expr) -> None:
        """Emit a thread's share, with a buffer of its own."""
        most = min(self.knobs["m_block"], self.tiles) * self.knobs["rows"] + self.rest
        self.windows = self.kernel.scratch(round_up(most, self.together) * self.pitch)
        self.tile = replace(self.tile, a=replace(self.tile.a, buffer=self.windows))
        super()._panels(thread)

    def _outer(self, panel: Panel, panels: Span, tiles: Span, thread: Expr) -> None:
        """Emit blocks of pixels, and all panels."""
        with self._blocks(tiles, self.knobs["m_block"]) as rows:
            height = self.knobs["rows"]
            self.first, last = rows[0] * height, rows[1] * height
            if self.rest:
                last = last + (self.rest if isinstance(last, int) else self.T.if_then_else(rows[1] == self.tiles, self.rest, 0))
            self._lay_out(self.first, last)
            self._depth(panel, panels, rows, self._ends(rows, tiles, thread))

    def _tile(self, line: Expr, pixel: Expr, rows: int, panel: Panel, columns: Span, index: Expr, part: Extent) -> None:
        """Emit `rows` pixels, from `pixel` on, × one panel."""
        self.tile.emit(pixel - self.first, pixel, rows, panel, index, part, self._weights(panel, columns, index, part))

    def _lay_out(self, first: Expr, last: Expr) -> None:
        """Emit the windows of the pixels `first` to `last`: row after row of the output, and in it row after row of the windows."""
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
        """Emit one row of the windows of a row's pixels, from a line of the input, or from padding."""
        layer, taps = self.layer, self.layer.kernel[1]
        size = layer.in_channels
        runs = partition(layer, 1, 1) if line is not None else [Run(0, layer.out_width, 1, ((0, 0),))]
        for run in runs:
            low, high = run.taps[0] if run.taps[0][0] < run.taps[0][1] else (0, 0)
            together = max(high - low, 1) if layer.dilation[1] == 1 else 1
            begin, end = self.T.max(run.start, pixels[0]), self.T.min(run.start + run.count, pixels[1])
            with self.kernel.span(begin, end) as x:
                window = (y * layer.out_width + x - self.first, tap * (taps * size))
                self._fill(window, low * size)
                for place in range(low, high, together):
                    column = x * layer.stride[1] - layer.padding[1] + place * layer.dilation[1]
                    self._copy((line * layer.width + column) * size, (*window, place * size), together * size)
                self._fill((*window, high * size), (taps - high) * size)

    def _copy(self, source: Expr, target: Place, count: int) -> None:
        """Copy bytes of the input."""
        self._vectors(target, count, lambda place, lanes: self.ends.kernel.bytes_at(self.ends.buffers["data"], source + place, lanes))

    def _fill(self, target: Place, count: int) -> None:
        """Store zero points."""
        self._vectors(target, count, lambda place, lanes: self._zeros(lanes))

    def _zeros(self, lanes: int) -> Expr:
        """Return the zero points; a single one is taken out of a vector."""
        return self.ends.zero_in(lanes) if lanes > 1 else self.T.Shuffle([self.ends.zero_in(VECTOR_BYTES)], [0])

    def _vectors(self, target: Place, count: int, value: Callable[[Expr, int], Expr]) -> None:
        """Store `count` bytes from a place on in whole vectors; the last one begins early enough to fit."""
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
        """Store some bytes."""
        at = self._at(target, place)
        self.T.buffer_store(self.windows, value(place, lanes), [self.T.Ramp(at, 1, lanes) if lanes > 1 else at])

    def _at(self, target: Place, place: Expr) -> Expr:
        """Return the index of a byte in the buffer."""
        pixel, *offsets = target
        return sum(offsets, pixel * self.pitch) + place
