"""The first convolution: reads the caller's NCHW image of a few channels and writes NHWC, so that the image is never transposed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.epilogue import Epilogue, layer_body, pack_constants, panel_spots
from tvmmobile.schedules.emit.image_plane import add_plane
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.matmul import Panel, pack_panels, packed_elements, panels
from tvmmobile.schedules.emit.tiles import Run, partition
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import EPILOGUE, STORAGE, THREADS, Template, layer_of

MAX_INPUT_CHANNELS = 4
#: Fewest accumulators of a tile. Few taps do not amortise the prologue and epilogue of a large tile: 2 × 8 and 5 × 8 beat tiles of 12.
FEW_ACCUMULATORS = 4


class ImageConv(Template):
    """Accepts one convolution with at most 4 input channels in NCHW, one group.

    Knobs:
        pixels, columns: register tile in output pixels of a row and output channels.
        loop: 1 keeps the loop over input channels, 0 unrolls it.
        order: loop order: 0 has panels inside pixel tiles, 1 pixel tiles of a row inside panels.
    """

    name = "image_conv"
    version = 2
    multiplies = True
    handles = EPILOGUE | THREADS | STORAGE | {"in_layout=NCHW"}

    def _space(self, task: Task) -> Space | None:
        layer, lanes = task.region[0], task.lanes
        if not (isinstance(layer, Conv2d) and layer.in_layout == "NCHW" and layer.groups == 1 and layer.in_channels <= MAX_INPUT_CHANNELS):
            return None
        options = {
            "pixels": up_to((1, 2, 3, 4, 5, 6, 7, 8), layer.out_width),
            "columns": up_to((1, 2, 3, 4, 6, 8), round_up(layer.out_channels, lanes), lanes),
            "loop": (0, 1),
            "order": (0, 1),
        }
        stride, kernel = layer.stride[1], layer.kernel[1]
        fewest = min(FEW_ACCUMULATORS, max(options["pixels"]) * max(options["columns"]) // lanes)

        def fits(knobs: Knobs) -> bool:
            accumulators = knobs["pixels"] * knobs["columns"] // lanes
            segment = -(-((knobs["pixels"] - 1) * stride + kernel) // lanes)
            # With input channels unrolled, LLVM spills in wide tiles (up to 18 % slower than the loop), but small tiles are fastest
            # (2 × 32 at 224: 2.97 M cycles against 3.05 M), so both stay in the space, although some of its members spill.
            return accumulators >= fewest and accumulators + segment + 2 <= task.machine.registers

        return Space(self.name, self.version, options, fits, {"pixels": 4, "columns": 4 * lanes, "loop": 1, "order": 1})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, number of accumulators, and the tile's waste at the edges."""
        layer = layer_of(task, Conv2d)
        vectors = knobs["columns"] // task.lanes
        return [
            math.log2(layer.out_height * layer.out_width),
            math.log2(layer.out_channels),
            knobs["pixels"] * vectors,
            waste(layer.out_width, knobs["pixels"]),
            waste(layer.out_channels, knobs["columns"]),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Conv2d)
        kernel = Kernel(task, knobs)
        depth = layer.in_channels * layer.kernel[0] * layer.kernel[1]
        weight = packed_elements(layer.out_channels, knobs["columns"], depth, task.lanes)
        with layer_body(kernel, layer, weight, task.lanes) as (buffers, epilogue):
            _ImageConvNest(epilogue, layer, knobs, task, buffers).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return weights as a flat array [panel][input channel][tap][column], then the constants."""
        layer = layer_of(task, Conv2d)
        weight = parameters[0].weight.transpose(2, 0, 1, 3).reshape(-1, layer.out_channels)
        return [pack_panels(weight, knobs["columns"], task.lanes), *pack_constants(parameters[0], task.lanes)]


class _ImageConvNest:
    """The loop nest over rows, pixel tiles and panels; borders are peeled.

    An input in another precision is converted first, into a buffer of the rows that one output row reads: LLVM does not vectorise
    conversions in the tile's loop, and the kernel would execute a third more instructions.
    """

    def __init__(self, epilogue: Epilogue, layer: Conv2d, knobs: Knobs, task: Task, buffers: Mapping[str, Buffer]) -> None:
        self.epilogue, self.kernel, self.layer, self.knobs, self.threads = epilogue, epilogue.kernel, layer, knobs, task.threads
        self.widths = panels(layer.out_channels, knobs["columns"], task.lanes)
        self.data, self.weight, self.output = (buffers[name] for name in ("data", "weight", "output"))
        #: Buffer of converted rows, while a row is emitted; see `_lines`.
        self.lines: Buffer | None = None
        self.rows, self.pixels = partition(layer, 0, 1), partition(layer, 1, knobs["pixels"])

    def emit(self) -> None:
        """Emit the whole nest."""
        for run in self.rows:
            if self.threads > 1 and run.count > 1:
                with self.kernel.T.parallel(0, run.count) as index:
                    self.lines = self._lines()
                    self._row(run, run.start + index)
            else:
                self.lines = self._lines()
                with self.kernel.tiles(run) as row:
                    self._row(run, row)

    def _lines(self) -> Buffer | None:
        """Allocate the buffer of converted rows [input channel][row][column]; return `None` if the image needs no conversion."""
        layer = self.layer
        return self.kernel.scratch(layer.in_channels * layer.kernel[0] * layer.width) if self.kernel.is_converted(self.data) else None

    def _convert(self, lines: Buffer, row_run: Run, row: Expr) -> None:
        """Emit the conversion of the input rows that an output row reads."""
        kernel, (height, width), taps = self.kernel, (self.layer.height, self.layer.width), self.layer.kernel[0]
        first, last = row_run.taps[0]
        top = row * self.layer.stride[0] - self.layer.padding[0]
        whole = width // kernel.lanes * kernel.lanes
        with kernel.loop(self.layer.in_channels) as plane, kernel.span(first, last) as tap:
            source, target = (plane * height + top + tap) * width, (plane * taps + tap) * width
            if whole:
                with kernel.loop(whole // kernel.lanes) as vector:
                    kernel.store(lines, kernel.load(self.data, source + vector * kernel.lanes), target + vector * kernel.lanes)
            for column in range(whole, width):
                kernel.store(lines, kernel.load(self.data, source + column, 1), target + column, 1)

    def _row(self, row_run: Run, row: Expr) -> None:
        T = self.kernel.T  # noqa: N806
        if self.lines is not None:
            self._convert(self.lines, row_run, row)
        for panel in self.widths:
            for pixel_run in self.pixels:
                if self.knobs["order"] == 0:
                    with self.kernel.tiles(pixel_run) as pixel, T.serial(0, panel.count) as index:
                        self._tile(row_run, row, pixel_run, pixel, panel, index)
                else:
                    with T.serial(0, panel.count) as index, self.kernel.tiles(pixel_run) as pixel:
                        self._tile(row_run, row, pixel_run, pixel, panel, index)

    def _tile(self, row_run: Run, row: Expr, pixel_run: Run, pixel: Expr, panel: Panel, index: Expr) -> None:
        """Emit `pixel_run.size` output pixels of one row × one panel of output channels."""
        layer, lanes, T = self.layer, self.kernel.lanes, self.kernel.T  # noqa: N806
        width, taps_y, taps_x = panel.width, *layer.kernel
        depth = layer.in_channels * taps_y * taps_x
        channel = panel.channel + index * width
        acc = self.kernel.accumulators(pixel_run.size * width)
        output, first = Activation(self.output, 0, layer.out_channels, layer.out_channels), row * layer.out_width + pixel
        spots = panel_spots(output, [first + x for x in range(pixel_run.size)], channel, panel.columns, lanes)
        self.epilogue.fill(acc, spots)
        weights = channel * depth
        if self.knobs["loop"]:
            with T.serial(0, layer.in_channels) as plane:
                self._plane(acc, row_run, row, pixel_run, pixel, width, weights, plane)
        else:
            for plane in range(layer.in_channels):
                self._plane(acc, row_run, row, pixel_run, pixel, width, weights, plane)
        self.epilogue.drain(acc, spots, self.output)

    def _plane(self, acc: Buffer, row_run: Run, row: Expr, pixel_run: Run, pixel: Expr, width: int, weights: Expr, plane: Expr) -> None:
        """Emit the products of one input channel."""
        layer, (taps_y, taps_x) = self.layer, self.layer.kernel
        rows, lines = range(*row_run.taps[0]), []
        for tap_y in rows:
            y = row * layer.stride[0] - layer.padding[0] + tap_y
            line = plane * layer.height + y if self.lines is None else plane * taps_y + tap_y
            start = line * layer.width + pixel * layer.stride[1] - layer.padding[1]
            lines.append((self.data if self.lines is None else self.lines, start))

        def element(tap_y: int, tap_x: int) -> Expr:
            return weights + ((plane * taps_y + tap_y) * taps_x + tap_x) * width

        add_plane(self.kernel, acc, layer, (rows, pixel_run.taps, width), lines, (self.weight, element))
