"""Tests of the attempts and messages of `tune` and `compile`, with searches and workers that are made up."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from log_samples import PROFILE

import tvmmobile as tm
from tvmmobile.cli.progress import Shown
from tvmmobile.devices.protocol import MEASURED, DeviceProfile
from tvmmobile.graph.layers import Dense
from tvmmobile.graph.tasks import Task
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline import tune as stage
from tvmmobile.pipeline.build import BuiltVariant, _placed
from tvmmobile.pipeline.job import VariantJob, variant_job
from tvmmobile.pipeline.listener import QUIET, Listener, TuningPlan, tell
from tvmmobile.pipeline.needed_trials import nothing_to_try
from tvmmobile.pipeline.stages.building import build_libraries
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.tuning.claims import RefusedLine
from tvmmobile.tuning.search.tuner import Search, TrialAssignment

ONE, OTHER = Task((Dense(64, 10),)), Task((Dense(64, 20),))


@dataclass(frozen=True)
class FirstRound:
    """The part of a `TuningPlan` that `run_rounds` reads."""

    assignments: list[TrialAssignment]


@dataclass(frozen=True)
class ProfiledBench:
    """The part of a `Bench` that `run_rounds` reads."""

    profile: DeviceProfile = PROFILE


class Needs:
    """Two kernels: once the last round has improved one of them, the other is worth trying in the round before."""

    later = ((12, 0.02), (24, 0.01))

    def __init__(self) -> None:
        self.database: list[tuple[Task, int]] = []

    @property
    def plan(self) -> FirstRound:
        """See `needed.NeededTrials`."""
        return FirstRound(self._lacking({ONE: 4, OTHER: 4}))

    def _lacking(self, wanted: dict[Task, int]) -> list[TrialAssignment]:
        done = {task: sum(most for tried, most in self.database if tried == task) for task in wanted}
        return [TrialAssignment(task, None, (), done[task], max(most - done[task], 0)) for task, most in wanted.items()]

    def further(self, most: int, _may_gain: float) -> list[TrialAssignment]:
        """See `needed.NeededTrials`."""
        improved = sum(count for task, count in self.database if task == ONE) == 24
        return self._lacking({ONE: most} | ({OTHER: most} if improved else {}))


def test_a_finished_run_leaves_nothing_for_the_same_command(monkeypatch: pytest.MonkeyPatch) -> None:
    needs, bench = Needs(), ProfiledBench()

    def search(assignments: Sequence[TrialAssignment], database: list[tuple[Task, int]], *_: object) -> None:
        database += [(assignment.task, assignment.missing) for assignment in assignments if assignment.missing]

    monkeypatch.setattr(stage, "search", search)
    stage.run_rounds(needs, bench, Search(), QUIET)  # type: ignore[arg-type]
    assert {each.task: each.missing for each in needs.further(24, 0.01)} == {ONE: 0, OTHER: 0}
    tried = list(needs.database)
    stage.run_rounds(needs, bench, Search(), QUIET)  # type: ignore[arg-type]
    assert needs.database == tried


def test_a_search_that_finds_nothing_more_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are lacking and no schedule is left to try: it is not asked forever."""
    needs, asked = Needs(), []
    monkeypatch.setattr(stage, "search", lambda *_: asked.append(1))
    stage.run_rounds(needs, ProfiledBench(), Search(), QUIET)  # type: ignore[arg-type]
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("asked", "first", "reason"),
    [
        (None, 4, "is in the shipped logs, or has the default 8 records. More --trials try more."),
        (0, 0, ""),
        (3, 3, "Nothing to try for --trials 3: every kernel has records of 3 schedules, or of all that it has."),
        (100, 4, "those that a plan may use have 100, all of them, or as many as their template needs."),
    ],
)
def test_why_there_is_nothing_to_try(asked: int | None, first: int, reason: str) -> None:
    sentence = nothing_to_try(asked, first)
    assert sentence.endswith(reason) and bool(sentence) == bool(reason)


def test_messages_are_in_terms_of_who_receives_them() -> None:
    """A notebook's listener reads the keywords of calls, and the command line's the options that were typed."""
    text = "net: --max-drop 30dB: 2 layers stay in float32 (--keep dw_*). See: tvmmobile logs verify --logs mine"

    class Heard(Listener):
        def __init__(self) -> None:
            self.texts: list[str] = []

        def message(self, text: str) -> None:
            self.texts.append(text)

    class Typed(Heard):
        of_commands = True

    notebook, terminal = Heard(), Typed()
    for listener in (notebook, terminal):
        tell(listener, text)
    assert notebook.texts == ["net: `max_drop='30dB'`: 2 layers stay in float32 (`keep='dw_*'`). See: tvmmobile logs verify --logs mine"]
    assert terminal.texts == [text] and Shown.of_commands
    plan = TuningPlan(PROFILE, 1, (), 3, 3, 0, (), (), nothing_to_try(3, 3))
    assert plan.idle.startswith("Nothing to try for `trials=3`: ") and "--trials 3" in plan.idle_as_typed


class Workers:
    """Stands in for `workers.Workers`: answers each job with what `answer` says of it."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer

    def run(self, _function: object, jobs: Iterable[VariantJob], _timeout_s: float) -> Iterator[tuple[VariantJob, Any]]:
        """Answer jobs as `workers.Workers.run` does."""
        for job in jobs:
            yield job, self._answer(job)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_lines_that_were_skipped_are_said_once(tmp_path: Path, count: int) -> None:
    """Every variant reads the same logs, perhaps on another machine, where their directories have other names."""
    logs = (tmp_path / "shipped", tmp_path / "own logs")
    jobs = [variant_job(Model(replace(ModelSpec(), resolution=side)), PROFILE, logs, tmp_path / "out") for side in (128, 160)]
    lines = [RefusedLine(Path("1/pi4-virtual/float32_t1.jsonl"), number, "it lies") for number in range(7, 7 + count)]
    remarks: list[str] = []
    build_libraries(Workers(lambda job: BuiltVariant(job.library, tuple(lines), count)), jobs, lambda _: None, remarks.append)  # type: ignore[arg-type]
    path = logs[1] / "pi4-virtual" / "float32_t1.jsonl"
    many = f"{count} lines of the tuning logs were skipped; the first" if count > 1 else "1 line of the tuning logs was skipped"
    records = f"{count} records of another timing model do" if count > 1 else "1 record of another timing model does"
    expected = [
        f"{many}: {path}, line 7: it lies. See: tvmmobile logs verify --logs '{logs[1]}'",
        f"{records} not count: see tvmmobile logs rescore --help",
    ]
    assert remarks == (expected if count else [])


def test_a_plan_says_what_was_skipped_and_why_it_is_idle(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    refused = (RefusedLine(tmp_path / "pi4-virtual" / "float32_t1.jsonl", 3, "it lies"),)
    Shown().plan_ready(TuningPlan(PROFILE, 1, (TrialAssignment(ONE, None, (), 1, 0),), 4, 4, 0, (), refused, "Nothing to try."))
    said = " ".join(capsys.readouterr().err.split())
    assert "1 variant, 1 distinct kernel, 1 record, 0 trials to run Nothing to try. 1 line of the tuning logs was skipped: " in said
    assert "float32_t1.jsonl, line 3: it lies." in said


def test_a_plan_for_a_fresh_log_has_no_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of an earlier run in the same folder would be set aside, and planning leaves no folder behind."""
    logs, temporary = tmp_path / "out" / "tuning_logs" / "pi4-virtual", tmp_path / "temporary"
    shutil.copytree(SHIPPED_LOGS / "pi4-virtual", logs, ignore=lambda _, names: {name for name in names if name != "float32_t1.jsonl"})
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    network = tm.load("mobilenet_v1", alpha=0.25, resolution=128)
    known = tm.plan_tuning(network, "pi4-virtual", logs=logs.parent)
    assert all(assignment.done for assignment in known.assignments)
    for plan in (
        tm.plan_tuning(network, "pi4-virtual", fresh=True, out=tmp_path / "out"),
        tm.plan_tuning(network, "pi4-virtual", fresh=True),
    ):
        assert plan.kernels == known.kernels and not any(assignment.done for assignment in plan.assignments)
    assert not list(temporary.glob("*-plan-*")) and not list(temporary.glob("*-libraries-*"))


def test_large_kernels_count_for_more_of_the_estimated_time_on_virtual_boards_alone() -> None:
    """A trial of a VGG's layers with 1.8 billion multiply-adds takes seconds of emulation."""

    def seconds(task: Task, profile: DeviceProfile) -> float:
        return TuningPlan(
            profile, 1, (TrialAssignment(task, None, (), 0, 2), TrialAssignment(OTHER, None, (), 8, 0)), 2, 8, 0, ()
        ).estimated_s

    huge, board = Task((Dense(30_000, 60_000),)), replace(PROFILE, origin=MEASURED)
    assert seconds(huge, PROFILE) - seconds(ONE, PROFILE) > 4
    assert seconds(huge, board) == seconds(ONE, board) == pytest.approx(seconds(ONE, PROFILE), rel=1e-3)


def test_where_a_refused_line_is(tmp_path: Path) -> None:
    """Its path begins with the number of its directory; a shipped log keeps its path."""
    logs = (tmp_path / "a", tmp_path / "b")
    lines = {logs[1] / "pi4" / "x.jsonl": Path("1/pi4/x.jsonl"), tmp_path / "c" / "pi4" / "x.jsonl": tmp_path / "c" / "pi4" / "x.jsonl"}
    for path, placed in lines.items():
        assert _placed(RefusedLine(path, 1, "it lies"), logs).path == placed
