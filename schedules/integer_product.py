"""Matrix products of integers, 1×1 convolutions and classifiers: `SDOT` by lane where a core has it."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d, Dense, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit import Activation, Buffer, Expr
from tvmmobile.schedules.integer import INTEGERS, LANES, IntegerEnds, IntegerKernel, integer_body, pack_constants, takes
from tvmmobile.schedules.matmul import Extent, MatmulTile, Panel, pack_panels, packed_elements, panels
from tvmmobile.schedules.matmul_cost import Product
from tvmmobile.schedules.matmul_nest import MatmulNest, Pixels
from tvmmobile.schedules.pointwise import pixels_of
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import Template

#: Bytes that a lane of SDOT multiplies and adds.
WORD = 4
#: Orders of cache blocks that are tried for each tile.
ORDERS = 4


class DotKernel(IntegerKernel):
    """Bytes are read as words of four, and an element of a buffer of bytes is a word."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.lanes = LANES

    def load(self, buffer: Buffer, index: Expr, lanes: int = 0) -> Expr:
        """Words, or sums."""
        if str(buffer.dtype) != "int8":
            return super().load(buffer, index, lanes)
        lanes = lanes or LANES
        return self.as_type("int32x4" if lanes > 1 else "int32", self.bytes_at(buffer, index * WORD, lanes * WORD))

    def multiply_add(self, so_far: Expr, weight: Expr, value: Expr) -> Expr:
        """Four sums, each with the products of a word."""
        words = (self.as_type("int8x16", weight), self.as_type("int8x16", value))
        return self.intrinsic("int32x4", "aarch64.neon.sdot.v4i32.v16i8", so_far, *words)


@dataclass(frozen=True)
class DotTile(MatmulTile):
    """Tiles of sums of words: K is counted in these, and C in channels."""

    epilogue: IntegerEnds  # type: ignore[assignment]

    def emit(self, row: Expr, target: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> None:
        """See `MatmulTile.emit`; the part is all of K."""
        assert part.first and part.last
        kernel, width = self.kernel, panel.width
        acc = kernel.accumulators(rows * width)
        channel = panel.channel + index * width
        for place, j in itertools.product(range(rows), range(0, width, LANES)):
            kernel.store(acc, self.epilogue.begin(channel + j), place * width + j)
        self.accumulate(acc, row, rows, width, weights, part)
        for place in range(rows):
            sums = [kernel.load(acc, place * width + j) for j in range(0, width, LANES)]
            self.epilogue.store(sums, channel, self.c.at(target + place, channel), panel.columns)


def extents(layer: Conv2d | Dense) -> tuple[Pixels, int, int]:
    """Pixels, K and output channels of the product that a layer is."""
    if isinstance(layer, Dense):
        return Pixels(1), layer.in_features, layer.out_features
    return pixels_of(layer), layer.in_channels, layer.out_channels


def is_product(task: Task, group: int) -> bool:
    """Whether a task is an integer product, channels together, of which K divides into such groups."""
    layer = task.region[0]
    if not (isinstance(layer, Conv2d | Dense) and takes(task, writes=("", "float32"))):
        return False
    if isinstance(layer, Conv2d) and (layer.kernel != (1, 1) or layer.groups != 1 or any(layer.padding)):
        return False
    return extents(layer)[1] % group == 0


class DotProduct(Template):
    """Takes one integer 1×1 convolution of any stride without padding, or classifier, whose input channels divide by 4.

    Knobs:
        rows, columns: register tile in pixels and channels.
        m_block, n_block, outer, axis: see `Pointwise`.
    """

    name = "dot_product"
    version = 1
    handles = INTEGERS
    enough_trials = 24

    def _space(self, task: Task) -> Space | None:
        if not (is_product(task, WORD) and "dot" in task.machine.has):
            return None
        layer = task.region[0]
        assert isinstance(layer, Conv2d | Dense)
        pixels, _, channels = extents(layer)
        options = {
            "rows": up_to((1, 2, 3, 4, 5, 6, 7, 8), pixels.count),
            "columns": up_to((4, 8, 12, 16), round_up(channels, LANES)),
            "m_block": (0, *(tiles for tiles in (2, 4, 8, 16) if tiles * 4 < pixels.count)),
            "n_block": (0, *(count for count in (1, 2, 4, 8, 16) if count * 8 < channels)),
            "outer": (0, 1),
            "axis": (0, 1) if task.threads > 1 else (0,),
        }

        @functools.cache
        def likely() -> frozenset[tuple[int, ...]]:
            return frozenset(_likely(task, layer, options))

        def fits(knobs: Knobs) -> bool:
            return tuple(knobs[name] for name in options) in likely()

        usual = {"rows": 8, "columns": 8, "m_block": 0, "n_block": 8, "outer": 1, "axis": 0}
        return Space(self.name, self.version, options, fits, usual)

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Size, tile, and the tile's waste at the edges."""
        assert isinstance(task.layer, Conv2d | Dense)
        pixels, depth, channels = extents(task.layer)
        rows, columns = knobs["rows"], knobs["columns"]
        return [
            math.log2(pixels.count * pixels.lines),
            math.log2(depth),
            math.log2(channels),
            rows * columns / LANES,
            (rows + columns / LANES) / (rows * columns),
            waste(pixels.count, rows),
            waste(channels, columns),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = task.layer
        assert isinstance(layer, Conv2d | Dense)
        kernel, (pixels, depth, channels) = DotKernel(task), extents(layer)
        words = packed_elements(channels, knobs["columns"], depth // WORD, LANES)
        with integer_body(kernel, layer, channels, words * WORD) as ends:
            count = pixels.count * pixels.lines
            a = Activation(ends.buffers["data"], count, depth // WORD, depth // WORD)
            c = Activation(ends.buffers["output"], count, channels, channels)
            unroll = LANES if knobs["rows"] * knobs["columns"] >= 48 else 2 * LANES
            tile = DotTile(kernel, a, ends.buffers["weight"], c, unroll, ends, pixels.step)
            MatmulNest(tile, knobs, pixels, panels(channels, knobs["columns"], LANES), task.threads).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Weights in panels of `columns`: words of four K, channel after channel."""
        assert isinstance(task.layer, Conv2d | Dense)
        _, depth, channels = extents(task.layer)
        grouped = parameters[0].weight.reshape(depth // WORD, WORD, channels).transpose(0, 2, 1)
        words = np.ascontiguousarray(grouped).view(np.int32)[..., 0]
        return [pack_panels(words, knobs["columns"], LANES).view(np.int8), *pack_constants(task.layer, parameters[0])]


def _likely(task: Task, layer: Conv2d | Dense, options: dict[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Tiles that fit the registers, each with the orders of blocks that move the least data."""
    pixels, depth, channels = extents(layer)
    product = Product(pixels.count * pixels.lines, depth, channels, False, task.lanes, task.precision.bytes, task.machine)
    most = max(options["rows"]) * max(options["columns"]) // LANES
    found: list[tuple[int, ...]] = []
    for rows, columns in itertools.product(options["rows"], options["columns"]):
        vectors = columns // LANES
        if not min(12, most) <= rows * vectors <= task.machine.registers - rows - min(vectors, 2) - 2:
            continue
        orders = []
        for blocks in itertools.product(options["m_block"], options["n_block"], options["outer"]):
            knobs = {"rows": rows, "columns": columns, "k_block": 0, **dict(zip(("m_block", "n_block", "outer"), blocks, strict=True))}
            if knobs["outer"] == 1 or (knobs["m_block"] and knobs["n_block"]):
                orders.append((product.moving(knobs), blocks))
        found += [(rows, columns, *blocks, axis) for _, blocks in sorted(orders)[:ORDERS] for axis in options["axis"]]
    return found
