"""The geometry of a plot: axes with round ticks, marks, and labels that do not overlap each other or the marks.

`templates/plot.svg.j2` draws it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Size in units of the drawing; the page scales it to the available width.
WIDTH, HEIGHT = 440, 360
FONT, RADIUS = 11, 4.5
#: Colours and shapes of series the page's style knows; further series begin again.
STYLES = 6
_MAX_TICKS = 8
#: Values nearer to each other than this factor are drawn as one: an axis between them would have no length, or ticks that read alike.
_ALIKE = 1 + 1e-3
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
        """Return the area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0


@dataclass(frozen=True)
class PlacedLabel:
    """Place of a label's middle, on its baseline."""

    x: float
    y: float


#: Rectangle of the plot; numbers and titles of axes are around it.
FRAME = Box(54, 12, WIDTH - 12, HEIGHT - 44)


@dataclass(frozen=True)
class Axis:
    """Maps a quantity to coordinates along one axis.

    Attributes:
        low, high: the values at its ends.
        start, end: their coordinates.
        logarithmic: true if equal distances are equal ratios.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    def at(self, value: float) -> float:
        """Return the coordinate of a value."""
        low, high, place = (math.log(each) if self.logarithmic else each for each in (self.low, self.high, value))
        return self.start + (place - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return at most eight round values, at least three where round values fall that close."""
        if self.logarithmic:
            for digits in ((1, 2, 5), (1, 2, 3, 5, 7), range(1, 10), (1, 3), (1,)):
                found = self._decades(digits)
                if 3 <= len(found) <= _MAX_TICKS:
                    return found
        return self._even()

    def _decades(self, digits: Sequence[int]) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = [digit * 10.0**power for power in powers for digit in digits]
        return [value for value in values if self.low <= value <= self.high]

    def _even(self) -> list[float]:
        rough = (self.high - self.low) / (_MAX_TICKS - 2)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [float(f"{count * step:.12g}") for count in range(first, last + 1)]


def axis_of(values: Sequence[float], start: float, end: float, *, logarithmic: bool = False, margin: float = 0.08) -> Axis:
    """Return an axis around `values` with a margin at both ends, as a share of their range; positive values only if logarithmic."""
    low, high = min(values), max(values)
    if logarithmic:
        ratio = (high / low) ** margin if high > low * _ALIKE else 2.0
        return Axis(low / ratio, high * ratio, start, end, True)
    room = (high - low) * margin if high - low > abs(high) * (_ALIKE - 1) else max(abs(high) * margin, 1.0)
    return Axis(low - room, high + room, start, end, False)


@dataclass(frozen=True)
class Tick:
    """A tick: its coordinate and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A point of a plot.

    Attributes:
        style: number of its series' style, from 0.
        described: text that a pointer over it shows.
        variant: the number in the report of the variant it stands for; `None` for a kernel.
        filled: drawn filled: on the front.
        text: text beside it, where `label` has a place for it.
        chosen: drawn as the answer to a question.
    """

    x: float
    y: float
    style: int
    described: str
    variant: int | None = None
    filled: bool = True
    text: str = ""
    label: PlacedLabel | None = None
    chosen: bool = False


@dataclass(frozen=True)
class PlotLine:
    """A line through coordinates.

    Attributes:
        name: its class in the page's style.
        text: text of the legend; "" for no entry.
        style: number of its series' style, if it belongs to one.
    """

    name: str
    text: str
    points: tuple[tuple[float, float], ...]
    style: int | None = None

    @property
    def path(self) -> str:
        """The points as SVG's `polyline` takes them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class Plot:
    """A plot: its axes and what is drawn in it.

    Attributes:
        key: prefix of ids in the page.
        remark: one line under the title: the source of what is plotted.
        series: text and style of each, for the legend.
        x_span: the values at the ends of a logarithmic axis of milliseconds, for the page's script; `None` on others.
    """

    key: str
    title: str
    remark: str
    x_title: str
    y_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[PlotLine, ...]
    marks: tuple[Mark, ...]
    series: tuple[tuple[str, int], ...]
    frame: Box = FRAME
    x_span: tuple[float, float] | None = None


def x_axis(values: Sequence[float]) -> Axis:
    """Draw a logarithmic axis along the bottom."""
    return axis_of(values, FRAME.left, FRAME.right, logarithmic=True)


def y_axis(values: Sequence[float], *, logarithmic: bool = True, margin: float = 0.08) -> Axis:
    """Draw an axis along the left side."""
    return axis_of(values, FRAME.bottom, FRAME.top, logarithmic=logarithmic, margin=margin)


def ticks(axis: Axis) -> tuple[Tick, ...]:
    """Draw its ticks with their numbers."""
    return tuple(Tick(axis.at(value), f"{value:.5g}") for value in axis.ticks())


def place_labels(points: Sequence[tuple[float, float]], texts: Sequence[str], size: float, radius: float, frame: Box) -> list[PlacedLabel]:
    """Choose for each point the place, of eight around it, where its text covers least; earlier places win ties.

    Texts have that font size and stay inside `frame`; points have marks of that radius.
    """
    occupied = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    placed = []
    for (x, y), text in zip(points, texts, strict=True):
        options = [_box(x + dx, y + dy, text, size) for dx, dy in _offsets(text, size, radius)]
        best = min(options, key=lambda box: sum(box.overlap(other) for other in occupied) + 4 * _outside(box, frame))
        occupied.append(best)
        placed.append(PlacedLabel((best.left + best.right) / 2, best.bottom - 0.2 * size))
    return placed


def _offsets(text: str, size: float, radius: float) -> list[tuple[float, float]]:
    """Return label centres around a point."""
    across = len(text) * _CHARACTER * size / 2 + radius + 1
    along = _LINE * size / 2 + radius + 1
    return [(0, -along), (0, along), (across, 0), (-across, 0), (across, -along), (-across, -along), (across, along), (-across, along)]


def _box(x: float, y: float, text: str, size: float) -> Box:
    half, height = len(text) * _CHARACTER * size / 2, _LINE * size / 2
    return Box(x - half, y - height, x + half, y + height)


def _outside(box: Box, frame: Box) -> float:
    area = (box.right - box.left) * (box.bottom - box.top)
    return area - box.overlap(frame)
