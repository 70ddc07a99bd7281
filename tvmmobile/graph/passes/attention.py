"""Makes attention one layer that reads queries, keys and values where a linear layer wrote them, and writes the next layer's input.

Networks permute, slice and reshape in between. Such a chain of views only determines where elements are stored (`graph.access`): if they
have a constant stride along each axis, nothing has to be moved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.access import Access
from tvmmobile.graph.composed import ComposedLayer
from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.layers import NO_PARAMETERS, Array, Attention, HeadView, LayerParameters
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.attention_scores import MASKED_SCORE, factor_of, has_scores, in_order, is_softmax, scaled
from tvmmobile.graph.passes.layer_passes import LayerGraph, layer_pass
from tvmmobile.graph.precision import FLOAT32

#: Views between a linear layer and an operand of attention, at most.
_MOST_VIEWS = 16


@layer_pass
def attention(graph: LayerGraph, variable: Any) -> Mapping[Any, Any]:
    """Replace every accepted attention by a call of an external function."""
    match = _attention(graph, variable)
    if match is None or not graph.accepts(match.layer):
        return {}
    parameters = NO_PARAMETERS if match.bias is None else LayerParameters(NO_PARAMETERS.weight, match.bias)
    call = graph.call(ComposedLayer(match.layer, parameters), match.inputs)
    return {match.output: relax.op.reshape(call, shape_of(match.output))}


@dataclass(frozen=True)
class _MatchedAttention:
    """An attention, the biases of its products, the variables that it reads, and the one that shows its result."""

    layer: Attention
    bias: Array | None
    inputs: tuple[Any, Any, Any]
    output: Any


@dataclass(frozen=True)
class _TracedOperand:
    """An operand of attention, traced back: a tensor, places in it, a factor, and the number of views on the way."""

    source: Any
    place: HeadView
    factor: float
    views: int


def _views(reads: list[_TracedOperand]) -> int:
    return sum(read.views for read in reads)


def _attention(graph: LayerGraph, variable: Any) -> _MatchedAttention | None:
    """Return the attention that ends with this product of a softmax and values; `None` for other variables."""
    values, value = graph.values, graph.values[variable]
    if operator_of(value) != "relax.matmul" or str(value.ty.dtype) != FLOAT32.name:
        return None
    weights: Any = values.get(in_order(value.args[0], values))
    if not is_softmax(weights):
        return None
    scores, factor, added = scaled(weights.args[0], values)
    product: Any = values.get(scores)
    if operator_of(product) != "relax.matmul" or min(len(shape_of(one)) for one in (*value.args, *product.args)) < 2:
        return None
    (*heads, queries, width), (*_, depth, keys) = shape_of(variable), shape_of(product.args[1])
    count = math.prod(heads)
    if shape_of(product)[-2:] != [queries, keys] or math.prod(shape_of(product)) != count * queries * keys:
        return None
    operands = (
        (product.args[0], shape_of(product)[:-2], (queries, depth), False),
        (product.args[1], shape_of(product)[:-2], (keys, depth), True),
        (value.args[1], heads, (keys, width), False),
    )
    best: list[_TracedOperand] = []
    groups = 1
    for tried in (divisor for divisor in range(1, count + 1) if count % divisor == 0):
        found = [read for operand in operands if (read := _read(operand[0], values, (tried, count // tried), *operand[1:]))]
        if len(found) == len(operands) and (not best or _views(found) > _views(best)):
            best, groups = found, tried
    if not best:
        return None
    query, key, mixed = best
    shapes = [tuple(shape_of(one.source)) for one in best]
    output, merged = _merged(graph, variable, (groups, count // groups), queries, width)
    layer = Attention(
        *(groups, count // groups, queries, keys, depth, width),
        factor * math.prod(one.factor for one in best),
        (shapes[0], shapes[1], shapes[2]),
        *(query.place, key.place, mixed.place),
        merged,
    )
    bias = None if added is None else _reduced(added.reshape(groups, count // groups, queries, keys))
    if bias is not None:
        if not has_scores(bias):
            return None  # a softmax of no elements is undefined
        bias = np.maximum(bias, MASKED_SCORE)
        layer = replace(layer, bias=(bias.shape[0], bias.shape[1]))
    return _MatchedAttention(layer, bias, (query.source, key.source, mixed.source), output)


def _read(
    operand: Any, values: Mapping[Any, Any], heads: tuple[int, int], leading: list[int], extents: tuple[int, int], transposed: bool
) -> _TracedOperand | None:
    """Return the earliest tensor that holds an operand's elements in place.

    Args:
        heads: number of groups, and of heads per group.
        leading: extents in front of the product's rows and columns, to which it broadcasts the operand.
        extents: number of tokens, and of elements per token.
        transposed: true if the operand has elements before tokens.
    """
    chain: list[Any] = []
    best, factor, source = None, 1.0, operand
    while True:
        access = Access.through(shape_of(source), chain)
        place = _place(access.expand([*leading, *access.shape[-2:]]), heads, extents, transposed) if access else None
        value: Any = values.get(source)
        # A slice of a permutation becomes a permutation of a slice, which moves less than the whole.
        is_cut = bool(chain) and operator_of(chain[0]) == "relax.strided_slice" and operator_of(value) == "relax.permute_dims"
        best = _TracedOperand(source, place, factor, len(chain)) if place and not is_cut else best
        step = factor_of(value)
        if step is not None:
            source, factor = step[0], factor * step[1]
            continue
        if not has(value, Trait.MOVE) or len(chain) > _MOST_VIEWS:
            return best
        chain.insert(0, value)
        source = value.args[0]


def _place(access: Access, heads: tuple[int, int], extents: tuple[int, int], transposed: bool) -> HeadView | None:
    """Return the place of an operand's elements in its source; `None` if they are not evenly spaced."""
    parts = access.reshape([*heads, *(extents[::-1] if transposed else extents)])
    if parts is None or any(len(factors) > 1 for factors in parts.dimensions):
        return None
    group, head, *inner = (factors[0].stride if factors else 0 for factors in parts.dimensions)
    token, element = inner[::-1] if transposed else inner
    return (access.offset, group, head, token) if element == 1 or extents[1] == 1 else None


def _merged(graph: LayerGraph, variable: Any, heads: tuple[int, int], queries: int, width: int) -> tuple[Any, bool]:
    """Return the last view of a result that joins each token's heads; the result itself if there is none."""
    wanted = Access.of([*heads, queries, width]).permute([0, 2, 1, 3])
    found = [view for view, access in graph.moves(variable) if access.in_order(wanted)]
    return (found[-1], True) if found else (variable, False)


def _reduced(bias: Array) -> Array:
    """Return biases by group, head, query and key; equal ones of groups or heads are stored once."""
    for axis in (0, 1):
        first = bias.take([0], axis)
        bias = first if (bias == first).all() else bias
    return np.ascontiguousarray(bias)
