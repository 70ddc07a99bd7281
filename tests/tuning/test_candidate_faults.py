"""Candidates that crash, hang, compute nonsense or do not build: each fails alone, with its reason, and the search goes on."""

from __future__ import annotations

from pathlib import Path

import broken_templates as broken
import pytest
from quiet_listener import Quiet

from tvmmobile.devices.registry import find_device
from tvmmobile.running.bench import started_bench
from tvmmobile.system.workers import Workers
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity
from tvmmobile.tuning.search.tuner import Deadlines, Search, assign, tune

pytestmark = pytest.mark.virtual
DEVICE = find_device("pi4")
DEADLINES = Deadlines(run_s=3, trial_s=5)
REASONS = {
    broken.CRASHES: "killed by SIGSEGV",
    broken.HANGS: "did not finish within 3 s",
    broken.WRONG: "wrong values: error ",
    broken.NOT_A_NUMBER: "wrong values: error inf",
    broken.DOES_NOT_BUILD: "does not build: ",
    broken.KILLS_THE_COMPILER: "its worker process died",
    broken.HANGS_THE_COMPILER: "it took too much processor time",
}


def test_bad_candidates_fail_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVMMOBILE_PLUGINS", "broken_templates")
    profile = DEVICE.profile
    identity = Identity.of(profile)
    database, listener = Database(identity, (), tmp_path), Quiet()
    with Workers(2) as workers, started_bench(DEVICE, workers) as bench:
        assignments = assign({broken.TASK: None}, database, 64, profile.target)[:1]  # the good template takes the task too
        assert [(assignment.template and assignment.template.name, assignment.missing) for assignment in assignments] == [("broken", 8)]
        tune(assignments, database, bench, listener, Search(deadlines=DEADLINES))
    logged = Database(identity, (tmp_path,), None)  # as the next run reads it
    assert logged.ignored == 0 and len(logged) == len(listener.records) == 8
    best = logged.best(broken.TASK)
    assert best is not None and best.schedule == broken.schedule(broken.GOOD) and best.latency_us
    errors = {record.schedule: record.error for record in logged.records(broken.TASK) if record.latency_us is None}
    assert set(errors) == {broken.schedule(fault) for fault in REASONS}
    for fault, reason in REASONS.items():
        assert (errors[broken.schedule(fault)] or "").startswith(reason), fault
        assert "\n" not in (errors[broken.schedule(fault)] or "")
