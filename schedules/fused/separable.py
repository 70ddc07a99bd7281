"""Depthwise and pointwise convolution fused in one kernel, NHWC: strip by strip, with the intermediate result in L1."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import Activation, input_of, output_of
from tvmmobile.schedules.emit.epilogue import Epilogue, constant_shapes
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel, share
from tvmmobile.schedules.emit.matmul import TALL, MatmulTile, good_tile, packed_elements, panels, tile_rows
from tvmmobile.schedules.emit.matmul_nest import MatmulNest, Pixels
from tvmmobile.schedules.emit.pairs import group_of, grouped, tile_of
from tvmmobile.schedules.emit.tiles import Run, cut, partition
from tvmmobile.schedules.emit.window_nest import OutputPart, Weighted, WindowNest, loops_over_rows
from tvmmobile.schedules.floats.depthwise import Depthwise
from tvmmobile.schedules.floats.pointwise import Pointwise
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import BLOCKED, EPILOGUE, LAYERS, STORAGE, THREADS, Template, layers_of

#: Largest share of L1 for a strip's intermediate result, and smallest size in bytes that amortises a strip's overhead.
STRIP_SHARE, LEAST_BYTES = 0.5, 2048
#: Largest size in bytes of the 1×1 convolution's weights, which every strip reads: more would cost more than storing the intermediate
#: result (128 × 256 at 28 × 28 pixels: 4.71 ms either way; 256 × 256: 8.99 ms fused, 9.00 ms as two kernels; 512 × 512 at 14 × 14: 10.1
#: and 9.0 ms; modelled, Pi 4).
MOST_WEIGHT_BYTES = 65536
#: Usual pixels per strip: with fewer, weights are read too often; with more, pixels are evicted while weights and output stream through.
USUAL_PIXELS = 28
#: Narrowest part of a row in pixels: a pixel tile or two.
LEAST_WIDTH = 7


class Separable(Template):
    """Accepts a depthwise convolution and the 1×1 convolution after it, if `Depthwise` and `Pointwise` accept them; residuals included.

    Knobs:
        strip: output rows of the depthwise convolution per strip.
        parts: number of strips side by side; with 1, strips are as wide as the output.
        dw_rows, dw_columns: rows and columns of `Depthwise`, whose `channels` and `axis` are 0.
        rows, columns, n_block: those of `Pointwise`, within a strip, with all of K in one block.
        order: innermost loop of a strip: 0 panels, 1 pixel tiles.

    Threads share strips.
    """

    name = "separable"
    version = 2
    multiplies = True
    handles = BLOCKED | EPILOGUE | LAYERS | THREADS | STORAGE | {"residual"}

    def _space(self, task: Task) -> Space | None:
        layers = separable_layers(task)
        if layers is None:
            return None
        depthwise, pointwise = (template.space(part) for template, part in zip(_SINGLE, alone(task), strict=True))
        first, second = layers
        if (
            depthwise is None
            or pointwise is None
            or not second.is_pointwise
            or second.in_channels * second.out_channels * task.precision.bytes > MOST_WEIGHT_BYTES
        ):
            return None
        height, width, lanes = first.out_height, first.out_width, task.lanes
        options = {
            "strip": up_to((1, 2, 4, 8), height),
            "parts": tuple(parts for parts in (1, 2, 4, 8) if parts == 1 or width >= LEAST_WIDTH * parts),
            "dw_rows": up_to((1, 2, 4), height),
            "dw_columns": up_to((2, 4, 6), width),
            "rows": up_to(tile_rows(task.machine, (4, 5, 7)), width),
            "columns": up_to((2, 4), round_up(second.out_channels, lanes), lanes),
            "n_block": (0, *(count for count in (2, 4) if count * 4 * lanes < second.out_channels)),
            "order": (0, 1),
        }

        def fits(knobs: Knobs) -> bool:
            if knobs["dw_rows"] > knobs["strip"]:
                return False
            # With pixel tiles innermost, blocks of panels change nothing; with a single panel, the order changes nothing.
            if (knobs["order"] == 1 and knobs["n_block"]) or (knobs["order"] == 0 and second.out_channels <= knobs["columns"]):
                return False
            between = knobs["strip"] * -(-width // knobs["parts"]) * first.out_channels * task.precision.bytes
            if not LEAST_BYTES <= between <= STRIP_SHARE * task.machine.l1d_bytes:
                return False
            strip = knobs["strip"] * -(-width // knobs["parts"])
            good = good_tile(task.machine, lanes, knobs["rows"], knobs["columns"], strip, second.out_channels)
            return good and depthwise.fits(depthwise_knobs(knobs))

        usual = {"strip": nearest(options["strip"], USUAL_PIXELS / width), "parts": nearest(options["parts"], width / USUAL_PIXELS)}
        tiles = {"dw_rows": min(2, usual["strip"]), "dw_columns": 4, "rows": 4, "columns": 4 * lanes, "n_block": 0, "order": 1}
        return Space(self.name, self.version, options, fits, {**usual, **tiles}, elsewhere={"rows": TALL})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the features of both single templates, the strip's size and waste, and the ratio of input rows read to input rows."""
        first, second = layers_of(task, Conv2d)
        width = -(-first.out_width // knobs["parts"])
        pixels = knobs["strip"] * width
        return [
            *_SINGLE[0].features(alone(task)[0], depthwise_knobs(knobs)),
            *_SINGLE[1].features(alone(task)[1], _pointwise_knobs(knobs)),
            math.log2(pixels * first.out_channels),
            math.log2(pixels),
            math.log2(second.in_channels * second.out_channels),
            waste(width if knobs["parts"] > 1 else pixels, knobs["rows"]),
            waste(first.out_height, knobs["strip"]),
            ((knobs["strip"] - 1) * first.stride[0] + first.kernel[0]) / (knobs["strip"] * first.stride[0]),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        first, second = layers_of(task, Conv2d)
        kernel = Kernel(task, knobs, grouped(group_of(task.precision.group, second.in_channels), "weight"))
        packed = packed_elements(second.out_channels, knobs["columns"], second.in_channels, task.lanes)
        shapes = {
            "data": first.input_shape,
            **task.side_shapes,
            "dw_weight": (first.kernel[0] * first.kernel[1] * first.in_channels,),
            **{f"dw_{name}": shape for name, shape in constant_shapes(first).items()},
            "weight": (packed,),
            **constant_shapes(second, task.lanes),
            "output": second.output_shape,
        }
        with kernel.named_body(**shapes) as buffers:
            _SeparableNest(kernel, task, knobs, buffers).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return both layers' constants as the single templates pack them."""
        both_knobs = (depthwise_knobs(knobs), _pointwise_knobs(knobs))
        return [
            array
            for template, part, part_knobs, constants in zip(_SINGLE, alone(task), both_knobs, parameters, strict=True)
            for array in template.pack(part, part_knobs, (constants,))
        ]


_SINGLE: tuple[Template, Template] = (Depthwise(), Pointwise())


def separable_layers(task: Task) -> tuple[Conv2d, Conv2d] | None:
    """Return both layers of a region if the second reads the first's NHWC output and the first's window is unrolled, else `None`."""
    if len(task.region) != 2:
        return None
    first, second = task.region
    if not (isinstance(first, Conv2d) and isinstance(second, Conv2d)) or loops_over_rows(first):
        return None
    return (first, second) if first.output_shape == second.input_shape and first.out_layout == "NHWC" else None


def alone(task: Task) -> tuple[Task, Task]:
    """Return a separate single-threaded task for each of the two layers."""
    return replace(task, region=task.region[:1], threads=1), replace(task, region=task.region[1:], threads=1)


def nearest(options: tuple[int, ...], wanted: float) -> int:
    """Return the option closest to `wanted`."""
    return min(options, key=lambda option: abs(option - wanted))


def depthwise_knobs(knobs: Knobs) -> Knobs:
    """Return the knobs of `Depthwise` for the depthwise convolution."""
    return {"rows": knobs["dw_rows"], "columns": knobs["dw_columns"], "channels": 0, "axis": 0}


def _pointwise_knobs(knobs: Knobs) -> Knobs:
    return {**{name: knobs[name] for name in ("rows", "columns", "n_block")}, "k_block": 0, "m_block": 0, "outer": 0, "axis": 0}


@dataclass(frozen=True)
class _Strips:
    """Strips of equal length along one axis of the output.

    Attributes:
        start, count, size: first output index, number of strips, outputs per strip.
        kinds: runs of strips with the same taps.
    """

    start: int
    count: int
    size: int
    kinds: tuple[Run, ...]


def _strips(runs: list[Run]) -> list[_Strips]:
    """Group runs by length: all whole strips, then the shorter one that may remain."""
    groups = []
    for size, same_size in itertools.groupby(runs, lambda run: run.size):
        kinds = tuple(same_size)
        groups.append(_Strips(kinds[0].start, sum(run.count for run in kinds), size, kinds))
    return groups


class StripNest(ABC):
    """The loop nest over strips: the depthwise convolution into a scratch buffer, then the matrix product from there into the output.

    Strips at borders need different depthwise code but the same product, so the depthwise code is selected at run time, once per strip.

    Attributes:
        lanes: channels per vector of the product.
    """

    def __init__(self, kernel: Kernel, task: Task, knobs: Knobs, buffers: Mapping[str, Buffer], lanes: int) -> None:
        self.kernel, self.knobs, self.threads, self.buffers, self.lanes = kernel, knobs, task.threads, buffers, lanes
        self.first, self.second = layers_of(task, Conv2d)
        depthwise_buffers = {name.removeprefix("dw_"): buffer for name, buffer in buffers.items() if name.startswith("dw_")}
        #: Buffers of each layer's constants and side inputs, by the layer's own argument names.
        self.layer_buffers = [{**own, **task.sides_of(place, buffers)} for place, own in enumerate((depthwise_buffers, buffers))]
        self.width = -(-self.first.out_width // knobs["parts"])
        self.rows = _strips(partition(self.first, 0, knobs["strip"]))
        self.columns = _strips(partition(self.first, 1, self.width))

    @abstractmethod
    def depthwise(self, part: OutputPart, source: Activation, between: Activation) -> None:
        """Emit the depthwise convolution of one part of the output into the strip's buffer `between`."""

    @abstractmethod
    def tile(self, between: Activation, output: Activation) -> MatmulTile:
        """Return the register tile of the product of `between`."""

    def emit(self) -> None:
        """Emit the whole nest; each thread has its own scratch buffer."""
        with self.kernel.team(self.threads) as thread:
            scratch = self.kernel.scratch(self.rows[0].size * self.columns[0].size * self.first.out_channels)
            for rows, columns in itertools.product(self.rows, self.columns):
                strips = rows.count * columns.count
                begin, end = share(thread, self.threads, strips)
                with self.kernel.T.serial(begin, end) as strip:
                    row, column = (strip // columns.count, strip % columns.count) if columns.count > 1 else (strip, 0)
                    self._strip(rows, row, columns, column, scratch)

    def _strip(self, rows: _Strips, row: Expr, columns: _Strips, column: Expr, scratch: Buffer) -> None:
        """Emit one strip; `row` and `column` are its indices among the strips of its size."""
        top, left = rows.start + row * rows.size, columns.start + column * columns.size
        channels, (source, _) = self.first.in_channels, input_of(self.first, self.buffers)
        between = Activation(scratch, rows.size * columns.size, channels, channels)
        for row_run, column_run in itertools.product(rows.kinds, columns.kinds):
            with self._where(rows, row, row_run), self._where(columns, column, column_run):
                tiles = depthwise_knobs(self.knobs)
                part = OutputPart(cut(row_run.taps, tiles["rows"]), cut(column_run.taps, tiles["columns"]), top, left, columns.size)
                self.depthwise(part, source, between)
        origin = top * self.first.out_width + left
        knobs = {name: self.knobs[name] for name in ("rows", "columns", "n_block", "order") if name in self.knobs}
        c = output_of(self.second, self.buffers["output"])
        if columns.size == self.first.out_width:
            pixels = Pixels(rows.size * columns.size, origin=origin)
        else:
            pixels = Pixels(columns.size, rows.size, origin, self.first.out_width, source_pitch=columns.size)
        MatmulNest(self.tile(between, c), knobs, pixels, panels(c.channels, knobs["columns"], self.lanes), 1).emit()

    @contextmanager
    def _where(self, strips: _Strips, index: Expr, run: Run) -> Iterator[None]:
        """Emit a condition, true for strips of this run, around the code emitted inside; nothing if the run has all strips."""
        before = (run.start - strips.start) // strips.size
        after = before + run.count
        begin, end = [index >= before] if before > 0 else [], [index < after] if after < strips.count else []
        with self.kernel.where(*begin), self.kernel.where(*end):
            yield


class _SeparableNest(StripNest):
    """`StripNest` in floats."""

    def __init__(self, kernel: Kernel, task: Task, knobs: Knobs, buffers: Mapping[str, Buffer]) -> None:
        super().__init__(kernel, task, knobs, buffers, kernel.lanes)
        self.group = group_of(task.precision.group, self.second.in_channels)
        self.epilogues = [Epilogue(kernel, layer, own) for layer, own in zip((self.first, self.second), self.layer_buffers, strict=True)]

    def depthwise(self, part: OutputPart, source: Activation, between: Activation) -> None:
        add = Weighted(self.kernel, self.first, self.buffers["dw_weight"])
        WindowNest(self.epilogues[0], add, self.first, depthwise_knobs(self.knobs), part, source, between).emit(1)

    def tile(self, between: Activation, output: Activation) -> MatmulTile:
        return tile_of(self.group)(self.kernel, between, self.buffers["weight"], output, self.lanes, self.epilogues[1])
