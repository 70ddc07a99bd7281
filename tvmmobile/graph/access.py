"""Views traced to the tensor behind them: the shape, strides and offset of their elements in it, through any chain of views.

Reshapes may join dimensions that do not follow each other in the source, so a dimension is a row of factors, each with an extent and a
stride of its own; one view that no strides describe makes the result `None`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.parameters import Array


class Factor(NamedTuple):
    """A part of a dimension: its extent, and its stride in elements of the source."""

    extent: int
    stride: int


@dataclass(frozen=True)
class Access:
    """The elements of a tensor, by their position in a source.

    Attributes:
        dimensions: factors of each dimension, the slowest first; none of extent 1.
        offset: position of the first element.
    """

    dimensions: tuple[tuple[Factor, ...], ...]
    offset: int = 0

    @classmethod
    def of(cls, shape: Sequence[int]) -> Access:
        """Return the access of a whole tensor."""
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        return cls(tuple(_joined([Factor(*both)]) for both in zip(shape, strides, strict=True)))

    @classmethod
    def through(cls, shape: Sequence[int], views: Iterable[Any]) -> Access | None:
        """Return the access after a chain of calls, the first of which reads this shape; `None` if one does more than move."""
        found: Access | None = cls.of(shape)
        for view in views:
            found = found.after(view) if found else None
        return found

    @property
    def shape(self) -> list[int]:
        """Extents of the tensor."""
        return [math.prod(factor.extent for factor in dimension) for dimension in self.dimensions]

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Factors of all dimensions in order; those that also follow each other in the source are joined."""
        return _joined(factor for dimension in self.dimensions for factor in dimension)

    def in_order(self, other: Access) -> bool:
        """Return whether this tensor and another have the same elements of one source in the same order, whatever their shapes."""
        return (self.offset, self.factors) == (other.offset, other.factors)

    def indices(self) -> Array:
        """Return the position of each element, in the tensor's shape."""
        places = np.array(self.offset)
        for extent, stride in self.factors:
            places = places[..., None] + np.arange(extent) * stride
        return places.reshape(self.shape)

    def reshape(self, shape: Sequence[int]) -> Access | None:
        """Return the same elements in another shape; `None` if that would split a factor into parts that are not integers."""
        left, dimensions = [*reversed(self.factors)], []
        for extent in shape:
            dimension = []
            while extent > 1:
                factor = left.pop()
                count = math.gcd(factor.extent, extent)
                if count != min(factor.extent, extent):
                    return None
                inner = factor.extent // count
                if inner > 1:
                    left.append(Factor(inner, factor.stride))
                dimension.append(Factor(count, factor.stride * inner))
                extent //= count
            dimensions.append(_joined(dimension))
        return Access(tuple(dimensions), self.offset)

    def permute(self, axes: Sequence[int] | None = None) -> Access:
        """Return the tensor with its dimensions in another order, by default reversed."""
        return Access(tuple(self.dimensions[axis] for axis in axes) if axes is not None else self.dimensions[::-1], self.offset)

    def part(self, axis: int, begin: int | None, end: int | None, step: int | None = None) -> Access | None:
        """Return a part of one dimension, with Python's meaning of the bounds; `None` where it cuts a dimension of several factors."""
        places = range(*slice(begin, end, step).indices(self.shape[axis]))
        if places == range(self.shape[axis]):
            return self
        dimension = self.dimensions[axis]
        if len(dimension) > 1 or not places:
            return None
        stride = dimension[0].stride if dimension else 0
        dimensions = list(self.dimensions)
        dimensions[axis] = _joined([Factor(len(places), stride * places.step)])
        return Access(tuple(dimensions), self.offset + stride * places[0])

    def expand(self, shape: Sequence[int]) -> Access:
        """Return the tensor broadcast to a shape."""
        own = ((),) * (len(shape) - len(self.dimensions)) + self.dimensions
        return Access(
            tuple(dimension if dimension or extent == 1 else (Factor(extent, 0),) for dimension, extent in zip(own, shape, strict=True)),
            self.offset,
        )

    def after(self, view: Any) -> Access | None:
        """Return the access of the result of a call that reads this tensor; `None` if the call does more than move elements."""
        name = operator_of(view)
        if name == "relax.broadcast_to":
            return self.expand(shape_of(view))
        if has(view, Trait.RESHAPE):
            return self.reshape(shape_of(view))
        if name == "relax.permute_dims":
            return self.permute(axes_of(view))
        if name != "relax.strided_slice":
            return None
        found: Access | None = self
        for axis, part in enumerate(slices_of(view)):
            found = found.part(axis, *part) if found else None
        return found


def moved_by(view: Any, numbers: Array) -> Array | None:
    """Return the result of a view of an array; `None` if the call does more than move elements."""
    access = Access.of(numbers.shape).after(view)
    return None if access is None else np.asarray(numbers.reshape(-1)[access.indices()])


def axes_of(permutation: Any) -> list[int] | None:
    """Return the axes of a `permute_dims`; `None` for all in reverse."""
    axes = permutation.attrs.axes
    return None if axes is None else [int(axis) for axis in axes]


def slices_of(view: Any) -> list[tuple[int | None, int | None, int | None]]:
    """Return begin, end and step of a `strided_slice` along each axis."""
    axes, begins, ends, *others = ([int(number.value) for number in part.fields] for part in view.args[1:])
    steps = others[0] if others else [1] * len(axes)
    found: list[tuple[int | None, int | None, int | None]] = [(None, None, None)] * len(shape_of(view.args[0]))
    for axis, *part in zip(axes, begins, ends, steps, strict=True):
        found[axis] = (part[0], part[1], part[2])
    return found


def _joined(factors: Iterable[Factor]) -> tuple[Factor, ...]:
    found: list[Factor] = []
    for extent, stride in factors:
        if extent == 1:
            continue
        if found and found[-1].stride == stride * extent:
            extent *= found.pop().extent
        found.append(Factor(extent, stride))
    return tuple(found)
