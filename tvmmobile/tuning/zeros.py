"""Decides which layers of a network gain from kernels that leave out zero weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from tvmmobile.graph.curves import TENSOR
from tvmmobile.graph.layers import Array, Conv2d, Layer, Pool
from tvmmobile.graph.network import Network
from tvmmobile.graph.tasks import Task

#: Most multiply-adds that a layer with zeros may have left for which its sparse kernel can be faster. A sparse kernel takes 1.5 cycles for
#: each on a Cortex-A72 and 0.57 on a Cortex-A76, a dense one 1.03 and 0.5 (14 × 14 pixels, 512 → 512, modelled).
MOST_LEFT = 0.7
#: Sizes of groups of adjacent outputs whose zeros may be in the same places.
TOGETHER = (1, 2, 4)
#: Entries are rounded up to these shares of the next power of two, so that layers with about as many are one task: 2^(1/16) is 4.4 %, and
#: so much is the latency of an entry's kernel too high at most.
STEPS = 16


def planes_of(network: Network) -> Mapping[int, Layer]:
    """Return the layers that may be computed with channels first, by node; none without enough zeros.

    1×1 layers have `sparse`, unless they add a tensor that stays NHWC: these write their channels first at most.
    """
    found: dict[int, Layer] = {}
    gains = False
    #: Nodes whose residual may have its channels first too.
    adding = {adder for node in network.nodes for adder in node.adding}
    for index, node in enumerate(network.nodes):
        layer = node.layer
        if isinstance(layer, Pool):
            found[index] = layer
        elif isinstance(layer, Conv2d) and node.parameters is not None and layer.out_layout == "NHWC" and TENSOR not in layer.operands:
            if layer.is_pointwise and not layer.sources and not (layer.residual and index not in adding):
                layer = replace(layer, sparse=entries_of(node.parameters.weight))
                gains = gains or math.prod(layer.sparse) <= MOST_LEFT * layer.in_channels * layer.out_channels
            found[index] = layer
    return found if gains else {}


def entries_of(weight: Array) -> tuple[int, int]:
    """Return the `sparse` of a 1×1 convolution with these weights, for the group size that costs least."""
    outputs = weight.shape[-1]
    sizes = [size for size in TOGETHER if outputs % size == 0]
    counts = {size: _count(weight, size) for size in sizes}
    # Pixels are loaded once for an entry, and multiplied once for each output.
    together = min(sizes, key=lambda size: counts[size] * (size + 1))
    return min(rounded_up(counts[together]), weight.size // together), together


def left_out(weight: Array, together: int) -> float:
    """Return the share of a 1×1 convolution's weights that its sparse kernel, for groups of that many outputs, leaves out."""
    return 1 - _count(weight, together) * together / weight.size


def is_sparse(task: Task) -> bool:
    """Return whether a task's kernel leaves zeros out."""
    return any(isinstance(layer, Conv2d) and layer.sparse != () for layer in task.region)


def _count(weight: Array, together: int) -> int:
    """Return the number of entries: pairs of an input channel and a group of outputs with a weight other than zero."""
    groups = weight.reshape(-1, weight.shape[-1] // together, together)
    return int((groups != 0).any(2).sum()) if weight.dtype.kind == "f" else weight.size // together


def rounded_up(count: int) -> int:
    """Return the entries of the task that represents layers with so many."""
    return math.ceil(2 ** (math.ceil(math.log2(count) * STEPS) / STEPS)) if count else 0
