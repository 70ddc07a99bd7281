"""A depthwise convolution and the 1×1 convolution with sparse weights after it, fused in one kernel, NCHW."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.epilogue import constant_shapes, pack_constants
from tvmmobile.schedules.emit.kernel import Kernel
from tvmmobile.schedules.emit.plane_epilogue import PlaneEpilogue
from tvmmobile.schedules.emit.planes import packed_planes, plane_weights
from tvmmobile.schedules.emit.sparse_clusters import Clusters, ClusterStrip, output_holds_sums, registers_of
from tvmmobile.schedules.emit.sparse_nest import DepthwiseRows, SparseNest, Strips
from tvmmobile.schedules.fused.separable import separable_layers
from tvmmobile.schedules.space import Knobs, Space, up_to
from tvmmobile.schedules.template import EPILOGUE, LAYERS, STORAGE, THREADS, Template


class SparseSeparable(Template):
    """Accepts a depthwise convolution that `PlaneConv` and a 1×1 convolution that `SparseClusters` accepts, neither with side inputs. The
    first is computed, strip by strip, into the buffer to which the second would copy its input.

    Knobs:
        rows: rows per strip.
        dw_rows, dw_vectors: register tile of the depthwise convolution, in rows and vectors.
        cluster, unroll, k_block: those of `SparseClusters`.

    Threads share strips.
    """

    name = "sparse_separable"
    version = 1
    handles = EPILOGUE | LAYERS | THREADS | STORAGE | {"dilation", "sparse", "in_layout=NCHW", "out_layout=NCHW"}

    def _space(self, task: Task) -> Space | None:
        layers = _layers(task)
        if layers is None or task.precision.group > 1:
            return None
        first, second = layers
        height, width, lanes = first.out_height, first.out_width, task.lanes
        groups = second.out_channels // second.sparse[1]
        options = {
            "rows": tuple(rows for rows in (1, 2, 4, 7) if height % rows == 0 and rows * width % lanes == 0),
            "dw_rows": (1, 2, 4),
            "dw_vectors": up_to((1, 2, 3, 4, 7), -(-width // lanes)),
            "cluster": tuple(size for size in (2, 4) if groups % size == 0),
            "unroll": (1, 2),
            "k_block": (0, *(k for k in (64, 128, 256, 512) if k < second.in_channels)),
        }
        if not all(options.values()):
            return None

        def fits(knobs: Knobs) -> bool:
            vectors = knobs["rows"] * width // lanes
            strip = vectors * lanes * task.precision.bytes
            return (
                registers_of(task, second, vectors, knobs) <= task.machine.registers
                and knobs["dw_rows"] <= knobs["rows"]
                and (knobs["k_block"] == 0 or knobs["k_block"] * strip <= task.machine.l1d_bytes < second.in_channels * strip)
            )

        usual = {"rows": 2, "dw_rows": 2, "dw_vectors": 4, "cluster": 4, "unroll": 2, "k_block": 256}
        space = Space(self.name, self.version, options, fits, usual)
        return space if space.size(1) else None

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, channels, density, sums per cluster, elements per block, unrolling, depthwise tile and stride."""
        first, second = _accepted_layers(task)
        count, together = second.sparse
        block = knobs["k_block"] or second.in_channels
        pixels = knobs["rows"] * first.out_width
        return [
            math.log2(first.out_height * first.out_width),
            math.log2(second.in_channels),
            math.log2(second.out_channels),
            count * together / (second.in_channels * second.out_channels),
            pixels * together * knobs["cluster"],
            math.log2(pixels * block),
            knobs["cluster"] / knobs["unroll"],
            knobs["dw_rows"] * knobs["dw_vectors"],
            first.stride[0],
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        first, second = _accepted_layers(task)
        lists = _lists(task, second, knobs)
        kernel = Kernel(task, knobs, places=[name for name in lists.shapes if name != "weight"])
        shapes = {
            "data": first.input_shape,
            "dw_weight": (plane_weights(math.prod(first.kernel), 1, task.lanes) * first.out_channels,),
            **{f"dw_{name}": shape for name, shape in constant_shapes(first).items()},
            **lists.shapes,
            **constant_shapes(second),
        }
        with kernel.named_body(**shapes, output=second.output_shape) as buffers:
            depthwise_buffers = {name.removeprefix("dw_"): buffer for name, buffer in buffers.items() if name.startswith("dw_")}
            depthwise_buffers["data"] = buffers["data"]
            depthwise_epilogue = PlaneEpilogue(kernel, first, depthwise_buffers)
            rows = DepthwiseRows(kernel, first, 1, _depthwise_knobs(knobs), 1, depthwise_buffers, depthwise_epilogue)
            vectors = knobs["rows"] * first.out_width // task.lanes
            strips = [Strips(0, first.out_height // knobs["rows"], 0, task.lanes, tuple(range(0, vectors * task.lanes, task.lanes)))]
            epilogue = PlaneEpilogue(kernel, second, buffers)
            copying = {**knobs, "copy": 1}
            SparseNest(
                kernel, second, lists, copying, task.threads, buffers, epilogue, strips, output_holds_sums(task), ClusterStrip, rows
            ).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return both layers' constants as the single templates pack them."""
        first, second = _accepted_layers(task)
        weight = parameters[1].weight.reshape(second.in_channels, second.out_channels)
        return [
            packed_planes(parameters[0].weight, 1, task.lanes),
            *pack_constants(parameters[0]),
            *_lists(task, second, knobs).pack(weight, knobs["rows"] * first.out_width, True),
            *pack_constants(parameters[1]),
        ]


def _layers(task: Task) -> tuple[Conv2d, Conv2d] | None:
    """Return both layers with NCHW between them, if the template accepts them, else `None`."""
    layers = separable_layers(task)
    if layers is None or layers[1].in_layout != "NHWC":
        return None
    first, second = replace(layers[0], out_layout="NCHW"), replace(layers[1], in_layout="NCHW")
    if not (first.channels_first and second.channels_first and first.is_depthwise and second.is_pointwise and second.sparse):
        return None
    return None if task.side_shapes or second.out_channels % second.sparse[1] else (first, second)


def _accepted_layers(task: Task) -> tuple[Conv2d, Conv2d]:
    layers = _layers(task)
    assert layers is not None
    return layers


def _lists(task: Task, layer: Conv2d, knobs: Knobs) -> Clusters:
    return Clusters.of(task, layer, {**knobs, "axis": 0})


def _depthwise_knobs(knobs: Knobs) -> Knobs:
    """Return `PlaneConv`'s knobs of the depthwise convolution."""
    return {"rows": knobs["dw_rows"], "vectors": knobs["dw_vectors"], "together": 1, "band": knobs["rows"]}
