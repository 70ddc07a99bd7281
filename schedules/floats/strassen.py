"""1×1 convolution by one level of Strassen's algorithm: an eighth fewer multiplications, three quarters more weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.layouts import channel_block
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import input_of, output_of
from tvmmobile.schedules.emit.epilogue import layer_body, pack_constants
from tvmmobile.schedules.emit.in_order_order import TileShape, inner_order
from tvmmobile.schedules.emit.kernel import Kernel
from tvmmobile.schedules.emit.matmul import TALL, MatmulTile, tile_rows
from tvmmobile.schedules.floats.strassen_nest import GROUPS, STEPS, emit_strassen
from tvmmobile.schedules.space import Knobs, Space, up_to, waste
from tvmmobile.schedules.template import BLOCKED, EPILOGUE, THREADS, Template, layer_of

#: Fewest pixels: each half must fill a register tile.
LEAST_PIXELS = 8
#: Bounds on the size of a sum of blocks of A. All panels of a product read it, so it must stay in L1 while weights and output stream
#: through; the smaller it is, the more often they do (14 × 14 with 512 → 512: 6.3 KB 7.26 ms, 12.5 KB 7.20 ms, 14.3 KB 7.61 ms, 25 KB
#: 7.66 ms; modelled, Pi 4). So it gets less than one way of a two-way L1, but all that stays of one with more ways (Pi 5, the same layer:
#: 12.5 KB 2.53 ms, 25 KB 2.51 ms, 50 KB 2.48 ms).
LEAST_BYTES, TWO_WAY_SHARE = 6144, 0.3968
#: The sum's share of the largest cache on in-order cores, which lose less time to L1 misses than to the partial sums that each K block
#: loads and stores (the same layer on a Pi 3B+: 18 KB in K blocks of 64 11.9 ms, 100 KB and all of K 11.6 ms).
IN_ORDER_SHARE = 0.2
#: Largest size of packed weights that several parts read, as a share of the caches (14 × 14 with 256 → 512, 0.9 MB: 3.70 ms in one part,
#: 3.79 ms in two; 28 × 28 with 256 → 256, 0.45 MB: 7.57 and 7.47 ms; modelled, Pi 4, with 0.75 MB).
WEIGHT_SHARE = 2 / 3
#: Output channels per block above which a line has left L1 when the next panel writes to it: a block of 512 channels takes 7.48 ms panel by
#: panel and 7.27 ms with two alternating panels; blocks of 16 take 7.20 and 7.21 ms.
SHARED_BLOCK = 16
#: Largest share of the time that the incomplete last tile may waste.
MOST_TAIL = 0.08
#: Cache per pixel from which input and output stay in cache for all seven products (256 channels; 28 × 28 in two parts and in one: 7.47 and
#: 7.57 ms modelled on a Pi 4 with 0.75 MB for them, 2.66 and 2.57 ms on a Pi 5 with 1.5 MB).
USUAL_PIXEL_BYTES = 2006
#: Usual K block for a two-way L1; twice as much for one with more ways.
USUAL_K_BLOCK = 64


class Strassen(Template):
    """Accepts one 1×1 convolution, stride 1, no padding, one group, of many channels, NHWC or blocked.

    One level of Winograd's variant of Strassen's algorithm, see `strassen_nest`. Its rounding errors are larger than the direct product's:
    4e-6 of the largest output with 512 input channels, 5e-6 with 1024, against 2e-6 for the direct product (relative to PyTorch).

    Knobs:
        rows, columns: register tile in pixels and channels.
        parts: parts of the pixels, each computed with all seven products before the next one.
        m_block: pixel tiles per block of a part's half, 0 for all of them.
        n_block: panels that alternate within each pixel tile.
        k_block: K per block, 0 for all of a half.
        axis: loop that threads share: 0 panels, 1 parts.
    """

    name = "strassen"
    version = 1
    handles = BLOCKED | EPILOGUE | THREADS
    enough_trials = 8
    multiplies = True

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and layer.is_pointwise):
            return None
        if task.precision.chain:  # half precision loses too much: with 512 channels, the error is three times the direct product's
            return None
        pixels, depth, channels = layer.height * layer.width, layer.in_channels // 2, layer.out_channels // 2
        if pixels < LEAST_PIXELS or min(layer.in_channels, layer.out_channels) < task.machine.strassen_channels:
            return None
        in_block, out_block = channel_block(layer.in_layout, layer.in_channels), channel_block(layer.out_layout, layer.out_channels)
        if any(extent % task.lanes for extent in (depth, channels, in_block, out_block)):
            return None
        many_weights = len(STEPS) * depth * channels * task.precision.bytes > WEIGHT_SHARE * task.machine.cached_bytes
        many_ways = task.machine.l1d_ways > 2
        most_bytes = task.machine.resident_bytes if many_ways else int(TWO_WAY_SHARE * task.machine.l1d_bytes)
        if task.machine.in_order:
            most_bytes = int(IN_ORDER_SHARE * task.machine.largest_cache_bytes)
        options = {
            "rows": up_to(tile_rows(task.machine, (4, 5, 6, 7, 8)), pixels // 2),
            "columns": tuple(vectors * task.lanes for vectors in (2, 3, 1) if channels % (vectors * task.lanes) == 0)[:1],
            "parts": tuple(parts for parts in (1, 2, 4, 8) if parts == 1 or pixels >= 96 * parts),
            "m_block": (0, 4, 5, 6, 7, 8, 10),
            "n_block": (1, 2),
            "k_block": (0, *(k for k in (48, 64, 96, 128) if k < depth)),
            "axis": (0, 1) if task.threads > 1 else (0,),
        }

        def fits(knobs: Knobs) -> bool:
            vectors, machine = knobs["columns"] // task.lanes, task.machine
            accumulators = knobs["rows"] * vectors
            if accumulators < machine.accumulators or accumulators + knobs["rows"] + min(vectors, 2) > machine.registers:
                return False
            if depth % (knobs["k_block"] or depth) or (knobs["n_block"] > 1 and out_block <= SHARED_BLOCK):
                return False
            if (knobs["parts"] > 1 and many_weights) or (knobs["axis"] == 1 and knobs["parts"] < task.threads):
                return False
            half = _half(pixels, knobs)
            block = knobs["m_block"] * knobs["rows"]
            # Blocks of nearly equal size, none equal to the whole half.
            if block and (block >= half or waste(half, block) > 0.25):
                return False
            size = _sum_bytes(task, half, depth, knobs)
            smallest = LEAST_BYTES if block or knobs["k_block"] else 0
            return _tail(task, half, knobs) <= MOST_TAIL and smallest <= size <= most_bytes

        parts = 1 if many_weights else max(round(pixels * USUAL_PIXEL_BYTES / task.machine.cached_bytes), 1)
        rows = _usual_rows(task, _half(pixels, {"parts": parts}))
        usual = {"rows": rows, "columns": 2 * task.lanes, "parts": parts, "m_block": 7, "n_block": 1, "axis": 0}
        usual["k_block"] = 0 if depth <= USUAL_K_BLOCK * (1 + many_ways) else USUAL_K_BLOCK * (1 + many_ways)
        if many_ways and _sum_bytes(task, _half(pixels, usual), depth, {**usual, "m_block": 0}) <= most_bytes:
            usual["m_block"] = 0
        if task.machine.in_order:
            usual["n_block"] = 2
        return Space(self.name, self.version, options, fits, usual, elsewhere={"rows": TALL})

    def executed_macs(self, task: Task) -> float:
        """Return seven eighths of the direct product's multiply-adds."""
        return task.least_macs * len(STEPS) / 8

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, tile, registers used, size and numbers of blocks, and the last tile's waste."""
        layer = layer_of(task, Conv2d)
        pixels, depth, channels = layer.height * layer.width, layer.in_channels // 2, layer.out_channels // 2
        vectors, half = knobs["columns"] // task.lanes, _half(pixels, knobs)
        return [
            math.log2(pixels),
            math.log2(depth),
            math.log2(channels),
            knobs["rows"] * vectors,
            knobs["rows"] * vectors + knobs["rows"] + vectors,
            math.log2(_sum_bytes(task, half, depth, knobs)),
            half / min(knobs["m_block"] * knobs["rows"] or half, half),
            depth / min(knobs["k_block"] or depth, depth),
            math.log2(half),
            _tail(task, half, knobs),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Conv2d)
        kernel = Kernel(task, knobs)
        with layer_body(kernel, layer, len(STEPS) * (layer.in_channels // 2) * (layer.out_channels // 2)) as (buffers, epilogue):
            (a, _), c = input_of(layer, buffers), output_of(layer, buffers["output"])
            emit_strassen(MatmulTile(kernel, a, buffers["weight"], c, task.lanes, epilogue), knobs, task.threads)
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the sums of weight blocks, added in float64, as [group of steps][K block][step][panel][K][column], then the constants."""
        layer = layer_of(task, Conv2d)
        depth, channels, width = layer.in_channels // 2, layer.out_channels // 2, knobs["columns"]
        weight = parameters[0].weight.reshape(2, depth, 2, channels).astype(np.float64)
        block = min(knobs["k_block"] or depth, depth)
        pieces = []
        for group in GROUPS:
            sums = [sum(sign * weight[row, :, column] for (row, column), sign in step.w) for step in group]
            for start in range(0, depth, block):
                for total in sums:
                    part = np.asarray(total, parameters[0].weight.dtype)[start : start + block]
                    pieces.append(part.reshape(len(part), -1, width).transpose(1, 0, 2).ravel())
        return [np.concatenate(pieces), *pack_constants(parameters[0])]


def _usual_rows(task: Task, half: int) -> int:
    """Return the usual value of `rows`: on an in-order core the one with the fewest cycles, else the one that wastes least."""
    order = inner_order(task.machine, task.lanes)
    if not order:
        return min((7, 8, 6), key=lambda height: waste(half, height))

    def cycles(height: int) -> float:
        """Return the cycles of a pass over all tiles that are two vectors wide."""
        whole, rest = divmod(half, height)
        return sum(count * TileShape(rows, 2, order == 2, task.lanes).cycles for count, rows in ((whole, height), (1, rest)) if rows)

    return min((7, 8, 9), key=cycles)


def _half(pixels: int, knobs: Knobs) -> int:
    """Return the number of pixels in the longer half of a part."""
    part = -(-pixels // knobs["parts"])
    return part - part // 2


def _sum_bytes(task: Task, half: int, depth: int, knobs: Knobs) -> int:
    """Return the size in bytes of a sum of blocks of A, for one block of pixels and K."""
    rows = min(knobs["m_block"] * knobs["rows"] or half, half)
    return rows * min(knobs["k_block"] or depth, depth) * task.precision.bytes


def _tail(task: Task, half: int, knobs: Knobs) -> float:
    """Return the share of the time that the incomplete last tile wastes because it has too few accumulators."""
    rest = half % knobs["rows"]
    idle = task.machine.accumulators - rest * knobs["columns"] // task.lanes
    return max(idle, 0) * task.lanes / (half * knobs["columns"]) if rest else 0.0
