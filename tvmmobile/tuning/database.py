"""Tuning logs: one JSON record per line, appended as they are measured; logs are read from several directories and written to one.

A directory holds one file per device, dtype and thread count, `<device>/<dtype>_t<threads>.jsonl`. Every record names the device, the TVM
version and, if its latency is modelled, the timing model's hash; only records that agree with the current device in all of these are used.
"""

from __future__ import annotations

import codecs
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import filelock

from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import is_stream, make_folders, sync_folder, whole_files, write_bytes
from tvmmobile.tuning.claims import RefusedLine, untakable
from tvmmobile.tuning.compacted import Dropped
from tvmmobile.tuning.records import (
    COMPACTED,
    MALFORMED,
    UNFINISHED,
    Identity,
    KnownTasks,
    Line,
    MalformedRecord,
    Record,
    encoded,
    encoded_kernel,
    identity_in,
    line_in,
    read_line,
    refused_because,
    usable,
)
from tvmmobile.tuning.trials import Trials

#: The trials of a kernel that has none.
_NONE = Trials()


class _Unread(NamedTuple):
    """A parsed JSON line with the right identity, whose records are not read yet; `torn` means that its end is missing."""

    path: Path
    number: int
    value: dict[str, Any]
    torn: bool


class Database:
    """The records of one device, for all tasks.

    Args:
        identity: identity of the records to use.
        sources: directories to read, in this order; they need not exist.
        target: directory that new records are written to; `None` for a read-only database.

    A kernel's line of a compacted log is parsed only when the kernel is looked up: most commands need few of the thousands of kernels.

    Attributes:
        ignored: number of lines and schedules that are not used, for whatever reason.
        outdated: number of lines that differ only in the timing model.
        refused: lines without a record, or with an impossible one, among those parsed so far; see `read_all`.
    """

    def __init__(self, identity: Identity, sources: Iterable[Path], target: Path | None) -> None:
        self.identity = identity
        self.target = target
        self.ignored = 0
        self.outdated = 0
        self.refused: list[RefusedLine] = []
        self._trials: dict[Task, Trials] = {}
        self._seen: set[tuple[Task, Schedule]] = set()
        self._known = KnownTasks()
        self._unread: dict[str, list[_Unread]] = {}
        self._described: dict[Task, None] = {}
        self._undescribed: list[_Unread] = []
        for directory in dict.fromkeys([*sources, *([target] if target else [])]):
            for path in log_paths(directory, identity.device):
                self._read(path)

    def __len__(self) -> int:
        self.read_all()
        return sum(len(trials.records) for trials in self._trials.values())

    def read_all(self) -> None:
        """Parse every line, so that `refused` is complete."""
        for name in list(self._unread):
            self._settle(name)

    def tasks(self) -> list[Task]:
        """Return every task with a record."""
        self.read_all()
        return [task for task, trials in self._trials.items() if trials.records]

    def described(self) -> list[Task]:
        """Return every task that a line names, with usable records or not, in the order of the lines; records are not parsed."""
        for unread in self._undescribed:
            with suppress(*MALFORMED):  # it is refused when it is parsed
                self._described.setdefault(self._known.task(unread.value["name"], unread.value["task"]))
        self._undescribed.clear()
        return list(self._described)

    def records(self, task: Task) -> list[Record]:
        """Return all records of a task, including failed ones, in the order in which they were made."""
        return self.trials(task).records

    def trials(self, task: Task) -> Trials:
        """Return all trials of a task, including those without a record; the caller must not modify it."""
        if self._unread:
            self._settle(task.name)
        return self._trials.get(task, _NONE)

    def best(self, task: Task) -> Record | None:
        """Return a task's fastest record, or `None` if it has no successful one."""
        good = [record for record in self.records(task) if record.latency_us is not None]
        return min(good, key=lambda record: (record.latency_us, str(record.schedule)), default=None)

    def append(self, records: Iterable[Record]) -> None:
        """Append records to their files under a lock, and flush them to disk.

        Schedules that already have a record are skipped, unless they were measured `again`. A line that a crash left unfinished is
        terminated first, so that it does not swallow a new one.

        Raises:
            UserError: if a file cannot be written.
        """
        assert self.target is not None, "this database is only read"
        fresh: dict[tuple[Task, Schedule], Record] = {}
        for record in records:
            self._settle(record.task.name)
            if record.again or (record.task, record.schedule) not in self._seen:
                fresh.setdefault((record.task, record.schedule), record)
        files: dict[Path, list[Record]] = {}
        for record in fresh.values():
            path = self.target / self.identity.device / file_name(record.task)
            files.setdefault(path, []).append(record)
        for path, members in files.items():
            with locked(path):
                append_whole(path, "".join(encoded(self.identity, record) for record in members).encode())
            for record in members:
                self._add(record.task, [record], {record.schedule} if usable(record, self._known) else set())

    def writing(self) -> AbstractContextManager[None]:
        """Return a context that holds the exclusive right to measure for the target directory and the device; see `writing`."""
        assert self.target is not None, "this database is only read"
        return writing(self.target, self.identity.device)

    def replace(self, path: Path, records: Iterable[Record], dropped: Mapping[Task, Dropped] = MappingProxyType({})) -> Path:
        """Replace a file by one that has only these records; return the path of the old file's copy, `<path>.bak`.

        Schedules that were tried but have no record stay known, including those in `dropped`.

        Raises:
            UserError: if the file cannot be written.
        """
        self.read_all()
        for task, digests in dropped.items():
            self._trials.setdefault(task, Trials()).add((), digests)
        lines = [encoded(self.identity, record) for record in records]
        lines += [
            encoded_kernel(self.identity, task, (), trials.listed_dropped(), "")
            for task, trials in self._trials.items()
            if file_name(task) == path.name and trials.listed_dropped()
        ]
        with locked(path):
            return replace_log(path, "".join(lines).encode())

    def _add(self, task: Task, records: Iterable[Record], buildable: Set[Schedule], dropped: Dropped = ()) -> None:
        """Add records of a task; those whose schedules this version cannot build only count as `ignored`."""
        self._described.setdefault(task)
        buildable_records = []
        for record in records:
            if record.schedule in buildable:
                buildable_records.append(record)
            else:
                self.ignored += (task, record.schedule) not in self._seen
            self._seen.add((task, record.schedule))
        if buildable_records or dropped:
            self._trials.setdefault(task, Trials()).add(buildable_records, dropped)

    def _read(self, path: Path) -> None:
        """Read the lines of a file that have the database's identity."""
        content = content_of(path)
        lines = lines_in(content)
        for number, text in enumerate(lines, 1):
            torn = number == len(lines) and not content.endswith(b"\n")
            try:
                value = json.loads(text.decode())
                identity = identity_in(value)
            except MALFORMED as error:
                self._refuse(path, number, UNFINISHED if torn else refused_because(error))
                continue
            if identity != self.identity:
                self.ignored += 1
                self.outdated += (identity.device, identity.tvm) == (self.identity.device, self.identity.tvm)
                continue
            unread, name = _Unread(path, number, value, torn), value.get("name")
            if value.get("v") == COMPACTED and isinstance(name, str):
                self._unread.setdefault(name, []).append(unread)
                self._undescribed.append(unread)
                continue
            if self._unread and isinstance(name, str):
                self._settle(name)  # the order of a kernel's lines matters
            self._take(unread)

    def _settle(self, name: str) -> None:
        for unread in self._unread.pop(name, ()):
            self._take(unread)

    def _take(self, unread: _Unread) -> None:
        path, number, value, torn = unread
        try:
            line = line_in(value, self.identity, self._known)
            buildable = {record.schedule for record in line.records if usable(record, self._known)}
        except MALFORMED as error:  # torn by a crash, or not ours
            self._refuse(path, number, UNFINISHED if torn else refused_because(error))
            return
        contradictions = [why for record in line.records if (why := self.identity.refuses(self.identity, record))]
        if contradictions:
            self._refuse(path, number, contradictions[0])
            return
        refused = {
            record.schedule: why for record in line.records if record.schedule not in buildable and (why := untakable(record.schedule))
        }
        for why in refused.values():
            self._refuse(path, number, why)
        self._add(line.task, [record for record in line.records if record.schedule not in refused], buildable, line.dropped)

    def _refuse(self, path: Path, number: int, why: str) -> None:
        self.ignored += 1
        self.refused.append(RefusedLine(path, number, why))


def log_paths(directory: Path, device: str) -> list[Path]:
    """Return the logs of a device, sorted."""
    return whole_files(directory / device, "*.jsonl")


def file_name(task: Task) -> str:
    """Return the name of the log that holds a task's records, within its device's folder."""
    return f"{task.dtype}_t{task.threads}.jsonl"


def content_of(path: Path) -> bytes:
    """Return the content of a log; raise `UserError` if it cannot be read, or is a pipe or a device, which may never end."""
    try:
        if is_stream(path):
            raise UserError(f"the tuning log {path} is not a file.", "Move it away; a log is read more than once.")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"the tuning log {path} cannot be read: {error.strerror}.", "Give yourself access, or move it away.") from error


def replace_log(path: Path, content: bytes) -> Path:
    """Replace a log's content; return the path of a copy of the old one, `<path>.bak`. The caller must hold the log's lock."""
    backup = path.with_name(path.name + ".bak")
    write_bytes(backup, path.read_bytes())
    write_bytes(path, content)
    return backup


def lines_in(content: bytes) -> list[bytes]:
    """Return a log's lines without their line ends; the last line is unfinished if `content` does not end with a line end.

    A byte order mark, which some editors put in front, belongs to no line.
    """
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


def lines_of_any_model(path: Path, identity: Identity) -> Iterator[Line]:
    """Yield a file's lines in order, whatever their timing model, so their latencies are not comparable.

    Lines of other devices and TVM versions are skipped, and so are schedules that this version cannot build.

    Raises:
        UserError: if the file cannot be read.
    """
    known = KnownTasks()
    for text in lines_in(content_of(path)):
        try:
            line = read_line(text, known)
        except MalformedRecord:
            continue
        line_identity = line.identity
        if (line_identity.device, line_identity.tvm) == (identity.device, identity.tvm):
            yield replace(line, records=tuple(record for record in line.records if usable(record, known)))


@contextmanager
def locked(path: Path, wrong: str = "", remedy: str = "Name another directory with --logs DIR.") -> Iterator[None]:
    """Hold the lock of a log that is about to change; its folder is created if necessary.

    Raises:
        UserError: with the texts `wrong` and `remedy`, in place of a disk error.
    """
    try:
        make_folders(path.parent)
        with filelock.FileLock(append_lock(path)):
            yield
    except OSError as error:
        wrong = wrong or f"tuning records cannot be written to {path.parent.parent}"
        raise UserError(f"{wrong}: {error.strerror}.", remedy) from error


def append_lock(path: Path) -> Path:
    """Return the path of the lock file that is held while a log is changed."""
    return path.with_suffix(".lock")


@contextmanager
def writing(directory: Path, device: str) -> Iterator[None]:
    """Hold the exclusive right to measure for a log directory and a device, since two processes would measure everything twice.

    It is held for a whole run, during which records can be read, and is released when the process ends, even by a crash.

    Raises:
        UserError: if another process (which is named) holds it, or if the directory cannot be written.
    """
    path = directory / device / "writer.lock"
    with ExitStack() as stack:
        try:
            make_folders(path.parent)
            stack.enter_context(filelock.FileLock(path, timeout=0))
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
            stack.callback(_without_owner, path)
        except filelock.Timeout as error:
            raise UserError(
                f"{_owner(path)} is writing tuning records of {device} to {directory}.", "Wait for it to finish, or name another directory."
            ) from error
        except OSError as error:
            raise UserError(f"tuning records cannot be written to {directory}: {error.strerror}.", "Name another directory.") from error
        yield


@contextmanager
def writing_all(directory: Path, device: str) -> Iterator[None]:
    """Hold the right to measure for a device and for each other that has been measured for in a log directory; see `writing`."""
    devices = {device, *(path.parent.name for path in directory.glob("*/writer.lock"))}
    with ExitStack() as held:
        for name in sorted(devices):
            held.enter_context(writing(directory, name))
        yield


def _without_owner(path: Path) -> None:
    """Empty a writer's lock file; its folder may have been moved away."""
    with suppress(OSError):
        path.write_text("", encoding="utf-8")


def _owner(path: Path) -> str:
    """Return the first line of a writer's lock file, which names its owner."""
    lines = path.read_text(encoding="utf-8", errors="replace")[:200].splitlines()
    return "".join(filter(str.isprintable, lines[0])) if lines else "another process"


def append_whole(path: Path, content: bytes) -> None:
    """Append `content` to a file and flush it to disk; append nothing if that fails, e.g. because the disk is full.

    An unfinished last line is terminated first, so that `content` starts on a new line.
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
