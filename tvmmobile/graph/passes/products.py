"""Moves transpositions next to the products of activations that read them, which can then transpose by themselves.

PyTorch's exporter puts views between them: `a @ b.transpose(-1, -2)` is a permutation, an expansion to the shape that it has, a reshape to
three dimensions, and a product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import tvm
from tvm import relax

from tvmmobile.graph.access import Access
from tvmmobile.graph.expressions import operator_of, shape_of, swaps_last
from tvmmobile.graph.operators import is_view


def beside_product(value: Any, values: Mapping[Any, Any]) -> Any:
    """Make permutations and views that swap the last two dimensions of a product's operand a single swap; `None` for other values."""
    if operator_of(value) != "relax.matmul" or any(isinstance(operand, tvm.ir.GenericConst) for operand in value.args):
        return None
    swaps = [_swap(operand, values) for operand in value.args]
    operands = [operand if swap is None else swap for operand, swap in zip(value.args, swaps, strict=True)]
    return None if swaps == [None, None] else relax.op.matmul(*operands)


def _swap(operand: Any, values: Mapping[Any, Any]) -> Any:
    """Return the swap that an operand is, of a tensor in front of more views; `None` for other operands."""
    chain: list[Any] = []
    source, found = operand, None
    while _only_moves(value := cast(Any, values.get(source))):
        chain.insert(0, value)
        source = value.args[0]
        found = source if _swaps_matrices(source, chain) else found
    if found is None or (len(chain) == 1 and swaps_last(chain[0])):
        return None
    *leading, rows, columns = shape_of(operand)
    viewed = relax.op.reshape(found, [*leading, columns, rows])
    return relax.op.permute_dims(viewed, [*range(len(leading)), len(leading) + 1, len(leading)])


def _only_moves(value: Any) -> bool:
    """Return whether a value is a view or a permutation of all elements of another tensor."""
    return is_view(value) or operator_of(value) == "relax.permute_dims"


def _swaps_matrices(source: Any, chain: list[Any]) -> bool:
    """Return whether a chain of views only swaps the dimensions of matrices that lie in a tensor in order."""
    access = Access.through(shape_of(source), chain)
    if access is None or len(access.dimensions) < 2 or 1 in access.shape[-2:]:
        return False
    *leading, rows, columns = range(len(access.dimensions))
    return access.permute([*leading, columns, rows]).in_order(Access.of(shape_of(source)))
