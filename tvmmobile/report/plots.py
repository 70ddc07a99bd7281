"""The two plots of a report as geometry; `plot.svg.j2` draws it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvmmobile.report.axes import Axis, axis_of
from tvmmobile.report.labels import Box, Placed, place_labels
from tvmmobile.report.view import Row, View
from tvmmobile.report.wording import label_of, latency_ms, millions, origin, plural

#: In units of the drawing; the page scales it to the width there is.
WIDTH, HEIGHT = 440, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 12, 44
_FRAME = Box(_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM)
FONT, RADIUS = 11, 4.5
#: Colours and shapes of series the page's style knows; further series begin again.
STYLES = 6
#: More points than this are labelled only on the front.
_MAX_LABELS = 24


@dataclass(frozen=True)
class Tick:
    """A tick at a coordinate, with its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """One variant in a plot.

    Attributes:
        row: the variant.
        style: of its series, from 0.
        label: its text's place, `None` without one.
        described: what a pointer over it shows.
    """

    x: float
    y: float
    row: Row
    style: int
    text: str
    label: Placed | None
    described: str


@dataclass(frozen=True)
class Line:
    """A line through coordinates; `name` is its class and its entry in the legend, `text` what the legend says."""

    name: str
    text: str
    points: tuple[tuple[float, float], ...]

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
    """

    key: str
    title: str
    remark: str
    x_title: str
    y_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...]
    series: tuple[tuple[str, int], ...]
    frame: Box = _FRAME


def accuracy_plots(view: View) -> list[Plot]:
    """Accuracy against latency, one plot for each source of accuracies: those of two sources do not compare."""
    return [_accuracy_plot(view, number) for number in range(1, len(view.sources) + 1)]


def scaling_plot(view: View) -> Plot:
    """Latency against multiply-adds, both logarithmic, with the fit and the least time the core's FMA units need."""
    context = view.context
    x = _x_axis([row.variant.macs / 1e6 for row in view.rows])
    lanes = context.clock_hz * context.fma_lanes_per_cycle
    threads = {row.variant.threads for row in view.rows}

    def floor_ms(macs_m: float) -> float:
        return macs_m * 1e6 / (lanes * max(threads)) * 1e3

    latencies = [row.variant.latency_us / 1e3 for row in view.rows]
    curves: list[tuple[str, str, Callable[[float], float]]] = []
    if len(threads) == 1:
        curves.append(("floor", "least time at FMA peak", floor_ms))
    if view.fit:
        fit = view.fit
        curves.append(("fit", f"fit, exponent {fit.exponent:.3f}", lambda macs_m: fit.latency_us(macs_m * 1e6) / 1e3))
    reach = [curve(value) for _, _, curve in curves for value in (x.low, x.high)]
    y = _y_axis([*latencies, *reach], logarithmic=True, margin=0.05 if reach else 0.08)
    lines = tuple(Line(name, text, tuple((x.at(v), y.at(curve(v))) for v in (x.low, x.high))) for name, text, curve in curves)
    points = [(x.at(row.variant.macs / 1e6), y.at(row.variant.latency_us / 1e3)) for row in view.rows]
    remark = f"exponent {view.fit.exponent:.3f} over {plural(view.fit.points, 'variant')}" if view.fit else "too few variants for a fit"
    titles = (f"Latency, {origin(context)}, against multiply-adds", remark, "million multiply-adds", f"latency, ms ({context.kind})")
    return _plot(view, "scaling", titles, (x, y), lines, view.rows, points)


def _accuracy_plot(view: View, source: int) -> Plot:
    rows = [row for row in view.rows if row.source == source]
    tops = [row.variant.top1 or 0.0 for row in rows]
    x, y = _x_axis([row.variant.latency_us / 1e3 for row in rows]), _y_axis(tops, logarithmic=False, margin=0.08)
    points = [(x.at(row.variant.latency_us / 1e3), y.at(top)) for row, top in zip(rows, tops, strict=True)]
    front = sorted(point for row, point in zip(rows, points, strict=True) if row.on_front)
    line = Line("front", "Pareto front", tuple(front))
    title, remark = f"Published accuracy against latency, {origin(view.context)}", f"top-1 [{source}]: {view.sources[source - 1]}"
    titles = (title, remark, f"latency, ms ({view.context.kind})", f"top-1, % [{source}]")
    return _plot(view, f"accuracy-{source}", titles, (x, y), (line,) if len(front) > 1 else (), rows, points)


def _plot(
    view: View,
    key: str,
    titles: tuple[str, str, str, str],
    axes: tuple[Axis, Axis],
    lines: tuple[Line, ...],
    rows: Sequence[Row],
    points: Sequence[tuple[float, float]],
) -> Plot:
    styles = _styles(view)
    wanted = [place for place, row in enumerate(rows) if len(rows) <= _MAX_LABELS or row.on_front]
    texts = [str(rows[place].variant.resolution) for place in wanted]
    labels = dict(zip(wanted, place_labels([points[place] for place in wanted], texts, FONT, RADIUS, _FRAME), strict=True))
    marks = tuple(
        Mark(*point, row, styles[_series(view, row)], str(row.variant.resolution), labels.get(place), _described(view, row))
        for place, (row, point) in enumerate(zip(rows, points, strict=True))
    )
    used = dict.fromkeys(_series(view, row) for row in rows)
    series = tuple((name, styles[name]) for name in used)
    return Plot(key, *titles, _ticks(axes[0]), _ticks(axes[1]), lines, marks, series)


def _ticks(axis: Axis) -> tuple[Tick, ...]:
    return tuple(Tick(axis.at(value), f"{value:.5g}") for value in axis.ticks())


def _x_axis(values: Sequence[float]) -> Axis:
    return axis_of(values, _FRAME.left, _FRAME.right, logarithmic=True)


def _y_axis(values: Sequence[float], *, logarithmic: bool, margin: float) -> Axis:
    return axis_of(values, _FRAME.bottom, _FRAME.top, logarithmic=logarithmic, margin=margin)


def _series(view: View, row: Row) -> str:
    """Variants that differ in resolution alone are one series."""
    if len(view.grids) == 1:
        return f"α {row.variant.alpha}"
    grid = next(grid for grid in view.grids if row in grid.rows)
    return f"{grid.title}, α {row.variant.alpha}"


def _styles(view: View) -> dict[str, int]:
    names = dict.fromkeys(_series(view, row) for row in view.rows)
    return {name: place % STYLES for place, name in enumerate(names)}


def _described(view: View, row: Row) -> str:
    variant = row.variant
    accuracy = f", top-1 {variant.top1:.1f} % [{row.source}]" if row.source else ""
    macs = f"{millions(variant.macs)} M multiply-adds"
    return f"{variant.model} {label_of(variant)}: {latency_ms(variant.latency_us)} ms {view.context.kind}, {macs}{accuracy}"
