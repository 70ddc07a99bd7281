"""1×1 convolution as a matrix product (pixels × K) · (K × N), on activations whose channels lie in blocks."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

from tvmmobile.layers import Conv2d, channel_block
from tvmmobile.schedules.emit import Activation, Kernel
from tvmmobile.schedules.machine import LANES, round_up, up_to, waste
from tvmmobile.schedules.matmul import MatmulTile, good_tile, pack_bias, pack_panels, packed_elements, panels
from tvmmobile.schedules.matmul_cost import Product
from tvmmobile.schedules.matmul_nest import MatmulNest, Pixels
from tvmmobile.schedules.space import Knobs, Space
from tvmmobile.schedules.template import Array, LayerParameters, Template
from tvmmobile.tasks import Task

#: Of all combinations, those that are searched.
MEMBERS = 320


class Pointwise(Template):
    """Takes one 1×1 convolution, stride 1, no padding, one group, float32, channels together or in blocks.

    Knobs:
        rows, columns: register tile in pixels and channels.
        unroll: K steps per loop iteration.
        k_block: K per cache block, 0 for all of it; partial sums stay in the output.
        m_block, n_block: pixel tiles and panels per cache block, 0 for all of them.
        outer: which blocks are outermost: 0 those of pixels, 1 those of panels; K blocks are inside both.
        order: within a block, 0 runs over its panels for each pixel tile, 1 over its pixel tiles for each panel.
        axis: what threads share: 0 pixel tiles, 1 panels.
    """

    name = "pointwise"
    version = 2

    def space(self, task: Task) -> Space | None:
        """See the class."""
        if len(task.region) != 1 or task.dtype != "float32":
            return None
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and layer.is_pointwise and "NCHW" not in (layer.in_layout, layer.out_layout)):
            return None
        pixels, depth, channels = layer.height * layer.width, layer.in_channels, layer.out_channels
        in_block, out_block = channel_block(layer.in_layout, depth), channel_block(layer.out_layout, channels)
        # A block of partial sums is stored and loaded by whole vectors.
        k_blocks = (
            tuple(k for k in (32, 64, 128, 256) if k < depth and (in_block % k == 0 or k % in_block == 0)) if channels % LANES == 0 else ()
        )
        options = {
            "rows": up_to((1, 2, 3, 4, 5, 6, 7, 8, 10, 12), pixels),
            "columns": up_to((4, 8, 12, 16, 20, 24), round_up(channels, LANES)),
            "unroll": up_to((4, 8), round_up(in_block, LANES)),
            "k_block": (0, *k_blocks),
            "m_block": (0, *(tiles for tiles in (2, 4, 7, 14, 28) if tiles * 4 < pixels)),
            "n_block": (0, *(n for n in (2, 4, 8, 16) if n * 8 < channels)),
            "outer": (0, 1),
            "order": (0, 1),
            "axis": (0, 1) if task.threads > 1 else (0,),
        }
        likely = _likely(_product(layer), out_block, tuple(options.items()))
        usual = dict(zip(options, likely[0], strict=True))
        members = frozenset(likely)
        return Space(self.name, self.version, options, lambda knobs: tuple(knobs[name] for name in options) in members, usual)

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
            math.log2(_product(layer).cycles(knobs) / _product(layer).least),
        ]

    def emit(self, task: Task, knobs: Knobs) -> Any:
        """See `Template.emit`."""
        layer = _layer(task)
        kernel = Kernel(task.symbol)
        pixels, depth, channels = layer.height * layer.width, layer.in_channels, layer.out_channels
        packed = packed_elements(channels, knobs["columns"], depth)
        bias_shape = (round_up(channels, LANES),)
        with kernel.body(data=layer.input_shape, weight=(packed,), bias=bias_shape, output=layer.output_shape) as (
            data,
            weight,
            bias,
            output,
        ):
            a = Activation(data, pixels, depth, channel_block(layer.in_layout, depth))
            c = Activation(output, pixels, channels, channel_block(layer.out_layout, channels))
            tile = MatmulTile(kernel, a, weight, bias, c, knobs["unroll"], layer.clamp)
            MatmulNest(tile, knobs, Pixels(pixels), panels(channels, knobs["columns"]), task.threads).emit()
        return kernel.finish()

    def pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Weights in panels of `columns`, bias padded to whole vectors."""
        layer = _layer(task)
        weight = parameters[0].weight.reshape(layer.in_channels, layer.out_channels)
        return [pack_panels(weight, knobs["columns"], knobs["k_block"], knobs["n_block"]), pack_bias(parameters[0].bias)]


def _product(layer: Conv2d) -> Product:
    return Product(layer.height * layer.width, layer.in_channels, layer.out_channels)


@functools.lru_cache(maxsize=256)
def _likely(product: Product, out_block: int, options: tuple[tuple[str, tuple[int, ...]], ...]) -> list[tuple[int, ...]]:
    """The combinations that cost least by counting, best first."""
    choices = dict(options)
    tiles = [
        (rows, columns)
        for rows, columns in itertools.product(choices["rows"], choices["columns"])
        # A panel that crosses blocks of the output has its vectors' places worked out one by one.
        if good_tile(rows, columns, product.pixels, product.channels) and (out_block == product.channels or out_block % columns == 0)
    ]
    unrolls, axes = choices["unroll"], choices["axis"]
    others = [name for name in choices if name not in ("rows", "columns", "unroll", "axis")]
    found = []
    for (rows, columns), values in itertools.product(tiles or [(1, LANES)], itertools.product(*(choices[name] for name in others))):
        knobs = {"rows": rows, "columns": columns, **dict(zip(others, values, strict=True))}
        # Without blocks of both kinds, there is nothing to put outermost.
        if knobs["outer"] == 1 or (knobs["m_block"] and knobs["n_block"]):
            found.append((product.cycles(knobs), tuple(knobs.values())))
    best = sorted(found)[: MEMBERS // len(unrolls)]
    return [(rows, columns, unroll, *rest, axis) for _, (rows, columns, *rest) in best for unroll in unrolls for axis in axes]


def _layer(task: Task) -> Conv2d:
    layer = task.layer
    assert isinstance(layer, Conv2d)
    return layer
