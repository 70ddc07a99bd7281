"""Logs scored again: the best of earlier models, whatever was interrupted, and what is left in the files."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from log_samples import searched

from tvmmobile.devices.protocol import Endpoint, Origin
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d, Dense, Opaque
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import TraceSchedule
from tvmmobile.running.bench import Bench
from tvmmobile.running.measure import Agents
from tvmmobile.schedules import templates_for
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.logs.compact import compact
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.search.earlier_models import Rescored, rankings, replace_logs, rescore, unmeasured
from tvmmobile.tuning.search.trial import Outcome, TrialJob
from tvmmobile.tuning.search.tuner import SearchListener

PROFILE = find_device("pi4").profile
PRESENT = Identity.of(PROFILE)
OLD, OLDER = replace(PRESENT, origin=Origin("modelled", "0" * 16)), replace(PRESENT, origin=Origin("modelled", "1" * 16))
POINTWISE, CLASSIFIER = Task((Conv2d(7, 7, 8, 8),)), Task((Dense(64, 64),))
POOL = Task((Opaque("mean", "0123456789ab", ((1, 7, 7, 64),), (1, 1, 1, 64)),))


def log(folder: Path, identity: Identity, task: Task, latencies: dict[int, float | None], when: str = "2026-01-02") -> None:
    """Records of a task's schedules by their number."""
    records = [
        Record(task, searched(task)[n], us, 7 if us else None, error=None if us else "crashed", when=when) for n, us in latencies.items()
    ]
    Database(identity, (), folder).append(records)


class Workers:
    """Stands in for `workers.Workers`; answers each job by its schedule's number."""

    def __init__(self, answer: Callable[[int], Any]) -> None:
        self.answer = answer
        self.asked: list[tuple[Task, int]] = []
        self.runs = 0

    def run(self, function: object, jobs: Iterable[TrialJob], timeout_s: float) -> Iterator[tuple[TrialJob, Any]]:
        """Answer jobs as `workers.Workers.run` does."""
        self.runs += 1
        for job in reversed(list(jobs)):
            number = searched(job.task).index(job.schedule)  # type: ignore[arg-type]
            self.asked.append((job.task, number))
            yield job, self.answer(number)


def rescored(folder: Path, answer: Callable[[int], Any], keep: int = 8) -> tuple[Workers, list[Rescored], list[Path]]:
    workers, database = Workers(answer), Database(PRESENT, (), folder)
    ranked = rankings(folder, PRESENT, keep)
    assignments = unmeasured(ranked, database, {})
    bench = Bench(Agents(PROFILE, Endpoint("127.0.0.1", 1, "pi4")), workers)  # type: ignore[arg-type]
    rescore(ranked, assignments, database, bench, SearchListener())
    return workers, *replace_logs(ranked, database)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_best_are_measured_and_alone_are_left(tmp_path: Path) -> None:
    log(tmp_path, OLD, POINTWISE, {0: 5.0, 1: 3.0, 2: None, 3: 4.0, 4: 9.0})
    log(tmp_path, OLD, CLASSIFIER, {0: 2.0, 1: 1.0})
    log(tmp_path, replace(OLD, tvm="0.1"), CLASSIFIER, {2: 0.5})
    (path,) = tmp_path.rglob("*.jsonl")
    before = path.read_bytes()
    workers, results, backups = rescored(tmp_path, lambda number: Outcome(10.0 + number, cycles=7), keep=3)
    assert sorted(workers.asked, key=str) == sorted([(POINTWISE, n) for n in (0, 1, 3)] + [(CLASSIFIER, n) for n in (0, 1)], key=str)
    assert [result.ranking.task for result in results] == [POINTWISE, CLASSIFIER]
    assert [result.ranks_changed for result in results] == [3, 2] and all(result.best_is_another for result in results)
    assert [(result.old_best_us, result.new_best_us) for result in results] == [(3.0, 10.0), (1.0, 10.0)]
    *found, others = lines(path)
    assert {line["model"] for line in (*found, others)} == {PRESENT.origin.model}
    assert [line["latency_us"] for line in found] == [11.0, 13.0, 10.0, 11.0, 10.0]  # in the old order
    assert [backup.name for backup in backups] == [path.name + ".bak"]
    kept = backups[0].read_bytes()
    assert kept.startswith(before) and kept.count(PRESENT.origin.model.encode()) == 5  # type: ignore[union-attr]
    database = Database(PRESENT, (tmp_path,), None)
    assert (len(database), len(database.trials(POINTWISE)), len(database.trials(CLASSIFIER))) == (5, 5, 2)
    assert [database.trials(POINTWISE).has(searched(POINTWISE)[n]) for n in range(6)] == [True] * 5 + [False]  # type: ignore[arg-type]
    old = Database(OLD, (tmp_path,), None)
    assert (len(old), old.ignored, old.outdated) == (0, 6, 6)


def test_what_a_compacted_log_has_dropped_stays_tried(tmp_path: Path) -> None:
    log(tmp_path, OLD, POINTWISE, {n: 1.0 + n for n in range(6)})
    (path,) = tmp_path.rglob("*.jsonl")
    compact(path, OLD, 2)
    workers, _, _ = rescored(tmp_path, lambda number: Outcome(1.0 + number, cycles=7), keep=1)
    assert workers.asked == [(POINTWISE, 0)]
    trials = Database(PRESENT, (tmp_path,), None).trials(POINTWISE)
    assert (len(trials.records), len(trials)) == (1, 6) and all(trials.has(schedule) for schedule in searched(POINTWISE)[:6])  # type: ignore[index]


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    log(tmp_path, OLD, POINTWISE, {n: 1.0 + n for n in range(6)})
    asked = 0

    def interrupted(number: int) -> Outcome:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise KeyboardInterrupt
        return Outcome(1.0 + number, cycles=7)

    with pytest.raises(KeyboardInterrupt):
        rescored(tmp_path, interrupted)
    assert len(Database(OLD, (tmp_path,), None)) == 6 and len(Database(PRESENT, (tmp_path,), None)) == 3
    workers, (result,), _ = rescored(tmp_path, lambda number: Outcome(1.0 + number, cycles=7))
    assert len(workers.asked) == 3
    assert result.ranks_changed == 0 and not result.best_is_another and len(result.new) == 6


def test_the_latest_model_ranks_and_older_ones_fill_up(tmp_path: Path) -> None:
    log(tmp_path, OLDER, POINTWISE, {0: 0.1, 1: 0.2, 2: 0.3}, when="2026-01-01")
    log(tmp_path, OLD, POINTWISE, {1: 7.0, 3: 6.0}, when="2026-01-02")
    (ranking,) = rankings(tmp_path, PRESENT, 3)
    assert [searched(POINTWISE).index(record.schedule) for record in ranking.old] == [3, 1, 0]  # type: ignore[arg-type]


def test_what_the_present_model_has_already_is_kept(tmp_path: Path) -> None:
    log(tmp_path, OLD, POINTWISE, {0: 1.0, 1: 2.0})
    log(tmp_path, PRESENT, POINTWISE, {1: 30.0, 5: 40.0})
    log(tmp_path, PRESENT, CLASSIFIER, {0: 50.0})
    workers, (result,), _ = rescored(tmp_path, lambda number: Outcome(60.0, cycles=7))
    assert workers.asked == [(POINTWISE, 0)]
    assert [record.latency_us for record in result.new] == [60.0, 30.0]
    (path,) = tmp_path.rglob("*.jsonl")
    assert sorted(line["latency_us"] for line in lines(path)) == [30.0, 40.0, 50.0, 60.0]


def test_failures_come_last(tmp_path: Path) -> None:
    log(tmp_path, OLD, POINTWISE, {0: 1.0, 1: 2.0})
    _, (result,), _ = rescored(tmp_path, lambda number: Outcome(None, error="killed") if number == 0 else Outcome(5.0, cycles=7))
    assert result.new_best_us == 5.0 and result.best_is_another and result.ranks_changed == 2
    (path,) = tmp_path.rglob("*.jsonl")
    assert [line.get("error") for line in lines(path)] == ["killed", None]


def test_logs_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / PRESENT.device / "x.jsonl").mkdir(parents=True)
    with pytest.raises(UserError, match=r"x\.jsonl cannot be read"):
        rankings(tmp_path, PRESENT, 8)


def test_a_trace_is_ranked_like_any_other(tmp_path: Path) -> None:
    Database(OLD, (), tmp_path).append([Record(POOL, TraceSchedule("[[],[]]"), 1.0)])
    (ranking,) = rankings(tmp_path, PRESENT, 8)
    (assignment,) = unmeasured([ranking], Database(PRESENT, (), tmp_path), {POOL: "the function"})
    assert (assignment.source, assignment.missing, assignment.done) == ("the function", 1, 0)


def test_the_fastest_of_each_template_comes_along(tmp_path: Path) -> None:
    task = Task((Conv2d(16, 16, 128, 128),))
    first, second = (template.space(task) for template in templates_for(task)[:2])
    assert first is not None and second is not None
    tried = [*itertools.islice(first, 3), *itertools.islice(second, 2)]
    Database(OLD, (), tmp_path).append([Record(task, schedule, 1.0 + place, 7) for place, schedule in enumerate(tried)])
    (ranking,) = rankings(tmp_path, PRESENT, 2)
    assert [record.schedule for record in ranking.old] == [tried[0], tried[1], tried[3]]
    (ranking,) = rankings(tmp_path, PRESENT, 4)
    assert [record.schedule for record in ranking.old] == tried[:4]


def test_workers_are_handed_all_kernels_at_once(tmp_path: Path) -> None:
    log(tmp_path, OLD, POINTWISE, {0: 1.0})
    log(tmp_path, OLD, CLASSIFIER, {0: 1.0})
    workers, results, _ = rescored(tmp_path, lambda number: Outcome(2.0, cycles=7))
    assert workers.runs == 1 and {task for task, _ in workers.asked} == {POINTWISE, CLASSIFIER} and len(results) == 2
