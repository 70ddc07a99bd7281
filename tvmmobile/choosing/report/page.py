"""The answer as an HTML page with a plot of accuracy against latency, and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.choosing.answer import NetworkChoice, PricedCandidate
from tvmmobile.choosing.report.entries import placed
from tvmmobile.choosing.report.sentences import ESTIMATED, left_out, origins, sources_of, verdict
from tvmmobile.results.report.figures import FONT, FRAME, RADIUS, STYLES, Axis, Mark, Plot, PlotLine, place_labels, ticks, x_axis, y_axis
from tvmmobile.results.report.markdown import bullets, escape, table
from tvmmobile.results.report.page import PAGE_SCRIPT, rendered
from tvmmobile.results.report.wording import latency_ms, plural

_TEMPLATES = Path(__file__).parent / "templates"
#: Most points on the front for which all of them are labelled; with more, only the best one is.
_MAX_LABELS = 16


@dataclass(frozen=True)
class ChoiceRow:
    """A candidate's row on the page.

    Attributes:
        index: number of the row.
        place: outcome of the candidate, see `placed`.
        name: name of the network.
        short: label of its point in the plot.
        library: precision and threads, the name of its series in the plot.
        worst_us: latency on the slowest device, in microseconds.
        latencies: formatted latencies on each device.
        top1: top-1 accuracy in percent.
        source: number of the accuracy's source, from 1.
    """

    index: int
    place: str
    name: str
    short: str
    library: str
    dtype: str
    threads: int
    worst_us: float
    latencies: tuple[str, ...]
    top1: float
    source: int

    @property
    def on_front(self) -> bool:
        """True if no other row beats it."""
        return self.place in ("best", "front")


def markdown_of(choice: NetworkChoice) -> str:
    """Return the text of `choice.md`: the front, and the sources of its numbers."""
    rows = [row for row in _rows(choice) if row.on_front]
    kinds = [f"{profile.name}, ms ({profile.origin.kind})" for profile in choice.profiles]
    lines = []
    for row in rows:
        cells = [row.name, row.dtype, str(row.threads), *row.latencies, f"{row.top1:.1f} [{row.source}]"]
        lines.append([f"**{cell}**" for cell in cells] if row.place == "best" else cells)
    parts = ["# Networks by latency and accuracy", escape(verdict(choice))]
    parts += [table(("network", "dtype", "threads", *kinds, "top-1, % [n]"), lines, right_from=2)] if rows else []
    return "\n\n".join([*parts, bullets([*origins(choice), *left_out(choice)])]) + "\n"


def page_of(choice: NetworkChoice) -> str:
    """Return the text of `choice.html`, self-contained like a report's page."""
    rows = _rows(choice)
    kinds = " and ".join(dict.fromkeys(profile.origin.kind for profile in choice.profiles))
    return rendered(
        _TEMPLATES / "choice.html.j2",
        [PAGE_SCRIPT, _TEMPLATES / "sorting.js"],
        title="Networks on " + " and ".join(profile.name for profile in choice.profiles),
        kind=kinds,
        verdict=verdict(choice),
        budget_ms=f"{choice.budget.most_us / 1e3:g}" if math.isfinite(choice.budget.most_us) else "",
        devices=[(profile.name, profile.origin.kind) for profile in choice.profiles],
        rows=rows,
        libraries=list(dict.fromkeys(row.library for row in rows)),
        plot=_front_plot(choice, rows, kinds),
        notes=[*origins(choice), *left_out(choice)],
    )


def _rows(choice: NetworkChoice) -> list[ChoiceRow]:
    """Return the rows of all candidates with known latency, by ascending latency."""
    sources = sources_of(choice)
    known = [(place, priced) for place, priced in placed(choice) if priced.is_known]
    several = len({priced.candidate.threads for _, priced in known}) > 1
    rows = []
    for index, (place, priced) in enumerate(sorted(known, key=lambda pair: pair[1].worst_us)):
        candidate = priced.candidate
        library = candidate.precision.name + (f", {plural(candidate.threads, 'thread')}" if several else "")
        rows.append(
            ChoiceRow(
                index,
                place,
                candidate.model.spec.variant,
                _short(candidate.model.spec.variant),
                library,
                candidate.precision.name,
                candidate.threads,
                priced.worst_us,
                _latencies(choice, priced),
                candidate.accuracy.top1,
                sources.index(candidate.accuracy.source) + 1,
            )
        )
    return rows


def _latencies(choice: NetworkChoice, priced: PricedCandidate) -> tuple[str, ...]:
    latencies = [priced.latencies[profile.name] for profile in choice.profiles]
    return tuple(ESTIMATED * (latency.estimated_us > 0) + latency_ms(latency.latency_us) for latency in latencies)


def _short(variant: str) -> str:
    """Return a network's name as a label in the plot, such as `v1 0.5-160`."""
    family, _, rest = variant.removeprefix("mobilenet_").partition("_")
    alpha, _, side = rest.rpartition("_")
    return f"{family} {alpha.replace('_', ' ')}-{side}" if alpha else variant


def _front_plot(choice: NetworkChoice, rows: Sequence[ChoiceRow], kind: str) -> Plot | None:
    """Plot accuracy against latency of all candidates, with the budget as a line; `None` without candidates."""
    if not rows:
        return None
    budget = choice.budget
    bounds = [budget.most_us / 1e3] if math.isfinite(budget.most_us) else []
    x = x_axis([*(row.worst_us / 1e3 for row in rows), *bounds])
    y = y_axis([*(row.top1 for row in rows), *([budget.least_top1] if budget.least_top1 > 0 else [])], logarithmic=False)
    points = [(x.at(row.worst_us / 1e3), y.at(row.top1)) for row in rows]
    front = [place for place, row in enumerate(rows) if row.on_front]
    lines = _bound(choice, x, y)
    if len(front) > 1:
        lines.insert(0, PlotLine("front", "no other is as fast and as accurate", tuple(points[place] for place in front)))
    named = front if len(front) <= _MAX_LABELS else [place for place in front if rows[place].place == "best"]
    # Points without labels are obstacles for the others' labels.
    order = sorted(range(len(rows)), key=lambda place: place not in named)
    texts = [rows[place].short if place in named else "" for place in order]
    positions = place_labels([points[place] for place in order], texts, FONT, RADIUS, FRAME)
    labels = {place: label for place, label in zip(order, positions, strict=True) if place in named}
    styles = {name: place % STYLES for place, name in enumerate(dict.fromkeys(row.library for row in rows))}
    marks = tuple(
        Mark(
            *points[place],
            styles[row.library],
            f"{row.name} in {row.library}: {latency_ms(row.worst_us)} ms {kind}, top-1 {row.top1:.1f} % [{row.source}]",
            row.index,
            row.on_front,
            row.short,
            labels.get(place),
            row.place == "best",
        )
        for place, row in enumerate(rows)
    )
    slowest = " on the slowest board" if len(choice.profiles) > 1 else ""
    return Plot(
        "front",
        f"Accuracy against latency, {kind}",
        "filled: on the front",
        f"latency{slowest}, ms ({kind})",
        "top-1, %",
        ticks(x),
        ticks(y),
        tuple(lines),
        marks,
        tuple(styles.items()),
        x_span=(x.low, x.high),
    )


def _bound(choice: NetworkChoice, x: Axis, y: Axis) -> list[PlotLine]:
    """Return a line for the budget's limit on latency or accuracy, if there is one."""
    budget = choice.budget
    if math.isfinite(budget.most_us):
        place = x.at(budget.most_us / 1e3)
        return [PlotLine("budget", f"{budget.most_us / 1e3:g} ms", ((place, FRAME.top), (place, FRAME.bottom)))]
    if budget.least_top1 > 0:
        place = y.at(budget.least_top1)
        return [PlotLine("budget", f"{budget.least_top1:g} %", ((FRAME.left, place), (FRAME.right, place)))]
    return []
