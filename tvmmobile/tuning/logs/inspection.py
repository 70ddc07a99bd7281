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
from tvmmobile.tuning.logs.files import append_lock, content_of, file_name, lines_in, log_paths
from tvmmobile.tuning.records import (
    UNFINISHED,
    Identity,
    KnownTasks,
    LaterFormat,
    Line,
    MalformedRecord,
    read_line,
    refused_because,
    usable,
)
from tvmmobile.tuning.trials import digest, family

#: Names of logs.
_NAME = re.compile(r"[a-z][a-z0-9_]*_t[1-9][0-9]*\.jsonl")
#: Seconds to wait for a possible writer of a log whose last line is incomplete.
_SETTLE_S = 10.0
#: A trial: identity, kernel, schedule (or its family and digest), and whether it was measured again.
Key = tuple[Identity, Task, Schedule | tuple[str, str], bool]


@dataclass(frozen=True)
class LogLine:
    """A line of a log.

    Attributes:
        number: number of the line, from 1.
        text: text in the file, without its line end.
        held: content of the line; `None` if it is not a record, or only a later version can read it.
        fault: reason why the line does not belong in this file; "" if it does.
        remark: reason why some of its records are not used although they belong there; "" if all are used.
    """

    number: int
    text: bytes
    held: Line | None
    fault: str = ""
    remark: str = ""

    @property
    def is_later(self) -> bool:
        """True if only a later version of tvmmobile can read the line."""
        return self.held is None and not self.fault

    @property
    def counted(self) -> Line | None:
        """Content of the line, if this version can read it and it belongs in the file."""
        return None if self.fault else self.held


@dataclass(frozen=True)
class Log:
    """A log's lines; `foreign` is the reason why it is not a log of tvmmobile and was not checked, or ""."""

    path: Path
    lines: tuple[LogLine, ...]
    foreign: str = ""

    @property
    def device(self) -> str:
        """Name of the device that the log's folder is named after."""
        return self.path.parent.name

    @property
    def faults(self) -> list[LogLine]:
        """Lines that do not belong in the log."""
        return [line for line in self.lines if line.fault]


def logs_in(directory: Path, device: str | None = None) -> list[Path]:
    """Return the logs of a directory, of one device or of all, sorted; raise `UserError` if there are none."""
    folders = [directory / device] if device is not None else sorted(path for path in directory.glob("*") if path.is_dir())
    paths = [path for folder in folders for path in log_paths(directory, folder.name)]
    if not paths:
        whose = f" of {device}" if device is not None else ""
        raise UserError(f"{directory} has no tuning logs{whose}.", "Name another directory, one with DEVICE/DTYPE_tTHREADS.jsonl in it.")
    return paths


def files_of(sources: Sequence[Path]) -> list[Path]:
    """Return all logs in `sources` (log files, device folders, or directories of device folders), in order and without duplicates.

    Raises:
        UserError: if a source does not exist, or if a directory has no logs.
    """
    files: dict[Path, Path] = {}
    for source in sources:
        if not source.exists():
            raise UserError(f"{source} does not exist.", "Give log files, or directories that hold them.")
        # A directory is a device's folder or contains device folders.
        for path in (log_paths(source, "") or logs_in(source)) if source.is_dir() else [source]:
            files.setdefault(path.resolve(), path)
    return list(files.values())


def is_log_name(name: str) -> bool:
    """Return whether a file name in a device's folder is that of a log."""
    return _NAME.fullmatch(name) is not None


def inspect(path: Path, present: Identity | None, content: bytes | None = None) -> Log:
    """Check every line of a log.

    Args:
        present: current identity of the log's device; `None` if unknown, in which case timing models are not compared.
        content: content of the log, from a caller that holds its lock; by default it is read from the file.

    Raises:
        UserError: if the log cannot be read.
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
    """Yield the lines of any file with records. Lines have a fault if they are not records, or if none of their schedules is valid for its
    template; a compacted line with some invalid schedules has a remark, and so has a line of a later version.
    """
    lines, known = lines_in(content), KnownTasks()
    for number, text in enumerate(lines, 1):
        unfinished = number == len(lines) and not content.endswith(b"\n")
        try:
            held = read_line(text, known)
        except LaterFormat as error:
            yield LogLine(number, text, None, remark=str(error))
        except MalformedRecord as error:
            yield LogLine(number, text, None, UNFINISHED if unfinished else refused_because(error))
        else:
            wrong = [why for record in held.records if not usable(record, known) and (why := untakable(record.schedule))]
            whole = len(wrong) == len(held.records)
            yield LogLine(number, text, held, wrong[0] if wrong and whole else "", wrong[0] if wrong and not whole else "")


def settled_content(path: Path) -> bytes:
    """Return the content of a log; if its last line is incomplete, wait for a possible writer and read it again.

    Raises:
        UserError: if the log cannot be read.
    """
    content = content_of(path)
    lock = append_lock(path)
    if content and not content.endswith(b"\n") and lock.exists():
        with suppress(OSError), filelock.FileLock(lock, timeout=_SETTLE_S):  # if it cannot be locked, keep the content as it is
            content = content_of(path)
    return content


def keys_of(line: Line) -> set[Key]:
    """Return the keys of all trials in a line; each record's schedule has a key by itself and one by its digest."""
    by_digest = {((family(record.schedule), digest(record.schedule)), False) for record in line.records}
    by_schedule = {(record.schedule, again) for record in line.records for again in (False, record.again)}
    return dropped_keys(line) | {(line.identity, line.task, schedule, again) for schedule, again in (*by_schedule, *by_digest)}


def dropped_keys(line: Line) -> set[Key]:
    """Return the keys of the schedules of which a line has only digests."""
    return {(line.identity, line.task, (name, dropped), False) for name, digests in line.dropped for dropped in digests}


def _repeats(line: Line, seen: Set[Key]) -> bool:
    """Return whether earlier lines contain all trials of a line; records measured again never count as repeated."""
    keys = {(line.identity, line.task, record.schedule, False) for record in line.records if not record.again}
    return bool(keys or line.dropped) and keys | dropped_keys(line) <= seen


def _misplaced(path: Path, line: Line) -> str:
    if line.identity.device != path.parent.name:
        return f"a record of {short(line.identity.device)}, in the folder of {path.parent.name}"
    name = file_name(line.task)
    return "" if name == path.name else f"a record for {short(name)}, in {path.name}"


def refusal(line: Line, present: Identity | None) -> str:
    """Return why a line's records cannot all be true on its device; "" if they can, or if the device is unknown here."""
    return "" if present is None else next(filter(None, (present.refuses(line.identity, record) for record in line.records)), "")


def _outdated(line: Line, present: Identity | None) -> str:
    identity = line.identity
    if identity.tvm != TVM_VERSION:
        return f"TVM {short(identity.tvm)}; this is {TVM_VERSION}"
    if present is not None and identity.origin != present.origin:
        return f"{model_name(identity)}; now it is {model_name(present)}"
    retired = (record.schedule for record in line.records if isinstance(record.schedule, KnobSchedule) and is_retired(record.schedule))
    return next((f"{short(old.template)}@{old.version} is a template that this version does not have" for old in retired), "")


def model_name(identity: Identity) -> str:
    """Return the name of a timing model in messages."""
    name = identity.origin.written
    return "no timing model" if name is None else f"timing model {short(name)}"


@dataclass(frozen=True)
class Share:
    """A log's comparable records: those of one device, timing model and TVM version.

    Attributes:
        kernels, records, failed: numbers of kernels, of records including failed ones, and of failed records.
        best_us: lowest latency in microseconds; `None` if all records failed.
    """

    identity: Identity
    dtype: str
    threads: int
    kernels: int
    records: int
    failed: int
    best_us: float | None


def shares(log: Log) -> list[Share]:
    """Return a log's shares by identity, in order of first occurrence; lines with a fault are skipped."""
    by_identity: dict[Identity, list[Line]] = {}
    for line in log.lines:
        if line.counted is not None:
            by_identity.setdefault(line.counted.identity, []).append(line.counted)
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
