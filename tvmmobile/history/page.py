"""A history as one self-contained HTML page: a table of all series, and a chart of each, which the page's script draws from numbers in it.

The page's policy lets it load nothing and run this one script. Without it, the table and the list of steps show the same numbers.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from tvmmobile.gate.kernel_changes import KernelChange
from tvmmobile.history.series import CommitHistory, ExplainedStep, LatencyLine, Series
from tvmmobile.history.steps import CONFIDENCE
from tvmmobile.history.terminal import MOST_KERNELS, where
from tvmmobile.results.report.page import rendered
from tvmmobile.results.report.wording import clean
from tvmmobile.system.ranges import ranges_of

_TEMPLATES = Path(__file__).parent / "templates"
#: Steps of all series that are listed; each chart has all of its own.
_MOST_STEPS = 40
#: Significant digits of latencies in the page.
_DIGITS = 6
_PARAMETER = re.compile(r"(\w+)=([^,()]*)")


def history_page(over: CommitHistory, since: int) -> str:
    """Return the text of `history.html`; `since` is how many commits the column of changes reaches back."""
    last = {id(step.series): step for step in reversed(over.steps)}
    return rendered(
        _TEMPLATES / "history.html.j2",
        [_TEMPLATES / "history.js"],
        over=over,
        since=since,
        rows=[(number, one, where(one), last.get(id(one))) for number, one in enumerate(over.series)],
        numbers={id(one): number for number, one in enumerate(over.series)},
        kinds=list(dict.fromkeys(one.kind for one in over.series)),
        most_steps=_MOST_STEPS,
        most_kernels=MOST_KERNELS,
        confidence=f"{100 * CONFIDENCE:.0f} %",
        data=_data(over),
        day=_day,
        schedule_change=schedule_change,
        id=id,
    )


def schedule_change(kernel: KernelChange) -> str:
    """Return how a kernel's schedule changed, in few words: parameters, or the template; "" if it did not."""
    old, new = kernel.base_schedule, kernel.new_schedule
    if old == new:
        return ""
    if old is None or new is None:
        return "new kernel" if old is None else "no longer there"
    (template, before), (other, after) = ((text.partition("(")[0], dict(_PARAMETER.findall(text))) for text in (old, new))
    if template != other:
        return f"{template} → {other}"
    changes = [
        f"{name} {before.get(name, '–')} → {after.get(name, '–')}" for name in {**before, **after} if before.get(name) != after.get(name)
    ]
    return ", ".join(changes[:4]) + ("…" if len(changes) > 4 else "") or "another schedule"


def _day(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d")


def _data(over: CommitHistory) -> Any:
    """Return the numbers of all charts as JSON, whole numbers as differences from the one before, ranges as first and count; see
    `history.js`.
    """
    from markupsafe import Markup

    names: dict[str, int] = {}
    steps: dict[int, list[ExplainedStep]] = {}
    for step in reversed(over.steps):
        steps.setdefault(id(step.series), []).append(step)
    content = {
        "names": [clean(commit.short) for commit in over.commits],
        "subjects": [clean(commit.subject) for commit in over.commits],
        "times": _differences([commit.time for commit in over.commits]),
        "series": [_series(one, steps.get(id(one), []), names) for one in over.series],
        "kernels": list(names),  # filled by now
    }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))  # within a script element nothing else ends it


def _series(series: Series, steps: list[ExplainedStep], names: dict[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "label": clean(series.label),
        "where": clean(where(series)),
        "kind": series.kind,
        "lines": [_line(line) for line in series.lines],
        "steps": [_step(step, names) for step in steps],
    }
    return found | {"smaller": series.smaller} if series.smaller else found


def _line(line: LatencyLine) -> dict[str, Any]:
    points, at = line.points, [step.at for step in line.found.steps]
    unit = 10.0 ** (math.floor(math.log10(max(point.latency_us for point in points))) + 1 - _DIGITS)
    latencies = [round(point.latency_us / unit) for point in points]
    runs = [len(point.results) for point in points]
    found: dict[str, Any] = {
        "unit": unit,
        "commits": [end for first, last in ranges_of(point.commit for point in points) for end in (first, last - first + 1)],
        "us": _differences(latencies),
        "starts": _differences([0, *at]),
        "levels": _differences([round(level / unit) for level in line.found.levels]),
        "spikes": list(line.found.spikes),
        "verdicts": {index: point.verdict for index, point in enumerate(points) if point.verdict},
        "baselines": [index for index, point in enumerate(points) if point.baseline],
        "timed": clean(f"timing model {line.timing_model}" if line.timing_model else line.board),
    }
    if any(point.spread is not None for point in points):  # not of modelled latencies
        found["below"] = [latency - round(point.least_us / unit) for latency, point in zip(latencies, points, strict=True)]
        found["spread"] = [-1 if point.spread is None else min(round(1e3 * point.spread), 10**6) for point in points]
    if max(runs) > 1:
        found["runs"] = runs
    return found


def _step(explained: ExplainedStep, names: dict[str, int]) -> list[Any]:
    step = explained.step
    kernels = [
        [
            names.setdefault(clean(kernel.name), len(names)),
            None if kernel.base_us is None else round(kernel.base_us, 1),
            None if kernel.new_us is None else round(kernel.new_us, 1),
            clean(schedule_change(kernel)),
        ]
        for kernel in explained.kernels[:MOST_KERNELS]
    ]
    sizes = [round(1e4 * size) for size in (step.change, step.low, step.high)]
    return [explained.before, explained.after, explained.earliest, explained.latest, *sizes, float(f"{step.p:.1g}"), kernels]


def _differences(numbers: list[int]) -> list[int]:
    return [*numbers[:1], *(new - old for old, new in pairwise(numbers))]
