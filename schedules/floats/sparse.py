"""1×1 convolutions with sparse weights on NCHW activations (Fast Sparse ConvNets, arXiv 1911.09723)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.epilogue import constant_shapes, pack_constants
from tvmmobile.schedules.emit.kernel import Kernel
from tvmmobile.schedules.emit.matmul_cost import LINE_BYTES
from tvmmobile.schedules.emit.plane_epilogue import PlaneEpilogue
from tvmmobile.schedules.emit.sparse_clusters import Clusters, ClusterStrip, output_holds_sums, registers_of
from tvmmobile.schedules.emit.sparse_entries import Entries
from tvmmobile.schedules.emit.sparse_nest import EntryStrip, Lists, SparseNest, Strips, StripWork, strips_of
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to
from tvmmobile.schedules.template import EPILOGUE, STORAGE, THREADS, Template, layer_of

#: Fewest vectors per strip: fewer sums would not hide the latency of additions and of loads of entries.
FEWEST_VECTORS = 4
#: Registers for loaded pixels that are not multiplied yet.
MOST_LOADED = 4


class Sparse(Template, Generic[Lists]):
    """Accepts one 1×1 convolution with sparse weights, stride 1, NCHW input and output, with or without a residual and a gate.

    Knobs:
        vectors: most vectors of pixels per strip, all of which a weight is multiplied with.
        k_block: input channels per block, 0 for all of them; partial sums are kept in a scratch buffer or in the output.
        copy: 1 packs a strip of all input channels into contiguous memory, multiplied by the gate if there is one.
        axis: loop that threads share: 0 strips, 1 outputs, with about equally many entries per thread.
    """

    handles = EPILOGUE | THREADS | STORAGE | {"residual", "scaled", "sparse", "in_layout=NCHW", "out_layout=NCHW"}
    #: Class that emits the work on a strip.
    work: type[StripWork[Lists]]
    #: See `Space.usual`.
    usual: ClassVar[Knobs]

    @abstractmethod
    def lists(self, task: Task, layer: Conv2d, knobs: Knobs) -> Lists:
        """Return the format of the packed weights."""

    @abstractmethod
    def _own_options(self, layer: Conv2d) -> Mapping[str, tuple[int, ...]]:
        """Return the values of the knobs that only this template has."""

    @abstractmethod
    def _registers(self, task: Task, layer: Conv2d, knobs: Knobs) -> int:
        """Return the number of vector registers that a kernel needs."""

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and layer.is_pointwise and layer.sparse and layer.out_channels % layer.sparse[1] == 0):
            return None
        if not layer.channels_first or task.precision.group > 1:
            return None  # instructions that multiply several terms at once gain more than skipping zeros does
        options = {
            "vectors": up_to((1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 14, 16, 20), -(-layer.height * layer.width // task.lanes)),
            **self._own_options(layer),
            "k_block": (0, *(k for k in (64, 128, 256, 512) if k < layer.in_channels)),
            "copy": (1,) if layer.scaled else (0, 1),
            "axis": (0, 1) if task.threads > 1 else (0,),
        }
        if not all(options.values()):
            return None
        fewest = min(FEWEST_VECTORS, max(options["vectors"]))

        def fits(knobs: Knobs) -> bool:
            strip = knobs["vectors"] * task.lanes * task.precision.bytes
            block = knobs["k_block"]
            return (
                knobs["vectors"] >= fewest
                and self._registers(task, layer, knobs) <= task.machine.registers
                and self._pays(layer, knobs)
                and (block == 0 or block * strip <= task.machine.l1d_bytes < layer.in_channels * strip)
            )

        return Space(self.name, self.version, options, fits, self.usual)

    def _pays(self, layer: Conv2d, knobs: Knobs) -> bool:
        return True

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, density, steps per list, outputs per group, sums per strip, bytes of a strip's block, and number of strips."""
        layer = layer_of(task, Conv2d)
        count, together = layer.sparse
        block = knobs["k_block"] or layer.in_channels
        density = count * together / (layer.in_channels * layer.out_channels)
        return [
            math.log2(layer.height * layer.width),
            math.log2(layer.in_channels),
            math.log2(layer.out_channels),
            density,
            layer.sparse[0] * together / layer.out_channels * block / layer.in_channels / knobs.get("unroll", 1),
            together,
            knobs["vectors"] * together,
            math.log2(knobs["vectors"] * task.lanes * task.precision.bytes * block),
            len(self._strips(task, layer, knobs)),
        ]

    def _strips(self, task: Task, layer: Conv2d, knobs: Knobs) -> list[Strips]:
        return strips_of(layer.height * layer.width, task.lanes, knobs["vectors"])

    def _waits_in_output(self, task: Task, layer: Conv2d, strips: Sequence[Strips]) -> bool:
        return False

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Conv2d)
        lists = self.lists(task, layer, knobs)
        kernel = Kernel(task, knobs, places=[name for name in lists.shapes if name != "weight"])
        arguments = {"data": layer.input_shape, **layer.side_shapes, **lists.shapes, **constant_shapes(layer)}
        with kernel.named_body(**arguments, output=layer.output_shape) as buffers:
            epilogue = PlaneEpilogue(kernel, layer, buffers)
            strips = self._strips(task, layer, knobs)
            waits_in_output = self._waits_in_output(task, layer, strips)
            SparseNest(kernel, layer, lists, knobs, task.threads, buffers, epilogue, strips, waits_in_output, self.work).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the packed lists, then the constants per channel."""
        layer = layer_of(task, Conv2d)
        width = max(len(strip.vectors) * strip.lanes for strip in self._strips(task, layer, knobs))
        weight = parameters[0].weight.reshape(layer.in_channels, layer.out_channels)
        stride = width if knobs["copy"] else layer.height * layer.width
        return [*self.lists(task, layer, knobs).pack(weight, stride, knobs["copy"] == 1), *pack_constants(parameters[0])]


class SparsePointwise(Sparse[Entries]):
    """Computes one group of outputs at a time.

    Knobs in addition to those of `Sparse`:
        unroll: entries (see `Entries`) per step.
    """

    name = "sparse"
    version = 1
    work = EntryStrip
    usual: ClassVar[Knobs] = {"vectors": 12, "unroll": 4, "k_block": 128, "copy": 1, "axis": 0}

    def lists(self, task: Task, layer: Conv2d, knobs: Knobs) -> Entries:
        """Return a list for each group."""
        return Entries.of(task, layer, knobs)

    def _own_options(self, layer: Conv2d) -> Mapping[str, tuple[int, ...]]:
        return {"unroll": (1, 2, 4, 8)}

    def _registers(self, task: Task, layer: Conv2d, knobs: Knobs) -> int:
        together, unroll = layer.sparse[1], knobs["unroll"]
        sums = knobs["vectors"] * together * (2 if task.precision.chain else 1)
        return sums + MOST_LOADED + round_up(unroll * together, task.lanes) // task.lanes

    def _pays(self, layer: Conv2d, knobs: Knobs) -> bool:
        count, together = layer.sparse
        entries = count / (layer.out_channels // together) * (knobs["k_block"] or layer.in_channels) / layer.in_channels
        return knobs["unroll"] == 1 or knobs["unroll"] <= entries


class SparseClusters(Sparse[Clusters]):
    """Computes groups of outputs with overlapping nonzero patterns together, so that they share loads of pixels.

    Knobs in addition to those of `Sparse`:
        cluster: groups that are computed together.
        unroll: entries per step.
    """

    name = "sparse_clusters"
    version = 1
    work = ClusterStrip
    usual: ClassVar[Knobs] = {"vectors": 7, "cluster": 4, "unroll": 2, "k_block": 256, "copy": 1, "axis": 0}

    def lists(self, task: Task, layer: Conv2d, knobs: Knobs) -> Clusters:
        """Return lists for each cluster."""
        return Clusters.of(task, layer, knobs)

    def _own_options(self, layer: Conv2d) -> Mapping[str, tuple[int, ...]]:
        groups = layer.out_channels // layer.sparse[1]
        return {"cluster": tuple(size for size in (2, 4) if groups % size == 0), "unroll": (1, 2)}

    def _registers(self, task: Task, layer: Conv2d, knobs: Knobs) -> int:
        return registers_of(task, layer, knobs["vectors"], knobs)

    def _strips(self, task: Task, layer: Conv2d, knobs: Knobs) -> list[Strips]:
        """Return strips, aligned to cache lines if all channels are, so that no line is written by two strips."""
        pixels = layer.height * layer.width
        aligned = all(size * task.precision.bytes % LINE_BYTES == 0 for size in (pixels, knobs["vectors"] * task.lanes))
        return strips_of(pixels, task.lanes, knobs["vectors"], equal=not aligned)

    def _waits_in_output(self, task: Task, layer: Conv2d, strips: Sequence[Strips]) -> bool:
        """Return whether the output has the accumulators' type and no other thread writes a strip's outputs."""
        separate = layer.height * layer.width % task.lanes == 0 or len(strips[-1].vectors) > 1
        return output_holds_sums(task) and (separate or task.threads == 1)
