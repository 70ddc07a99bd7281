"""Traces the scores of attention back to the product of queries and keys, and leaves out what PyTorch does for rows without scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from tvmmobile.graph.expressions import numbers_of, operator_of, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.operators import constant_operand, is_view
from tvmmobile.graph.passes.rewriting import value_pass

#: Added to masked products; differences of minus infinities would be NaN.
MASKED_SCORE = np.float32(-1e30)


@value_pass
def unmasked_rows(value: Any, values: Mapping[Any, Any]) -> Any:
    """Replace a softmax that is zeroed where all scores of its row are minus infinity by the softmax, if its scores are products to which
    no mask, or a constant one that leaves some in each row, is added.
    """
    if operator_of(value) != "relax.where":
        return None
    masked, _, chosen = value.args
    shares: Any = values.get(in_order(chosen, values))
    test: Any = values.get(masked)
    while operator_of(test) in ("relax.logical_not", "relax.astype", "relax.max"):
        test = values.get(test.args[0])
    if not is_softmax(shares) or operator_of(test) != "relax.equal" or not test.args[0].same_as(shares.args[0]):
        return None
    scores, _, added = scaled(shares.args[0], values)
    limits = numbers_of(test.args[1])
    known = limits is not None and np.isneginf(limits).all() and operator_of(values.get(scores)) == "relax.matmul"
    unmasked = added is None or has_scores(added.reshape(shape_of(shares)))
    return chosen if known and unmasked and shape_of(chosen) == shape_of(value) else None


def is_softmax(value: Any) -> bool:
    """Return whether a value is a softmax over the last axis."""
    return operator_of(value) == "relax.nn.softmax" and int(value.attrs.axis) % value.ty.ndim == value.ty.ndim - 1


def has_scores(mask: Array) -> bool:
    """Return whether a mask leaves some scores in each row."""
    return bool((mask.max(-1) > MASKED_SCORE).all())


def in_order(variable: Any, values: Mapping[Any, Any]) -> Any:
    """Follow reshapes back from a variable to the first with the same elements in the same order."""
    while is_view(value := cast(Any, values.get(variable))):
        variable = value.args[0]
    return variable


def scaled(variable: Any, values: Mapping[Any, Any]) -> tuple[Any, float, Array | None]:
    """Follow reshapes, factors and summands back from a variable: the source, its total factor, and the constants added."""
    factor, added = 1.0, None
    while True:
        variable = in_order(variable, values)
        value: Any = values.get(variable)
        if step := factor_of(value):
            variable, factor = step[0], factor * step[1]
        elif summand := _summand(value):
            more = np.broadcast_to(summand[1], shape_of(value)).reshape(-1) * np.float32(factor)
            variable, added = summand[0], more if added is None else added + more
        else:
            return variable, factor, added


def factor_of(value: Any) -> tuple[Any, float] | None:
    """Return the other operand and the factor of a product or quotient with one number."""
    found = constant_operand(value) if operator_of(value) in ("relax.multiply", "relax.divide") else None
    if found is None or numbers_of(found[1]).size != 1:
        return None
    number = float(numbers_of(found[1]).item())
    return found[0], number if operator_of(value) == "relax.multiply" else 1 / number


def _summand(value: Any) -> tuple[Any, Array] | None:
    """Return the other operand, of the sum's shape, and the constant of a sum with a constant."""
    found = constant_operand(value) if operator_of(value) == "relax.add" else None
    return (found[0], numbers_of(found[1])) if found and shape_of(found[0]) == shape_of(value) else None
