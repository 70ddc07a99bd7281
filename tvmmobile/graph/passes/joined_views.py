"""Permutations one after another, with reshapes between, as a single one: pixel shuffles, and patches of images as tokens.

A tensor's dimensions are split into the factors that reshapes make of them. Reshapes and permutations only put them in another order, which
one permutation does as well; neighbours that stay together are one factor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.passes.rewriting import VIEW, MainRewriter, bindings_of, rebuilt

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
class _Factor:
    """A factor of a dimension: its extent, and the elements from one place to the next in the source."""

    extent: int
    stride: int


@dataclass(frozen=True)
class _Joined:
    """A source and its factors in the order of the result."""

    source: Any
    factors: tuple[_Factor, ...]


class _Rewriting(MainRewriter):
    """`main` while permutations are joined."""

    def __init__(self, main: Any, found: dict[Any, _Joined]) -> None:
        super().__init__(main)
        self.found = found

    def value(self, variable: Any, value: Any) -> Any:
        """One permutation between reshapes, a reshape, or what it was."""
        from tvm import relax

        joined = self.found.get(variable)
        if joined is None:
            return rebuilt(value, lambda part: self.replaced.get(part, part))
        ordered = sorted(joined.factors, key=lambda factor: -factor.stride)
        result = self._reshaped(self.replaced[joined.source], [factor.extent for factor in ordered])
        axes = [ordered.index(factor) for factor in joined.factors]
        if axes != sorted(axes):
            result = self.builder.emit(relax.op.permute_dims(result, axes))
        return self._reshaped(result, shape_of(variable))

    def output(self, variable: Any) -> Any:
        """The same."""
        return self.replaced[variable]

    def _reshaped(self, tensor: Any, extents: list[int]) -> Any:
        from tvm import relax

        return tensor if shape_of(tensor) == extents else self.builder.emit(relax.op.reshape(tensor, extents))


def _joined(value: Any, values: Mapping[Any, Any]) -> _Joined | None:
    """What a permutation of another one does to the tensor in front of both."""
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
    extents = shape_of(source)
    strides = [math.prod(extents[axis + 1 :]) for axis in range(len(extents))]
    dimensions = [[_Factor(extent, stride)] * (extent > 1) for extent, stride in zip(extents, strides, strict=True)]
    for view in reversed(chain):
        if operator_of(view) == _PERMUTE:
            axes = view.attrs.axes
            dimensions = [dimensions[int(axis)] for axis in axes] if axes is not None else dimensions[::-1]
        else:
            split = _split([factor for dimension in dimensions for factor in dimension], shape_of(view))
            if split is None:
                return None
            dimensions = split
    return _Joined(source, _together([factor for dimension in dimensions for factor in dimension]))


def _split(factors: list[_Factor], shape: list[int]) -> list[list[_Factor]] | None:
    """Factors, in order, as the dimensions of a shape; `None` where one would be cut to no whole number."""
    left, dimensions = factors[::-1], []
    for extent in shape:
        dimension = []
        while extent > 1:
            factor = left.pop()
            count = math.gcd(factor.extent, extent)
            if count != min(factor.extent, extent):
                return None
            inner = factor.extent // count
            if inner > 1:
                left.append(_Factor(inner, factor.stride))
            dimension.append(_Factor(count, factor.stride * inner))
            extent //= count
        dimensions.append(dimension)
    return dimensions


def _together(factors: list[_Factor]) -> tuple[_Factor, ...]:
    """Factors with neighbours as one that are neighbours in the source, too."""
    joined: list[_Factor] = []
    for factor in factors:
        if joined and joined[-1].stride == factor.stride * factor.extent:
            factor = _Factor(joined.pop().extent * factor.extent, factor.stride)
        joined.append(factor)
    return tuple(joined)
