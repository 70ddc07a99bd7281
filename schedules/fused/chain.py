"""Several consecutive layers in one kernel, whose intermediate results stay in L1, in ring buffers of rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.layouts import channel_block
from tvmmobile.graph.tasks import Task, in_place
from tvmmobile.schedules.emit.epilogue import constant_shapes, pack_constants
from tvmmobile.schedules.emit.kernel import Kernel
from tvmmobile.schedules.emit.matmul import TALL, good_tile, pack_panels, tile_rows
from tvmmobile.schedules.emit.pairs import group_of, grouped
from tvmmobile.schedules.floats.image_conv import MAX_INPUT_CHANNELS
from tvmmobile.schedules.fused.chain_memory import ChainAxis, ChainMemory, arrange, tile_for
from tvmmobile.schedules.fused.chain_nest import ChainNest, panel_width
from tvmmobile.schedules.space import Knobs, Space, up_to
from tvmmobile.schedules.template import BLOCKED, EPILOGUE, LAYERS, STORAGE, THREADS, Template, layers_of

#: Most layers: the rings of longer chains exceed 32 KiB even at a quarter of the channels.
MOST_LAYERS = 4
#: Largest size of the weights of a chain of three layers or more: every step reads all of them, and more would evict the rings.
MOST_CHAIN_BYTES = 13312
#: Largest size of a product's weights for 16 channels, if a depthwise convolution follows.
MOST_BEFORE_BYTES = 16384
#: Share of L1 for rings: one of two ways. Rings and the weights of a block of channels together may fill L1.
RING_SHARE = 0.5
#: Smallest size of all rings with several parts: below it, parts of columns are narrower than necessary.
LEAST_RING_BYTES = 1024
#: Share of L1 for weights that stay there beside the rings, and smallest size of a block's weights that justifies reading the input again.
WEIGHT_SHARE, LEAST_BLOCK_BYTES = 0.5, 4096
#: Smallest and largest L1 of all cores, in bytes.
FIRST_LEVELS = (32768, 65536)
#: Most outputs computed per output needed along a row, because of partial tiles.
MOST_WASTE = 1.1
#: Usual columns per part of the most expensive layer.
USUAL_WIDTH = 14


class Chain(Template):
    """Accepts two to four layers that alternate between 1×1 and 3×3 depthwise convolutions, optionally after a 3×3 image convolution;
    channels are whole vectors.

    Fusing a 1×1 convolution with the depthwise one after it saves more than with the one before it, whose output is smaller; a lone pair
    of the latter kind is left to `Separable`.

    Knobs:
        strip: output rows of the last layer per step.
        parts: number of parts of a row, computed one after another; outputs that two parts share are kept, not recomputed.
        blocks: number of channel blocks of a product and the depthwise convolution after it; each block reads the whole input.
        rows, columns: register tile of the products, in pixels and channels.
        order: loop order of the products: 0 has panels inside pixel tiles, 1 pixel tiles inside panels.
        dw_rows, dw_columns: register tile of the depthwise convolutions.
        image_pixels, image_columns: register tile of the image convolution.
        gather: 1 copies weights next to the rings, so that neither evicts the other.

    Threads share steps.
    """

    name = "chain"
    version = 1
    multiplies = True
    handles = BLOCKED | EPILOGUE | LAYERS | THREADS | STORAGE | {"in_layout=NCHW"}
    enough_trials = 24

    def _space(self, task: Task) -> Space | None:
        layers = chain_of(task)
        if layers is None:
            return None
        kinds = [_kind(layer, task.lanes) for layer in layers]
        products = [layer for layer in layers if layer.is_pointwise]
        last, lanes = layers[-1], task.lanes
        options = {
            "strip": up_to((1, 2, 4), last.out_height),
            "parts": tuple(parts for parts in (1, 2, 4, 8, 16) if parts == 1 or last.out_width >= 4 * parts),
            "blocks": _blocks(layers, task) if kinds == ["pointwise", "depthwise"] else (1,),
            "rows": tile_rows(task.machine, (4, 5, 7)) if products else (4,),
            "columns": up_to((2, 4), max(layer.out_channels for layer in products), lanes) if products else (2 * lanes,),
            "order": (0, 1) if products else (0,),
            "dw_rows": (1, 2),
            "dw_columns": (4, 5, 7, 8),
            "image_pixels": (2, 4, 8) if "image" in kinds else (2,),
            "image_columns": up_to((2, 4, 8), layers[0].out_channels, lanes) if "image" in kinds else (2 * lanes,),
            "gather": (0, 1),
        }
        parts = min(
            options["parts"], key=lambda parts: abs(math.log2(max(layers, key=lambda layer: layer.macs).out_width / parts / USUAL_WIDTH))
        )
        whole, small = (task.precision.bytes * products[0].in_channels * last.out_channels) if products else 0, _small_bytes(task)
        numbers = _blocks_within(layers, task, small) if len(options["blocks"]) > 1 else options["blocks"]
        blocks = min(numbers, key=lambda blocks: abs(whole / blocks - small / 2))
        usual = {"strip": 1, "parts": parts, "blocks": blocks, "rows": 7, "columns": 2 * lanes, "order": 0, "dw_rows": 1, "dw_columns": 7}
        image = (4, 4 * lanes) if task.machine.in_order else (2, 8 * lanes)
        usual |= {"image_pixels": image[0], "image_columns": image[1], "gather": 1}
        return Space(self.name, self.version, options, _Fits(layers, task, options), usual, elsewhere={"rows": TALL})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, kinds of layers, bytes that the cache has to hold, waste of tiles, and repeated reads and work."""
        layers = layers_of(task, Conv2d)
        memory = arrange(layers, knobs, task)
        last, dearest = memory.stages[-1], max(layers, key=lambda layer: layer.macs)
        kinds = [_kind(layer, task.lanes) for layer in layers]
        return [
            math.log2(last.layer.out_height * last.layer.out_width),
            math.log2(layers[0].in_channels),
            math.log2(last.layer.out_channels),
            len(layers),
            *(kinds.count(kind) for kind in ("image", "depthwise", "pointwise")),
            math.prod(layer.stride[0] for layer in layers),
            math.log2(dearest.macs / sum(layer.macs for layer in layers)),
            math.log2(_ring_bytes(memory, task)),
            math.log2(memory.resident),
            math.log2(max(dearest.in_channels * dearest.out_channels / knobs["blocks"], 1)),
            knobs["rows"] * knobs["columns"] / task.lanes,
            knobs["dw_rows"] * knobs["dw_columns"],
            max((_waste(stage.columns, knobs["rows"]) for stage in memory.stages if stage.layer.is_pointwise), default=1.0),
            max((_waste(stage.columns, knobs["dw_columns"]) for stage in memory.stages if stage.layer.is_depthwise), default=1.0),
            last.columns.pieces,
            memory.stages[0].rows.lead * task.threads / last.rows.pieces,
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layers = layers_of(task, Conv2d)
        products = [in_place("weight", index) for index, layer in enumerate(layers) if layer.is_pointwise]
        kernel = Kernel(task, knobs, grouped(task.precision.group, *products))
        shapes = {"data": layers[0].input_shape, **task.side_shapes}
        for index, layer in enumerate(layers):
            packed = {"weight": (math.prod(layer.weight_shape),), **constant_shapes(layer)}
            shapes |= {in_place(name, index): shape for name, shape in packed.items()}
        with kernel.named_body(**shapes, output=layers[-1].output_shape) as buffers:
            ChainNest(kernel, layers, knobs, task, buffers).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return each layer's packed weights and constants, in order."""
        layers = layers_of(task, Conv2d)
        packed = []
        for layer, constants in zip(layers, parameters, strict=True):
            packed += [_pack_weight(layer, knobs, constants.weight, task), *pack_constants(constants)]
        return packed


def chain_of(task: Task) -> tuple[Conv2d, ...] | None:
    """Return the region's layers if they form a chain that may pay as one kernel, else `None`."""
    layers = tuple(layer for layer in task.region if isinstance(layer, Conv2d))
    if len(layers) != len(task.region) or not 2 <= len(layers) <= MOST_LAYERS:
        return None
    kinds = [_kind(layer, task.lanes) for layer in layers]
    joints = {("image", "depthwise"), ("depthwise", "pointwise"), ("pointwise", "depthwise")}
    if any(joint not in joints for joint in itertools.pairwise(kinds)) or not _layouts_fit(layers, task.lanes):
        return None
    if kinds[0] == "image" and task.storage[0] != task.precision:
        return None  # tiles would convert the image element by element, once per panel; `ImageConv` converts whole rows
    sizes = [task.precision.bytes * math.prod(layer.weight_shape) for layer in layers]
    if len(layers) > 2:
        return layers if sum(sizes) <= MOST_CHAIN_BYTES else None
    if kinds[1] == "pointwise":
        return None
    return layers if kinds[0] == "image" or 16 * layers[0].in_channels * task.precision.bytes <= MOST_BEFORE_BYTES else None


def _kind(layer: Conv2d, lanes: int) -> str:
    """Return the layer's kind: "pointwise", "depthwise", "image", or "none" if a chain cannot contain it."""
    if layer.out_channels % lanes:
        return "none"
    if layer.is_pointwise:
        return "pointwise" if layer.in_channels % lanes == 0 else "none"
    if layer.kernel != (3, 3) or layer.stride not in ((1, 1), (2, 2)) or max(layer.padding) > 1:
        return "none"
    if layer.is_depthwise:
        return "depthwise"
    return "image" if layer.in_layout == "NCHW" and layer.groups == 1 and layer.in_channels <= MAX_INPUT_CHANNELS else "none"


def _layouts_fit(layers: Sequence[Conv2d], lanes: int) -> bool:
    """Return whether each layer reads the output of the one before in NHWC, and blocks of the input and output are whole vectors."""
    first, last = layers[0], layers[-1]
    for layer, following in itertools.pairwise(layers):
        if layer.output_shape != following.input_shape or (layer.out_layout, following.in_layout) != ("NHWC", "NHWC"):
            return False
    if channel_block(last.out_layout, last.out_channels) % lanes:
        return False
    return _kind(first, lanes) == "image" or (first.in_layout != "NCHW" and channel_block(first.in_layout, first.in_channels) % lanes == 0)


def _blocks(layers: Sequence[Conv2d], task: Task) -> tuple[int, ...]:
    """Return the union of `_blocks_within` for the L1 sizes of all cores, because a log does not name its core."""
    return tuple(sorted({blocks for size in FIRST_LEVELS for blocks in _blocks_within(layers, task, int(WEIGHT_SHARE * size))}))


def _blocks_within(layers: Sequence[Conv2d], task: Task, most: int) -> tuple[int, ...]:
    """Return the numbers of blocks of whole vector pairs whose weights fit `most` bytes and are not too small; (1,) if there are none."""
    product = layers[0]
    depth, channels = product.in_channels, product.out_channels
    numbers = []
    for blocks in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64):
        weights = task.precision.bytes * depth * channels // blocks
        if channels % (2 * task.lanes * blocks) == 0 and (blocks == 1 or weights >= LEAST_BLOCK_BYTES) and weights <= most:
            numbers.append(blocks)
    return tuple(numbers) or (1,)


def _small_bytes(task: Task) -> int:
    """Return the largest size in bytes of weights that stay in L1 beside the rings."""
    return int(WEIGHT_SHARE * task.machine.l1d_bytes)


def _ring_bytes(memory: ChainMemory, task: Task) -> int:
    return task.precision.bytes * sum(stage.ring * stage.row for stage in memory.stages[:-1])


def _waste(axis: ChainAxis, wanted: int) -> float:
    """Return the number of outputs computed along a row per output needed."""
    tile = tile_for(axis, wanted)
    return sum(-(-length // tile) * tile for length in axis.lengths) / axis.size


class _Fits:
    """The space's `fits`. A space has 20,000 combinations, so each check is cached by the knobs that it reads."""

    def __init__(self, layers: tuple[Conv2d, ...], task: Task, options: dict[str, tuple[int, ...]]) -> None:
        self.layers, self.task, self.options = layers, task, options
        self.arranged = cache(partial(_arranged, layers, task))
        self.tiled, self.held, self.little_waste = cache(self._tiles), cache(self._memory), cache(self._wastes_little)

    def __call__(self, knobs: Knobs) -> bool:
        strip, parts, blocks = knobs["strip"], knobs["parts"], knobs["blocks"]
        if knobs["dw_columns"] not in ((5, 7, 8) if knobs["dw_rows"] == 1 else (4, 5)):
            return False
        if len(self.options["image_pixels"]) > 1:
            lanes = self.task.lanes
            if knobs["image_pixels"] * knobs["image_columns"] not in (8 * lanes, 16 * lanes):
                return False
        return (
            self.tiled(knobs["rows"], knobs["columns"], blocks, knobs["order"])
            and self.held(strip, parts, blocks, knobs["dw_rows"], knobs["gather"])
            and all(knobs[name] in tiles for name, tiles in self.little_waste(strip, parts, blocks).items())
        )

    def _tiles(self, rows: int, columns: int, blocks: int, order: int) -> bool:
        """Return whether tiles of products use the registers well, and knobs without effect have their first value."""
        lanes = self.task.lanes
        products = [layer for layer in self.layers if layer.is_pointwise]
        for layer in products:
            if not good_tile(self.task.machine, lanes, rows, columns, layer.out_height * layer.out_width, layer.out_channels):
                return False
            if panel_width(layer.out_channels, blocks, columns, lanes) != columns and columns != self.options["columns"][0]:
                return False
        return not order or any(layer.out_channels // blocks > columns for layer in products)

    def _memory(self, strip: int, parts: int, blocks: int, dw_rows: int, gather: int) -> bool:
        """Return whether the data that steps reuse stays in L1."""
        memory = self.arranged(strip, parts, blocks)
        rings = _ring_bytes(memory, self.task)
        weights = self.task.precision.bytes * sum(stage.weight_elements for stage in memory.stages)
        if dw_rows > max(stage.rows.step for stage in memory.stages if stage.layer.is_depthwise):
            return False
        if parts > 1 and rings < LEAST_RING_BYTES:
            return False
        small, most = _small_bytes(self.task), self.task.machine.l1d_bytes
        if len(self.options["blocks"]) > 1 and blocks not in _blocks_within(self.layers, self.task, small):
            return False
        if blocks > 1 or weights <= small:
            return rings + weights <= most and (blocks > 1 or bool(gather))
        return rings <= RING_SHARE * most and not gather

    def _wastes_little(self, strip: int, parts: int, blocks: int) -> dict[str, list[int]]:
        """Return, for each knob that is a tile's length along a row, the values that waste little in partial tiles."""
        values = {}
        for kind, name in (("pointwise", "rows"), ("depthwise", "dw_columns"), ("image", "image_pixels")):
            stages = [stage for stage in self.arranged(strip, parts, blocks).stages if _kind(stage.layer, self.task.lanes) == kind]
            macs = max(1, sum(stage.layer.macs for stage in stages))
            excess = {tile: sum(_waste(stage.columns, tile) * stage.layer.macs for stage in stages) / macs for tile in self.options[name]}
            values[name] = [tile for tile, waste in excess.items() if waste <= max(MOST_WASTE, min(excess.values()))]
        return values


def _arranged(layers: tuple[Conv2d, ...], task: Task, strip: int, parts: int, blocks: int) -> ChainMemory:
    return arrange(layers, {"strip": strip, "parts": parts, "blocks": blocks, "gather": 0}, task)


def _pack_weight(layer: Conv2d, knobs: Knobs, weight: Array, task: Task) -> Array:
    """Pack a layer's weights: [vector of channels][tap][lane] for a depthwise layer, else panels of channels. Returns a flat array."""
    channels, lanes = layer.out_channels, task.lanes
    if layer.is_depthwise:
        return weight.reshape(-1, channels // lanes, lanes).transpose(1, 0, 2).ravel()
    if layer.is_pointwise:
        width = panel_width(channels, knobs["blocks"], knobs["columns"], lanes)
        return pack_panels(weight.reshape(-1, channels), width, lanes, group=group_of(task.precision.group, layer.in_channels))
    return pack_panels(weight.transpose(2, 0, 1, 3).reshape(-1, channels), knobs["image_columns"], lanes)
