"""Reads a tuning log line by line: what is wrong with each line, and what the log holds in numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import filelock

from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule
from tvmmobile.schedules import KnobSchedule
from tvmmobile.system.environment import TVM_VERSION
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.claims import is_retired, short, untakable
from tvmmobile.tuning.database import append_lock, content_of, file_name, lines_in, log_paths
from tvmmobile.tuning.records import UNFINISHED, Identity, MalformedRecord, Record, read_record, usable

#: A log's name.
_NAME = re.compile(r"[a-z][a-z0-9_]*_t[1-9][0-9]*\.jsonl")
#: For a log whose last line ends in the middle, how long to wait for whoever may be writing it.
_SETTLE_S = 10.0


@dataclass(frozen=True)
class LogLine:
    """A line of a log.

    Attributes:
        number: from 1.
        text: as it is in the file, without its end.
        identity, record: what it holds; `None` where it holds no record.
        fault: why it does not belong into this file; "" where it does.
        remark: why its record does not count at present though it belongs there; "" where it counts.
    """

    number: int
    text: bytes
    identity: Identity | None
    record: Record | None
    fault: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Log:
    """A log as it was found; `foreign` says why it is not one of ours and was not checked, "" where it is."""

    path: Path
    lines: tuple[LogLine, ...]
    foreign: str = ""

    @property
    def device(self) -> str:
        """The device that its folder is called after."""
        return self.path.parent.name

    @property
    def faults(self) -> list[LogLine]:
        """The lines that do not belong there."""
        return [line for line in self.lines if line.fault]


def logs_in(directory: Path, device: str | None = None) -> list[Path]:
    """The logs of a directory, of one device or of all, sorted; raises `UserError` where there are none."""
    folders = [directory / device] if device is not None else sorted(path for path in directory.glob("*") if path.is_dir())
    paths = [path for folder in folders for path in log_paths(directory, folder.name)]
    if not paths:
        whose = f" of {device}" if device is not None else ""
        raise UserError(f"{directory} has no tuning logs{whose}.", "Name another directory, one with DEVICE/DTYPE_tTHREADS.jsonl in it.")
    return paths


def is_log_name(name: str) -> bool:
    """Whether a file in a device's folder is one of ours."""
    return _NAME.fullmatch(name) is not None


def inspect(path: Path, present: Identity | None, content: bytes | None = None) -> Log:
    """Look at every line of a log; raises `UserError` where it cannot be read.

    Args:
        present: what its device is measured as now; `None` where that is not known, and timing models cannot be compared.
        content: what it holds, for a caller that has its lock; read from the file unless given.
    """
    if not is_log_name(path.name):
        return Log(path, (), f"its name is not that of a log, DTYPE_tTHREADS{path.suffix}")
    lines = []
    seen: set[tuple[Identity, Task, Schedule]] = set()
    for line in read_lines(settled_content(path) if content is None else content):
        fault, remark = line.fault, ""
        if line.identity is not None and line.record is not None:
            key = (line.identity, line.record.task, line.record.schedule)
            fault = fault or _misplaced(path, line.identity, line.record) or refusal(line.identity, line.record, present)
            fault = fault or ("an earlier line has the same schedule" if key in seen and not line.record.again else "")
            remark = "" if fault else _outdated(line.identity, line.record, present)
            seen.add(key)
        lines.append(LogLine(line.number, line.text, line.identity, line.record, fault, remark))
    return Log(path, tuple(lines))


def read_lines(content: bytes) -> Iterator[LogLine]:
    """The lines of any file with records. Those that are no record, or whose schedule its template does not take, have a fault."""
    lines = lines_in(content)
    for number, text in enumerate(lines, 1):
        unfinished = number == len(lines) and not content.endswith(b"\n")
        try:
            identity, record = read_record(text)
        except MalformedRecord as error:
            why = UNFINISHED if unfinished else f"not a record: {short(str(error))}"
            yield LogLine(number, text, None, None, why)
        else:
            yield LogLine(number, text, identity, record, "" if usable(record) else untakable(record.schedule))


def settled_content(path: Path) -> bytes:
    """What a log holds; where it ends within a line, once nobody is writing to it. Raises `UserError` where it cannot be read."""
    content = content_of(path)
    lock = append_lock(path)
    if content and not content.endswith(b"\n") and lock.exists():
        with suppress(OSError), filelock.FileLock(lock, timeout=_SETTLE_S):  # not ours to lock: then as it is
            content = content_of(path)
    return content


def _misplaced(path: Path, identity: Identity, record: Record) -> str:
    if identity.device != path.parent.name:
        return f"a record of {short(identity.device)}, in the folder of {path.parent.name}"
    name = file_name(record.task)
    return "" if name == path.name else f"a record for {short(name)}, in {path.name}"


def refusal(identity: Identity, record: Record, present: Identity | None) -> str:
    """Why a record cannot be true on the device that is known here; "" where it can, or none is."""
    return "" if present is None else present.refuses(identity, record)


def _outdated(identity: Identity, record: Record, present: Identity | None) -> str:
    if identity.tvm != TVM_VERSION:
        return f"TVM {short(identity.tvm)}; this is {TVM_VERSION}"
    if present is not None and identity.origin != present.origin:
        return f"{model_name(identity)}; now it is {model_name(present)}"
    if isinstance(record.schedule, KnobSchedule) and is_retired(record.schedule):
        return f"{short(record.schedule.template)}@{record.schedule.version} is a template that this version does not have"
    return ""


def model_name(identity: Identity) -> str:
    """How the timing model that latencies rest on is called in messages."""
    name = identity.origin.written
    return "no timing model" if name is None else f"timing model {short(name)}"


@dataclass(frozen=True)
class Share:
    """The records of a log that are comparable, of one device, timing model and TVM version: how many there are, failed ones included,
    of how many kernels, and the lowest latency in microseconds, `None` where every record failed.
    """

    identity: Identity
    dtype: str
    threads: int
    kernels: int
    records: int
    failed: int
    best_us: float | None


def shares(log: Log) -> list[Share]:
    """A log's records by identity, in the order in which they first come; lines that do not belong there are left out."""
    by_identity: dict[Identity, list[Record]] = {}
    for line in log.lines:
        if line.identity is not None and line.record is not None and not line.fault:
            by_identity.setdefault(line.identity, []).append(line.record)
    return [_share(identity, records) for identity, records in by_identity.items()]


def _share(identity: Identity, records: list[Record]) -> Share:
    latencies = [record.latency_us for record in records if record.latency_us is not None]
    task = records[0].task
    return Share(
        identity=identity,
        dtype=task.dtype,
        threads=task.threads,
        kernels=len({record.task for record in records}),
        records=len(records),
        failed=len(records) - len(latencies),
        best_us=min(latencies, default=None),
    )
