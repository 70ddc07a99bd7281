"""1×1 convolution as a matrix product (pixels × K) · (K × N) on NHWC or blocked activations."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.layouts import channel_block, shuffle_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import input_of, output_of
from tvmmobile.schedules.emit.epilogue import k_blocks, layer_body, pack_constants
from tvmmobile.schedules.emit.kernel import Kernel
from tvmmobile.schedules.emit.matmul import TALL, MatmulTile, good_tile, pack_panels, packed_elements, panels, tile_rows
from tvmmobile.schedules.emit.matmul_cost import MatrixProduct
from tvmmobile.schedules.emit.matmul_nest import JoinedNest, MatmulNest, Pixels, ScaledNest, usual_axis
from tvmmobile.schedules.emit.pairs import PAIRS, conv_group, grouped, tile_of
from tvmmobile.schedules.emit.small_weights import stored_constants
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import ADDED, BLOCKED, EPILOGUE, PIECES, SHUFFLED, STORAGE, THREADS, WEIGHTS, Template, layer_of

#: Number of knob combinations in the space, those with the lowest estimated cost.
MEMBERS = 160


class Pointwise(Template):
    """Accepts one 1×1 convolution of any stride, no padding, one group, NHWC or blocked, with or without a gate and a residual. If the
    input consists of pieces, these are NHWC, there is no gate, and K is one cache block.

    Knobs:
        rows, columns: register tile in pixels and channels.
        k_block: K per cache block, 0 for all of it; partial sums are kept in the output.
        m_block, n_block: pixel tiles and panels per cache block, 0 for all of them.
        outer: outermost loop: 0 blocks of pixels, 1 blocks of panels; inside are K blocks, then pixel tiles, then panels.
        joined: place of interleaving in bfloat16: 1 interleaves pixel pairs once per block, in a buffer for all panels; 0 in each tile.
        axis: loop that threads share: 0 pixel tiles, 1 panels.
    """

    name = "pointwise"
    version = 2
    handles = BLOCKED | SHUFFLED | EPILOGUE | PIECES | THREADS | STORAGE | WEIGHTS | ADDED | {"residual", "scaled", "out_layout=NCHW"}
    enough_trials = 48
    multiplies = True

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and layer.kernel == (1, 1) and layer.groups == 1 and not any(layer.padding)):
            return None
        if layer.pieces and (layer.scaled or layer.in_layout != "NHWC"):
            return None
        pixels, depth, channels = pixels_of(layer).count, layer.in_channels, layer.out_channels
        # With a shuffled or NCHW output, each vector's index is computed separately anyway.
        is_moved = layer.out_layout == "NCHW" or shuffle_of(layer.out_layout)
        out_block = channel_block("NHWC" if is_moved else layer.out_layout, channels)
        rows, vectors = (7, 2) if conv_group(layer, task) == 1 else PAIRS
        k_block, chain = 64, task.precision.chain
        if task.machine.in_order and 0 < chain < depth:  # the sums of a chain and of all chains stay in registers
            rows, vectors, k_block = 9, 1, 2 * chain
        may_join = conv_group(layer, task) > 1 and layer.stride == (1, 1) and not (layer.scaled or layer.pieces)
        options = {
            "rows": up_to(tile_rows(task.machine, (1, 2, 3, 4, 5, 6, 7, 8)), pixels),
            "columns": up_to((1, 2, 3, 4, 6), round_up(channels, task.lanes), task.lanes),
            "k_block": k_blocks(layer, task, depth, channels),
            "m_block": (0, *(tiles for tiles in (2, 4, 7, 10, 14, 28) if tiles * 4 < pixels)),
            "n_block": (0, *(n for n in (1, 2, 4, 8, 16) if n * 8 < channels)),
            "outer": (0, 1),
            **({"joined": (0, 1)} if may_join else {}),
            "axis": (0, 1) if task.threads > 1 else (0,),
        }
        usual = {
            "rows": rows,
            "columns": vectors * task.lanes,
            "k_block": k_block,
            "m_block": 7,
            "n_block": 8,
            "outer": 1,
            "joined": 0,
            "axis": 0,
        }
        if task.threads > 1:
            fitting = {name: min(usual[name], max(options[name])) for name in ("rows", "columns", "n_block")}
            usual["axis"] = usual_axis(pixels_of(layer), channels, fitting, task.threads)

        @functools.cache
        def likely() -> frozenset[tuple[int, ...]]:
            return _likely(MatrixProduct.of(layer, task), out_block, tuple(options.items()))

        def fits(knobs: Knobs) -> bool:
            return tuple(knobs[name] for name in options) in likely()

        # Records of templates that share this packing have no knob `joined`.
        return Space(self.name, self.version, options, fits, usual, {"joined": (0, 1)} if may_join else {}, {"rows": TALL})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, tile, registers used, and the tile's waste at the edges."""
        layer = layer_of(task, Conv2d)
        pixels, product = layer.out_height * layer.out_width, MatrixProduct.of(layer, task)
        vectors = knobs["columns"] // task.lanes
        return [
            math.log2(pixels),
            math.log2(layer.in_channels),
            math.log2(layer.out_channels),
            knobs["rows"] * vectors,
            knobs["rows"] * vectors + knobs["rows"] + vectors,
            (knobs["rows"] + vectors) / (knobs["rows"] * vectors),
            waste(pixels, knobs["rows"]),
            waste(layer.out_channels, knobs["columns"]),
            math.log2(product.cycles(knobs) / product.least),
            float(layer.scaled),
            len(layer.pieces),
        ]

    def tile_type(self, group: int) -> type[MatmulTile]:
        """Return the class of register tiles that reads weights as packed by `_pack`, in groups of `group` K."""
        return tile_of(group)

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Conv2d)
        group = conv_group(layer, task)
        kernel = Kernel(task, knobs, grouped(group, "weight"))
        pixels, depth, channels = pixels_of(layer), layer.in_channels, layer.out_channels
        weight = packed_elements(channels, knobs["columns"], depth, task.lanes)
        with layer_body(kernel, layer, weight, task.lanes) as (buffers, epilogue):
            a, pieces = input_of(layer, buffers)
            c = output_of(layer, buffers["output"])
            tile = self.tile_type(group)(kernel, a, buffers["weight"], c, task.lanes, epilogue, pixels.step, pieces=pieces)
            loops = (tile, knobs, pixels, panels(channels, knobs["columns"], task.lanes), task.threads)
            nest = JoinedNest if knobs.get("joined") else MatmulNest
            (ScaledNest(*loops, buffers.get("gate")) if layer.scaled or layer.weights else nest(*loops)).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return weights packed in panels of `columns`, then the constants."""
        layer = layer_of(task, Conv2d)
        constants = stored_constants(layer, parameters[0])
        weight = constants.weight.reshape(layer.in_channels, layer.out_channels)
        packed = pack_panels(weight, knobs["columns"], task.lanes, knobs["k_block"], knobs["n_block"], conv_group(layer, task))
        return [packed, *pack_constants(constants, task.lanes)]


def pixels_of(layer: Conv2d) -> Pixels:
    """Return a layer's output pixels: one line of all pixels, or, with a stride, a line per output row."""
    if layer.stride == (1, 1):
        return Pixels(layer.height * layer.width)
    width = layer.out_width
    return Pixels(width, layer.out_height, pitch=width, step=layer.stride[1], source_pitch=layer.stride[0] * layer.width)


@functools.lru_cache(maxsize=256)
def _likely(product: MatrixProduct, out_block: int, options: tuple[tuple[str, tuple[int, ...]], ...]) -> frozenset[tuple[int, ...]]:
    """Return the `MEMBERS` combinations of knob values with the lowest estimated cost, each with every value of `axis`."""
    choices = dict(options)
    tiles = [
        (rows, columns)
        for rows, columns in itertools.product(choices["rows"], choices["columns"])
        # In a panel that crosses blocks of the output, each vector's index would be computed separately.
        if good_tile(product.machine, product.lanes, rows, columns, product.pixels, product.channels)
        and (out_block == product.channels or out_block % columns == 0)
    ]
    others = [name for name in choices if name not in ("rows", "columns", "axis")]
    multiplying = functools.cache(product.multiplying)
    priced = []
    for (rows, columns), values in itertools.product(tiles or [(1, product.lanes)], itertools.product(*(choices[name] for name in others))):
        knobs = {"rows": rows, "columns": columns, **dict(zip(others, values, strict=True))}
        joined = knobs.get("joined", 0)
        # Unless both pixels and panels are blocked, the loop order does not matter; but joined pixels need `outer` 0.
        if knobs["outer"] == 0 and product.may_join(knobs) if joined else knobs["outer"] == 1 or (knobs["m_block"] and knobs["n_block"]):
            cost = multiplying(rows, columns, knobs["k_block"], joined) + product.moving(knobs)
            priced.append((cost, tuple(knobs.values())))
    return frozenset((*values, axis) for _, values in sorted(priced)[:MEMBERS] for axis in choices["axis"])
