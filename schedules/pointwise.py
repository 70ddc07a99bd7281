"""1×1 convolution as a matrix product (pixels × K) · (K × N), NHWC."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tvmmobile.layers import Conv2d
from tvmmobile.schedules.emit import Expr, Kernel
from tvmmobile.schedules.machine import LANES, MIN_ACCUMULATORS, REGISTERS, round_up, up_to, waste
from tvmmobile.schedules.matmul import MatmulTile, Panel, pack_bias, pack_panels, panels
from tvmmobile.schedules.space import Knobs, Space
from tvmmobile.schedules.template import Array, LayerParameters, Template
from tvmmobile.tasks import Task


class Pointwise(Template):
    """Takes one 1×1 convolution, stride 1, no padding, one group, NHWC, float32.

    Knobs:
        rows, columns: register tile in pixels and channels.
        unroll: K steps per loop iteration.
        k_block: K per cache block, 0 for all of it; partial sums stay in the output.
        n_block: panels per cache block, 0 for all of them.
        order: 0 runs over the panels of a block for each pixel tile, 1 over the pixel tiles for each panel.
        axis: what threads share: 0 pixel tiles, 1 panels.
    """

    name = "pointwise"
    version = 1

    def space(self, task: Task) -> Space | None:
        """See the class."""
        if len(task.region) != 1 or task.dtype != "float32":
            return None
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and layer.is_pointwise and layer.in_layout == "NHWC"):
            return None
        pixels, depth, channels = layer.height * layer.width, layer.in_channels, layer.out_channels
        # A block of partial sums is stored and loaded by whole vectors.
        k_blocks = tuple(k for k in (128, 256, 512) if k < depth) if channels % LANES == 0 else ()
        options = {
            "rows": up_to((1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14), pixels),
            "columns": up_to((4, 8, 12, 16, 20, 24), round_up(channels, LANES)),
            "unroll": up_to((4, 8, 16), round_up(depth, LANES)),
            "k_block": (0, *k_blocks),
            "n_block": (0, *(n for n in (2, 4, 8, 16) if n * 8 < channels)),
            "order": (0, 1),
            "axis": (0, 1) if task.threads > 1 else (0,),
        }
        fewest = min(MIN_ACCUMULATORS, max(options["rows"]) * max(options["columns"]) // LANES)

        def fits(knobs: Knobs) -> bool:
            vectors = knobs["columns"] // LANES
            accumulators = knobs["rows"] * vectors
            # Per step the tile holds its accumulators, one vector of A per row and at least one of W.
            return accumulators >= fewest and accumulators + knobs["rows"] + min(vectors, 2) <= REGISTERS

        usual = {"rows": 7, "columns": 8, "unroll": 4, "k_block": 0, "n_block": 0, "order": 1, "axis": 0}
        return Space(self.name, self.version, options, fits, usual)

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Size, tile, registers used, and what the tile wastes at the edges."""
        layer = _layer(task)
        pixels = layer.height * layer.width
        vectors = knobs["columns"] // LANES
        return [
            math.log2(pixels),
            math.log2(layer.in_channels),
            math.log2(layer.out_channels),
            knobs["rows"] * vectors,
            knobs["rows"] * vectors + knobs["rows"] + vectors,
            (knobs["rows"] + vectors) / (knobs["rows"] * vectors),
            waste(pixels, knobs["rows"]),
            waste(layer.out_channels, knobs["columns"]),
            waste(layer.in_channels, knobs["unroll"]),
        ]

    def emit(self, task: Task, knobs: Knobs) -> Any:
        """See `Template.emit`."""
        layer = _layer(task)
        return emit_matmul(
            task,
            knobs,
            layer.height * layer.width,
            layer.in_channels,
            layer.out_channels,
            layer.clamp,
            layer.input_shape,
            layer.output_shape,
        )

    def pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Weights in panels of `columns`, bias padded to whole vectors."""
        layer = _layer(task)
        weight = parameters[0].weight.reshape(layer.in_channels, layer.out_channels)
        return [pack_panels(weight, knobs["columns"]), pack_bias(parameters[0].bias)]


def _layer(task: Task) -> Conv2d:
    layer = task.layer
    assert isinstance(layer, Conv2d)
    return layer


def emit_matmul(
    task: Task,
    knobs: Knobs,
    pixels: int,
    depth: int,
    channels: int,
    bounds: Any,
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
) -> Any:
    """The whole blocked matrix product with the knobs that `Pointwise` describes; returns the TIR function."""
    kernel = Kernel(task.symbol)
    widths = panels(channels, knobs["columns"], depth)
    packed = sum(panel.count * panel.width * depth for panel in widths)
    with kernel.body(data=input_shape, weight=(packed,), bias=(round_up(channels, LANES),), output=output_shape) as (a, w, bias, c):
        tile = MatmulTile(kernel, a, w, bias, c, depth, channels, knobs["unroll"], bounds)
        PointwiseNest(tile, knobs, Pixels(pixels), widths, task.threads).emit()
    return kernel.finish()


@dataclass(frozen=True)
class Pixels:
    """Rows of the product: `lines` times `count` pixels, one after another in A.

    Attributes:
        origin: row of C to which the first one belongs.
        pitch: rows of C from one line to the next.
    """

    count: int
    lines: int = 1
    origin: Expr = 0
    pitch: int = 0


class PointwiseNest:
    """Loops around the register tile: threads, then K blocks, then panel blocks, then tiles."""

    def __init__(self, tile: MatmulTile, knobs: Knobs, pixels: Pixels, widths: list[Panel], threads: int) -> None:
        self.tile, self.knobs, self.pixels, self.widths, self.threads = tile, knobs, pixels, widths, threads
        self.T = tile.kernel.T
        self.by_pixels = knobs["axis"] == 0

    def emit(self) -> None:
        """The whole nest."""
        if self.threads == 1:
            self._blocks(None)
            return
        with self.T.parallel(0, self.threads) as thread:
            self._blocks(thread)

    def _blocks(self, thread: Expr) -> None:
        depth, block = self.tile.depth, self.knobs["k_block"]
        if not block:
            self._panels(thread, 0, depth, first=True, last=True)
            return
        blocks = -(-depth // block)
        self._panels(thread, 0, block, first=True, last=False)
        if blocks > 2:
            with self.T.serial(0, blocks - 2) as middle:
                self._panels(thread, (middle + 1) * block, block, first=False, last=False)
        done = (blocks - 1) * block
        self._panels(thread, done, depth - done, first=False, last=True)

    def _panels(self, thread: Expr, k_start: Expr, k_count: int, *, first: bool, last: bool) -> None:
        """All panels, `n_block` at a time."""
        split = thread is not None and not self.by_pixels
        for panel in self.widths:
            if split and panel.count > 1:
                begin, end = self._share(thread, panel.count)
                self._nest(thread, panel, begin, end - begin, (k_start, k_count, first, last))
                continue
            with self._only_last(thread if split else None):
                block = min(self.knobs["n_block"] or panel.count, panel.count)
                whole, rest = divmod(panel.count, block)
                if whole > 1:
                    with self.T.serial(0, whole) as index:
                        self._nest(thread, panel, index * block, block, (k_start, k_count, first, last))
                else:
                    self._nest(thread, panel, 0, block, (k_start, k_count, first, last))
                if rest:
                    self._nest(thread, panel, whole * block, rest, (k_start, k_count, first, last))

    def _nest(self, thread: Expr, panel: Panel, start: Expr, count: Expr, part: tuple[Expr, int, bool, bool]) -> None:
        """Pixel tiles × `count` panels."""
        rows, lines = self.knobs["rows"], self.pixels.lines
        whole, rest = divmod(self.pixels.count, rows)
        split = thread is not None and self.by_pixels
        begin, end = self._share(thread, whole) if split else (0, whole)
        if whole:
            if self.knobs["order"] == 0:
                with self._loop(lines) as line, self._loop(end - begin) as i, self._loop(count) as n:
                    self._tile(line, (begin + i) * rows, rows, panel, start + n, part)
            else:
                with self._loop(count) as n, self._loop(lines) as line, self._loop(end - begin) as i:
                    self._tile(line, (begin + i) * rows, rows, panel, start + n, part)
        if rest:
            with self._only_last(thread if split else None), self._loop(count) as n, self._loop(lines) as line:
                self._tile(line, whole * rows, rest, panel, start + n, part)

    def _tile(self, line: Expr, pixel: Expr, rows: int, panel: Panel, index: Expr, part: tuple[Expr, int, bool, bool]) -> None:
        """`rows` pixels of a line, from `pixel` on."""
        pixels = self.pixels
        self.tile.emit(line * pixels.count + pixel, pixels.origin + line * pixels.pitch + pixel, rows, panel, index, *part)

    def _share(self, thread: Expr, count: int) -> tuple[Expr, Expr]:
        """Bounds of a thread's share of `count` equal pieces."""
        return thread * count // self.threads, (thread + 1) * count // self.threads

    @contextmanager
    def _loop(self, count: Expr) -> Iterator[Expr]:
        if isinstance(count, int) and count == 1:
            yield 0
            return
        with self.T.serial(0, count) as index:
            yield index

    @contextmanager
    def _only_last(self, thread: Expr) -> Iterator[None]:
        """What cannot be shared falls to the last thread."""
        if thread is None:
            yield
            return
        with self.T.If(thread == self.threads - 1), self.T.Then():
            yield
