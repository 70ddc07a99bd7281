"""Steps that are planted in simulated latencies are found, at the right commit and of the right size; where there is none, none is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from studies.checks.simulate_history import STEPS, alarms, counts
from tvmmobile.history.steps import find_steps

#: Of steps of 3 %.
SIZE = 0.03


def test_two_runs_a_commit_find_nearly_every_step() -> None:
    found = counts(2, 0, 2, SIZE)
    assert found["close"] >= 2 * STEPS - 1 and found["invented"] == 0 and found["good"] == 2


def test_one_run_a_commit_finds_most_steps() -> None:
    """Noise hides the exact place of some: of a hundred such steps, two are two commits off."""
    found = counts(2, 0, 1, SIZE)
    assert found["close"] >= 2 * (STEPS - 2) and found["invented"] == 0


@pytest.mark.long
def test_rates_over_many_histories() -> None:
    one, two = counts(10, 0, 1, SIZE), counts(10, 0, 2, SIZE)
    assert one["close"] >= 0.96 * 10 * STEPS and one["in_range"] >= 0.95 * 10 * STEPS and one["invented"] <= 1 and one["good"] >= 8
    assert two["close"] >= 0.99 * 10 * STEPS and two["invented"] == 0 and two["good"] == 10
    assert alarms(200, 0) <= 2


def test_the_study_prints_its_table(tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, str(repository / "studies"), "simulate_history", "--histories", "2", "--out", str(tmp_path / "history.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "| 3% | 2 |" in done.stdout and "Of 2 histories without a step" in done.stdout
    assert len(json.loads((tmp_path / "history.json").read_text())["rows"]) == 9


@pytest.mark.parametrize("count", [2, 3, 5, 20, 300])
def test_noise_alone_has_no_step(count: int) -> None:
    """The spread that runs are known to have, in twenty lines."""
    random = np.random.default_rng(count)
    lines = [np.exp(random.normal(9, 0.014, count)) for _ in range(20)]
    assert sum(bool(find_steps([float(one) for one in line], [1] * count, exact=False).steps) for line in lines) <= 1


def test_size_and_level_of_a_step() -> None:
    random = np.random.default_rng(1)
    latencies = np.exp(random.normal(0, 0.01, 60)) * np.where(np.arange(60) < 40, 100.0, 110.0)
    found = find_steps([float(latency) for latency in latencies], [1] * 60, exact=False)
    (step,) = found.steps
    assert step.at == step.first == step.last == 40 and step.p < 1e-9
    assert step.low < 0.1 < step.high and step.low < step.change < step.high and step.high - step.low < 0.03
    assert found.levels == pytest.approx((100.0, 110.0), rel=0.01) and found.noise == pytest.approx(0.01, rel=0.3)


def test_a_spike_is_no_step() -> None:
    random = np.random.default_rng(2)
    latencies = [float(one) for one in np.exp(random.normal(0, 0.01, 40))]
    latencies[20] *= 1.5
    latencies[39] *= 1.5
    found = find_steps(latencies, [1] * 40, exact=False)
    assert found.steps == () and found.spikes == (20, 39)
    (step,) = find_steps([*latencies, latencies[39]], [1] * 41, exact=False).steps
    assert step.at == 39  # a second slow commit makes it one


def test_modelled_latencies_are_exact() -> None:
    found = find_steps([10.0, 10.0, 10.01, 10.01, 12.0], [1] * 5, exact=True)
    assert [step.at for step in found.steps] == [2, 4] and found.levels == pytest.approx((10.0, 10.01, 12.0))
    assert found.steps[1].change == pytest.approx(12 / 10.01 - 1) and found.steps[1].p == 0 and found.noise == 0


@pytest.mark.parametrize("latencies", [[], [5.0], [5.0, 5.0], [5.0] * 30])
@pytest.mark.parametrize("exact", [False, True])
def test_few_or_equal_latencies(latencies: list[float], exact: bool) -> None:
    found = find_steps(latencies, [1] * len(latencies), exact)
    assert found.steps == () and found.levels == pytest.approx([5.0] * bool(latencies))
