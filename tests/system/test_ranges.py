"""Ranges in lists of numbers."""

from __future__ import annotations

import pytest

from tvmmobile.system.ranges import ranges_of


@pytest.mark.parametrize(
    ("numbers", "ranges"), [((), []), ((7,), [(7, 7)]), ((0, 1, 2, 6), [(0, 2), (6, 6)]), ((3, 5, 6), [(3, 3), (5, 6)])]
)
def test_neighbours_are_one_range(numbers: tuple[int, ...], ranges: list[tuple[int, int]]) -> None:
    assert ranges_of(numbers) == ranges
