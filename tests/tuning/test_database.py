"""Tuning logs: nothing that was measured is lost, and nothing that is not comparable is used."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_samples import APPENDER, searched
from unix_sockets import make_socket

from tvmmobile.devices.protocol import EMULATED, MEASURED, Origin
from tvmmobile.graph.layers import Conv2d, Dense, Opaque
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule, TraceSchedule
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.logs.inspection import inspect
from tvmmobile.tuning.logs.merge import merge_logs
from tvmmobile.tuning.records import Identity, MalformedRecord, Record, read_line
from tvmmobile.tuning.search import tuner

PI = Identity("pi4-virtual", Origin("modelled", "0123abcd"))
POINTWISE = Task((Conv2d(14, 14, 64, 64, clamp=(0.0, 6.0)),))
CLASSIFIER = Task((Dense(64, 10),))
POOL = Task((Opaque("mean", "0123456789ab", ((1, 7, 7, 64),), (1, 1, 1, 64)),))


def record(task: Task = POINTWISE, number: int = 0, latency_us: float | None = 10.0, **fields: object) -> Record:
    """Return the `number`-th schedule of a task's space, measured."""
    return replace(Record(task, searched(task)[number], latency_us), **fields)  # type: ignore[arg-type]


def reopened(folder: Path, identity: Identity = PI) -> Database:
    return Database(identity, [folder], None)


def the_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.jsonl")
    return path


@pytest.mark.parametrize(("dtype", "core"), [("float16", "cortex-a76"), ("int8", "cortex-a76"), ("int8", "cortex-a72")])
def test_records_of_cores_with_features_of_their_own_survive(tmp_path: Path, dtype: str, core: str) -> None:
    """A log does not say which core its device has; what is read from it must not depend on that."""
    task = Task((Conv2d(14, 14, 64, 64),), dtype, machine=machine_of(core))
    (made, *_) = searched(task)
    Database(PI, (), tmp_path).append([Record(task, made, 1.0)])
    found = reopened(tmp_path)
    assert found.ignored == 0 and [one.schedule for one in found.records(task)] == [made]
    log = inspect(the_file(tmp_path), PI)
    assert len(log.lines) == 1 and not log.lines[0].fault


def test_records_survive(tmp_path: Path) -> None:
    records = [
        record(number=0, latency_us=12.5, cycles=22500),
        record(number=1, latency_us=None, error="killed by SIGSEGV"),
        record(CLASSIFIER, 0, 3.25, samples_us=(3.0, 3.5), when="2026-01-02T03:04:05+00:00"),
        Record(POOL, TraceSchedule('[[],"é"]'), 1.0),
    ]
    database = Database(PI, (), tmp_path / "logs")
    database.append(records)
    found = reopened(tmp_path / "logs")
    assert len(found) == 4 and found.ignored == 0
    assert found.tasks() == [POINTWISE, CLASSIFIER, POOL]
    assert [replace(one, when="") for task in found.tasks() for one in found.records(task)] == [replace(one, when="") for one in records]
    assert found.records(CLASSIFIER)[0].when == records[2].when
    assert found.records(POINTWISE)[0].when  # stamped when written
    assert the_file(tmp_path).relative_to(tmp_path).as_posix() == "logs/pi4-virtual/float32_t1.jsonl"


def test_the_best_is_the_fastest_that_did_not_fail(tmp_path: Path) -> None:
    database = Database(PI, (), tmp_path)
    assert database.best(POINTWISE) is None
    database.append([record(number=0, latency_us=None, error="wrong values")])
    assert database.best(POINTWISE) is None
    slow, fast = record(number=1, latency_us=9.0), record(number=2, latency_us=8.0)
    database.append([slow, fast, record(number=3, latency_us=8.5)])
    assert database.best(POINTWISE) == fast
    assert reopened(tmp_path).best(POINTWISE) == replace(fast, when=reopened(tmp_path).records(POINTWISE)[2].when)


def test_threads_and_dtypes_have_files_of_their_own(tmp_path: Path) -> None:
    database = Database(PI, (), tmp_path)
    database.append([record(), record(replace(POINTWISE, threads=4)), record(CLASSIFIER)])
    assert sorted(path.name for path in tmp_path.rglob("*.jsonl")) == ["float32_t1.jsonl", "float32_t4.jsonl"]
    assert len(reopened(tmp_path)) == 3


@pytest.mark.parametrize("cut", [1, 2, 30, -1])
def test_a_torn_last_line_costs_that_record_only(tmp_path: Path, cut: int) -> None:
    database = Database(PI, (), tmp_path)
    database.append([record(number=number) for number in range(3)])
    path = the_file(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][: cut if cut > 0 else -2])
    again = Database(PI, (), tmp_path)
    assert len(again) == 2 and again.ignored == 1
    # The next record starts on a line of its own; the torn one is measured again.
    again.append([record(number=2), record(number=3)])
    final = reopened(tmp_path)
    assert len(final) == 4 and final.ignored == 1


def test_a_last_line_that_lacks_only_its_end_is_whole(tmp_path: Path) -> None:
    database = Database(PI, (), tmp_path)
    database.append([record(number=0), record(number=1)])
    path = the_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    again = Database(PI, (), tmp_path)
    assert len(again) == 2
    again.append([record(number=2)])
    assert len(reopened(tmp_path)) == 3


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"null",
        b"[1, 2]",
        b"12",
        b'"text"',
        b"\xff\xfe\x00",
        b'{"v": 1}',
        b"<<<<<<< HEAD",
        b'{"v":1,"device":"pi4-virtual"',
        b"[" * 100_000,
    ],
)
def test_lines_that_are_no_records_are_passed_over(tmp_path: Path, line: bytes) -> None:
    database = Database(PI, (), tmp_path)
    database.append([record(number=0), record(number=1)])
    path = the_file(tmp_path)
    first, second = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, line, second, b""]))
    found = reopened(tmp_path)
    assert len(found) == 2 and found.ignored == 1


def _change(name: str, value: object) -> Callable[[dict[str, object]], None]:
    def change(entry: dict[str, object]) -> None:
        entry[name] = value

    return change


def _extent(value: object) -> Callable[[dict[str, object]], None]:
    """Another height, in the name as well."""

    def change(entry: dict[str, Any]) -> None:
        entry["task"]["region"][0]["height"] = value
        entry["name"] = entry["name"].replace("14x14", f"{value}x14")

    return change


@pytest.mark.parametrize(
    "change",
    [
        _change("v", 2),
        _change("v", 3),
        _change("device", "pi5-virtual"),
        _change("model", "feedbeef"),
        _change("model", None),
        _change("tvm", "0.26.0"),
        _change("task", {"region": [{"kind": "lstm"}], "dtype": "float32", "threads": 1}),
        _change("task", {"region": [{"kind": "dense", "rows": 3}], "dtype": "float32", "threads": 1}),
        _change("schedule", {"knobs": {}}),
        _change("latency_us", "fast"),
        _change("latency_us", math.nan),
        _change("latency_us", -1.0),
        _change("latency_us", 0),
        _change("name", "pw_7x7_64x64_relu6_float32_t1"),
        _change("schedule", {"template": "pointwise", "version": 1, "knobs": dict.fromkeys(searched(POINTWISE)[0].values, 0)}),
        _extent("xy"),
        _extent(-3),
        _extent(0),
        _extent(None),
    ],
)
def test_records_that_are_not_comparable_are_ignored(tmp_path: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Another device, timing model, TVM version or format, or what this version cannot read."""
    database = Database(PI, (), tmp_path)
    database.append([record(number=0), record(number=1)])
    path = the_file(tmp_path)
    lines = path.read_text().splitlines()
    entry = json.loads(lines[0])
    change(entry)
    path.write_text("\n".join([json.dumps(entry), lines[1], ""]))
    found = reopened(tmp_path)
    assert [one.schedule for one in found.records(POINTWISE)] == [searched(POINTWISE)[1]]
    assert found.ignored == 1


def test_another_device_or_model_sees_nothing(tmp_path: Path) -> None:
    Database(PI, (), tmp_path).append([record()])
    for other in (
        Identity("pi4", MEASURED),
        Identity("pi4-virtual", Origin("modelled", "feedbeef")),
        Identity("pi4-virtual", Origin("modelled")),
        replace(PI, tvm="0.28"),
    ):
        assert len(reopened(tmp_path, other)) == 0


@pytest.mark.parametrize(
    ("device", "model", "origin"),
    [
        ("pi4-virtual", "0123abcd", Origin("modelled", "0123abcd")),
        ("pi4-virtual", None, Origin("modelled")),
        ("desk", None, MEASURED),
        ("desk", "emulated", EMULATED),
    ],
)
def test_where_a_records_latency_comes_from(tmp_path: Path, device: str, model: str | None, origin: Origin) -> None:
    identity = Identity(device, origin)
    Database(identity, (), tmp_path).append([record()])
    (line,) = (tmp_path / device / "float32_t1.jsonl").read_bytes().splitlines()
    assert json.loads(line)["model"] == model
    assert read_line(line).identity == identity and len(reopened(tmp_path, identity)) == 1


@pytest.mark.parametrize("field", ["device", "model", "tvm"])
def test_an_identity_is_text(tmp_path: Path, field: str) -> None:
    Database(PI, (), tmp_path).append([record()])
    path = tmp_path / PI.device / "float32_t1.jsonl"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: [1]}))
    with pytest.raises(MalformedRecord, match="its device, timing model or TVM version is not text"):
        read_line(path.read_bytes())
    assert reopened(tmp_path).ignored == 1


def test_a_schedule_is_recorded_once(tmp_path: Path) -> None:
    database = Database(PI, (), tmp_path)
    database.append([record(latency_us=10.0)])
    database.append([record(latency_us=12.0)])
    again = Database(PI, (), tmp_path)
    again.append([record(latency_us=9.0)])
    assert len(the_file(tmp_path).read_text().splitlines()) == 1
    assert [one.latency_us for one in reopened(tmp_path).records(POINTWISE)] == [10.0]
    # The same schedule of another task is another record.
    again.append([record(replace(POINTWISE, threads=2), latency_us=9.0)])
    assert len(again) == 2


def test_a_schedule_given_twice_is_recorded_once(tmp_path: Path) -> None:
    Database(PI, (), tmp_path).append([record(latency_us=10.0), record(latency_us=11.0)])
    assert len(the_file(tmp_path).read_text().splitlines()) == 1


def test_directories_are_read_in_order_and_one_is_written(tmp_path: Path) -> None:
    shipped, own = tmp_path / "shipped", tmp_path / "own"
    Database(PI, (), shipped).append([record(number=0, latency_us=10.0), record(number=1, latency_us=8.0)])
    both = Database(PI, [shipped, tmp_path / "not there"], own)
    both.append([record(number=0, latency_us=1.0), record(number=2, latency_us=7.0)])
    assert len(both) == 3
    best = both.best(POINTWISE)
    assert best is not None and best.latency_us == 7.0
    assert [one.latency_us for one in reopened(own).records(POINTWISE)] == [7.0]
    assert len(reopened(shipped)) == 2
    assert [one.latency_us for one in Database(PI, [shipped, own], None).records(POINTWISE)] == [10.0, 8.0, 7.0]
    # Naming a directory twice does not count its records twice.
    assert len(Database(PI, [shipped, own, shipped], own)) == 3


def test_two_processes_may_write_at_once(tmp_path: Path, repository: Path) -> None:
    """Each starts with a torn line in the way."""
    folder = tmp_path / "logs"
    Database(PI, (), folder).append([record(CLASSIFIER)])
    the_file(folder).open("ab").write(b'{"v":1,"torn')
    command = [sys.executable, "-c", APPENDER, str(folder)]
    running = [subprocess.Popen([*command, str(offset)], cwd=repository) for offset in (100, 200)]
    assert [process.wait(60) for process in running] == [0, 0]
    found = reopened(folder)
    assert len(found) == 121 and found.ignored == 1
    assert all(json.loads(line) for line in the_file(folder).read_text().splitlines() if "torn" not in line)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    database = Database(PI, (), tmp_path / "file")
    with pytest.raises(UserError, match=str(tmp_path / "file")) as caught:
        database.append([record()])
    assert "`logs`" in caught.value.remedy


def test_a_log_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / PI.device / "float32_t1.jsonl").mkdir(parents=True)
    with pytest.raises(UserError, match=r"float32_t1\.jsonl"):
        reopened(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_a_log_that_never_ends_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / PI.device / "float32_t1.jsonl"
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        make_socket(path)
    reads: list[Callable[[], object]] = [
        lambda: reopened(tmp_path),
        lambda: inspect(path, PI),
        lambda: merge_logs(tmp_path, tmp_path / "x"),
    ]
    for read in reads:
        with pytest.raises(UserError, match=r"^the tuning log \S+/float32_t1\.jsonl is not a file\."):
            read()


def test_lines_of_a_later_version_are_named_as_such(tmp_path: Path) -> None:
    Database(PI, (), tmp_path).append([record(number=0), record(number=1)])
    path = the_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"v":1', b'"v":3', 1))
    assert [line.why for line in reopened(tmp_path).refused] == ["format 3, of a later version of tvmmobile"]


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    """Played by a limit on the size of files, which a write meets halfway."""
    Database(PI, (), tmp_path).append([record(number=0)])
    before = the_file(tmp_path).read_bytes()
    database = Database(PI, (), tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot be written"):
            database.append([record(number=1)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert the_file(tmp_path).read_bytes() == before
    Database(PI, (), tmp_path).append([record(number=1)])
    assert len(reopened(tmp_path)) == 2


def test_a_database_is_as_it_was_after_a_failed_write(tmp_path: Path) -> None:
    """Records that could not be written do not count as done."""
    (tmp_path / "file").write_text("")
    database = Database(PI, (), tmp_path / "file")
    with pytest.raises(UserError):
        database.append([record()])
    assert len(database) == 0


def sampled(_task: Task, _source: str | None, _target: Mapping[str, Any], count: int) -> tuple[TraceSchedule, ...]:
    """Stands in for MetaSchedule's rules: five schedules for any opaque task."""
    return tuple(TraceSchedule(f"[{number}]") for number in range(min(count, 5)))


def test_resuming_counts_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner, "_sampled", sampled)
    target: dict[str, object] = {}
    tasks = {POINTWISE: None, CLASSIFIER: None, POOL: "source"}
    size = len(searched(CLASSIFIER))
    fresh = tuner.assign(tasks, Database(PI, (), tmp_path), 8, target)
    assert [(one.done, one.missing) for one in fresh] == [(0, 8), (0, min(8, size)), (0, 5)]
    database = Database(PI, (), tmp_path)
    failed = record(number=3, latency_us=None, error="killed by SIGILL")
    database.append([*(record(number=number) for number in range(3)), failed, Record(POOL, TraceSchedule("[0]"), 2.0)])
    again = tuner.assign(tasks, Database(PI, (), tmp_path), 8, target)
    assert [(one.done, one.missing) for one in again] == [(4, 4), (0, min(8, size)), (1, 4)]
    assert [one.missing for one in tuner.assign(tasks, Database(PI, (), tmp_path), 1, target)] == [0, 1, 0]
    # A space smaller than the trials asked for is enough.
    assert tuner.assign({CLASSIFIER: None}, database, 10**6, target)[0].missing == size


_texts = st.text(max_size=20)
_times = st.floats(1e-3, 1e9, allow_nan=False)


@settings(max_examples=40, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(_texts, st.one_of(st.none(), _times), st.lists(_times, max_size=3), st.one_of(st.none(), _texts)), max_size=5))
def test_any_record_survives(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, float | None, list[float], str | None]]
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    schedule: Schedule
    written: dict[Schedule, Record] = {}
    for trace, latency, samples, error in entries:
        schedule = TraceSchedule(trace)
        samples = samples if latency is None else [*samples, latency]  # a latency is one of its samples, or between two
        written.setdefault(schedule, Record(POOL, schedule, latency, None, tuple(samples), error or None, "now"))
    Database(PI, (), folder).append(written.values())
    found = reopened(folder)
    assert found.records(POOL) == list(written.values())
    assert found.ignored == 0
