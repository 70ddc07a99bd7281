"""Chains of views move the numbers of an access as numpy moves an array's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tvmmobile.graph.access import Access


def splits_of(draw: Any, size: int) -> list[int]:
    """Return a random shape with that many elements."""
    shape = []
    while size > 1 and len(shape) < 5:
        extent = draw(st.sampled_from([count for count in range(1, size + 1) if size % count == 0]))
        shape.append(extent)
        size //= extent
    return [*shape, size]


def step(draw: Any, access: Access, array: Any) -> tuple[Access | None, Any]:
    """Return a random view of both."""
    kind, rank = draw(st.sampled_from(["reshape", "permute", "part", "expand"])), array.ndim
    if kind == "reshape":
        shape = splits_of(draw, array.size)
        return access.reshape(shape), array.reshape(shape)
    if kind == "permute":
        axes = draw(st.one_of(st.none(), st.permutations(range(rank))))
        return access.permute(axes), array.transpose(axes)
    if kind == "part":
        axis = draw(st.integers(0, rank - 1))
        begin = draw(st.integers(0, array.shape[axis] - 1))
        end, by = draw(st.integers(begin + 1, array.shape[axis])), draw(st.integers(1, 2))
        return access.part(axis, begin, end, by), array[(slice(None),) * axis + (slice(begin, end, by),)]
    shape = [draw(st.integers(1, 3)) if extent == 1 else extent for extent in (*draw(st.sampled_from([(), (1,)])), *array.shape)]
    return access.expand(shape), np.broadcast_to(array, shape)


@given(st.data())
def test_views_move_numbers_as_numpy_does(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    access, array = Access.of(shape), np.arange(math.prod(shape)).reshape(shape)
    for _ in range(data.draw(st.integers(1, 6))):
        if array.size > 2000:
            return
        after, array = step(data.draw, access, array)
        if after is None:
            return
        access = after
        assert access.shape == list(array.shape)
        assert (access.indices() == array).all()
        same = array.size == math.prod(shape) and (array.reshape(-1) == np.arange(array.size)).all()
        assert access.in_order(Access.of(shape)) == same


def test_a_view_that_strides_do_not_describe() -> None:
    rows_of_columns = Access.of([4, 6]).permute([1, 0])
    assert rows_of_columns.reshape([8, 3]) is None
    joined = rows_of_columns.reshape([24])
    assert joined is not None
    assert joined.part(0, 1, 5) is None
    assert joined.reshape([2, 3, 4]) == Access.of([4, 2, 3]).permute([1, 2, 0])
