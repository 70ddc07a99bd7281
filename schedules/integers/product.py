"""Int8 matrix products (1×1 convolutions and fully connected layers): the common base classes, and the template with `SDOT` by element."""

from __future__ import annotations

import functools
import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d, Dense, IntegerLayer, Layer, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import Activation, Piece, input_of
from tvmmobile.schedules.emit.in_order_order import inner_order
from tvmmobile.schedules.emit.kernel import Buffer, Expr
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, Panel, pack_panels, packed_elements, panels
from tvmmobile.schedules.emit.matmul_nest import MatmulNest, Pixels, usual_axis
from tvmmobile.schedules.floats.pointwise import pixels_of
from tvmmobile.schedules.integers.blocks import Blocks
from tvmmobile.schedules.integers.ends import IntegerEnds, integer_body, pack_constants
from tvmmobile.schedules.integers.kernel import LANES, IntegerKernel
from tvmmobile.schedules.integers.template import IntegerTemplate, is_integer_layer
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import PIECES

#: Bytes that SDOT multiplies and adds in each 32-bit lane.
WORD = 4
#: Number of blockings in the space per tile and loop order.
ORDERS = 3
#: Most input channels with which pixel tiles are usually innermost.
FEW = 64


class DotKernel(IntegerKernel):
    """A kernel that reads int8 buffers as words of four bytes; indices count words."""

    has_words = True

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.lanes, self.bytes, self.inner = LANES, WORD, inner_order(task.machine, LANES)

    def load(self, buffer: Buffer, index: Expr, lanes: int = 0) -> Expr:
        """Return words of an int8 buffer, or elements of another one."""
        if str(buffer.dtype) != "int8":
            return super().load(buffer, index, lanes)
        lanes = lanes or LANES
        return self.as_type("int32x4" if lanes > 1 else "int32", self.bytes_at(buffer, index * WORD, lanes * WORD))

    def call(self, symbol: str, llvm: Callable[[], str], *places: tuple[Buffer, Expr]) -> None:
        """Call a function defined in LLVM IR with pointers to these words or elements."""
        in_bytes = [(buffer, index * WORD if str(buffer.dtype) == "int8" else index) for buffer, index in places]
        super().call(symbol, llvm, *in_bytes)

    def multiply_add(self, so_far: Expr, weight: Expr, value: Expr) -> Expr:
        """Return four sums, each plus the products of one word."""
        return self.dot(so_far, self.as_type("int8x16", weight), self.as_type("int8x16", value))


@dataclass(frozen=True)
class IntegerTile(MatmulTile):
    """Register tiles of 32-bit sums over all of K, which are requantised when they are stored."""

    kernel: IntegerKernel
    epilogue: IntegerEnds  # type: ignore[assignment]

    def emit(self, row: Expr, target: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> None:
        """Emit one tile; `part` must be all of K."""
        assert part.first and part.last
        channel = panel.channel + index * panel.width
        sums = self.sums(row, rows, panel, index, part, weights)
        pixels = [(self.complete(sums, place, panel.width), self.c.at(target + place, channel)) for place in range(rows)]
        self.epilogue.store(pixels, channel, panel.columns)

    @abstractmethod
    def sums(self, row: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> Buffer:
        """Emit the complete sums, and return them; the arguments are those of `emit`."""

    def complete(self, sums: Buffer, pixel: int, width: int) -> list[Expr]:
        """Return a pixel's sums as vectors of four channels."""
        return self.epilogue.complete(sums, pixel, width)


@dataclass(frozen=True)
class DotTile(IntegerTile):
    """Register tiles with `SDOT`, with K in words.

    Attributes:
        words: K, if A's pixels are padded beyond it to whole vectors; 0 if they are not padded.
    """

    words: int = 0

    @property
    def depth(self) -> int:
        """K in words."""
        return self.words or super().depth

    @property
    def padded(self) -> bool:
        """True if pixels are padded, so that loads may go beyond K."""
        return self.words > 0

    def sums(self, row: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> Buffer:
        """Emit the loop over words; return the sums."""
        sums = self.new_sums(rows, panel.width)
        self.epilogue.fill(sums.registers, rows, panel.channel + index * panel.width, panel.width)
        self.accumulate(sums, row, weights, part, alike=True)
        return sums.registers


def extents(layer: Layer) -> tuple[Pixels, int, int]:
    """Return pixels, K and output channels of the product that computes a layer."""
    if isinstance(layer, Dense):
        return Pixels(1), layer.in_features, layer.out_features
    assert isinstance(layer, Conv2d)
    return pixels_of(layer), layer.in_channels, layer.out_channels


def is_product(task: Task, group: int) -> bool:
    """Return whether a task is an int8 product in NHWC whose K is a multiple of `group`."""
    layer = task.region[0]
    if not (isinstance(layer, Conv2d | Dense) and is_integer_layer(task, writes=("", "float32"))):
        return False
    if isinstance(layer, Conv2d) and (layer.kernel != (1, 1) or layer.groups != 1 or any(layer.padding)):
        return False
    return extents(layer)[1] % group == 0


def pack_elements(weight: Array, element: int, columns: int) -> Array:
    """Pack int8 weights (K, N) in panels of `columns`, with `element` consecutive K per channel, zero-padded. Returns a flat array."""
    depth, channels = weight.shape
    whole = np.pad(weight, ((0, -depth % element), (0, 0)))
    elements = np.ascontiguousarray(whole.reshape(-1, element, channels).transpose(0, 2, 1)).view(f"V{element}")[..., 0]
    return pack_panels(elements, columns, LANES).view(np.int8)


class IntegerMatrix(IntegerTemplate):
    """The base class of templates whose kernels are int8 matrix products.

    Attributes:
        kernel: class of the kernels.
        element: bytes of K per element of the packed weights.
    """

    kernel: type[IntegerKernel] = IntegerKernel
    element: int

    @abstractmethod
    def depth_of(self, layer: Layer) -> int:
        """Return the size in bytes of K as the kernel multiplies it, including padding."""

    def packed_bytes(self, depth: int, channels: int, columns: int) -> int:
        """Return the size in bytes of the packed weights."""
        return packed_elements(channels, columns, -(-depth // self.element), LANES) * self.element

    def tables(self, depth: int, channels: int, columns: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a kernel's additional arguments, by name."""
        return {}

    def pack_weights(self, weight: Array, depth: int, columns: int) -> list[Array]:
        """Return weights (K, N) packed in panels of `columns`, zero-padded to `depth`, then the arguments that `tables` names."""
        return [pack_elements(np.pad(weight, ((0, depth - len(weight)), (0, 0))), self.element, columns)]

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return weights packed in panels of `columns` (K is window row, window column, channel), constants, and tables."""
        weight, *tables = self.pack_weights(matrix_of(parameters[0].weight), self.depth_of(task.layer), knobs["columns"])
        return [weight, *pack_constants(task.layer, parameters[0]), *tables]


def matrix_of(weight: Array) -> Array:
    """Return weights as (K, N)."""
    return weight.reshape(-1, weight.shape[-1])


class IntegerProduct(IntegerMatrix):
    """The base class of templates for int8 products.

    Knobs:
        rows, columns: register tile in pixels and channels.
        m_block, n_block, outer, axis: see `Pointwise`.
        order: innermost loop of a cache block: 0 panels, 1 pixel tiles. If K is small, LLVM hoists the loads of the reused operand out of
            the innermost loop; there are enough registers for that if it is the weights.
    """

    enough_trials = 24
    #: Input channels must be a multiple of it.
    group: int
    #: Register tiles of the space, and the usual one.
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    usual: tuple[int, int]

    def covers(self, task: Task) -> bool:
        """Return whether the template is for layers of the task's shape."""
        return is_product(task, self.group)

    def extents(self, layer: Layer) -> tuple[Pixels, int, int]:
        """Return pixels, K as the kernel multiplies it, and the output channels that are sums over the same inputs."""
        return extents(layer)

    def depth_of(self, layer: Layer) -> int:
        """Return the size in bytes of K as the kernel multiplies it."""
        return self.extents(layer)[1]

    def rows_of(self, depth: int) -> tuple[int, ...]:
        """Return the heights of tiles whose loop over `depth` bytes of K can be encoded; empty if there are none."""
        return self.rows

    def columns_of(self, layer: Layer) -> tuple[int, ...]:
        """Return the widths of tiles."""
        return up_to(self.columns, round_up(self.extents(layer)[2], LANES))

    def blocks(self, task: Task, layer: Layer) -> dict[str, tuple[int, ...]]:
        """Return the values of the knobs of cache blocks."""
        pixels, _, channels = self.extents(layer)
        return {
            "m_block": (0, *(tiles for tiles in (2, 4, 8, 16, 32) if tiles * 4 < pixels.count)),
            "n_block": (0, *(count for count in (1, 2, 4, 8, 16) if count * 8 < channels)),
            "outer": (0, 1),
        }

    def usual_tile(self, task: Task) -> tuple[int, int]:
        """Return pixels and channels of the register tile of a search's first schedule."""
        return self.usual

    def first_order(self, depth: int) -> int:
        """Return the usual value of the knob `order`."""
        return int(depth <= FEW)

    def first_axis(self, task: Task, layer: Layer) -> int:
        """Return the usual value of the knob `axis`."""
        pixels, _, channels = self.extents(layer)
        return usual_axis(pixels, channels, dict(zip(("rows", "columns"), self.usual_tile(task), strict=True)), task.threads)

    @abstractmethod
    def registers(self, rows: int, columns: int, depth: int) -> tuple[int, int]:
        """Return the fewest vectors of a tile: those of sums, and those of other operands."""

    def _space(self, task: Task) -> Space | None:
        if not (self.covers(task) and self.suits(task)):
            return None
        layer = task.layer
        pixels, depth, _ = self.extents(layer)
        if not (rows := self.rows_of(depth)):
            return None
        options = {
            "rows": up_to(rows, pixels.count),
            "columns": self.columns_of(layer),
            **self.blocks(task, layer),
            "order": (0, 1),
            "axis": ((0, 1) if pixels.count * pixels.lines > 1 else (1,)) if task.threads > 1 else (0,),
        }

        @functools.cache
        def likely() -> frozenset[tuple[int, ...]]:
            return frozenset(self._likely(task, layer, options))

        def fits(knobs: Knobs) -> bool:
            return tuple(knobs[name] for name in options) in likely()

        tile = {name: (min(size, max(options[name])),) for name, size in zip(("rows", "columns"), self.usual_tile(task), strict=True)}
        axis = (self.first_axis(task, layer),) if len(options["axis"]) > 1 else options["axis"]
        first = self._likely(task, layer, {**options, **tile, "order": (self.first_order(depth),), "axis": axis})
        usual = dict(zip(options, first[0] if first else (max(choices) for choices in options.values()), strict=True))
        return Space(self.name, self.version, options, fits, usual)

    def _likely(self, task: Task, layer: Layer, options: dict[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Return the combinations of knob values whose tiles fit the registers, each with the blockings that move the least data."""
        pixels, depth, channels = self.extents(layer)
        product = Blocks(pixels.count * pixels.lines, depth, channels, task.machine)
        most, _ = self.registers(max(options["rows"]), max(options["columns"]), depth)
        combinations: list[tuple[int, ...]] = []
        for rows, columns in itertools.product(options["rows"], options["columns"]):
            sums, others = self.registers(rows, columns, depth)
            if not min(12, most) <= sums <= task.machine.registers - others:
                continue
            for order in options["order"]:
                names = ("m_block", "n_block", "outer")
                blockings = []
                for blocks in itertools.product(*(options[name] for name in names)):
                    knobs = {"rows": rows, "columns": columns, "order": order, **dict(zip(names, blocks, strict=True))}
                    if knobs["outer"] == max(options["outer"]) or (knobs["m_block"] and knobs["n_block"]):
                        blockings.append((product.moving(knobs), blocks))
                best = [blocks for *_, blocks in sorted(blockings)[:ORDERS]]
                combinations += [(rows, columns, *blocks, order, axis) for blocks in best for axis in options["axis"]]
        return combinations

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, tile, and the tile's waste at the edges."""
        pixels, depth, channels = self.extents(task.layer)
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

    def pieces(self, layer: Layer, buffers: Mapping[str, Buffer]) -> tuple[Piece, ...]:
        """Return the pieces that A consists of, with channels in elements; none if A is one tensor."""
        return ()

    @abstractmethod
    def tile(self, ends: IntegerEnds, a: Activation, c: Activation, knobs: Knobs, depth: int, step: int) -> MatmulTile:
        """Return the register tile of the product; A's channels are in elements, `depth` is in bytes, and `step` in pixels."""

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer, kernel, columns = task.layer, self.kernel(task), knobs["columns"]
        assert isinstance(layer, IntegerLayer)
        pixels, depth, together = self.extents(layer)
        count, elements, channels = pixels.count * pixels.lines, -(-depth // self.element), layer.output_shape[-1]
        weight, tables = self.packed_bytes(depth, channels, columns), self.tables(depth, channels, columns)
        with integer_body(kernel, layer, weight, **tables) as ends:
            a = Activation(ends.buffers["data"], count, elements, elements)
            c = Activation(ends.buffers["output"], count, channels, channels)
            tile = replace(self.tile(ends, a, c, knobs, depth, pixels.step), pieces=self.pieces(layer, ends.buffers))
            self.nest(ends, tile, knobs, pixels, panels(together, columns, LANES), task.threads).emit()
        return kernel.finish()

    def nest(self, ends: IntegerEnds, tile: MatmulTile, knobs: Knobs, pixels: Pixels, widths: list[Panel], threads: int) -> MatmulNest:
        """Return the loop nest around a tile."""
        return MatmulNest(tile, knobs, pixels, widths, threads)


class DotProduct(IntegerProduct):
    """Accepts one int8 1×1 convolution of any stride without padding, or one fully connected layer; input channels and pieces are multiples
    of 4.
    """

    name = "dot_product"
    handles = IntegerProduct.handles | PIECES
    dot, group, element, kernel = True, WORD, WORD, DotKernel
    rows, columns, usual = (1, 2, 3, 4, 5, 6, 7, 8), (4, 8, 12, 16), (3, 16)

    def covers(self, task: Task) -> bool:
        """Return whether the template is for layers of the task's shape."""
        layer = task.region[0]
        channels = itertools.chain(layer.sources, *(piece[1:] for piece in layer.pieces)) if isinstance(layer, Conv2d) else ()
        return super().covers(task) and not any(count % self.group for count in channels)

    def usual_tile(self, task: Task) -> tuple[int, int]:
        """Return pixels and channels of the first register tile. On in-order cores, loads beside each SDOT suffice for tall tiles alone."""
        return (8, 8) if inner_order(task.machine, LANES) else self.usual

    def registers(self, rows: int, columns: int, depth: int) -> tuple[int, int]:
        """Return the fewest vectors of sums, which have four channels each, and of other operands."""
        return rows * columns // LANES, rows + min(columns // LANES, 2) + 2

    def pieces(self, layer: Layer, buffers: Mapping[str, Buffer]) -> tuple[Piece, ...]:
        """Return the pieces, with channels in words."""

        def in_words(piece: Piece) -> Piece:
            a = piece.activation
            return Piece(Activation(a.buffer, a.pixels, a.channels // WORD, a.block // WORD), piece.first // WORD, piece.count // WORD)

        return tuple(map(in_words, input_of(layer, buffers)[1])) if isinstance(layer, Conv2d) else ()

    def tile(self, ends: IntegerEnds, a: Activation, c: Activation, knobs: Knobs, depth: int, step: int) -> MatmulTile:
        """Return the register tile, with a loop over 16 input channels at a time, or 32 for small tiles."""
        unroll = LANES if knobs["rows"] * knobs["columns"] >= 48 else 2 * LANES
        return DotTile(ends.kernel, a, ends.buffers["weight"], c, unroll, ends, step)
