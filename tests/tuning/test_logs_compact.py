"""`tvmmobile logs compact`: what a plan, a search or another model needs stays, what was tried stays known, and nothing gets lost."""

from __future__ import annotations

import functools
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine
from hypothesis import given, settings
from hypothesis import strategies as st
from log_samples import BOARD, PI, append_meanwhile, content, schedules, some_records, write_log

from tvmmobile.devices.protocol import Origin
from tvmmobile.graph.layers import Conv2d, Dense, Opaque
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import TraceSchedule
from tvmmobile.schedules import KnobSchedule, templates_for
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.logs.compact import KEPT, SLOWEST, compact, compact_logs
from tvmmobile.tuning.logs.inspection import inspect
from tvmmobile.tuning.logs.merge import merge
from tvmmobile.tuning.logs.verify import cut_file
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.search.earlier_models import rankings, replace_logs
from tvmmobile.tuning.search.nearest import best_with_knobs, nearest_record, nearest_schedules
from tvmmobile.tuning.search.strategy import RandomSampling
from tvmmobile.tuning.search.tuner import assign

#: Taken by two templates; and a neighbour that starts from what was best for it.
KERNEL, NEIGHBOUR = (Task((Conv2d(14, 14, channels, 512, clamp=(0.0, 6.0)),)) for channels in (512, 256))
OTHER = Task((Dense(64, 64),))
POOL = Task((Opaque("mean", "0123456789ab", ((1, 7, 7, 64),), (1, 1, 1, 64)),))
OLD = replace(PI, origin=Origin("modelled", "0" * 16), limits=None)
#: Microseconds below which no kernel of these can be.
LEAST_US = 20_000.0


@functools.cache
def spaces(task: Task) -> list[list[KnobSchedule]]:
    """Return the members of each template's space."""
    return [list(space) for template in templates_for(task) if (space := template.space(task)) is not None]


def tried(task: Task, seed: int, count: int) -> list[Record]:
    """Different schedules of all templates that take a task, some failed, as a search would have made them."""
    rng = random.Random(seed)
    members = [one for space in spaces(task) for one in rng.sample(space, min(count, len(space)))]
    rng.shuffle(members)
    return [_measured(task, schedule, rng) for schedule in members[:count]]


def _measured(task: Task, schedule: KnobSchedule, rng: random.Random) -> Record:
    when = f"2026-01-02T03:04:{rng.randrange(60):02}+00:00"
    if rng.random() < 0.1:
        return Record(task, schedule, None, error="crashed", when=when)
    return Record(task, schedule, round(LEAST_US * rng.uniform(1.0, 1.5), 4), cycles=10**7, when=when, terms_us=())


def opened(folder: Path, identity: Identity = PI) -> Database:
    return Database(identity, (folder,), None)


def answers(database: Database, task: Task) -> tuple[object, ...]:
    """Return the answers to plans', reports' and searches' questions about a kernel's records."""
    trials = database.trials(task)
    best = database.best(task)
    seeds = [best_with_knobs(database, task, template) for template in templates_for(task)]
    assignments = assign({task: None}, database, 1, {})
    return [one and replace(one, when="") for one in (best, *seeds)], len(trials), trials.course(), assignments


@settings(max_examples=12, derandomize=True, database=None, deadline=None)
@given(seed=st.integers(0, 999), counts=st.tuples(st.integers(1, 40), st.integers(0, 5)), keep=st.integers(1, 9), later=st.integers(0, 9))
def test_what_is_asked_of_a_log_stays(
    tmp_path_factory: pytest.TempPathFactory, seed: int, counts: tuple[int, int], keep: int, later: int
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    made = [*tried(KERNEL, seed, counts[0] + later), *tried(OTHER, seed, counts[1])]
    first, rest = made[: counts[0]], made[counts[0] :]
    path = write_log(folder, first)
    write_log(folder, [replace(record, latency_us=7.0, error=None) for record in first], OLD)
    before = opened(folder)
    (done,) = compact_logs([path], keep=keep)
    after = opened(folder)
    assert answers(after, KERNEL) == answers(before, KERNEL) and done.kernels == 1
    assert after.refused == [] and inspect(path, PI).faults == []
    assert all(after.trials(KERNEL).has(record.schedule) for record in first)
    kept = {record.schedule for record in after.records(KERNEL)}
    best = before.best(KERNEL)
    if best is not None and best.latency_us is not None:
        near = [one for one in before.records(KERNEL) if one.latency_us is not None and one.latency_us <= SLOWEST * best.latency_us]
        assert {one.schedule for one in sorted(near, key=lambda one: (one.latency_us or 0, str(one.schedule)))[:keep]} <= kept
    # Compacting once more changes nothing, and what is measured later counts on.
    whole = content(folder)
    assert compact_logs([folder], keep=keep)[0].backup is None and content(folder) == whole
    for grown in (before, after):
        for record in rest:
            grown._add(record.task, [record], {record.schedule})
    for task in (KERNEL, OTHER):
        assert answers(after, task) == answers(before, task)
    # And so it does once that is compacted with the rest.
    if rest:
        Database(PI, (), folder).append(rest)
        compact_logs([folder], keep=keep)
        for task in (KERNEL, OTHER):
            assert answers(opened(folder), task) == answers(before, task)


def test_neighbours_start_from_the_same_schedules(tmp_path: Path) -> None:
    write_log(tmp_path, tried(KERNEL, 2, 30))
    templates = templates_for(NEIGHBOUR)
    before = [nearest_schedules(NEIGHBOUR, opened(tmp_path), template) for template in templates]
    compact_logs([tmp_path], keep=1)
    assert [nearest_schedules(NEIGHBOUR, opened(tmp_path), template) for template in templates] == before and all(before)


def test_kernels_are_known_before_their_records_are_parsed(tmp_path: Path) -> None:
    far = Task((Conv2d(112, 112, 16, 24, clamp=(0.0, 6.0)),))
    path = write_log(tmp_path, [*tried(KERNEL, 2, 30), *tried(far, 3, 9)])
    compact_logs([path])
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | ({"kept": 7} if line["name"] == far.name else {})) + "\n" for line in lines))
    database = opened(tmp_path)
    assert set(database.described()) == {KERNEL, far} and database.refused == []
    assert nearest_record(NEIGHBOUR, database) is not None
    assert database.tasks() == [KERNEL] and len(database.refused) == 1 and set(database.described()) == {KERNEL, far}


def test_a_longer_search_tries_nothing_twice(tmp_path: Path) -> None:
    made = tried(KERNEL, 3, 40)
    write_log(tmp_path, made)
    compact_logs([tmp_path], keep=2)
    database = opened(tmp_path)
    assert len(database.records(KERNEL)) < 20 and len(database.trials(KERNEL)) == 40
    for template in templates_for(KERNEL):
        space = template.space(KERNEL)
        assert space is not None
        strategy = RandomSampling(KERNEL, space, [made[0].schedule, made[1].schedule], random.Random(1))  # type: ignore[list-item]
        strategy.observe(database.records(KERNEL))
        strategy.leave_out(database.trials(KERNEL))
        proposed = strategy.propose(10**6)
        assert proposed and not {record.schedule for record in made} & set(proposed)
        assert len(proposed) + sum(record.schedule in space for record in made) == len(space)


def test_sampled_schedules_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = tuple(TraceSchedule(f'[{number},"é"]') for number in range(6))
    path = write_log(tmp_path, [Record(POOL, one, 10.0 + 9 * place, cycles=9) for place, one in enumerate(candidates[:4])])
    compact_logs([tmp_path])
    database = opened(tmp_path)
    assert len(json.loads(path.read_text())["dropped"]["metaschedule"]) == 3 * 4
    assert [record.schedule for record in database.records(POOL)] == list(candidates[:1])
    monkeypatch.setattr("tvmmobile.tuning.search.tuner._sampled", lambda *_: candidates)
    (assignment,) = assign({POOL: "source"}, database, 6, {})
    assert (assignment.done, assignment.missing) == (4, 2)
    assert [database.trials(POOL).has(candidate) for candidate in candidates] == [True] * 4 + [False] * 2


def test_what_was_measured_again_keeps_its_line_and_its_say(tmp_path: Path) -> None:
    made = some_records(4)
    false, true = made[0], replace(made[0], latency_us=None, cycles=None, error="crashed", again=True)
    path = write_log(tmp_path / "own", made)
    write_log(tmp_path / "own", [true])
    write_log(tmp_path / "shipped", [false])
    both = (tmp_path / "shipped", tmp_path / "own")
    before = Database(PI, both, None)
    compact_logs([path])
    after = Database(PI, both, None)
    assert after.best(false.task) == before.best(false.task) and after.best(false.task) != false
    assert len(after.trials(false.task)) == len(before.trials(false.task)) and inspect(path, PI).faults == []
    assert json.loads(path.read_text().splitlines()[1])["again"] is True


def test_samples_of_a_clock_stay(tmp_path: Path) -> None:
    record = replace(some_records(1)[0], cycles=None, samples_us=(0.5, 1.0, 2.0))
    write_log(tmp_path, [record], BOARD)
    compact_logs([tmp_path])
    assert opened(tmp_path, BOARD).records(record.task) == [record]


def test_another_models_records_are_compacted_by_themselves_and_scored_again(tmp_path: Path) -> None:
    old, new = tried(KERNEL, 5, 30), tried(KERNEL, 6, 30)
    path = write_log(tmp_path, [replace(record, latency_us=record.latency_us and record.latency_us / 2) for record in old], OLD)
    write_log(tmp_path, new)
    before = rankings(tmp_path, PI, 4)
    compact_logs([tmp_path])
    (ranking,) = rankings(tmp_path, PI, 4)
    assert [record.schedule for record in ranking.old] == [record.schedule for record in before[0].old]
    assert len(path.read_bytes().splitlines()) == 2
    # What was tried under the present model stays known in the log that scoring writes.
    tried_now = len(opened(tmp_path).trials(KERNEL))
    replace_logs([], opened(tmp_path))
    database = Database(PI, (), tmp_path)
    database.replace(path, database.records(KERNEL))
    assert len(opened(tmp_path).trials(KERNEL)) == tried_now == 30 > len(opened(tmp_path).records(KERNEL))


def one_line(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return a compacted log of one kernel, and what its line says."""
    path = write_log(folder, [*tried(KERNEL, 7, 20)])
    compact_logs([path])
    return path, json.loads(path.read_text())


def _row(place: int, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda line: line["kept"][0]["rows"][0].__setitem__(place, value)


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        (_row(1, 1e-9), "not a record: latency_us is 1e-09, not a number of microseconds from 0.001 to 1e+09"),
        (_row(1, True), "not a record: latency_us is True, not a number of microseconds from 0.001 to 1e+09"),
        (_row(1, None), "not a record: a record that is kept has no latency"),
        (_row(2, -5), "not a record: cycles is -5, not a positive whole number"),
        (_row(2, None), "its latency is modelled, and it has no core cycles"),
        (_row(2, 10**9), "latency_us is "),
        (_row(0, 0), "not a record: its records are not distinct ones of its 20 trials"),
        (_row(0, 21), "not a record: its records are not distinct ones of its 20 trials"),
        (_row(0, "1"), "not a record: a trial or a knob is not a whole number"),
        (_row(3, 1.5), "not a record: a trial or a knob is not a whole number"),
        (lambda line: line["kept"][0]["rows"][0].append(1), "not a record: zip() argument 2 is longer than argument 1"),
        (lambda line: line["kept"][0].update(rows=7), "not a record: a field has the wrong type"),
        (lambda line: line["kept"][0].update(samples_us=[]), "not a record: zip() argument 2 is shorter than argument 1"),
        (lambda line: line["kept"][0].pop("template"), "not a record: 'template' is missing, or not known"),
        (lambda line: line["kept"][0]["rows"].append([2, *line["kept"][0]["rows"][0][1:]]), "not a record: it"),
        (lambda line: line.update(kept=[], dropped={}), "not a record: it lists no trials"),
        (lambda line: line.update(dropped=["x"]), "not a record: a field has the wrong type"),
        (lambda line: line.update(dropped={"pointwise@2": "abc"}), "not a record: what was dropped is not a list of different digests"),
        (
            lambda line: line.update(dropped={"pointwise@2": "abcdabcd"}),
            "not a record: what was dropped is not a list of different digests",
        ),
        (lambda line: line.update(dropped={"pointwise@2": 7}), "not a record: a field has the wrong type"),
        (lambda line: line["task"].update(threads=0), "not a record: "),
    ],
)
def test_every_reader_refuses_a_lie_in_the_same_words(tmp_path: Path, lie: Callable[[dict[str, Any]], object], why: str) -> None:
    path, line = one_line(tmp_path / "logs")
    lie(line)
    path.write_text(json.dumps(line) + "\n")
    database = opened(tmp_path / "logs")
    assert database.refused == []  # nobody has asked
    assert database.records(KERNEL) == [] and len(database.trials(KERNEL)) == 0 and database.ignored == 1
    (refused,) = database.refused
    assert (refused.path, refused.number) == (path, 1) and refused.why.startswith(why)
    assert [(found.number, found.fault) for found in inspect(path, PI).faults] == [(1, refused.why)]
    merged = merge([path], tmp_path / "into", lambda _: PI)
    assert [one.why for one in merged.refused] == [refused.why] and merged.joined == ()


def test_a_schedule_that_its_template_no_longer_takes_costs_itself_alone(tmp_path: Path) -> None:
    path, line = one_line(tmp_path)
    group = line["kept"][0]
    group["rows"][0][3] = 12345
    path.write_text(json.dumps(line) + "\n")
    database = opened(tmp_path)
    rows = sum(len(one["rows"]) for one in line["kept"])
    why = f"{group['template']}@{group['version']} does not take such a schedule for the kernel"
    assert len(database.records(KERNEL)) == rows - 1 and [one.why for one in database.refused] == [why]
    log = inspect(path, PI)
    assert log.faults == [] and [one.remark for one in log.lines] == [why]


def test_lines_of_a_kernel_count_in_their_order(tmp_path: Path) -> None:
    """Here a slower record of a schedule comes after the compacted line, and before another one."""
    path, line = one_line(tmp_path)
    first = opened(tmp_path).records(KERNEL)[0]
    write_log(tmp_path / "later", [replace(first, latency_us=9e5)])
    path.write_text(path.read_text() + (tmp_path / "later" / PI.device / path.name).read_text() + json.dumps(line) + "\n")
    assert opened(tmp_path).records(KERNEL)[0] == first and len(opened(tmp_path).trials(KERNEL)) == 20
    assert [found.fault for found in inspect(path, PI).lines] == ["", *2 * ["an earlier line has the same schedule"]]


def test_merging_compacted_logs(tmp_path: Path) -> None:
    made = tried(KERNEL, 8, 30)
    for name, members in (("whole", made), ("compact", made), ("more", [*made, *tried(OTHER, 8, 3)])):
        write_log(tmp_path / name, members)
    compact_logs([tmp_path / "compact"])
    kept = len(opened(tmp_path / "compact").records(KERNEL))

    def merged(source: str, into: str) -> tuple[int, int]:
        (joined,) = merge([tmp_path / source], tmp_path / into, lambda _: PI).joined
        return joined.new, joined.known

    assert merged("compact", "new") == (kept, 0) and merged("compact", "new") == (0, kept)
    assert merged("whole", "new") == (0, 30) and merged("more", "new") == (3, 30)
    assert len(opened(tmp_path / "new").trials(KERNEL)) == 30
    assert merged("compact", "whole") == (0, kept)


def test_bad_lines_are_cut_and_kept(tmp_path: Path, cli: CommandLine) -> None:
    path = write_log(tmp_path)
    good = path.read_bytes()
    path.write_bytes(b"[]\n" + good + good.splitlines()[0] + b'\n{"v":1,"torn')
    before = path.read_bytes()
    dry = cli("logs", "compact", str(tmp_path), "--dry-run")
    assert dry.code == 0 and content(tmp_path) == {"pi4-virtual/float32_t1.jsonl": before}
    done = cli("logs", "compact", str(tmp_path))
    assert done.code == 0 and done.err == ""
    size = f"{len(before) / 1e6:.2f} to {path.stat().st_size / 1e6:.2f} MB"
    assert done.out == (
        f"{path}: 3 lines cut, kept in float32_t1.jsonl.cut\n"
        "  line 1: not a record: it is not a JSON object\n"
        "  line 10: an earlier line has the same schedule\n"
        "  line 11: the last line is unfinished\n"
        f"{path}: 2 kernels, 8 records: 2 kept; {size}\n"
        f"Written: {path} (before: float32_t1.jsonl.bak)\n"
    )
    assert path.with_name("float32_t1.jsonl.bak").read_bytes() == before
    assert cut_file(path).read_bytes() == b"[]\n" + good.splitlines()[0] + b'\n{"v":1,"torn\n'
    assert cli("logs", "verify", "--logs", str(tmp_path)).out == "1 log, 2 records: all is well\n"
    assert " float32 1 2 2 0 1.00 " in " ".join(cli("logs", "show", "--logs", str(tmp_path)).out.split()) + " "


def test_refusals(tmp_path: Path, cli: CommandLine) -> None:
    assert cli("logs", "compact").code == 1  # nothing of one's own yet
    missing = cli("logs", "compact", str(tmp_path / "nowhere"))
    assert missing.code == 1 and f"{tmp_path / 'nowhere'} does not exist." in missing.err
    foreign = tmp_path / "notes.jsonl"
    foreign.write_text("milk\n")
    outcome = cli("logs", "compact", str(foreign))
    assert outcome.code == 1 and "notes.jsonl is not a tuning log" in outcome.err and content(tmp_path) == {"notes.jsonl": b"milk\n"}
    with pytest.raises(UserError, match="0 records cannot be kept"):
        compact_logs([tmp_path], keep=0)


# Compacts with files that may not grow beyond a limit: what a full disk does to a write, half of it included.
COMPACT = """
import resource, sys
from pathlib import Path
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.logs.compact import compact
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    compact(Path(sys.argv[1]), None, 8)
except UserError as error:
    print(error, file=sys.stderr)
"""


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path, repository: Path) -> None:
    path = write_log(tmp_path)
    before = path.read_bytes()
    words = [sys.executable, "-c", COMPACT, str(path), str(len(before) - 100)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=repository, check=True)
    assert done.stderr.startswith(f"{path} cannot be compacted: File too large.\nThe log is as it was")
    assert content(tmp_path) == {"pi4-virtual/float32_t1.jsonl": before}


@pytest.mark.parametrize("after", range(3))
def test_nothing_is_lost_where_it_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Before the cut lines are kept, before the old log is, or before the new one is there."""
    path = write_log(tmp_path, [*tried(KERNEL, 9, 20)])
    path.open("ab").write(b"torn")
    before = path.read_bytes()
    steps = 0

    def stops_at(name: str) -> None:
        real = getattr(sys.modules[name.rsplit(".", 1)[0]], name.rsplit(".", 1)[1])

        def step(*arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == after + 1:
                raise KeyboardInterrupt
            return real(*arguments)

        monkeypatch.setattr(name, step)

    with monkeypatch.context() as patched:
        for name in ("tvmmobile.tuning.logs.compact.append_whole", "tvmmobile.tuning.logs.files.write_bytes"):
            stops_at(name)
        with pytest.raises(KeyboardInterrupt):
            compact(path, PI, 8)
        patched.undo()
    assert path.read_bytes() == before
    compact(path, PI, 8)
    assert path.with_name(path.name + ".bak").read_bytes() == before and len(opened(tmp_path).trials(KERNEL)) == 20
    assert set(cut_file(path).read_bytes().splitlines()) == {b"torn"}


def test_what_is_appended_just_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_log(tmp_path, tried(KERNEL, 10, 21))
    *lines, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines))
    append_meanwhile(monkeypatch, "tvmmobile.tuning.logs.compact.inspect", path, last, lambda: compact(path, PI, 8))
    assert len(opened(tmp_path).trials(KERNEL)) == 21


def test_kernels_that_nobody_asks_for_are_not_read(tmp_path: Path) -> None:
    write_log(tmp_path, [*tried(KERNEL, 11, 9), *tried(OTHER, 11, 9)])
    compact_logs([tmp_path])
    database = opened(tmp_path)
    assert len(database._unread) == 2 and database.records(KERNEL) and list(database._unread) == [OTHER.name]
    assert len(database.tasks()) == 2 and database._unread == {} and len(schedules(OTHER)) >= 9


def test_what_ships_is_small_and_read_at_once() -> None:
    """At most 1 kB a kernel, and 4 MB for a board and precision; of thousands of kernels none is decoded before somebody asks for it."""
    for folder in SHIPPED_LOGS.iterdir():
        sizes: dict[str, int] = {}
        for path in folder.glob("*.jsonl"):
            content, dtype = path.read_bytes(), path.stem.rsplit("_t", 1)[0]
            assert len(content) <= 1000 * len(content.splitlines()), path  # seven times as much where nothing is compact
            sizes[dtype] = sizes.get(dtype, 0) + len(content)
        assert sizes and max(sizes.values()) <= 4_000_000, folder
    times_s = []
    for _ in range(3):  # the collector may look through all that earlier tests left, which takes a second, but not in each of these
        started = time.thread_time()
        database = opened(SHIPPED_LOGS)
        times_s.append(time.thread_time() - started)
    lines = [line for path in (SHIPPED_LOGS / PI.device).glob("*.jsonl") for line in path.read_bytes().splitlines()]
    kernels = [json.loads(line) for line in lines]
    again = {kernel["name"] for kernel in kernels if kernel.get("again")}  # what was measured once more goes with the kernel's other line
    assert sum(map(len, database._unread.values())) == sum(kernel["name"] not in again for kernel in kernels) > 2000 > 50 * len(again)
    assert min(times_s) < 1.0  # usually a twentieth of that


def test_what_ships_is_compact_already() -> None:
    """The smaller log is checked, since it takes seconds to look at them all."""
    path = min((SHIPPED_LOGS / PI.device).glob("*.jsonl"), key=lambda path: path.stat().st_size)
    done = compact(path, PI, KEPT, dry_run=True)
    assert done.records[0] == done.records[1] and done.found.faults == []
