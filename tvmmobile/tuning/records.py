"""The content of a tuning log: records, each with the identity of its measurement, and their encoding as lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tvmmobile.devices.protocol import EMULATED, MEASURED, DeviceProfile, Origin
from tvmmobile.graph.layers import Opaque
from tvmmobile.graph.machine import ANY, BASELINE
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule, TraceSchedule, schedule_from_json, schedule_to_json, task_from_json, task_to_json
from tvmmobile.schedules import KnobSchedule, Space, template_named
from tvmmobile.system.environment import TVM_VERSION
from tvmmobile.system.errors import shown
from tvmmobile.tuning.claims import Limits, RecordFigures, check_task, read_figures, short
from tvmmobile.tuning.compacted import Dropped, KeptRecord, read_compacted, written_compacted
from tvmmobile.virtual.board import VIRTUAL_SUFFIX

#: Format versions of a line with one record, and of a compacted line with all kept records of a kernel.
FORMAT, COMPACTED = 1, 2
#: Errors that reading a line may raise, including those from tasks with impossible extents.
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RecursionError)


#: The fault of the last line of a log whose writer was interrupted.
UNFINISHED = "the last line is unfinished"


class MalformedRecord(ValueError):
    """Raised for a line that is not a record; the message says why in a few words."""


class LaterFormat(MalformedRecord):
    """Raised for a line that a later version of tvmmobile wrote, in a format that this one cannot read."""


@dataclass(frozen=True)
class Identity:
    """Comparable records of a task share an identity: device, origin of latencies, and TVM version."""

    device: str
    origin: Origin
    tvm: str = TVM_VERSION
    #: Limits that no record with this identity can beat; `None` if unknown, as for identities read from a log.
    limits: Limits | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, profile: DeviceProfile) -> Identity:
        """Return the identity of measurements on a device now."""
        return cls(profile.name, profile.origin, limits=Limits.of(profile))

    def refuses(self, identity: Identity, record: Record) -> str:
        """Return why a record of `identity` cannot be true within this identity's limits; "" if it can, or if the identities differ."""
        if self.limits is None or identity != self:
            return ""
        return self.limits.contradiction(record.task, record.schedule, record.figures)


@dataclass(frozen=True)
class Record:
    """The outcome of a trial: a schedule with its latency, or with the reason why it failed.

    Attributes:
        latency_us: latency in microseconds; `None` if the candidate failed.
        cycles: modelled core cycles; `None` on hardware.
        samples_us: raw samples in microseconds; empty if the latency is modelled.
        error: reason for the failure; `None` if the candidate did not fail.
        when: time of the trial, ISO 8601 in UTC.
        terms_us: terms of a modelled latency in microseconds, by name (docs/virtual-boards.md); empty if measured, and in older logs.
        again: true if the schedule was measured again because the kernel's time within a network contradicted its record; replaces earlier
            records.
        trial: number among the kernel's trials, if a compacted log has it; 0 means one more than the record before.
    """

    task: Task
    schedule: Schedule
    latency_us: float | None
    cycles: int | None = None
    samples_us: tuple[float, ...] = ()
    error: str | None = None
    when: str = ""
    terms_us: tuple[tuple[str, float], ...] = ()
    again: bool = False
    trial: int = field(default=0, compare=False)

    @property
    def figures(self) -> RecordFigures:
        """Figures of the record."""
        return RecordFigures(self.latency_us, self.cycles, self.samples_us, self.terms_us)


@dataclass(frozen=True)
class Line:
    """The content of a log's line: one record of a kernel or, in a compacted log, all its kept records in the order they were made.

    Attributes:
        when: time of the last trial, ISO 8601 in UTC.
        dropped: digests of other schedules that were tried.
    """

    identity: Identity
    task: Task
    records: tuple[Record, ...]
    when: str
    dropped: Dropped = ()


def encoded(identity: Identity, record: Record) -> str:
    """Encode a record as a line of a log, including the line end; a record without a time gets the current one."""
    value = {"schedule": schedule_to_json(record.schedule), "latency_us": record.latency_us}
    optional = {name: figure for name in ("cycles", "samples_us", "error") if (figure := getattr(record, name))}
    terms = {"terms_us": dict(record.terms_us)} if record.terms_us else {}
    return _written(FORMAT, record.task, value, identity, record.when, {**optional, **terms, **({"again": True} if record.again else {})})


def encoded_kernel(identity: Identity, task: Task, records: Sequence[Record], dropped: Dropped, when: str) -> str:
    """Encode a kernel's records, whose `trial` must be set, as one line of a compacted log, with a common time."""
    kept = [KeptRecord(record.trial, record.schedule, record.figures) for record in records]
    return _written(COMPACTED, task, written_compacted(kept, dropped), identity, when, {})


def _written(version: int, task: Task, value: Mapping[str, Any], identity: Identity, when: str, rest: Mapping[str, Any]) -> str:
    whole = {
        "v": version,
        "name": task.name,
        "task": task_to_json(task),
        **value,
        "device": identity.device,
        "model": identity.origin.written,
        "tvm": identity.tvm,
        "when": when or datetime.now(UTC).isoformat(timespec="seconds"),
        **rest,
    }
    return json.dumps(whole, separators=(",", ":")) + "\n"


def read_line(text: bytes, known: KnownTasks | None = None) -> Line:
    """Return the content of a line.

    Args:
        known: tasks of earlier lines.

    Raises:
        MalformedRecord: if the line is not a record; `LaterFormat` if only a later version can read it.
    """
    try:
        value, known = json.loads(text.decode()), known or KnownTasks()
        line = line_in(value, identity_in(value), known)
        for record in line.records:
            usable(record, known)  # raises for impossible shapes
    except LaterFormat:
        raise
    except MALFORMED as error:
        raise MalformedRecord(reason(error)) from error
    return line


def reason(error: Exception) -> str:
    """Return why a line is not a record, given the error (one of `MALFORMED`) that reading it raised."""
    match error:
        case json.JSONDecodeError():
            return "it is not JSON"
        case UnicodeDecodeError():
            return "it is not UTF-8"
        case KeyError():
            return f"{error} is missing, or not known"
        case ValueError():
            return str(error)
        case RecursionError():
            return "it is nested too deeply"
    return "a field has the wrong type"


def refused_because(error: Exception) -> str:
    """Return why a line is not used, given the error (one of `MALFORMED`) that reading it raised."""
    return str(error) if isinstance(error, LaterFormat) else f"not a record: {short(reason(error))}"


def identity_in(value: dict[str, Any]) -> Identity:
    """Return the identity that a line names; raise `KeyError` or `ValueError` if it names none."""
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    device, model, tvm = value["device"], value.get("model"), value["tvm"]
    if not all(isinstance(name, str) for name in (device, tvm, "" if model is None else model)):
        raise ValueError("its device, timing model or TVM version is not text")
    if model == EMULATED.written:
        return Identity(device, EMULATED, tvm)
    modelled = model is not None or device.endswith(VIRTUAL_SUFFIX)
    return Identity(device, Origin("modelled", model) if modelled else MEASURED, tvm)


class KnownTasks:
    """Caches the tasks of a file's records, and the templates' spaces for them."""

    def __init__(self) -> None:
        self._tasks: dict[tuple[str, str], Task] = {}
        self._spaces: dict[tuple[str, int, Task], Space | None] = {}

    def task(self, name: str, value: dict[str, Any]) -> Task:
        """Return the task that `value` describes; raise `ValueError` if `name` is not the task's name."""
        key = name, repr(value)  # as text, because 1, 1.0 and true are equal but not all valid
        if key not in self._tasks:
            task = task_from_json(value)
            if name != task.name:
                raise ValueError(f"{name} is not the name of {task.name}")
            check_task(task)
            self._tasks[key] = task
        return self._tasks[key]

    def space(self, schedule: KnobSchedule, task: Task) -> Space | None:
        """Return the space of a schedule's template for a task; `None` if the template accepts the task on no core, or does not exist."""
        key = schedule.template, schedule.version, task
        if key not in self._spaces:
            template = template_named(schedule.template, schedule.version)
            of_cores = (template.space(replace(task, machine=core)) for core in (BASELINE, ANY)) if template else iter(())
            self._spaces[key] = next((space for space in of_cores if space is not None), None)
        return self._spaces[key]


def line_in(value: dict[str, Any], identity: Identity, known: KnownTasks) -> Line:
    """Return the content of a line; raise one of `MALFORMED`, such as `LaterFormat`, if it is not a record."""
    if value["v"] == COMPACTED:
        return _kernel_in(value, identity, known)
    if isinstance(value["v"], int) and value["v"] > COMPACTED:
        raise LaterFormat(f"format {shown(value['v'])}, of a later version of tvmmobile")
    if value["v"] != FORMAT:
        raise ValueError(f"{shown(value['v'])} is not a format")
    task, figures, error = known.task(value["name"], value["task"]), read_figures(value), value.get("error")
    if not isinstance(error, str | None) or type(value.get("again", False)) is not bool:
        raise ValueError("error is not text, or again is not true or false")
    schedule = schedule_from_json(value["schedule"])
    hash((task, schedule))  # raises for a dict in place of a number, which would otherwise fail later
    when, again = str(value.get("when", "")), value.get("again", False)
    numbers = figures.latency_us, figures.cycles, figures.samples_us
    return Line(identity, task, (Record(task, schedule, *numbers, error, when, figures.terms_us, again),), when)


def _kernel_in(value: dict[str, Any], identity: Identity, known: KnownTasks) -> Line:
    task = known.task(value["name"], value["task"])
    kept, dropped = read_compacted(value)
    hash((task, *(record.schedule for record in kept)))
    when = str(value.get("when", ""))
    records = [
        Record(task, row.schedule, row.figures.latency_us, row.figures.cycles, row.figures.samples_us, when=when, trial=row.trial)
        for row in kept
    ]
    if len({record.schedule for record in records}) < len(records):
        raise ValueError("it has two records of a schedule")
    return Line(identity, task, tuple(records), when, dropped)


def usable(record: Record, known: KnownTasks | None = None) -> bool:
    """Return whether this version can build a record's schedule: its template exists in that version, with those knobs and values."""
    schedule = record.schedule
    if isinstance(schedule, TraceSchedule):
        return all(isinstance(layer, Opaque) for layer in record.task.region)
    space = (known or KnownTasks()).space(schedule, record.task)
    return space is not None and schedule in space
