"""Rewrites products with a transposed softmax, as in some attention of images, as the transpose of a product with the softmax.

`values @ softmax(…).mT` of values whose channels are first is `(softmax(…) @ values.mT).mT`: in an image with its channels last, neither
values nor results are moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax

from tvmmobile.graph.expressions import operator_of, shape_of, swaps_last
from tvmmobile.graph.operators import is_view
from tvmmobile.graph.passes.rewriting import replace_values


def transposed_products(module: Any) -> Any:
    """Rewrite every such product in `main`."""
    return replace_values(module, _transposed_source)


def _transposed_source(value: Any, values: Mapping[Any, Any]) -> Any:
    """Return the transposed product whose transpose a product is; `None` for other values."""
    swap = _swap_of_softmax(value, values)
    if swap is None:
        return None
    *leading, keys, queries = shape_of(value.args[1])
    axes = [*range(len(leading)), len(leading) + 1, len(leading)]
    weights = relax.op.reshape(swap.args[0], [*leading, queries, keys])
    return relax.op.permute_dims(relax.op.matmul(weights, relax.op.permute_dims(value.args[0], axes)), axes)


def _swap_of_softmax(value: Any, values: Mapping[Any, Any]) -> Any:
    """Return the permutation of a softmax that the second operand of a product shows; `None` for other values."""
    if operator_of(value) != "relax.matmul" or len(shape_of(value.args[0])) != len(shape_of(value.args[1])):
        return None
    swap = _behind_views(values.get(value.args[1]), values)
    if operator_of(swap) != "relax.permute_dims" or not swaps_last(swap) or shape_of(swap)[-2:] != shape_of(value.args[1])[-2:]:
        return None
    return swap if operator_of(_behind_views(values.get(swap.args[0]), values)) == "relax.nn.softmax" else None


def _behind_views(value: Any, values: Mapping[Any, Any]) -> Any:
    """Return the value that views of the same elements in the same order show."""
    while is_view(value) and shape_of(value)[-2:] == shape_of(value.args[0])[-2:]:
        value = values.get(value.args[0])
    return value
