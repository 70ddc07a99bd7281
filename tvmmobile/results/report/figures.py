"""What a plot consists of, as geometry; `templates/plot.svg.j2` draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvmmobile.results.report.axes import Axis, axis_of
from tvmmobile.results.report.labels import Box, PlacedLabel

#: In units of the drawing; the page scales it to the width there is.
WIDTH, HEIGHT = 440, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 12, 44
FRAME = Box(_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM)
FONT, RADIUS = 11, 4.5
#: Colours and shapes of series the page's style knows; further series begin again.
STYLES = 6


@dataclass(frozen=True)
class Tick:
    """A tick at a coordinate, with its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """One point of a plot.

    Attributes:
        style: of its series, from 0.
        described: what a pointer over it shows.
        variant: the number in the report of the variant it stands for; `None` for a kernel.
        filled: drawn filled: on the front.
        text: beside it, where `label` has a place for it.
    """

    x: float
    y: float
    style: int
    described: str
    variant: int | None = None
    filled: bool = True
    text: str = ""
    label: PlacedLabel | None = None


@dataclass(frozen=True)
class PlotLine:
    """A line through coordinates.

    Attributes:
        name: its class in the page's style.
        text: what the legend says; "" for no entry.
        style: of its series, if it belongs to one.
    """

    name: str
    text: str
    points: tuple[tuple[float, float], ...]
    style: int | None = None

    @property
    def path(self) -> str:
        """For `polyline`."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class Plot:
    """A plot: its axes and what is in it.

    Attributes:
        key: for ids in the page.
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
    """A logarithmic axis along the bottom."""
    return axis_of(values, FRAME.left, FRAME.right, logarithmic=True)


def y_axis(values: Sequence[float], *, logarithmic: bool = True, margin: float = 0.08) -> Axis:
    """An axis along the left side."""
    return axis_of(values, FRAME.bottom, FRAME.top, logarithmic=logarithmic, margin=margin)


def ticks(axis: Axis) -> tuple[Tick, ...]:
    """Its ticks with their numbers."""
    return tuple(Tick(axis.at(value), f"{value:.5g}") for value in axis.ticks())
