"""Ranges in lists of whole numbers, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable


def ranges_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as the first and last of each range without gaps."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        follows = bool(found) and found[-1][1] == number - 1
        found.append((found.pop()[0] if follows else number, number))
    return found


def range_text(first: int, last: int) -> str:
    """Return a range as people write it: `3`, or `5-9`."""
    return str(first) if first == last else f"{first}-{last}"
