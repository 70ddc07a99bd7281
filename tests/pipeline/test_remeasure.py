"""A record that the network contradicts is measured again: a false one no longer counts, one that stands is asked once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from log_samples import PI, PROFILE, schedules
from network_files import write_python
from report_samples import sample_results

from tvmmobile.devices.protocol import Endpoint
from tvmmobile.graph.layers import Dense
from tvmmobile.graph.tasks import Task
from tvmmobile.pipeline.remeasure import doubted, measure_again
from tvmmobile.results.file import KernelResult, Results, read_results
from tvmmobile.results.report.kernel_rows import far_off
from tvmmobile.running.bench import Bench
from tvmmobile.running.measure import Agents
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.logs.inspection import inspect
from tvmmobile.tuning.logs.merge import merge
from tvmmobile.tuning.records import Record
from tvmmobile.tuning.search.trial import Outcome, TrialJob

TASK = Task((Dense(64, 10),))
TASKS = {TASK: None}


class Workers:
    """Stands in for `workers.Workers`: answers each job with the same outcome."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def run(self, _function: object, jobs: Iterable[TrialJob], _timeout_s: float) -> Iterator[tuple[TrialJob, Outcome]]:
        """Answer jobs as `workers.Workers.run` does."""
        for job in jobs:
            yield job, self._outcome


def record(number: int, latency_us: float) -> Record:
    return Record(TASK, schedules(TASK)[number], latency_us, cycles=7)


def results_with(record_us: float | None, network_us: float | None, schedule: object = schedules(TASK)[0], invalid: str = "") -> Results:
    """Return one variant with the kernel twice."""
    results = sample_results(1)
    kernel = KernelResult(TASK.name, "fully connected", TASK.macs, record_us, str(schedule), network_us=network_us)
    return replace(results, variants=(replace(results.variants[0], kernels=(kernel, kernel), invalid=invalid),))


@pytest.mark.parametrize(
    ("record_us", "network_us", "far"),
    [
        (10.0, 812.3, True),
        (812.3, 10.0, True),
        (100.0, 183.0, False),  # as far as a pool of MobileNet's is
        (100.0, 201.0, True),
        (100.0, 49.0, True),
        (1.0, 5.5, False),  # within what a clock or a handover takes
        (None, 812.3, False),
        (10.0, None, False),
    ],
)
def test_what_is_far_off(record_us: float | None, network_us: float | None, far: bool) -> None:
    assert len(far_off(results_with(record_us, network_us).variants[0])) == far
    assert far_off(results_with(record_us, network_us, invalid="throttled").variants[0]) == []


def test_honest_records_are_never_far_off(repository: Path) -> None:
    """`FAR` rests on these: every kernel of the published networks, modelled alone and within its network."""
    variants = read_results(repository / "studies/results/networks.json").variants
    kernels = [kernel for variant in variants for kernel in variant.kernels]
    ratios = [kernel.network_us / kernel.latency_us for kernel in kernels if kernel.network_us and kernel.latency_us]
    assert len(ratios) == 636 and 0.65 < min(ratios) < 0.66 and 1.62 < max(ratios) < 1.63
    assert [far_off(variant) for variant in variants] == [[]] * len(variants)


def again(folder: Path, outcome: Outcome) -> tuple[bool, list[str], Database]:
    """Measure the record of 10 us again that took 812.3 us in the network; another schedule has 500 us."""
    database = Database(PI, (), folder)
    database.append([record(0, 10.0), record(1, 500.0)])
    records = doubted(results_with(10.0, 812.3), database, TASKS)
    assert {task: one.latency_us for task, one in records.items()} == {TASK: 10.0}
    remarks: list[str] = []
    bench = Bench(Agents(PROFILE, Endpoint("127.0.0.1", 1, "pi4")), Workers(outcome))  # type: ignore[arg-type]
    return measure_again(records, database, TASKS, bench, remarks.append), remarks, database


def best_us(database: Database) -> float | None:
    best = database.best(TASK)
    return None if best is None else best.latency_us


@pytest.mark.parametrize(
    ("outcome", "remark"),
    [
        (Outcome(805.0, 7), "805.0 us modelled; its record says 10.0 us: the record was false and no longer counts."),
        (Outcome(None, error="crashed"), "failed, crashed; its record says 10.0 us: the record was false and no longer counts."),
    ],
)
def test_a_false_record_no_longer_counts(tmp_path: Path, outcome: Outcome, remark: str) -> None:
    false, remarks, database = again(tmp_path, outcome)
    assert false and remarks == [f"{TASK.name}: timed again, {remark}"]
    for found in (database, Database(PI, (tmp_path,), None)):
        assert best_us(found) == 500.0
        assert [(one.latency_us, one.again) for one in found.records(TASK)] == [(outcome.latency_us, True), (500.0, False)]


def test_a_record_that_stands_is_asked_once(tmp_path: Path) -> None:
    false, remarks, database = again(tmp_path, Outcome(11.0, 7))
    assert not false and remarks[0].endswith(
        "11.0 us modelled; its record says 10.0 us: the record stands, and the network is what differs."
    )
    for found in (database, Database(PI, (tmp_path,), None)):
        assert best_us(found) == 11.0 and doubted(results_with(11.0, 812.3), found, TASKS) == {}


def test_only_the_kernel_that_ran_is_doubted(tmp_path: Path) -> None:
    database = Database(PI, (), tmp_path)
    database.append([record(0, 10.0)])
    assert doubted(results_with(10.0, 812.3, schedules(TASK)[1]), database, TASKS) == {}
    assert doubted(results_with(10.0, 812.3), database, {}) == {}


def test_a_correction_counts_wherever_the_false_record_is(tmp_path: Path) -> None:
    """The shipped logs cannot be written; the correction is in the user's own, and stays when logs are verified and merged."""
    shipped, own, into = tmp_path / "shipped", tmp_path / "own", tmp_path / "into"
    Database(PI, (), shipped).append([record(0, 10.0), record(1, 500.0)])
    Database(PI, (shipped,), own).append([replace(record(0, 805.0), again=True)])
    assert best_us(Database(PI, (shipped, own), None)) == 500.0
    orders: list[list[Path]] = [[shipped, own], [own, shipped]]
    for number, sources in enumerate(orders):
        merge(sources, into / str(number), lambda _: PI)
        assert best_us(Database(PI, (into / str(number),), None)) == 500.0
        path = into / str(number) / PI.device / "float32_t1.jsonl"
        assert inspect(path, PI).faults == []
        before = path.read_bytes()
        merge(sources, into / str(number), lambda _: PI)
        assert path.read_bytes() == before
    lines = [json.loads(line) for line in (own / PI.device / "float32_t1.jsonl").read_text().splitlines()]
    assert [line["again"] for line in lines] == [True]


def test_the_report_says_which(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from tvmmobile.results.report import print_table, write_report

    shown: Callable[[Any], str] = lambda text: " ".join(text.split())  # noqa: E731
    sentence = f"its tuning records say, within a network (modelled): {TASK.name} 812.3 us, and its record says 10.0."
    for results, expected in ((results_with(10.0, 812.3), True), (results_with(10.0, 11.0), False)):
        print_table(results)
        write_report(results, tmp_path)
        texts = [capsys.readouterr().out, (tmp_path / "report.md").read_text().replace("\\", ""), (tmp_path / "report.html").read_text()]
        assert [sentence in shown(text) for text in texts] == [expected] * 3


@pytest.mark.long
@pytest.mark.virtual
def test_tune_corrects_a_lie_that_nothing_but_the_network_shows(tmp_path: Path) -> None:
    """The record of a kernel far below the peak is made three times as fast, cycles and terms included; no reader can tell."""
    write_python(tmp_path)
    words = ("--model", "net.py:separable", "--resolution", "224", "--logs", "logs", "--out", "out", "--trials", "1")
    first = Command(tmp_path, "tune", *words)
    assert first.wait(300)[0] == 0, first.errors
    (path,) = (tmp_path / "logs").rglob("*.jsonl")
    (report,) = json.loads((tmp_path / "out" / "report.json").read_text())["benchmarks"]
    slow = [kernel for kernel in report["kernels"] if kernel["latency_us"] / 3 > kernel["macs"] / 7200]
    name = max(slow, key=lambda kernel: kernel["latency_us"])["name"]
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    (honest,) = [entry for entry in entries if entry["name"] == name]
    lie = honest | {"terms_us": {term: us / 3 for term, us in honest["terms_us"].items()}, "cycles": honest["cycles"] // 3}
    lie["latency_us"] = sum(lie["terms_us"].values())
    path.write_text("".join(json.dumps(lie if entry is honest else entry) + "\n" for entry in entries))
    assert inspect(path, PI).faults == []
    second = Command(tmp_path, "tune", *words)
    assert second.wait(300)[0] == 0, second.errors
    assert f"{name}: timed again, {honest['latency_us']:.1f} us modelled; its record says {lie['latency_us']:.1f} us" in second.errors
    assert [(one["latency_us"], one["again"]) for one in map(json.loads, path.read_text().splitlines()) if "again" in one] == [
        (honest["latency_us"], True)
    ]
    third = Command(tmp_path, "tune", *words)
    assert third.wait(300)[0] == 0 and "timed again" not in third.errors
