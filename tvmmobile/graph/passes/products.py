"""Moves transpositions next to the products of activations that read them, which can then transpose by themselves, or behind them, and
factors of matrices in front of products; and makes products of pointwise convolutions with computed weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import tvm
from tvm import relax

from tvmmobile.graph.access import Access
from tvmmobile.graph.expressions import TO_FIRST, TO_LAST, constant, is_float32, numbers_of, operator_of, shape_of, swaps_last, variables_of
from tvmmobile.graph.operators import constant_operand, is_view
from tvmmobile.graph.passes.rewriting import value_pass


def beside_product(value: Any, values: Mapping[Any, Any]) -> Any:
    """Make permutations and views that swap the last two dimensions of a product's operand a single swap; `None` for other values.

    PyTorch's exporter puts views between them: `a @ b.transpose(-1, -2)` is a permutation, an expansion to the shape that it has, a reshape
    to three dimensions, and a product.
    """
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


@value_pass
def transposed_products(value: Any, values: Mapping[Any, Any]) -> Any:
    """Rewrite products with a transposed softmax, as in some attention of images, as the transpose of a product with the softmax.

    `values @ softmax(…).mT` of values whose channels are first is `(softmax(…) @ values.mT).mT`: in an image with its channels last,
    neither values nor results are moved.
    """
    swap = _swap_of_softmax(value, values)
    if swap is None:
        return None
    *leading, keys, queries = shape_of(value.args[1])
    axes = [*range(len(leading)), len(leading) + 1, len(leading)]
    weights = relax.op.reshape(swap.args[0], [*leading, queries, keys])
    return relax.op.permute_dims(relax.op.matmul(weights, relax.op.permute_dims(value.args[0], axes)), axes)


@value_pass
def temperatures(value: Any, values: Mapping[Any, Any]) -> Any:
    """Move factors of a product's matrices, such as a temperature for each head (arXiv 2111.09883), to its first operand: what reads the
    product is attention then.
    """
    found = constant_operand(value) if operator_of(value) == "relax.multiply" else None
    product: Any = found and _behind_views(values.get(found[0]), values)
    if found is None or operator_of(product) != "relax.matmul":
        return None
    factors, shape, depth = numbers_of(found[1]), shape_of(value), shape_of(product.args[0])[-1]
    queries = source = product.args[0]
    while is_view(view := cast(Any, values.get(source))):
        source = view.args[0]
        queries = source if shape_of(source) == [*shape[:-1], depth] else queries
    of_matrices = factors.size > 1 and factors.shape[-2:] == (1, 1) and shape_of(found[0]) == shape
    computed = isinstance(queries, relax.Var) and shape_of(queries) == [*shape[:-1], depth]
    if not (of_matrices and computed and is_float32(value)):
        return None
    scaled = relax.op.reshape(relax.op.multiply(queries, constant(factors)), shape_of(product.args[0]))
    return relax.op.reshape(relax.op.matmul(scaled, product.args[1]), shape)


@value_pass
def computed_weights(value: Any, values: Mapping[Any, Any]) -> Any:
    """Rewrite pointwise convolutions of one image with computed weights, such as those of CondConv (arXiv 1904.04971), as products."""
    if operator_of(value) != "relax.nn.conv2d" or not is_float32(value) or not _is_computed(value.args[1], values):
        return None
    attrs, (batch, channels, height, width), taps = value.attrs, shape_of(value), shape_of(value.args[1])
    plain = (attrs.data_layout, attrs.kernel_layout, int(attrs.groups), batch) == ("NCHW", "OIHW", 1, 1)
    if not plain or taps[2:] != [1, 1] or any(map(int, attrs.padding)) or set(map(int, attrs.strides)) != {1}:
        return None
    rows = relax.op.reshape(relax.op.permute_dims(value.args[0], TO_LAST), [1, height * width, taps[1]])
    weights = relax.op.permute_dims(relax.op.reshape(value.args[1], [1, channels, taps[1]]), [0, 2, 1])
    image = relax.op.reshape(relax.op.matmul(rows, weights), [1, height, width, channels])
    return relax.op.permute_dims(image, TO_FIRST)


def _is_computed(variable: Any, values: Mapping[Any, Any]) -> bool:
    """Return whether a tensor depends on the network's inputs; a quantised weight that is still to be scaled does not."""
    left, seen = [variable] if isinstance(variable, relax.Var) else [], set[Any]()
    while left:
        if (one := left.pop()) not in values:
            return True
        left += [each for each in variables_of(values[one]) if each not in seen]
        seen.update(left)
    return False


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
