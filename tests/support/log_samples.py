"""Small tuning logs for tests, and a way to run Python without the right to write everywhere."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tvmmobile.devices.protocol import MEASURED, Origin
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d, Dense
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import KnobSchedule, Space, template_for
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.logs.files import append_whole, locked
from tvmmobile.tuning.logs.inspection import Log, inspect
from tvmmobile.tuning.records import Identity, Record

PROFILE = find_device("pi4").profile
#: What this version measures on the virtual Pi 4.
PI = Identity.of(PROFILE)
#: A board that is not registered here.
BOARD = Identity("shelf", MEASURED)


def schedules(task: Task) -> list[KnobSchedule]:
    """Every schedule that the task's template takes."""
    return list(_space(task).unpruned())


def searched(task: Task) -> list[KnobSchedule]:
    """Return the schedules that a search chooses from."""
    return list(_space(task))


def _space(task: Task) -> Space:
    template = template_for(task)
    space = template.space(task) if template else None
    assert space is not None
    return space


def some_records(count: int = 8, threads: int = 1) -> list[Record]:
    """Different schedules of two kernels, with 1, 2, 3 … us; every fifth failed."""
    tasks = [Task((Dense(64, outputs),), threads=threads) for outputs in (64, 48)]
    pairs = [(task, schedule) for task in tasks for schedule in schedules(task)[: (count + 1) // 2]][:count]
    records = [
        Record(task, schedule, float(number), cycles=1000 * number, when="2026-01-02T03:04:05+00:00")
        for number, (task, schedule) in enumerate(pairs, 1)
    ]
    assert len(records) == count
    return [replace(record, latency_us=None, cycles=None, error="crashed") if record.latency_us == 5 else record for record in records]


def write_log(directory: Path, records: Iterable[Record] | None = None, identity: Identity = PI) -> Path:
    """Append records, all of one thread count, as tuning does; returns the log."""
    records = list(some_records() if records is None else records)
    Database(identity, (), directory).append(records)
    return directory / identity.device / f"float32_t{records[0].task.threads}.jsonl"


def append_meanwhile(monkeypatch: pytest.MonkeyPatch, look: str, path: Path, line: bytes, rewrite: Callable[[], object]) -> None:
    """Append a line to a log while another thread rewrites it: after that has looked at it once, before it has the lock.

    Args:
        look: name of the function by which the other thread looks.
    """
    looked = threading.Event()

    def looking(*arguments: Any) -> Log:
        found = inspect(*arguments)
        looked.set()
        return found

    monkeypatch.setattr(look, looking)
    with ThreadPoolExecutor(1) as pool:
        with locked(path):
            rewriting = pool.submit(rewrite)
            assert looked.wait(30)
            append_whole(path, line)
        rewriting.result(30)


def read_log(directory: Path, identity: Identity = PI) -> list[Record]:
    """Return the records that count in a directory."""
    database = Database(identity, (directory,), None)
    return [record for task in database.tasks() for record in database.records(task)]


def content(directory: Path) -> dict[str, bytes]:
    """Every file below a directory but locks, with what it holds."""
    paths = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def unprivileged(words: Sequence[str]) -> list[str]:
    """`python words…` under this user, but subject to permissions even where that is root."""
    python = [sys.executable, *words]
    if os.geteuid() != 0:
        return python
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *python]


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """A directory and all folders below it without the right to write."""
    folders = [directory, *(path for path in directory.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o755)


#: A program that appends 60 records to a log: its folder, and a number that sets its kernels apart from another one's.
APPENDER = """
import sys
from pathlib import Path
from tvmmobile.devices.protocol import Origin
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.graph.layers import Conv2d, Dense
from tvmmobile.schedules import template_for
from tvmmobile.graph.tasks import Task
folder, offset = Path(sys.argv[1]), int(sys.argv[2])
database = Database(Identity("pi4-virtual", Origin("modelled", "0123abcd")), (), folder)
task = Task((Dense(64, 10),))
space = list(template_for(task).space(task).unpruned())
for number in range(60):
    task = Task((Dense(64, 10 + offset + number // len(space)),))
    database.append([Record(task, space[number % len(space)], float(number + 1), error="x" * (7 * number))])
"""

#: The kernel of `old_log`.
SMALL_KERNEL = Task((Conv2d(7, 7, 8, 8),))


def old_log(folder: Path, count: int) -> Path:
    """Return a log of an earlier model with `count` schedules of `SMALL_KERNEL`."""
    profile = find_device("pi4").profile
    template = template_for(SMALL_KERNEL)
    assert template is not None
    space = template.space(SMALL_KERNEL)
    assert space is not None
    records = [Record(SMALL_KERNEL, schedule, 1.0 + place) for place, schedule in enumerate(list(space)[:count])]
    Database(replace(Identity.of(profile), origin=Origin("modelled", "0" * 16)), (), folder).append(records)
    return folder / profile.name / "float32_t1.jsonl"
