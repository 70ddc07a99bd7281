"""1×1 convolution of floats with int8 weights on cores with `SDOT`: pixels are rounded to 16 bits, whose two bytes are multiplied."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.precision import FLOAT32, INT8
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import input_of, output_of
from tvmmobile.schedules.emit.digits import VECTOR_BYTES, WORD, DigitNest, DigitTile
from tvmmobile.schedules.emit.epilogue import layer_body, pack_constants
from tvmmobile.schedules.emit.kernel import Kernel
from tvmmobile.schedules.emit.matmul import packed_elements, panels
from tvmmobile.schedules.emit.small_weights import stored_constants
from tvmmobile.schedules.floats.pointwise import pixels_of
from tvmmobile.schedules.integers.product import pack_elements
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import ADDED, BLOCKED, EPILOGUE, SHUFFLED, STORAGE, THREADS, Template, layer_of

#: Size of the largest block of rounded pixels, in bytes.
_MOST_BYTES = 1 << 18


class DigitPointwise(Template):
    """Accepts one 1×1 convolution with int8 weights, of any stride, no padding, one group, NHWC or blocked, with or without a gate and a
    residual, on cores with `SDOT`.

    Knobs:
        rows, columns: register tile in pixels and channels.
        m_block: pixel tiles per cache block, which is rounded, then multiplied by all panels; 0 for all of them.
        order: innermost loop of a block: 0 panels, 1 pixel tiles.
        axis: loop that threads share: 0 pixel tiles; 1 panels, and each thread rounds all pixels.
    """

    name = "digits"
    version = 1
    handles = BLOCKED | SHUFFLED | EPILOGUE | THREADS | STORAGE | ADDED | {"residual", "scaled", "out_layout=NCHW", f"weights={INT8.name}"}
    enough_trials = 24

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and layer.kernel == (1, 1) and layer.groups == 1 and not any(layer.padding)):
            return None
        if layer.weights != INT8.name or layer.pieces or "dot" not in task.machine.has or task.precision != FLOAT32:
            return None
        pixels, channels, lanes, registers = pixels_of(layer), layer.out_channels, task.lanes, task.machine.registers
        options = {
            "rows": up_to((1, 2, 3, 4, 5), pixels.count),
            "columns": up_to((1, 2, 3, 4), round_up(channels, lanes), lanes),
            "m_block": (0, *(tiles for tiles in (1, 2, 4, 7, 10, 14, 28) if tiles < pixels.count)),
            "order": (0, 1),
            "axis": (0, 1) if task.threads > 1 else (0,),
        }
        tiles = itertools.product(options["rows"], options["columns"])
        most = max(_sums(rows, columns // lanes) for rows, columns in tiles if _fits(rows, columns // lanes, registers))

        def fits(knobs: Knobs) -> bool:
            rows, vectors = knobs["rows"], knobs["columns"] // lanes
            if not _fits(rows, vectors, registers) or _sums(rows, vectors) < min(8, most) or rows * knobs["m_block"] > pixels.count:
                return False
            block = (knobs["m_block"] * rows or pixels.count) * pixels.lines
            return block == rows or 2 * block * round_up(layer.in_channels, VECTOR_BYTES) <= _MOST_BYTES

        usual = {"rows": 4, "columns": 2 * lanes, "m_block": 4, "order": 1, "axis": 0}
        return Space(self.name, self.version, options, fits, usual)

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, tile, and the tile's waste at the edges."""
        layer = layer_of(task, Conv2d)
        pixels, vectors = layer.out_height * layer.out_width, knobs["columns"] // task.lanes
        sizes = [math.log2(extent) for extent in (pixels, layer.in_channels, layer.out_channels)]
        edges = [waste(pixels, knobs["rows"]), waste(layer.out_channels, knobs["columns"])]
        return [*sizes, _sums(knobs["rows"], vectors), float(layer.scaled), *edges]

    def executed_macs(self, task: Task) -> float:
        """Return half of the multiply-adds: `SDOT` has four times the products of `FMLA`, and each float product takes two of them."""
        return task.least_macs / 2

    def promises(self, task: Task) -> bool:
        """Return true: no other template multiplies as fast."""
        return True

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer, columns = layer_of(task, Conv2d), knobs["columns"]
        kernel, pixels, channels = Kernel(task), pixels_of(layer), layer.out_channels
        words = round_up(layer.in_channels, VECTOR_BYTES) // WORD
        with layer_body(kernel, layer, WORD * packed_elements(channels, columns, words, task.lanes), task.lanes) as (buffers, epilogue):
            a, _ = input_of(layer, buffers)
            c = output_of(layer, buffers["output"])
            tile = DigitTile(kernel, a, buffers["weight"], c, VECTOR_BYTES, epilogue, pixels.step)
            DigitNest(tile, knobs, pixels, panels(channels, columns, task.lanes), task.threads, buffers.get("gate")).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return weights packed in panels of `columns`, four input channels per word, K zero-padded to whole vectors, and constants."""
        layer = layer_of(task, Conv2d)
        constants = stored_constants(layer, parameters[0])
        weight = constants.weight.reshape(layer.in_channels, layer.out_channels)
        padded = np.pad(weight, ((0, -layer.in_channels % VECTOR_BYTES), (0, 0)))
        return [pack_elements(padded, WORD, knobs["columns"]), *pack_constants(constants, task.lanes)]


def _sums(rows: int, vectors: int) -> int:
    """Return the number of sum vectors of a tile: two per vector of results."""
    return 2 * rows * vectors


def _fits(rows: int, vectors: int, registers: int) -> bool:
    """Return whether a tile fits the registers, with two vectors of digits per pixel and up to two of weights."""
    return _sums(rows, vectors) + 2 * rows + min(vectors, 2) <= registers
