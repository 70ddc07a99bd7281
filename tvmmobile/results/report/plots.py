"""The plots of all variants: accuracy against latency, latency against multiply-adds, and the course of the search."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from tvmmobile.results.file import KernelResult, VariantResult
from tvmmobile.results.report.figures import FONT, FRAME, RADIUS, STYLES, Axis, Mark, Plot, PlotLine, place_labels, ticks, x_axis, y_axis
from tvmmobile.results.report.law import reference_of
from tvmmobile.results.report.measured import is_measured
from tvmmobile.results.report.view import VariantRow, View
from tvmmobile.results.report.wording import label_of, latency_ms, millions, origin, plural

#: More points than this are labelled only on the front.
_MAX_LABELS = 24


def accuracy_plots(view: View) -> list[Plot]:
    """Plot accuracy against latency, once for each source of accuracies, because those of two sources cannot be compared."""
    return [_accuracy_plot(view, number) for number in range(1, len(view.sources) + 1)]


def scaling_plot(view: View) -> Plot:
    """Plot latency against multiply-adds, both logarithmic: the fit, the α²ρ² law, and the least time that the core's FMA units need."""
    context = view.context
    x = x_axis([row.variant.macs / 1e6 for row in view.rows])
    peaks = {context.clock_hz * context.fma_lanes(row.variant.dtype) * row.variant.threads for row in view.rows}

    def floor_ms(macs_m: float) -> float:
        return macs_m * 1e6 / max(peaks) * 1e3

    latencies = [row.variant.latency_us / 1e3 for row in view.rows]
    curves: list[tuple[str, str, Callable[[float], float]]] = []
    if len(peaks) == 1 and context.clock_hz >= 1:
        curves.append(("floor", "least time at FMA peak", floor_ms))
    if view.fit:
        fit = view.fit
        curves.append(("fit", f"fit, exponent {fit.exponent:.3f}", lambda macs_m: fit.latency_us(macs_m * 1e6) / 1e3))
    if len(view.grids) == 1 and any(row.departure for row in view.rows):
        largest = reference_of([row.variant for row in view.rows if row.departure])
        each_us = largest.latency_us / largest.macs
        curves.append(("law", f"α²ρ² law from {label_of(largest)}: exponent 1", lambda macs_m: macs_m * 1e3 * each_us))
    reach = [curve(value) for _, _, curve in curves for value in (x.low, x.high)]
    y = y_axis([*latencies, *reach], margin=0.05 if reach else 0.08)
    lines = tuple(PlotLine(name, text, tuple((x.at(v), y.at(curve(v))) for v in (x.low, x.high))) for name, text, curve in curves)
    points = [(x.at(row.variant.macs / 1e6), y.at(row.variant.latency_us / 1e3)) for row in view.rows]
    remark = f"exponent {view.fit.exponent:.3f} over {plural(view.fit.points, 'variant')}" if view.fit else "too few variants for a fit"
    titles = (f"Latency, {origin(context)}, against multiply-adds", remark, "million multiply-adds", f"latency, ms ({context.kind})")
    return _plot(view, "scaling", titles, (x, y), lines, view.rows, points)


def course_plot(view: View) -> Plot | None:
    """Plot the sum of the kernels' best latencies against trials per kernel; `None` where no search is recorded."""
    found = [(row, search_course(row.variant)) for row in view.rows]
    courses = [(row, points) for row, points in found if len(points) > 1 and all(min(point) > 0 for point in points)]
    if not courses:
        return None
    context = view.context
    end = max(points[-1][0] for _, points in courses)
    x = x_axis([trials for _, points in courses for trials, _ in points])
    y = y_axis([latency / 1e3 for _, points in courses for _, latency in points])
    styles = _styles(view)
    ends = [(x.at(end), y.at(points[-1][1] / 1e3)) for _, points in courses]
    sides = [row.variant.side for row, _ in courses]
    labels = place_labels(ends, sides, FONT, RADIUS, FRAME) if len(courses) <= _MAX_LABELS else [None] * len(courses)
    lines, marks = [], []
    for place, (row, points) in enumerate(courses):
        steps = [points[0]]
        for (_, before), (trials, latency) in pairwise([*points, (end, points[-1][1])]):
            steps += [(trials, before), (trials, latency)]
        first, last = points[0], points[-1]
        text = (
            f"{row.variant.model} {label_of(row.variant)}: all kernels {latency_ms(first[1])} ms {context.kind} after "
            f"{plural(first[0], 'trial')} each, {latency_ms(last[1])} ms {context.kind} after {last[0]}"
        )
        coordinates = tuple((x.at(trials), y.at(latency / 1e3)) for trials, latency in dict.fromkeys(steps))
        lines.append(PlotLine("course", "", coordinates, styles[row.series]))
        marks.append(Mark(*ends[place], styles[row.series], text, row.index, True, sides[place], labels[place]))
    used = dict.fromkeys(row.series for row, _ in courses)
    return Plot(
        "course",
        f"Course of the search, latency {origin(context)}",
        "all kernels of a variant together, each with the best schedule found by then",
        "trials per kernel",
        f"latency, ms ({context.kind})",
        ticks(x),
        ticks(y),
        tuple(lines),
        tuple(marks),
        tuple((name, styles[name]) for name in used),
    )


def search_course(variant: VariantResult) -> list[tuple[int, float]]:
    """Return (trials per kernel, sum of the kernels' best latencies by then in microseconds), where that improved and at the end.

    Begins where every searched kernel has a first latency. A kernel that was not searched counts with its record's latency all along; empty
    where none was searched, or where a kernel has neither.
    """
    searched = [kernel for kernel in variant.kernels if kernel.course]
    if not searched or any(not kernel.course and kernel.latency_us is None for kernel in variant.kernels if kernel.macs):
        return []
    constant = math.fsum(kernel.latency_us or 0.0 for kernel in variant.kernels if not kernel.course)
    first = max(kernel.course[0][0] for kernel in searched)
    trials = sorted({first} | {point[0] for kernel in searched for point in kernel.course if point[0] > first})
    sums = [(count, constant + math.fsum(_best(kernel, count) for kernel in searched)) for count in trials]
    return [point for place, point in enumerate(sums) if place in (0, len(sums) - 1) or point[1] != sums[place - 1][1]]


def _best(kernel: KernelResult, trials: int) -> float:
    return min(latency for count, latency in kernel.course if count <= trials)


def _accuracy_plot(view: View, source: int) -> Plot:
    rows = [row for row in view.rows if row.source == source]
    tops = [row.variant.top1 or 0.0 for row in rows]
    x, y = x_axis([row.variant.latency_us / 1e3 for row in rows]), y_axis(tops, logarithmic=False)
    points = [(x.at(row.variant.latency_us / 1e3), y.at(top)) for row, top in zip(rows, tops, strict=True)]
    front = sorted(point for row, point in zip(rows, points, strict=True) if row.on_front)
    line = PlotLine("front", "Pareto front", tuple(front))
    whence = view.sources[source - 1]
    title = f"{'Measured' if is_measured(whence) else 'Published'} accuracy against latency, {origin(view.context)}"
    titles = (title, f"top-1 [{source}]: {whence}", f"latency, ms ({view.context.kind})", f"top-1, % [{source}]")
    plot = _plot(view, f"accuracy-{source}", titles, (x, y), (line,) if len(front) > 1 else (), rows, points)
    return replace(plot, x_span=(x.low, x.high))


def _plot(
    view: View,
    key: str,
    titles: tuple[str, str, str, str],
    axes: tuple[Axis, Axis],
    lines: tuple[PlotLine, ...],
    rows: Sequence[VariantRow],
    points: Sequence[tuple[float, float]],
) -> Plot:
    styles = _styles(view)
    wanted = [place for place, row in enumerate(rows) if len(rows) <= _MAX_LABELS or row.on_front]
    texts = [rows[place].variant.side for place in wanted]
    labels = dict(zip(wanted, place_labels([points[place] for place in wanted], texts, FONT, RADIUS, FRAME), strict=True))
    marks = tuple(
        Mark(*point, styles[row.series], described(view, row), row.index, row.on_front, row.variant.side, labels.get(place))
        for place, (row, point) in enumerate(zip(rows, points, strict=True))
    )
    used = dict.fromkeys(row.series for row in rows)
    series = tuple((name, styles[name]) for name in used)
    return Plot(key, *titles, ticks(axes[0]), ticks(axes[1]), lines, marks, series)


def described(view: View, row: VariantRow) -> str:
    """Return a variant in one line."""
    variant = row.variant
    accuracy = f", top-1 {variant.top1:.1f} % [{row.source}]" if row.source else ""
    macs = f"{millions(variant.macs)} M multiply-adds"
    spoiled = "" if row.valid else "; not valid"
    return f"{variant.model} {label_of(variant)}: {latency_ms(variant.latency_us)} ms {view.context.kind}, {macs}{accuracy}{spoiled}"


def _styles(view: View) -> dict[str, int]:
    names = dict.fromkeys(row.series for row in view.rows)
    return {name: place % STYLES for place, name in enumerate(names)}
