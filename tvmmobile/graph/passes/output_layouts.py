"""Output layouts in place of operators that move a layer's output: pixel shuffles, and images in NCHW. Nothing moves in memory afterwards.

Networks spell pixel shuffles (W. Shi et al., arXiv 1609.05158) as a reshape and a permutation; these are one where the channels of a pixel
stay together in blocks, each in a row of its own of the larger image. The order of channels in these is that of the weights, which is ours
to choose. NCHW is the shuffle of blocks of one channel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.access import Access
from tvmmobile.graph.composed import ComposedLayer
from tvmmobile.graph.curves import GATE, TENSOR
from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.layers import Array, Conv2d, LayerParameters, Resize
from tvmmobile.graph.layouts import Layout, shuffled
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.layer_passes import LayerGraph, layer_pass


@layer_pass
def output_layouts(graph: LayerGraph, variable: Any) -> Mapping[Any, Any]:
    """Let a layer write its output in the layout that later views give it, where a template takes that."""
    composed = graph.layer(variable)
    change = _moving(graph, variable, composed) if composed else None
    if change is None or not graph.accepts(change[0].layer):
        return {}
    moved, output = change
    call = graph.call(moved, graph.inputs(variable), graph.name(variable))
    # The first view is for the views in between, which nothing reads any more.
    return {variable: relax.op.reshape(call, shape_of(variable)), output: relax.op.reshape(variable, shape_of(output))}


def _moving(graph: LayerGraph, variable: Any, composed: ComposedLayer) -> tuple[ComposedLayer, Any] | None:
    """Return the layer with the layout that views give its output, and the variable that holds it; `None` without one."""
    layer = composed.layer
    if not isinstance(layer, Conv2d | Resize) or layer.out_layout != "NHWC" or (isinstance(layer, Conv2d) and layer.groups > 1):
        return None
    moves = list(graph.moves(variable))
    plain = "NCHW" if isinstance(layer, Resize) else shuffled(1, 1), np.arange(layer.output_shape[3])
    found = [(at, *plain) for at, access in moves[-1:] if _is_nchw(access, layer) and not _moves_on(graph, at)]
    if isinstance(layer, Conv2d):
        found += [(at, *shuffle) for at, access in moves if (shuffle := _shuffle(access, layer))]
    if not found:
        return None
    at, layout, order = found[-1]
    if isinstance(layer, Resize):
        return replace(composed, layer=replace(layer, out_layout=layout)), at
    alike = (order == np.arange(order.size)).all()
    if not alike and (layer.residual or {TENSOR, GATE} & {*layer.operands}):
        return None  # these have the channels in the old order
    parameters = composed.parameters
    bias, *operands = (array[order] for array in (parameters.bias, *parameters.operands))
    parameters = LayerParameters(np.ascontiguousarray(parameters.weight[..., order]), bias, tuple(operands))
    return replace(composed, layer=replace(layer, out_layout=layout), parameters=parameters), at


def _moves_on(graph: LayerGraph, variable: Any) -> bool:
    """Return whether a reader of a view is another view, with which the views before can be joined."""
    return any(reader is not None and has(graph.values[reader], Trait.MOVE) for reader in graph.readers[variable])


def _is_nchw(access: Access, layer: Conv2d | Resize) -> bool:
    """Return whether these elements of an NHWC output follow each other as in NCHW, which is another order."""
    channels = layer.output_shape[3]
    pixels = math.prod(layer.output_shape) // channels
    return min(pixels, channels) > 1 and access.in_order(Access.of([pixels, channels]).permute())


def _shuffle(access: Access, layer: Conv2d) -> tuple[Layout, Array] | None:
    """Return the layout with the largest blocks in which these elements of an NHWC output follow each other, and its order of channels."""
    height, width, channels = layer.out_height, layer.out_width, layer.out_channels
    if math.prod(access.shape) != height * width * channels:
        return None
    *pixels, _ = Access.of([height, width, channels]).dimensions
    divisors = [count for count in range(2, channels + 1) if channels % count == 0]
    for block, rows in itertools.product(reversed(divisors), divisors):
        parts = None if channels % (block * rows) else access.reshape([channels // (block * rows), height, rows, width, block])
        if parts is None or [parts.dimensions[1], parts.dimensions[3]] != pixels:
            continue
        order = Access(parts.dimensions[::2], access.offset).indices().reshape(-1)
        if (np.sort(order) == np.arange(channels)).all():
            return shuffled(rows, block), order
    return None
