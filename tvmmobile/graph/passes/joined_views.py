"""Permutations one after another, with reshapes between, as a single one: pixel shuffles, and patches of images as tokens.

Reshapes and permutations only put the factors of a tensor's dimensions in another order (see `graph.access`); so does one permutation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvmmobile.graph.access import Access
from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.passes.rewriting import VIEW, MainRewriter, bindings_of

_PERMUTE = "relax.permute_dims"


def joined_views(module: Any) -> Any:
    """Rewrite every permutation of `main` that reads another one through reshapes."""
    from tvm import relax

    values = {binding.var: binding.value for binding in bindings_of(module["main"])}
    found = {variable: joined for variable, value in values.items() if (joined := _joined(value, values))}
    if not found:
        return module
    module = module.clone()
    module["main"] = _Rewriting(module["main"], found).rewritten()
    return relax.transform.DeadCodeElimination()(module)


@dataclass(frozen=True)
class _Joined:
    """The elements of a source, in the order of the result."""

    source: Any
    access: Access


class _Rewriting(MainRewriter):
    """`main` while permutations are joined."""

    def __init__(self, main: Any, found: dict[Any, _Joined]) -> None:
        super().__init__(main)
        self.found = found

    def value(self, variable: Any, value: Any) -> Any:
        """Return one permutation between reshapes, a reshape, or the old value."""
        from tvm import relax

        joined = self.found.get(variable)
        if joined is None:
            return self.again(value)
        ordered = sorted(joined.access.factors, key=lambda factor: -factor.stride)
        result = self._reshaped(self.replaced[joined.source], [factor.extent for factor in ordered])
        axes = [ordered.index(factor) for factor in joined.access.factors]
        if axes != sorted(axes):
            result = self.builder.emit(relax.op.permute_dims(result, axes))
        return self._reshaped(result, shape_of(variable))

    def _reshaped(self, tensor: Any, extents: list[int]) -> Any:
        from tvm import relax

        return tensor if shape_of(tensor) == extents else self.builder.emit(relax.op.reshape(tensor, extents))


def _joined(value: Any, values: Mapping[Any, Any]) -> _Joined | None:
    """Return what a permutation of another one does to the tensor in front of both; `None` for other values."""
    if operator_of(value) != _PERMUTE:
        return None
    chain = [value]
    while operator_of(before := values.get(chain[-1].args[0])) in (VIEW, _PERMUTE):
        chain.append(before)
    while operator_of(chain[-1]) == VIEW:
        chain.pop()
    if len(chain) == 1:
        return None
    source = chain[-1].args[0]
    access = Access.through(shape_of(source), reversed(chain))
    return _Joined(source, access) if access else None
