"""The records that count for one device: read from the logs of several directories, and appended to those of one as they are measured.

A log has one JSON record per line, or one kernel per line if it is compacted. Every record names the device, the TVM version and, if its
latency is modelled, the timing model's hash; only records that agree with the current device in all of these are used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Set
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule
from tvmmobile.tuning.claims import RefusedLine, untakable
from tvmmobile.tuning.compacted import Dropped
from tvmmobile.tuning.logs.files import append_whole, content_of, file_name, lines_in, locked, log_paths, replace_log, writing
from tvmmobile.tuning.records import (
    COMPACTED,
    MALFORMED,
    UNFINISHED,
    Identity,
    KnownTasks,
    Record,
    encoded,
    encoded_kernel,
    identity_in,
    line_in,
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
