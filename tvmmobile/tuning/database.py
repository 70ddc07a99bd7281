"""Tuning logs: one JSON record a line, appended as they are measured, read from several directories, written to one.

A directory holds one file per device, dtype and thread count, `<device>/<dtype>_t<threads>.jsonl`. Every record names the device,
the TVM version and, where latency is modelled, the timing model's hash; only records that agree with the current device on all of
them are used.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import filelock

from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import make_folders, sync_folder, write_bytes
from tvmmobile.tuning.claims import RefusedLine, short, untakable
from tvmmobile.tuning.records import (
    MALFORMED,
    UNFINISHED,
    Identity,
    KnownTasks,
    MalformedRecord,
    Record,
    encoded,
    identity_in,
    read_record,
    reason,
    record_in,
    usable,
)


class Database:
    """The records of one device, over all tasks.

    Args:
        identity: which records count.
        sources: directories read in this order; none needs to exist.
        target: the directory new records are written to; `None` for a database that is only read.

    Attributes:
        ignored: lines that do not count, whatever the reason.
        outdated: how many of them differ in the timing model alone.
        refused: those of them that hold no record, or one that cannot be true.
    """

    def __init__(self, identity: Identity, sources: Iterable[Path], target: Path | None) -> None:
        self.identity = identity
        self.target = target
        self.ignored = 0
        self.outdated = 0
        self.refused: list[RefusedLine] = []
        self._records: dict[Task, list[Record]] = {}
        self._seen: set[tuple[Task, Schedule]] = set()
        for directory in dict.fromkeys([*sources, *([target] if target else [])]):
            for path in log_paths(directory, identity.device):
                for record, can_be_built in self._read(path):
                    self._add(record, can_be_built)

    def __len__(self) -> int:
        return sum(map(len, self._records.values()))

    def tasks(self) -> list[Task]:
        """Every task with a record."""
        return list(self._records)

    def records(self, task: Task) -> list[Record]:
        """All records of a task, failed ones included, in the order they were made."""
        return self._records.get(task, [])

    def best(self, task: Task) -> Record | None:
        """The fastest record that did not fail."""
        good = [record for record in self.records(task) if record.latency_us is not None]
        return min(good, key=lambda record: (record.latency_us, str(record.schedule)), default=None)

    def course(self, task: Task) -> list[tuple[int, float]]:
        """How a task's search went: (trials so far, best latency in microseconds by then), where that improved and at the end."""
        found: list[tuple[int, float]] = []
        for trials, record in enumerate(self.records(task), 1):
            if record.latency_us is not None and (not found or record.latency_us < found[-1][1]):
                found.append((trials, record.latency_us))
        end = len(self.records(task))
        return [*found, (end, found[-1][1])] if found and found[-1][0] < end else found

    def append(self, records: Iterable[Record]) -> None:
        """Write records to the end of their files, flushed to disk before this returns, under a lock; raises `UserError` where it cannot.

        A schedule that is there already is left out, unless it was measured `again`. A line that a crash left unfinished is closed first:
        it must not swallow a new one.
        """
        assert self.target is not None, "this database is only read"
        fresh: dict[tuple[Task, Schedule], Record] = {}
        for record in records:
            if record.again or (record.task, record.schedule) not in self._seen:
                fresh.setdefault((record.task, record.schedule), record)
        files: dict[Path, list[Record]] = {}
        for record in fresh.values():
            path = self.target / self.identity.device / file_name(record.task)
            files.setdefault(path, []).append(record)
        for path, members in files.items():
            with locked(path):
                append_whole(path, self._lines(members).encode())
            for record in members:
                self._add(record, usable(record))

    def writing(self) -> AbstractContextManager[None]:
        """The right to measure for this database's directory and device, which one process has at a time: see `writing`."""
        assert self.target is not None, "this database is only read"
        return writing(self.target, self.identity.device)

    def _add(self, record: Record, can_be_built: bool) -> None:
        key = (record.task, record.schedule)
        if key in self._seen and not record.again:
            return
        earlier = self._records.get(record.task, []) if key in self._seen else []
        self._seen.add(key)
        if any(one.schedule == record.schedule for one in earlier):
            self._records[record.task] = [record if one.schedule == record.schedule else one for one in earlier]
        elif can_be_built:
            self._records.setdefault(record.task, []).append(record)
        else:
            self.ignored += 1

    def replace(self, path: Path, records: Iterable[Record]) -> Path:
        """Write a file anew, whole, with these records alone; returns the old one's copy, `<path>.bak`. Raises `UserError` if it cannot."""
        backup = path.with_name(path.name + ".bak")
        with locked(path):
            write_bytes(backup, path.read_bytes())
            write_bytes(path, self._lines(records).encode())
        return backup

    def _read(self, path: Path) -> Iterator[tuple[Record, bool]]:
        """The records of a file that have this identity, each with whether this version can still build it."""
        known, content = KnownTasks(), content_of(path)
        for number, line in enumerate(lines_in(content), 1):
            try:
                value = json.loads(line.decode())
                found = identity_in(value)
                if found != self.identity:
                    self.ignored += 1
                    self.outdated += (found.device, found.tvm) == (self.identity.device, self.identity.tvm)
                    continue
                record = record_in(value, known)
                can_be_built = usable(record, known)
            except MALFORMED as error:  # torn by a crash, or not ours
                why = UNFINISHED if line and content.endswith(line) else f"not a record: {short(reason(error))}"
            else:
                why = self.identity.refuses(found, record) or ("" if can_be_built else untakable(record.schedule))
                if not why:
                    yield record, can_be_built
                    continue
            self.ignored += 1
            self.refused.append(RefusedLine(path, number, why))

    def _lines(self, records: Iterable[Record]) -> str:
        return "".join(encoded(self.identity, record) for record in records)


def log_paths(directory: Path, device: str) -> list[Path]:
    """The logs of a device, sorted. What a crash left of a file that was being replaced is none."""
    return sorted(path for path in (directory / device).glob("*.jsonl") if not path.name.startswith("."))


def file_name(task: Task) -> str:
    """The log that a task's records are in, below the folder of its device."""
    return f"{task.dtype}_t{task.threads}.jsonl"


def content_of(path: Path) -> bytes:
    """What a log holds; raises `UserError` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"the tuning log {path} cannot be read: {error.strerror}.", "Check its permissions.") from error


def lines_in(content: bytes) -> list[bytes]:
    """A log's lines without their ends; the last of them is unfinished where `content` does not end a line."""
    lines = content.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


def records_of_any_model(path: Path, identity: Identity) -> Iterator[tuple[str | None, Record]]:
    """The records of a file whatever timing model they rest on, each with that model's hash, in the order they were made.

    Their latencies are not comparable with each other. Those of other devices and TVM versions, and schedules that this version cannot
    build, are left out. Raises `UserError` where the file cannot be read.
    """
    for line in lines_in(content_of(path)):
        try:
            found, record = read_record(line)
        except MalformedRecord:
            continue
        if (found.device, found.tvm) == (identity.device, identity.tvm) and usable(record):
            yield found.origin.model, record


@contextmanager
def locked(path: Path, wrong: str = "", remedy: str = "Name another directory with --logs DIR.") -> Iterator[None]:
    """The lock of a log that is about to change, its folder created; a disk error becomes a `UserError`, `wrong` and `remedy` its words."""
    try:
        make_folders(path.parent)
        with filelock.FileLock(append_lock(path)):
            yield
    except OSError as error:
        wrong = wrong or f"tuning records cannot be written to {path.parent.parent}"
        raise UserError(f"{wrong}: {error.strerror}.", remedy) from error


def append_lock(path: Path) -> Path:
    """The lock file that everyone holds who changes a log, for as long as that takes."""
    return path.with_suffix(".lock")


@contextmanager
def writing(directory: Path, device: str) -> Iterator[None]:
    """The right to measure for a log directory and a device, which one process has at a time: two would measure everything twice.

    It is for whole runs; records can be read meanwhile. It ends with the process, however that ends. Raises `UserError` where another
    process has it, saying which and where, or the directory cannot be written.
    """
    path = directory / device / "writer.lock"
    with ExitStack() as stack:
        try:
            make_folders(path.parent)
            stack.enter_context(filelock.FileLock(path, timeout=0))
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
            stack.callback(path.write_text, "")
        except filelock.Timeout as error:
            raise UserError(
                f"{_owner(path)} is writing tuning records of {device} to {directory}.",
                "Wait for it to finish, or name another directory.",
            ) from error
        except OSError as error:
            raise UserError(f"tuning records cannot be written to {directory}: {error.strerror}.", "Name another directory.") from error
        yield


def _owner(path: Path) -> str:
    """Who holds a writer's lock: its first line, which is empty until the owner has come to write it."""
    lines = path.read_text(encoding="utf-8", errors="replace")[:200].splitlines()
    return "".join(filter(str.isprintable, lines[0])) if lines else "another process"


def append_whole(path: Path, content: bytes) -> None:
    """Write all of `content` to the end of a file, flushed to disk, or nothing where the disk is full.

    An unfinished last line is ended first, so that what is written starts on its own.
    """
    with path.open("ab+", buffering=0) as stream:
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(end - 1)
            content = content if stream.read(1) == b"\n" else b"\n" + content
        try:
            while content:
                content = content[stream.write(content) :]
            os.fsync(stream.fileno())
            sync_folder(path.resolve().parent)
        except OSError:
            stream.truncate(end)
            raise
