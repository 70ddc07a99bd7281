"""Reads a tuning log line by line: finds each line's faults, and counts the log's content."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
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
from tvmmobile.tuning.records import UNFINISHED, Identity, KnownTasks, Line, MalformedRecord, read_line, usable
from tvmmobile.tuning.trials import digest, family

#: A log's name.
_NAME = re.compile(r"[a-z][a-z0-9_]*_t[1-9][0-9]*\.jsonl")
#: How long to wait for a possible writer of a log whose last line is incomplete.
_SETTLE_S = 10.0
#: A schedule that was tried for a kernel, or its family and digest; and whether it was measured again.
Key = tuple[Identity, Task, Schedule | tuple[str, str], bool]


@dataclass(frozen=True)
class LogLine:
    """A line of a log.

    Attributes:
        number: number of the line, from 1.
        text: text in the file, without its line end.
        held: content of the line; `None` if it holds no record.
        fault: reason why it does not belong in this file; "" if it does.
        remark: reason why some of its records do not count now although they belong there; "" if all count.
    """

    number: int
    text: bytes
    held: Line | None
    fault: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Log:
    """A log's content; `foreign` says why it is not one of ours and was not checked, else ""."""

    path: Path
    lines: tuple[LogLine, ...]
    foreign: str = ""

    @property
    def device(self) -> str:
        """The device that its folder is called after."""
        return self.path.parent.name

    @property
    def faults(self) -> list[LogLine]:
        """The lines that do not belong in it."""
        return [line for line in self.lines if line.fault]


def logs_in(directory: Path, device: str | None = None) -> list[Path]:
    """Return the logs of a directory, of one device or of all, sorted; raise `UserError` where there are none."""
    folders = [directory / device] if device is not None else sorted(path for path in directory.glob("*") if path.is_dir())
    paths = [path for folder in folders for path in log_paths(directory, folder.name)]
    if not paths:
        whose = f" of {device}" if device is not None else ""
        raise UserError(f"{directory} has no tuning logs{whose}.", "Name another directory, one with DEVICE/DTYPE_tTHREADS.jsonl in it.")
    return paths


def files_of(sources: Sequence[Path]) -> list[Path]:
    """Return all logs of some log files, folders of devices and directories with such, in their order, each once.

    Raises `UserError` if one of them does not exist, or if a directory has no logs.
    """
    files: dict[Path, Path] = {}
    for source in sources:
        if not source.exists():
            raise UserError(f"{source} does not exist.", "Give log files, or directories that hold them.")
        # A directory is a device's folder, or has such folders.
        for path in (log_paths(source, "") or logs_in(source)) if source.is_dir() else [source]:
            files.setdefault(path.resolve(), path)
    return list(files.values())


def is_log_name(name: str) -> bool:
    """Return whether a file in a device's folder is one of ours."""
    return _NAME.fullmatch(name) is not None


def inspect(path: Path, present: Identity | None, content: bytes | None = None) -> Log:
    """Check every line of a log; raise `UserError` if it cannot be read.

    Args:
        present: current identity of the log's device; `None` if unknown, in which case timing models cannot be compared.
        content: content of the log, from a caller that holds its lock; read from the file unless given.
    """
    if not is_log_name(path.name):
        return Log(path, (), f"its name is not that of a log, DTYPE_tTHREADS{path.suffix}")
    lines = []
    seen: set[Key] = set()
    for line in read_lines(settled_content(path) if content is None else content):
        fault, remark, held = line.fault, line.remark, line.held
        if held is not None:
            fault = fault or _misplaced(path, held) or refusal(held, present)
            fault = fault or ("an earlier line has the same schedule" if _repeats(held, seen) else "")
            remark = "" if fault else _outdated(held, present) or remark
            seen |= keys_of(held)
        lines.append(LogLine(line.number, line.text, held, fault, remark))
    return Log(path, tuple(lines))


def read_lines(content: bytes) -> Iterator[LogLine]:
    """Yield the lines of any file with records. Lines without a record, or with schedules that their templates do not take, have a fault.

    A kernel's line of a compacted log with some such schedules has a remark.
    """
    lines, known = lines_in(content), KnownTasks()
    for number, text in enumerate(lines, 1):
        unfinished = number == len(lines) and not content.endswith(b"\n")
        try:
            held = read_line(text, known)
        except MalformedRecord as error:
            why = UNFINISHED if unfinished else f"not a record: {short(str(error))}"
            yield LogLine(number, text, None, why)
        else:
            wrong = [why for record in held.records if not usable(record, known) and (why := untakable(record.schedule))]
            whole = len(wrong) == len(held.records)
            yield LogLine(number, text, held, wrong[0] if wrong and whole else "", wrong[0] if wrong and not whole else "")


def settled_content(path: Path) -> bytes:
    """Return the content of a log; if it ends within a line, once nobody is writing to it. Raises `UserError` if it cannot be read."""
    content = content_of(path)
    lock = append_lock(path)
    if content and not content.endswith(b"\n") and lock.exists():
        with suppress(OSError), filelock.FileLock(lock, timeout=_SETTLE_S):  # we may not lock it: read it as it is
            content = content_of(path)
    return content


def keys_of(line: Line) -> set[Key]:
    """Return the trials in a line, by identity, kernel and schedule; a kept schedule counts both by itself and by its digest."""
    tried = {(family(record.schedule), digest(record.schedule)) for record in line.records}
    settled = {(one, again) for record in line.records for one in (record.schedule,) for again in (False, record.again)}
    return dropped_keys(line) | {(line.identity, line.task, one, again) for one, again in (*settled, *((one, False) for one in tried))}


def dropped_keys(line: Line) -> set[Key]:
    """Return the keys of schedules for which a line has no record."""
    return {(line.identity, line.task, (name, one), False) for name, digests in line.dropped for one in digests}


def _repeats(line: Line, seen: Set[Key]) -> bool:
    """Return whether earlier lines contain everything in a line; records measured again correct them."""
    keys = {(line.identity, line.task, record.schedule, False) for record in line.records if not record.again}
    return bool(keys or line.dropped) and keys | dropped_keys(line) <= seen


def _misplaced(path: Path, line: Line) -> str:
    if line.identity.device != path.parent.name:
        return f"a record of {short(line.identity.device)}, in the folder of {path.parent.name}"
    name = file_name(line.task)
    return "" if name == path.name else f"a record for {short(name)}, in {path.name}"


def refusal(line: Line, present: Identity | None) -> str:
    """Return the reason why a line's records cannot all be true on the device, if it is known here; "" if they can."""
    return "" if present is None else next(filter(None, (present.refuses(line.identity, record) for record in line.records)), "")


def _outdated(line: Line, present: Identity | None) -> str:
    identity = line.identity
    if identity.tvm != TVM_VERSION:
        return f"TVM {short(identity.tvm)}; this is {TVM_VERSION}"
    if present is not None and identity.origin != present.origin:
        return f"{model_name(identity)}; now it is {model_name(present)}"
    retired = (record.schedule for record in line.records if isinstance(record.schedule, KnobSchedule) and is_retired(record.schedule))
    return next((f"{short(one.template)}@{one.version} is a template that this version does not have" for one in retired), "")


def model_name(identity: Identity) -> str:
    """Return the name of a timing model in messages."""
    name = identity.origin.written
    return "no timing model" if name is None else f"timing model {short(name)}"


@dataclass(frozen=True)
class Share:
    """Counts the comparable records of a log, of one device, timing model and TVM version: how many there are, failed ones included,
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
    """Return a log's records by identity, in the order in which they first come; lines that do not belong there are left out."""
    by_identity: dict[Identity, list[Line]] = {}
    for line in log.lines:
        if line.held is not None and not line.fault:
            by_identity.setdefault(line.held.identity, []).append(line.held)
    return [_share(identity, lines) for identity, lines in by_identity.items()]


def _share(identity: Identity, lines: list[Line]) -> Share:
    records = [record for line in lines for record in line.records]
    latencies = [record.latency_us for record in records if record.latency_us is not None]
    task = lines[0].task
    return Share(
        identity=identity,
        dtype=task.dtype,
        threads=task.threads,
        kernels=len({line.task for line in lines}),
        records=len(records),
        failed=len(records) - len(latencies),
        best_us=min(latencies, default=None),
    )
