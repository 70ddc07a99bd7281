"""1×1 convolutions with sparse weights, channels first (Fast Sparse ConvNets, arXiv 1911.09723)."""

from __future__ import annotations

import math
from typing import Any

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.epilogue import constant_shapes, pack_constants
from tvmmobile.schedules.emit.kernel import Kernel
from tvmmobile.schedules.emit.plane_epilogue import PlaneEpilogue
from tvmmobile.schedules.emit.sparse_entries import Entries
from tvmmobile.schedules.emit.sparse_nest import SparseNest, strips_of
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to
from tvmmobile.schedules.template import EPILOGUE, STORAGE, THREADS, Template, layer_of

#: Fewer sums wait for each other, and for the entries.
FEWEST_VECTORS = 4
#: Registers of pixels that were loaded and not yet multiplied.
MOST_LOADED = 4


class SparsePointwise(Template):
    """Takes one 1×1 convolution with sparse weights, stride 1, channels first in input and output, with or without a residual
    and factors for its input.

    Knobs:
        vectors: most vectors of pixels in a strip, which a weight meets together.
        unroll: entries (see `Entries`) of a step.
        k_block: input channels of a block, 0 for all of them; partial sums wait in a scratch buffer.
        copy: 1 copies a strip of all input channels, so that its cache lines hold nothing else; it is multiplied by its factors then.
        axis: what threads share: 0 strips, 1 outputs, equally many entries each.
    """

    name = "sparse"
    version = 1
    handles = EPILOGUE | THREADS | STORAGE | {"residual", "scaled", "sparse", "in_layout=NCHW", "out_layout=NCHW"}

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and layer.is_pointwise and layer.sparse and layer.out_channels % layer.sparse[1] == 0):
            return None
        if not layer.channels_first or task.precision.group > 1:
            return None  # instructions that multiply several terms of a sum gain more than zeros do
        together = layer.sparse[1]
        groups = layer.out_channels // together
        options = {
            "vectors": up_to((1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20), max(layer.height * layer.width // task.lanes, 1)),
            "unroll": (1, 2, 4, 8),
            "k_block": (0, *(k for k in (64, 128, 256, 512) if k < layer.in_channels)),
            "copy": (1,) if layer.scaled else (0, 1),
            "axis": (0, 1) if task.threads > 1 else (0,),
        }
        fewest = min(FEWEST_VECTORS, max(options["vectors"]))

        def fits(knobs: Knobs) -> bool:
            vectors, unroll = knobs["vectors"], knobs["unroll"]
            registers = (
                vectors * together * (2 if task.precision.chain else 1)
                + MOST_LOADED
                + round_up(unroll * together, task.lanes) // task.lanes
            )
            strip = vectors * task.lanes * task.precision.bytes
            lists = layer.sparse[0] / groups * (knobs["k_block"] or layer.in_channels) / layer.in_channels
            return (
                vectors >= fewest
                and registers <= task.machine.registers
                and (unroll == 1 or unroll <= lists)
                and (knobs["k_block"] == 0 or knobs["k_block"] * strip <= task.machine.l1d_bytes < layer.in_channels * strip)
            )

        usual = {"vectors": 12, "unroll": 4, "k_block": 128, "copy": 1, "axis": 0}
        return Space(self.name, self.version, options, fits, usual)

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, share of entries, entries of a list, strip, its bytes, registers."""
        layer = layer_of(task, Conv2d)
        count, together = layer.sparse
        block = knobs["k_block"] or layer.in_channels
        density = count * together / (layer.in_channels * layer.out_channels)
        return [
            math.log2(layer.height * layer.width),
            math.log2(layer.in_channels),
            math.log2(layer.out_channels),
            density,
            layer.sparse[0] * together / layer.out_channels * block / layer.in_channels / knobs["unroll"],
            together,
            knobs["vectors"] * together,
            math.log2(knobs["vectors"] * task.lanes * task.precision.bytes * block),
            len(strips_of(layer.height * layer.width, task.lanes, knobs["vectors"])),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Conv2d)
        kernel, entries = Kernel(task, knobs, places=("offsets", "starts", "bounds")), Entries.of(task, layer, knobs)
        arguments = {"data": layer.input_shape, **layer.side_shapes, **entries.shapes, **constant_shapes(layer)}
        with kernel.named_body(**arguments, output=layer.output_shape) as buffers:
            epilogue = PlaneEpilogue(kernel, layer, buffers)
            SparseNest(kernel, layer, entries, knobs, task.threads, buffers, epilogue).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the entries, then constants per channel."""
        layer = layer_of(task, Conv2d)
        strips = strips_of(layer.height * layer.width, task.lanes, knobs["vectors"])
        width = max(len(strip.vectors) * strip.lanes for strip in strips)
        weight = parameters[0].weight.reshape(layer.in_channels, layer.out_channels)
        stride = width if knobs["copy"] else layer.height * layer.width
        return [*Entries.of(task, layer, knobs).pack(weight, stride, knobs["copy"] == 1), *pack_constants(parameters[0])]
