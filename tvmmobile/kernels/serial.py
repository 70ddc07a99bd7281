"""Converts tasks and schedules to and from the JSON values that logs and manifests contain."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tvmmobile.graph.layers import KINDS, IntegerFacts
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import KnobSchedule

_FACTS = {field.name for field in dataclasses.fields(IntegerFacts)}


@dataclass(frozen=True)
class TraceSchedule:
    """A MetaSchedule trace, for layers without a template; `trace` is the JSON text of `Trace.as_json`."""

    trace: str

    def __str__(self) -> str:
        import hashlib

        digest = hashlib.sha256(self.trace.encode(errors="surrogatepass")).hexdigest()  # a file may hold a lone surrogate
        return f"metaschedule({digest[:12]})"


Schedule = KnobSchedule | TraceSchedule


def task_to_json(task: Task) -> dict[str, Any]:
    """Convert a task to JSON; default values are left out."""
    region = []
    for layer in task.region:
        kind = next(name for name, cls in KINDS.items() if isinstance(layer, cls))
        region.append({"kind": kind, **_changed(layer)})
    return {"region": region, "dtype": task.dtype, "threads": task.threads}


def task_from_json(value: dict[str, Any]) -> Task:
    """Return the task that `task_to_json` wrote; raise `KeyError`, `TypeError` or `ValueError` for anything else."""
    region = []
    for entry in value["region"]:
        fields = {name: _tuples(field) for name, field in entry.items() if name != "kind"}
        if facts := {name: fields.pop(name) for name in _FACTS & fields.keys()}:
            fields["integers"] = IntegerFacts(**facts)
        region.append(KINDS[entry["kind"]](**fields))
    return Task(tuple(region), str(value["dtype"]), int(value["threads"]))


def schedule_to_json(schedule: Schedule) -> dict[str, Any]:
    """Convert a schedule to JSON."""
    if isinstance(schedule, TraceSchedule):
        return {"trace": schedule.trace}
    return {"template": schedule.template, "version": schedule.version, "knobs": schedule.values}


def schedule_from_json(value: dict[str, Any]) -> Schedule:
    """Return the schedule that `schedule_to_json` wrote; raise `KeyError`, `TypeError` or `ValueError` for anything else."""
    if "trace" in value:
        return TraceSchedule(str(value["trace"]))
    knobs = tuple((str(name), int(knob)) for name, knob in value["knobs"].items())
    return KnobSchedule(str(value["template"]), int(value["version"]), knobs)


def _changed(value: Any) -> dict[str, Any]:
    """Return the fields that differ from their defaults; the facts of an integer layer are merged into the layer's fields."""
    fields = {}
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        fields.update(_changed(content) if field.name == "integers" else {field.name: content} if content != field.default else {})
    return fields


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
