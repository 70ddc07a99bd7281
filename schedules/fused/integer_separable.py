"""Depthwise and 1×1 convolution in int8 fused in one kernel, as `separable` does in floats, for cores without `SDOT`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.kernel import Buffer
from tvmmobile.schedules.emit.matmul import MatmulTile
from tvmmobile.schedules.emit.window_nest import OutputPart
from tvmmobile.schedules.fused.separable import (
    LEAST_BYTES,
    LEAST_WIDTH,
    STRIP_SHARE,
    StripNest,
    alone,
    depthwise_knobs,
    nearest,
    separable_layers,
)
from tvmmobile.schedules.integers.depthwise import LongDepthwise, LongNest, WindowKernel
from tvmmobile.schedules.integers.ends import IntegerEnds, constant_shapes
from tvmmobile.schedules.integers.kernel import LANES
from tvmmobile.schedules.integers.long import LongProduct, long_tile
from tvmmobile.schedules.integers.steps import STEP
from tvmmobile.schedules.integers.template import IntegerTemplate, TileKnobs
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import LAYERS, layers_of

_DEPTHWISE, _PRODUCT = LongDepthwise(), LongProduct()
#: Share of L1 for the product's weights, which stream through it with every strip: more would evict the intermediate strip (256 × 256 at
#: 28 × 28 pixels: 4.21 ms fused, 4.16 ms as two kernels; modelled, Pi 4).
WEIGHT_SHARE = 0.5
#: Usual size of the intermediate strip.
USUAL_BYTES = 4096
#: Prefix of the depthwise convolution's constants among a kernel's arguments.
_FIRST = "dw_"
#: Tiles of the product, in pixels and channels.
_TILES = ((4, 16), (5, 12), (6, 8), (3, 16))


class LongSeparable(IntegerTemplate):
    """Accepts an int8 depthwise convolution and the 1×1 convolution after it, if `LongDepthwise` and `LongProduct` accept them.

    The strip between the layers stays in L1, so its stores do not miss.

    Knobs:
        strip, parts: see `Separable`.
        dw_rows, dw_columns: rows and columns of `LongDepthwise`.
        rows, columns, order: those of `LongProduct`, within a strip.

    Threads share strips.
    """

    name = "long_separable"
    handles = IntegerTemplate.handles | LAYERS
    enough_trials = 24

    def _space(self, task: Task) -> Space | None:
        layers = separable_layers(task)
        if layers is None or any(template.space(part) is None for template, part in zip((_DEPTHWISE, _PRODUCT), alone(task), strict=True)):
            return None
        first, second = layers
        # A residual would be indexed like the network's tensors, not like a strip.
        if first.residual or not second.is_pointwise or second.in_channels * second.out_channels > WEIGHT_SHARE * task.machine.l1d_bytes:
            return None
        height, width = first.out_height, first.out_width
        windows = TileKnobs(LongDepthwise.tiles, height, width, names=("dw_rows", "dw_columns"))
        products = TileKnobs(_TILES, width, round_up(second.out_channels, LANES))
        options = {
            "strip": up_to((1, 2, 4, 8), height),
            "parts": tuple(parts for parts in (1, 2, 4) if parts == 1 or width >= LEAST_WIDTH * parts),
            **windows.options,
            **products.options,
            "order": (0, 1),
        }

        def fits(knobs: Knobs) -> bool:
            between = knobs["strip"] * -(-width // knobs["parts"]) * first.out_channels
            tiles_fit = windows.fits(knobs) and products.fits(knobs)
            return tiles_fit and knobs["dw_rows"] <= knobs["strip"] and LEAST_BYTES <= between <= STRIP_SHARE * task.machine.l1d_bytes

        row = width * first.out_channels
        usual = {"strip": max(2, nearest(options["strip"], USUAL_BYTES / row)), "parts": nearest(options["parts"], 2 * row / USUAL_BYTES)}
        tiles = {"dw_rows": 2, "dw_columns": 3, "rows": 4, "columns": 16, "order": 0}
        return Space(self.name, self.version, options, fits, {**usual, **tiles})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the features of both single templates, the strip's size, the product's size, and the strip's waste."""
        first, second = layers_of(task, Conv2d)
        pixels = knobs["strip"] * -(-first.out_width // knobs["parts"])
        return [
            *_DEPTHWISE.features(alone(task)[0], depthwise_knobs(knobs)),
            *_PRODUCT.features(alone(task)[1], knobs),
            math.log2(pixels * first.out_channels),
            math.log2(second.in_channels * second.out_channels),
            waste(pixels, knobs["rows"]),
            waste(first.out_height, knobs["strip"]),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        first, second = layers_of(task, Conv2d)
        kernel = _Kernel(task)
        windows = {"weight": (math.prod(first.kernel) * first.in_channels,), **constant_shapes(first), **_DEPTHWISE.tables(first)}
        sizes = second.in_channels, second.out_channels, knobs["columns"]
        product = {"weight": (_PRODUCT.packed_bytes(*sizes),), **constant_shapes(second), **_PRODUCT.tables(*sizes)}
        shapes = {f"{_FIRST}{name}": shape for name, shape in windows.items()} | product
        with kernel.named_body(data=first.input_shape, **task.side_shapes, **shapes, output=second.output_shape) as buffers:
            _IntegerSeparableNest(kernel, task, knobs, buffers).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return both layers' constants as the single templates pack them."""
        first, second = alone(task)
        return [*_DEPTHWISE._pack(first, knobs, parameters[:1]), *_PRODUCT._pack(second, knobs, parameters[1:])]

    def product_shortcuts(self, task: Task, knobs: Knobs, weight: Array) -> dict[str, float]:
        """Return the shortcuts of the template that accepts the layer alone."""
        layer = task.region[0]
        template = _DEPTHWISE if isinstance(layer, Conv2d) and layer.is_depthwise else _PRODUCT
        return template.product_shortcuts(task, knobs, weight)


class _Kernel(WindowKernel):
    """A kernel in which the depthwise convolution's arguments have the types of the unprefixed names."""

    def type_of(self, argument: str) -> str:
        """Return the TVM dtype of an argument's elements, the same with and without the prefix."""
        name = argument.removeprefix(_FIRST)
        return super().type_of(name if name in self._types else name.rstrip("0123456789"))


class _IntegerSeparableNest(StripNest):
    """`StripNest` in int8."""

    kernel: WindowKernel
    first: Conv2d
    second: Conv2d

    def __init__(self, kernel: WindowKernel, task: Task, knobs: Knobs, buffers: Mapping[str, Buffer]) -> None:
        super().__init__(kernel, task, knobs, buffers, LANES)

    def depthwise(self, part: OutputPart, source: Activation, between: Activation) -> None:
        ends = IntegerEnds(self.kernel, self.first, {**self.layer_buffers[0], "output": between.buffer})
        knobs = depthwise_knobs(self.knobs)
        LongNest(ends, None, self.first, knobs, part, source, between, ends.buffers["weight"]).emit(1)  # type: ignore[arg-type]

    def tile(self, between: Activation, output: Activation) -> MatmulTile:
        ends, depth = IntegerEnds(self.kernel, self.second, self.layer_buffers[1]), self.second.in_channels
        steps = -(-depth // STEP)
        return long_tile(ends, Activation(between.buffer, between.pixels, steps, steps), output, depth, self.knobs["columns"])
