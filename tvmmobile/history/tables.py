"""A history as JSON and CSV: all numbers, unrounded, each with where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from tvmmobile.history.series import COMPARABLE, IDENTITY, CommitHistory, ExplainedStep, LatencyLine, Series
from tvmmobile.results.report.spreadsheet import csv_text

FORMAT = 1
#: One line for each commit of a series; `change` to `p` are of the step at this commit, if there is one.
COLUMNS = (
    *(*IDENTITY, *COMPARABLE, "commit", "date", "latency_us", "least_us", "spread", "runs", "verdict", "baseline"),
    *("change", "change_low", "change_high", "p"),
)


def history_csv(over: CommitHistory) -> str:
    """Return a line for each commit of each series."""
    return csv_text(COLUMNS, _lines(over))


def history_json(over: CommitHistory) -> str:
    """Return commits, series with their points, and steps; numbers of commits are places in the list of commits."""
    numbers = {id(one): number for number, one in enumerate(over.series)}
    content = {
        "version": FORMAT,
        "commits": [{**asdict(commit), "time": _iso(commit.time)} for commit in over.commits],
        "series": [_series(one) for one in over.series],
        "steps": [_step(step, numbers[id(step.series)]) for step in over.steps],
    }
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _series(series: Series) -> dict[str, Any]:
    lines = [
        {**_of(line, COMPARABLE), "noise": line.found.noise, "points": [asdict(point) for point in line.points]} for line in series.lines
    ]
    return {**_of(series, IDENTITY), "left_out": series.left_out, "lines": lines}


def _step(explained: ExplainedStep, number: int) -> dict[str, Any]:
    step, line = explained.step, explained.series.lines.index(explained.line)
    numbers = {name: getattr(step, name) for name in ("change", "low", "high", "p")}
    commits = _of(explained, ("before", "after", "earliest", "latest"))
    return {"series": number, "line": line, **commits, **numbers, "kernels": [asdict(kernel) for kernel in explained.kernels]}


def _lines(over: CommitHistory) -> Iterator[dict[str, Any]]:
    for series in over.series:
        for line in series.lines:
            shown = {explained.after: explained.step for explained in over.steps if explained.line is line}
            for point in line.points:
                step, commit = shown.get(point.commit), over.commits[point.commit]
                own = {
                    **_of(point, ("latency_us", "least_us", "spread", "verdict")),
                    "runs": len(point.results),
                    "baseline": int(point.baseline),
                }
                found = {"change": step.change, "change_low": step.low, "change_high": step.high, "p": step.p} if step else {}
                yield {**_of(series, IDENTITY), **_of(line, COMPARABLE), "commit": commit.name, "date": _iso(commit.time), **own, **found}


def _of(one: Series | LatencyLine | ExplainedStep | Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(one, name) for name in names}


def _iso(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat()
