"""Joins consecutive permutations, with reshapes between, into one: pixel shuffles, and patches of images as tokens.

Any chain of reshapes and permutations only reorders the factors of a tensor's dimensions (see `graph.access`), and so does a single
permutation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax

from tvmmobile.graph.access import Access
from tvmmobile.graph.expressions import VIEW, operator_of, shape_of
from tvmmobile.graph.passes.rewriting import replace_values, with_named_outputs

_PERMUTE = "relax.permute_dims"


def joined_views(module: Any) -> Any:
    """Rewrite every permutation of `main` that reads another one through reshapes."""
    return with_named_outputs(replace_values(module, _joined))


def _joined(value: Any, values: Mapping[Any, Any]) -> Any:
    """Return one permutation between reshapes, or a reshape, in place of a permutation of another one; `None` for other values."""
    if operator_of(value) != _PERMUTE:
        return None
    chain = [value]
    while operator_of(before := values.get(chain[-1].args[0])) in (VIEW, _PERMUTE):
        chain.append(before)
    while operator_of(chain[-1]) == VIEW:
        chain.pop()
    source = chain[-1].args[0]
    access = Access.through(shape_of(source), reversed(chain)) if len(chain) > 1 else None
    if access is None:
        return None
    ordered = sorted(access.factors, key=lambda factor: -factor.stride)
    axes = [ordered.index(factor) for factor in access.factors]
    result = _reshaped(source, shape_of(source), [factor.extent for factor in ordered])
    if axes != sorted(axes):
        result = relax.op.permute_dims(result, axes)
    return _reshaped(result, [factor.extent for factor in access.factors], shape_of(value))


def _reshaped(tensor: Any, before: list[int], after: list[int]) -> Any:
    return tensor if before == after else relax.op.reshape(tensor, after)
