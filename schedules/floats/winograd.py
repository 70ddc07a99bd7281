"""3×3 convolution by Winograd's minimal filtering: 18 % to 44 % of the multiplications, 1.8 to 9 times the weights."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.layouts import channel_block
from tvmmobile.graph.machine import Machine
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.epilogue import layer_body, pack_constants
from tvmmobile.schedules.emit.expansion import Expansion, stored_taps
from tvmmobile.schedules.emit.kernel import Kernel
from tvmmobile.schedules.emit.matmul import good_tile, pack_panels, packed_elements
from tvmmobile.schedules.floats.winograd_cost import cycles
from tvmmobile.schedules.floats.winograd_nest import CHAIN, IN_TURN, TileGrid, WinogradNest
from tvmmobile.schedules.floats.winograd_transform import GROWTH, HALF_SIZES, NOISE, SIZES, TAPS, in_whole_numbers, transformed
from tvmmobile.schedules.space import Knobs, Space, up_to, waste
from tvmmobile.schedules.template import ADDED, BLOCKED, EPILOGUE, PIECES, STORAGE, THREADS, Algorithm, Template, layer_of

#: Fewest input and output channels: with fewer, the transforms take longer than the multiplications that they save.
LEAST_CHANNELS = 16
#: Largest estimated time at which an untuned kernel replaces a direct one, as a share of the direct kernel's multiply-adds.
CLEARLY = 0.8
#: Most products of a tile of odd size, as a share of those of the best even size.
MUCH = 0.9
#: Fewest tiles of the largest size: 28² outputs; and output channels, since with fewer it gains less than a twentieth.
FEWEST_TILES, FEWEST_CHANNELS = 16, 128
#: Most blocks of tiles whose inputs threads transform together: each block has code of its own.
MOST_IN_TURN = 2
#: Number of knob combinations in the space per tile size, those with the lowest estimated cost.
MEMBERS = 24


class Winograd(Template):
    """Accepts one 3×3 convolution with stride 1 and one group, NHWC or blocked, with or without a residual, with one input or pieces.

    F(m×m, 3×3), or F(4×2, 3×3) in half precision, see `winograd_transform` and `winograd_nest`. Zeros outside a layer's windows are
    multiplied like other weights. docs/kernels.md has its rounding errors.

    Knobs:
        size: m, the side of a tile in output pixels; odd ones are tried where they save much, and are no untuned kernel's.
            24 and 42: a height and a width.
        tiles: most tiles per block; 0 for all of them.
        rows, columns: register tile of the products, in tiles and output channels.
        k_block: input channels per cache block of a product, 0 for all of them; with the largest size at most `CHAIN` and half of them.
        parts: parts of the output channels that are computed one after another.
        axis: work that threads share: 0 blocks of tiles; 1 parts, each thread transforming all inputs; 2 inputs to transform, then parts.
    """

    name = "winograd"
    version = 1
    algorithm = Algorithm("Winograd's algorithm", GROWTH, NOISE)
    multiplies = True
    handles = BLOCKED | EPILOGUE | PIECES | THREADS | STORAGE | ADDED | {"residual", "windows"}
    enough_trials = 16

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if task.precision.computes:  # transformed values would have too few digits
            return None
        if not isinstance(layer, Conv2d) or (layer.kernel, layer.stride, layer.groups) != ((TAPS, TAPS), (1, 1), 1):
            return None
        if layer.pieces and layer.in_layout != "NHWC":  # blocks of the first tensor, which need not divide all channels
            return None
        in_block, out_block = channel_block(layer.in_layout, layer.in_channels), channel_block(layer.out_layout, layer.out_channels)
        if min(layer.in_channels, layer.out_channels) < LEAST_CHANNELS or in_block % task.lanes or out_block % task.lanes:
            return None
        if any(count % task.lanes for _, _, count in layer.pieces):
            return None
        depth, channels = layer.in_channels, layer.out_channels
        most = TileGrid(layer, min(SIZES), 0).tiles
        options = {
            "size": _sizes(task, layer),
            "tiles": (0, *(tiles for tiles in (8, 14, 21, 28, 42, 56) if tiles < most)),
            "rows": up_to(tuple(range(min(most, 4), 9)), most),
            "columns": up_to((2, 4), channels, task.lanes),
            "k_block": (0, *(k for k in (32, 64, 128, 256) if k < depth)),
            "parts": tuple(parts for parts in (1, 2, 4, 8, 16) if channels % (parts * task.lanes) == 0),
            "axis": (0, 1, IN_TURN) if task.threads > 1 else (0,),
        }

        @functools.cache
        def likely() -> dict[tuple[int, ...], float]:
            return _likely(task, task.machine, layer, tuple(options.items()))

        def fits(knobs: Knobs) -> bool:
            return tuple(knobs[name] for name in options) in likely()

        @functools.cache
        def usual() -> dict[str, int]:
            best = min((values for values in likely() if not values[0] % 2), key=lambda values: likely()[values])
            return dict(zip(options, best, strict=True))

        return Space(self.name, self.version, options, fits, usual())

    def executed_macs(self, task: Task) -> float:
        """Return the multiply-adds of the tile size that needs the fewest."""
        layer = layer_of(task, Conv2d)
        channels = layer.in_channels * layer.out_channels
        grids = (TileGrid(layer, size, 0) for size in _sizes(task, layer))
        return float(min(grid.points * grid.tiles for grid in grids) * channels)

    def promises(self, task: Task) -> bool:
        """Return whether the estimated time is clearly below a direct convolution's multiply-adds."""
        return self.share(task) < CLEARLY

    def loses(self, task: Task, knobs: Knobs) -> bool:
        """Return whether the estimated time is above a direct convolution's multiply-adds."""
        return _share(task, knobs) > 1

    def share(self, task: Task) -> float:
        """Return the usual schedule's estimated time as a share of a direct convolution's multiply-adds; infinity for rejected tasks."""
        space = self.space(task)
        return math.inf if space is None else _share(task, space.usual)

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, tile, registers used, size and number of blocks, waste at the edges, and the estimated time."""
        layer = layer_of(task, Conv2d)
        grid, vectors = _grid(layer, knobs), knobs["columns"] // task.lanes
        return [
            math.log2(layer.out_height * layer.out_width),
            math.log2(layer.in_channels),
            math.log2(layer.out_channels),
            knobs["rows"] * vectors,
            knobs["rows"] * vectors + knobs["rows"] + vectors,
            math.log2(grid.block),
            math.log2(grid.blocks),
            sum(map(waste, (layer.out_height, layer.out_width), grid.sides)),
            waste(grid.block, knobs["rows"]),
            math.log2(cycles(task, grid, knobs)),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Conv2d)
        kernel = Kernel(task, knobs)
        part = packed_elements(layer.out_channels // knobs["parts"], knobs["columns"], layer.in_channels, task.lanes)
        points = _grid(layer, knobs).points
        with layer_body(kernel, layer, points * knobs["parts"] * part, task.lanes) as (buffers, epilogue):
            WinogradNest(epilogue, layer, knobs, buffers).emit(task.threads)
        return kernel.finish()

    def expansion(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> Expansion | None:
        """Return the transform of weights in fewer bits."""
        if not parameters[0].stored:
            return None
        transform = in_whole_numbers(knobs["size"])
        depth = layer_of(task, Conv2d).in_channels
        return Expansion(*stored_taps(parameters[0]), transform, knobs["columns"], knobs["k_block"] or depth, knobs["parts"])

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return transformed weights as [part][point][panel][K][column], see `pack_panels`, then the constants."""
        expansion = self.expansion(task, knobs, parameters)
        points = transformed(parameters[0].weight, knobs["size"]) if expansion is None else expansion.values()
        parts = np.split(points, knobs["parts"], axis=2)
        packed = [pack_panels(point, knobs["columns"], task.lanes, knobs["k_block"]) for part in parts for point in part]
        return [np.concatenate(packed), *pack_constants(parameters[0], task.lanes)]


def _sizes(task: Task, layer: Conv2d) -> tuple[int, ...]:
    """Return the tile sizes for a layer: odd ones where they save much; half precision has enough digits only for small ones.

    The largest needs many tiles, too: with few, reading its weights would take as long as multiplying by them, and they make files larger.
    It has the largest errors, so it is not used where it gains little.
    """
    if task.precision.chain:
        return HALF_SIZES
    tiles = {size: TileGrid(layer, size, 0).tiles for size in SIZES}
    products = {size: (size + TAPS - 1) ** 2 * count for size, count in tiles.items()}
    most = MUCH * min(products[size] for size in SIZES if size % 2 == 0)
    largest = tiles[SIZES[-1]] >= FEWEST_TILES and layer.out_channels >= FEWEST_CHANNELS
    return tuple(size for size in SIZES if size % 2 == 0 or (products[size] <= most and (size < SIZES[-1] or largest)))


def _share(task: Task, knobs: Knobs) -> float:
    """Return a schedule's estimated time as a share of a direct convolution's multiply-adds."""
    return cycles(task, _grid(layer_of(task, Conv2d), knobs), knobs) / (task.least_macs / task.lanes / task.threads)


def _grid(layer: Conv2d, knobs: Knobs) -> TileGrid:
    """Return the tiles that the knobs make of a layer's output."""
    return TileGrid(layer, knobs["size"], knobs["tiles"])


@functools.lru_cache(maxsize=256)
def _likely(task: Task, machine: Machine, layer: Conv2d, options: tuple[tuple[str, tuple[int, ...]], ...]) -> dict[tuple[int, ...], float]:
    """Return the knob combinations with the lowest estimated cost, with their cost.

    The machine is an argument because it is part of the cache key: equal tasks may be for different machines.
    """
    choices, lanes = dict(options), task.lanes
    grids = {(size, tiles): TileGrid(layer, size, tiles) for size in choices["size"] for tiles in choices["tiles"]}
    by_size: dict[int, list[tuple[float, tuple[int, ...]]]] = {}
    for values in itertools.product(*choices.values()):
        knobs = dict(zip(choices, values, strict=True))
        grid = grids[knobs["size"], knobs["tiles"]]
        channels = layer.out_channels // knobs["parts"]
        if not good_tile(machine, lanes, knobs["rows"], knobs["columns"], grid.block, channels):
            continue
        if knobs["columns"] > channels or (knobs["tiles"] and knobs["tiles"] >= grid.tiles):
            continue
        if knobs["axis"] == IN_TURN and grid.blocks > MOST_IN_TURN:
            continue
        if knobs["size"] == SIZES[-1] and (knobs["k_block"] or layer.in_channels) > min(CHAIN, layer.in_channels / 2):
            continue
        by_size.setdefault(knobs["size"], []).append((cycles(task, grid, knobs), values))
    best = min((cost for size, priced in by_size.items() if size % 2 == 0 for cost, _ in priced), default=0.0)
    members = (member for priced in by_size.values() for member in sorted(priced)[:MEMBERS])
    return {values: cost for cost, values in members if cost <= 1.5 * best}
