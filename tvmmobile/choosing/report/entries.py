"""The answer as JSON and CSV: every priced candidate with its latencies, its accuracy, and why it was chosen or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tvmmobile.choosing.answer import NetworkChoice, PricedCandidate
from tvmmobile.results.report.spreadsheet import csv_text

#: Columns of `choice.csv` before those of each device's latency. Empty latencies are unknown.
_COLUMNS = ("variant", "dtype", "threads", "place", "top1_percent", "top1_source", "top1_measured")


def placed(choice: NetworkChoice) -> Iterator[tuple[str, PricedCandidate]]:
    """Yield the candidates within the size limits with their outcome: `best`, `front`, `beaten` or `untuned`."""
    for candidate in choice.front:
        yield "best" if candidate is choice.best else "front", candidate
    for candidate in sorted(choice.beaten, key=lambda other: other.worst_us):
        yield "beaten", candidate
    for candidate in choice.untuned:
        yield "untuned", candidate


def json_of(choice: NetworkChoice) -> dict[str, Any]:
    """Return the content of `choice.json`, which `--json` prints; latencies are in microseconds."""
    candidates = list(placed(choice))

    def entries(*places: str) -> list[dict[str, Any]]:
        return [_entry(priced) for place, priced in candidates if place in places]

    return {
        "devices": [profile.name for profile in choice.profiles],
        "kinds": {profile.name: profile.origin.kind for profile in choice.profiles},
        "best": None if choice.best is None else _entry(choice.best),
        "front": entries("best", "front"),
        "beaten": entries("beaten"),
        "skipped": choice.skipped,
        "untuned": entries("untuned"),
        "oversized": list(map(_entry, choice.oversized)),
        "unknown_accuracy": list(choice.unknown),
    }


def csv_of(choice: NetworkChoice) -> str:
    """Return the text of `choice.csv`, with a line for every candidate."""
    latencies = {profile.name: f"latency_us_{profile.origin.kind}_{profile.name}" for profile in choice.profiles}
    lines = []
    for place, priced in (*placed(choice), *(("oversized", large) for large in choice.oversized)):
        line = _entry(priced) | {"place": place}
        lines.append({name: line[name] for name in _COLUMNS} | {latencies[name]: value for name, value in line["latency_us"].items()})
    return csv_text((*_COLUMNS, *latencies.values()), lines)


def _entry(priced: PricedCandidate) -> dict[str, Any]:
    candidate = priced.candidate
    return {
        "variant": candidate.model.spec.variant,
        "dtype": candidate.precision.name,
        "threads": candidate.threads,
        "top1_percent": candidate.accuracy.top1,
        "top1_source": candidate.accuracy.source,
        "top1_measured": candidate.accuracy.measured,
        "latency_us": {name: latency.latency_us for name, latency in priced.latencies.items()},
        "estimated_us": {name: latency.estimated_us for name, latency in priced.latencies.items()},
        "memory_bytes": {name: latency.memory_bytes for name, latency in priced.latencies.items()},
        "weight_bytes": {name: latency.weight_bytes for name, latency in priced.latencies.items()},
        "kernels_without_record": {name: latency.unmeasured for name, latency in priced.latencies.items()},
    }
