"""Tuning logs: one JSON record a line, appended as they are measured, read from several directories, written to one.

A directory holds one file per device, dtype and thread count, `<device>/<dtype>_t<threads>.jsonl`. Every record names the device,
the TVM version and, where latency is modelled, the timing model's hash; only records that agree with the current device on all of
them are used.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from tvmmobile.environment import TVM_VERSION
from tvmmobile.errors import UserError
from tvmmobile.files import write_bytes
from tvmmobile.layers import Opaque
from tvmmobile.schedules import template_named
from tvmmobile.serial import Schedule, TraceSchedule, schedule_from_json, schedule_to_json, task_from_json, task_to_json
from tvmmobile.tasks import Task

FORMAT = 1
#: What reading a line, or the extents of a task that no network has, may raise.
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class Identity:
    """What must agree for two records to be comparable, besides the task.

    Attributes:
        device: name of the device, e.g. `pi4-virtual`.
        model_hash: hash of the timing model for modelled latencies, `None` for measured ones.
        tvm: TVM's version.
    """

    device: str
    model_hash: str | None
    tvm: str = TVM_VERSION


@dataclass(frozen=True)
class Record:
    """One tried schedule.

    Attributes:
        latency_us: microseconds; `None` where the candidate failed.
        cycles: modelled core cycles, `None` on hardware.
        samples_us: raw samples where they were measured.
        error: why it failed, `None` where it did not.
        when: ISO 8601, UTC.
    """

    task: Task
    schedule: Schedule
    latency_us: float | None
    cycles: int | None = None
    samples_us: tuple[float, ...] = ()
    error: str | None = None
    when: str = ""


class Database:
    """The records of one device, over all tasks.

    Args:
        identity: which records count.
        sources: directories read in this order; none needs to exist.
        target: the directory new records are written to; `None` for a database that is only read.

    Attributes:
        ignored: lines that do not count, whatever the reason.
        outdated: how many of them differ in the timing model alone.
    """

    def __init__(self, identity: Identity, sources: Iterable[Path], target: Path | None) -> None:
        self.identity = identity
        self.target = target
        self.ignored = 0
        self.outdated = 0
        self._records: dict[Task, list[Record]] = {}
        self._seen: set[tuple[Task, Schedule]] = set()
        for directory in dict.fromkeys([*sources, *([target] if target else [])]):
            for path in sorted((directory / identity.device).glob("*.jsonl")):
                for record, usable in self._read(path):
                    self._add(record, usable)

    def __len__(self) -> int:
        return sum(map(len, self._records.values()))

    def tasks(self) -> list[Task]:
        """Every task with a record."""
        return list(self._records)

    def records(self, task: Task) -> list[Record]:
        """All records of a task, failed ones included, in the order they were made."""
        return self._records.get(task, [])

    def best(self, task: Task, left_out: Container[str] = ()) -> Record | None:
        """The fastest record that did not fail, of no template in `left_out`."""
        good = [
            record
            for record in self.records(task)
            if record.latency_us is not None and getattr(record.schedule, "template", None) not in left_out
        ]
        return min(good, key=lambda record: (record.latency_us, str(record.schedule)), default=None)

    def append(self, records: Iterable[Record]) -> None:
        """Write records to the end of their files, flushed to disk before this returns, under a lock.

        A schedule that is there already is left out. A line that a crash left unfinished is closed first: it must not swallow a new one.

        Raises:
            UserError: the directory cannot be written.
        """
        assert self.target is not None, "this database is only read"
        fresh: dict[tuple[Task, Schedule], Record] = {}
        for record in records:
            if (record.task, record.schedule) not in self._seen:
                fresh.setdefault((record.task, record.schedule), record)
        files: dict[Path, list[Record]] = {}
        for record in fresh.values():
            path = self.target / self.identity.device / f"{record.task.dtype}_t{record.task.threads}.jsonl"
            files.setdefault(path, []).append(record)
        for path, members in files.items():
            with _writing(path), path.open("ab+", buffering=0) as stream:
                _append_whole(stream, self._lines(members).encode())
            for record in members:
                self._add(record, _usable(record))

    def _add(self, record: Record, usable: bool) -> None:
        key = (record.task, record.schedule)
        if key in self._seen:
            return
        self._seen.add(key)
        if usable:
            self._records.setdefault(record.task, []).append(record)
        else:
            self.ignored += 1

    def replace(self, path: Path, records: Iterable[Record]) -> Path:
        """Write a file of this device anew, whole, with these records alone; returns where its old content is kept, `<path>.bak`.

        Raises:
            UserError: the directory cannot be written.
        """
        backup = path.with_name(path.name + ".bak")
        with _writing(path):
            write_bytes(backup, path.read_bytes())
            write_bytes(path, self._lines(records).encode())
        return backup

    def _read(self, path: Path) -> Iterator[tuple[Record, bool]]:
        """The records of a file that have this identity, each with whether this version can still build it."""
        for line in _text_of(path).splitlines():
            try:
                value = json.loads(line)
                found = _identity_of(value)
                if found != self.identity:
                    self.ignored += 1
                    self.outdated += (found.device, found.tvm) == (self.identity.device, self.identity.tvm)
                    continue
                record = _decode(value)
                usable = _usable(record)
            except _MALFORMED:
                self.ignored += 1  # torn by a crash, or not ours
                continue
            yield record, usable

    def _lines(self, records: Iterable[Record]) -> str:
        return "".join(json.dumps(self._encode(record), separators=(",", ":")) + "\n" for record in records)

    def _encode(self, record: Record) -> dict[str, Any]:
        value: dict[str, Any] = {
            "v": FORMAT,
            "name": record.task.name,
            "task": task_to_json(record.task),
            "schedule": schedule_to_json(record.schedule),
            "latency_us": record.latency_us,
            "device": self.identity.device,
            "model": self.identity.model_hash,
            "tvm": self.identity.tvm,
            "when": record.when or datetime.now(UTC).isoformat(timespec="seconds"),
        }
        for name in ("cycles", "samples_us", "error"):
            if getattr(record, name):
                value[name] = getattr(record, name)
        return value


def records_of_any_model(path: Path, identity: Identity) -> Iterator[tuple[str | None, Record]]:
    """The records of a file whatever timing model they rest on, each with that model's hash, in the order they were made.

    Their latencies are not comparable with each other. Those of other devices and TVM versions, and schedules that this version cannot
    build, are left out.

    Raises:
        UserError: the file cannot be read.
    """
    for line in _text_of(path).splitlines():
        try:
            value = json.loads(line)
            found = _identity_of(value)
            record = _decode(value)
            wanted = (found.device, found.tvm) == (identity.device, identity.tvm) and _usable(record)
        except _MALFORMED:
            continue
        if wanted:
            yield found.model_hash, record


def _identity_of(value: dict[str, Any]) -> Identity:
    return Identity(value["device"], value.get("model"), value["tvm"])


def _decode(value: dict[str, Any]) -> Record:
    if value["v"] != FORMAT:
        raise ValueError(f"format {value['v']}")
    task, latency = task_from_json(value["task"]), value["latency_us"]
    if value["name"] != task.name:
        raise ValueError(f"{value['name']} is not the name of {task.name}")
    if latency is not None and not 0 < float(latency) < math.inf:
        raise ValueError(f"latency {latency}")
    return Record(
        task,
        schedule_from_json(value["schedule"]),
        None if latency is None else float(latency),
        value.get("cycles"),
        tuple(value.get("samples_us", ())),
        value.get("error"),
        str(value.get("when", "")),
    )


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"the tuning log {path} cannot be read: {error.strerror}.", "Check its permissions.") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """The file's lock, its folder created; whatever the disk objects to becomes a `UserError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock")):
            yield
    except OSError as error:
        raise UserError(
            f"tuning records cannot be written to {path.parent.parent}: {error.strerror}.", "Name another directory with --logs DIR."
        ) from error


def _usable(record: Record) -> bool:
    """Whether this version can still build the schedule: its template is there, in that version, with those knobs and values."""
    schedule = record.schedule
    if isinstance(schedule, TraceSchedule):
        return all(isinstance(layer, Opaque) for layer in record.task.region)
    template = template_named(schedule.template, schedule.version)
    space = template.space(record.task) if template else None
    return space is not None and schedule in space


def _append_whole(stream: io.FileIO, content: bytes) -> None:
    """Write all of `content` to the end of an unbuffered file, or nothing where the disk is full.

    An unfinished last line is ended first, so that the next record starts on its own.
    """
    end = stream.seek(0, os.SEEK_END)
    if end:
        stream.seek(end - 1)
        content = content if stream.read(1) == b"\n" else b"\n" + content
    try:
        while content:
            content = content[stream.write(content) :]
        os.fsync(stream.fileno())
    except OSError:
        stream.truncate(end)
        raise
