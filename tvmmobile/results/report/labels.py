"""Placing the labels of points so that they cover neither one another nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Width of a character and height of a line, in font sizes; on the generous side, since the reader's font is not known.
_CHARACTER, _LINE = 0.6, 1.0


@dataclass(frozen=True)
class Box:
    """A rectangle; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0


@dataclass(frozen=True)
class PlacedLabel:
    """A label's middle, on its baseline."""

    x: float
    y: float


def place_labels(points: Sequence[tuple[float, float]], texts: Sequence[str], size: float, radius: float, frame: Box) -> list[PlacedLabel]:
    """For each point the one of eight places around it where its text covers least; places further up the list win a tie.

    Args:
        points: coordinates.
        texts: one for each point.
        size: font size.
        radius: of the points' marks.
        frame: where text may be.
    """
    taken = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    placed = []
    for (x, y), text in zip(points, texts, strict=True):
        options = [_box(x + dx, y + dy, text, size) for dx, dy in _offsets(text, size, radius)]
        best = min(options, key=lambda box: sum(box.overlap(other) for other in taken) + 4 * _outside(box, frame))
        taken.append(best)
        placed.append(PlacedLabel((best.left + best.right) / 2, best.bottom - 0.2 * size))
    return placed


def _offsets(text: str, size: float, radius: float) -> list[tuple[float, float]]:
    """Middles of a label around its point."""
    across = len(text) * _CHARACTER * size / 2 + radius + 1
    along = _LINE * size / 2 + radius + 1
    return [(0, -along), (0, along), (across, 0), (-across, 0), (across, -along), (-across, -along), (across, along), (-across, along)]


def _box(x: float, y: float, text: str, size: float) -> Box:
    half, height = len(text) * _CHARACTER * size / 2, _LINE * size / 2
    return Box(x - half, y - height, x + half, y + height)


def _outside(box: Box, frame: Box) -> float:
    area = (box.right - box.left) * (box.bottom - box.top)
    return area - box.overlap(frame)
