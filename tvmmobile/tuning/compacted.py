"""Reads and writes a kernel's line in a compacted log: rows of record figures, and digests of the other schedules that were tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvmmobile.kernels.serial import Schedule, TraceSchedule
from tvmmobile.schedules import KnobSchedule
from tvmmobile.tuning.claims import RecordFigures, read_figures

#: Characters of a digest (see `trials.digest`).
DIGEST_LENGTH = 4
#: Pairs of a schedule family (`trials.family`) and the digests of its schedules that were tried but no longer have a record.
Dropped = tuple[tuple[str, frozenset[str]], ...]


@dataclass(frozen=True)
class KeptRecord:
    """A record without the fields that all records of its line share; `trial` is its number among the kernel's trials, from 1."""

    trial: int
    schedule: Schedule
    figures: RecordFigures


def read_compacted(value: Mapping[str, Any]) -> tuple[tuple[KeptRecord, ...], Dropped]:
    """Return a line's kept records, in the order of their trials, and its dropped digests; raise one of `records.MALFORMED` if invalid."""
    dropped = tuple((name, _digests(text)) for name, text in value.get("dropped", {}).items())
    kept = sorted((record for group in value["kept"] for record in _read_group(group)), key=lambda record: record.trial)
    if not kept and not dropped:
        raise ValueError("it lists no trials")
    most = len(kept) + sum(len(digests) for _, digests in dropped)
    numbers = {record.trial for record in kept}
    if len(numbers) < len(kept) or (numbers and not 1 <= min(numbers) <= max(numbers) <= most):
        raise ValueError(f"its records are not distinct ones of its {most} trials")
    return tuple(kept), dropped


def written_compacted(kept: Iterable[KeptRecord], dropped: Dropped) -> dict[str, Any]:
    """Return the JSON fields `kept` and `dropped` of a line."""
    groups: dict[tuple[object, ...], dict[str, Any]] = {}
    for record in kept:
        schedule, figures = record.schedule, record.figures
        if isinstance(schedule, TraceSchedule):
            values: tuple[int, ...] = ()
            group = groups.setdefault((schedule,), {"trace": schedule.trace, "rows": []})
        else:
            names, values = ",".join(name for name, _ in schedule.knobs), tuple(value for _, value in schedule.knobs)
            key = schedule.template, schedule.version, names, bool(figures.samples_us)
            group = groups.setdefault(key, {"template": schedule.template, "version": schedule.version, "knobs": names, "rows": []})
        group["rows"].append([record.trial, figures.latency_us, figures.cycles, *values])
        if figures.samples_us:
            group.setdefault("samples_us", []).append(figures.samples_us)
    entry = {"dropped": {name: "".join(sorted(digests)) for name, digests in sorted(dropped) if digests}}
    return {"kept": list(groups.values()), **(entry if entry["dropped"] else {})}


def _read_group(group: Mapping[str, Any]) -> list[KeptRecord]:
    names = group["knobs"].split(",") if group.get("knobs") else []
    rows = group["rows"]
    return [_read_row(group, names, row, samples) for row, samples in zip(rows, group.get("samples_us", [()] * len(rows)), strict=True)]


def _read_row(group: Mapping[str, Any], names: Sequence[str], row: Sequence[Any], samples: Any) -> KeptRecord:
    trial, latency_us, cycles, *values = row
    if type(trial) is not int or any(type(value) is not int for value in values):
        raise ValueError("a trial or a knob is not a whole number")
    figures = read_figures({"latency_us": latency_us, "cycles": cycles, "samples_us": samples})
    if figures.latency_us is None:
        raise ValueError("a record that is kept has no latency")
    knobs = tuple(zip(names, values, strict=True))
    if "trace" in group:
        return KeptRecord(trial, TraceSchedule(str(group["trace"])), figures)
    return KeptRecord(trial, KnobSchedule(str(group["template"]), int(group["version"]), knobs), figures)


def _digests(text: str) -> frozenset[str]:
    digests = frozenset(text[at : at + DIGEST_LENGTH] for at in range(0, len(text), DIGEST_LENGTH))
    if not text.isascii() or len(digests) * DIGEST_LENGTH != len(text):
        raise ValueError("what was dropped is not a list of different digests")
    return digests
