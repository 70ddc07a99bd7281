"""Decides which layers of a network gain from kernels that skip zero weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from tvmmobile.graph.curves import TENSOR
from tvmmobile.graph.layers import Array, Conv2d, Layer, Pool
from tvmmobile.graph.network import Network
from tvmmobile.graph.tasks import Task

#: Largest share of remaining multiply-adds with which a sparse kernel may be faster. Per multiply-add, a sparse kernel takes 1.5 cycles on
#: a Cortex-A72 and 0.57 on a Cortex-A76, a dense one 1.03 and 0.5 (14 × 14 pixels, 512 → 512, modelled).
MOST_LEFT = 0.7
#: Sizes of groups of adjacent outputs that may have their zeros for the same inputs.
TOGETHER = (1, 2, 4)
#: Number of steps per power of two to which entries are rounded up, so that layers with similar numbers are one task; a step is 4.4 %, by
#: which the latency of such a layer is overestimated at most.
STEPS = 16


def planes_of(network: Network) -> Mapping[int, Layer]:
    """Return the layers that may be computed in NCHW, by node; none if no layer has enough zeros.

    1×1 layers have `sparse` set, unless they add a residual that must be NHWC; these can only write NCHW.
    """
    planes: dict[int, Layer] = {}
    gains = False
    #: Nodes whose residual may be NCHW, too.
    adding = {adder for node in network.nodes for adder in node.adding}
    for index, node in enumerate(network.nodes):
        layer = node.layer
        if isinstance(layer, Pool):
            planes[index] = layer
        elif isinstance(layer, Conv2d) and node.parameters is not None and layer.out_layout == "NHWC" and TENSOR not in layer.operands:
            if layer.is_pointwise and not layer.sources and not (layer.residual and index not in adding):
                layer = replace(layer, sparse=entries_of(node.parameters.weight))
                gains = gains or math.prod(layer.sparse) <= MOST_LEFT * layer.in_channels * layer.out_channels
            planes[index] = layer
    return planes if gains else {}


def entries_of(weight: Array) -> tuple[int, int]:
    """Return `Conv2d.sparse` for the weights of a 1×1 convolution: number of entries and group size, for the cheapest group size."""
    outputs = weight.shape[-1]
    sizes = [size for size in TOGETHER if outputs % size == 0]
    counts = {size: _count(weight, size) for size in sizes}
    # An entry costs one load of pixels, and one multiplication per output.
    together = min(sizes, key=lambda size: counts[size] * (size + 1))
    return min(rounded_up(counts[together]), weight.size // together), together


def left_out(weight: Array, together: int) -> float:
    """Return the share of a 1×1 convolution's weights that its sparse kernel skips, with groups of `together` outputs."""
    return 1 - _count(weight, together) * together / weight.size


def is_sparse(task: Task) -> bool:
    """Return whether a task's kernel skips zero weights."""
    return any(isinstance(layer, Conv2d) and layer.sparse != () for layer in task.region)


def _count(weight: Array, together: int) -> int:
    """Return the number of entries: pairs of an input channel and a group of outputs with a nonzero weight."""
    groups = weight.reshape(-1, weight.shape[-1] // together, together)
    return int((groups != 0).any(2).sum()) if weight.dtype.kind == "f" else weight.size // together


def rounded_up(count: int) -> int:
    """Return `count` rounded up to the number of entries of the task that represents such layers."""
    return math.ceil(2 ** (math.ceil(math.log2(count) * STEPS) / STEPS)) if count else 0
