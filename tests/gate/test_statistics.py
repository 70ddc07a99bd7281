"""The gate's statistics, on numbers made by hand and on simulated noise; studies/checks/simulate_gate.py has the long version."""

from __future__ import annotations

import math
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from studies.checks import simulate_gate
from tvmmobile.gate.statistics import (
    MOST_PAIRS,
    RUN_TO_RUN,
    Estimate,
    Pair,
    Verdict,
    estimate_ratio,
    holm,
    is_suspicious,
    judge,
    judge_exact,
    settle,
)

STUDIES = Path(__file__).resolve().parents[2] / "studies"


def quiet_run(latency: float, seed: int, noise: float = 0.002) -> list[float]:
    """Return a run of a board with hardly any noise."""
    return list(latency * np.exp(np.random.default_rng(seed).normal(0, noise, 30)))


def test_a_false_alarm_is_rare_and_a_slowdown_is_caught() -> None:
    equal, slowed = (simulate_gate.simulate(25, 3, kind) for kind in (False, True))
    assert not any(outcome.repeated or outcome.undecided for outcome in equal)
    assert sum(outcome.repeated for outcome in slowed) >= 23
    assert not any(outcome.missed_at_once or outcome.missed for outcome in slowed)
    assert all(outcome.pairs <= MOST_PAIRS * outcome.suspicious for outcome in (*equal, *slowed))
    assert np.mean([outcome.pairs for outcome in equal]) < 50


def test_the_simulated_noise_is_what_it_says() -> None:
    random = np.random.default_rng(1)
    runs = np.log([simulate_gate.samples_of_run(random, 100.0) for _ in range(3000)])
    # Between runs, half of a drift up or down, and the mean of 30 correlated samples: 0.02 · sqrt((1 + 0.5) / (1 - 0.5) / 30).
    assert np.median(runs, axis=1).std() == pytest.approx(math.hypot(0.01, 0.01, 0.0063), rel=0.05)
    calm = runs - np.median(runs, axis=1, keepdims=True)
    steps = np.abs(calm[:, 1:] - calm[:, :-1])
    # Of two samples with a correlation of 0.5, the difference has the standard deviation of either; its median is 0.6745 of that.
    assert np.median(steps) == pytest.approx(0.6745 * 0.02, rel=0.1)
    assert (calm > math.log(1.15)).mean() == pytest.approx(0.03 * 0.85, rel=0.15)


def test_the_script_says_the_same_twice() -> None:
    command = [sys.executable, str(STUDIES), "simulate_gate", "--comparisons", "2", "--seed", "5"]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(2))
    assert first.returncode == 0 and first.stdout == second.stdout
    assert "| slowdown caught |" in first.stdout and "pairs of runs" in first.stdout


@pytest.mark.parametrize(
    ("change", "verdict"),
    [(0.0, Verdict.SAME), (0.029, Verdict.SAME), (0.031, Verdict.SLOWER), (-0.031, Verdict.FASTER), (1.0, Verdict.SLOWER)],
)
def test_without_noise_the_threshold_decides(change: float, verdict: Verdict) -> None:
    judgement = judge_exact(100.0, 100.0 * (1 + change), 0.03)
    assert judgement.verdict is verdict and judgement.change == pytest.approx(change) and judgement.p is None


@pytest.mark.parametrize("wrong", [math.nan, 0.0, -1.0, math.inf])
def test_what_is_no_latency_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="not a latency"):
        judge_exact(1.0, wrong, 0.03)
    with pytest.raises(ValueError, match="not a latency"):
        estimate_ratio([Pair([1.0] * 30, [1.0] * 29 + [wrong])])
    with pytest.raises(ValueError, match="no samples"):
        estimate_ratio([Pair([], [1.0])])


def test_one_pair_of_runs_is_never_taken_for_more_certain_than_runs_are_alike() -> None:
    """30 samples without any noise say nothing of how another run would have come out."""
    estimate = estimate_ratio([Pair([100.0] * 30, [104.5] * 30)])
    assert estimate.error == pytest.approx(0.02) and judge([estimate], 0.03)[0].verdict is not Verdict.SLOWER
    assert judge([estimate_ratio([Pair([100.0] * 30, [115.0] * 30)])], 0.03)[0].verdict is Verdict.SLOWER


def test_several_pairs_that_agree_are_certain() -> None:
    pairs = [Pair(quiet_run(100, seed), quiet_run(104, 100 + seed)) for seed in range(10)]
    assert judge([estimate_ratio(pairs)], 0.03)[0].verdict is Verdict.SLOWER
    assert judge([estimate_ratio([Pair(pair.new, pair.base) for pair in pairs])], 0.03)[0].verdict is Verdict.FASTER
    # As certain, but below the threshold.
    assert judge([estimate_ratio(pairs)], 0.05)[0].verdict is Verdict.SAME


def test_outliers_do_not_matter() -> None:
    spoiled = [value * (2 if place % 6 == 0 else 1) for place, value in enumerate(quiet_run(100, 1))]
    assert abs(estimate_ratio([Pair(quiet_run(100, 2), spoiled)]).change) < 0.005


def test_too_few_samples_and_too_much_noise_are_said() -> None:
    (few,) = judge([estimate_ratio([Pair([100.0] * 5, [101.0] * 5)])], 0.03)
    assert few.verdict is Verdict.TOO_NOISY and math.isinf(few.detects)
    wild = [estimate_ratio([Pair(quiet_run(100, seed, 0.3), quiet_run(100, seed + 50, 0.3))]) for seed in range(4)]
    for judgement in judge(wild, 0.03):
        assert judgement.verdict is Verdict.TOO_NOISY and judgement.detects > 0.1


def test_same_excludes_a_slowdown_beyond_the_threshold() -> None:
    """Evidence for a slowdown may be missing because the runs say nothing: no significance is not yet the same speed."""
    for log_ratio, verdict in ((0.0, Verdict.TOO_NOISY), (0.02, Verdict.TOO_NOISY), (-0.02, Verdict.SAME)):
        assert judge([Estimate(log_ratio, 0.021, math.inf, 1)], 0.03)[0].verdict is verdict
    # Fourteen pairs exclude it from equal libraries, but not where the change is close to the threshold, though below it.
    pairs = [Pair(quiet_run(100, seed, 0.02), quiet_run(100, 100 + seed, 0.02)) for seed in range(14)]
    assert judge([estimate_ratio(pairs)], 0.03)[0].verdict is Verdict.SAME
    assert (
        judge([estimate_ratio([Pair(pair.base, [value * 1.026 for value in pair.new]) for pair in pairs])], 0.03)[0].verdict
        is Verdict.TOO_NOISY
    )


def test_few_pairs_that_agree_by_chance_are_not_certain() -> None:
    """Two ratios of 2 % say no more of a third one than what is known of runs; with a dozen pairs that differ little, it would be 2 %."""
    for count, verdict in ((2, Verdict.TOO_NOISY), (12, Verdict.SAME)):
        estimate = estimate_ratio([Pair([100.0] * 30, [102.0] * 30)] * count)
        assert estimate.error == 0 and judge([estimate], 0.03)[0].verdict is verdict
    # Runs too short to know their noise count by how their ratios differ.
    short = [Pair(quiet_run(100, seed)[:5], quiet_run(100, 50 + seed)[:5]) for seed in range(14)]
    assert [judge([estimate_ratio(short[:count])], 0.03)[0].verdict for count in (1, 2, 14)] == [*[Verdict.TOO_NOISY] * 2, Verdict.SAME]


def test_more_variants_need_more_certainty() -> None:
    """The same runs that are an alarm alone are none among many."""
    suspect = Estimate(0.07, 0.02, math.inf, 1)
    assert judge([suspect], 0.03)[0].verdict is Verdict.SLOWER
    others = [Estimate(0.0, 0.02, math.inf, 1)] * 99
    assert judge([suspect, *others], 0.03)[0].verdict is Verdict.TOO_NOISY


def plain_error(samples: Sequence[float]) -> float:
    """Return the standard error of a median's logarithm by SciPy's bootstrap over blocks, which holds all resamples at once."""
    logs = np.log(samples)
    length = min(5, len(logs) // 4)
    blocks = logs[len(logs) % length :].reshape(-1, length)

    def median(picked: Any, axis: int) -> Any:
        return np.median(blocks[picked].reshape(*picked.shape[:-1], -1), axis=axis)

    places, random = (np.arange(len(blocks)),), np.random.default_rng(0)
    found = stats.bootstrap(places, median, n_resamples=200, method="percentile", rng=random, vectorized=True)
    return float(found.standard_error)


@given(st.integers(8, 3000), st.integers(0, 9), st.sampled_from([0.02, 1.0]), st.integers(0, 4), st.booleans())
@settings(max_examples=40)
def test_the_error_of_a_run_is_that_of_the_plain_bootstrap(size: int, seed: int, noise: float, digits: int, rising: bool) -> None:
    """Bit for bit: with ties, with outliers, and with samples in order, whose blocks are as unlike as can be."""
    samples = np.round(np.exp(np.random.default_rng(seed).normal(5, noise, size)), digits) + 1
    run = (np.sort(samples) if rising else samples).tolist()
    error = estimate_ratio([Pair(run, run)]).error
    assert error == math.sqrt(2 * RUN_TO_RUN**2 + 2 * plain_error(run) ** 2)


def test_long_runs_take_little_time_and_memory() -> None:
    """The plain bootstrap takes ten times as long, and 700 MB."""
    run = np.random.default_rng(0).normal(100, 2, 200_000).tolist()
    tracemalloc.start()
    try:
        started = time.process_time()
        assert estimate_ratio([Pair(run, run[::-1])]).error == pytest.approx(RUN_TO_RUN * math.sqrt(2), rel=1e-3)
        assert time.process_time() - started < 3 and tracemalloc.get_traced_memory()[1] < 32e6
    finally:
        tracemalloc.stop()


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm(values: list[float]) -> None:
    corrected = holm(values)
    assert all(value <= other <= min(1.0, value * len(values)) for value, other in zip(values, corrected, strict=True))
    order = sorted(range(len(values)), key=lambda index: values[index])
    assert [corrected[index] for index in order] == sorted(corrected)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_only_what_is_suspicious_is_repeated_in_turns() -> None:
    first = {
        "slow": estimate_ratio([Pair(quiet_run(100, 1), quiet_run(106, 2))]),
        "unlucky": estimate_ratio([Pair(quiet_run(100, 3), quiet_run(106, 4))]),
        "fast": estimate_ratio([Pair(quiet_run(100, 5), quiet_run(95, 6))]),
        "gone": estimate_ratio([Pair(quiet_run(100, 7), quiet_run(115, 8))]),
    }
    asked: list[tuple[str, bool]] = []

    def measure(name: str, base_first: bool) -> Pair | None:
        asked.append((name, base_first))
        new = {"slow": 106, "unlucky": 100}
        seed = 1000 * len(asked)
        return Pair(quiet_run(100, seed), quiet_run(new[name], seed + 1)) if name in new else None

    settled = settle(first, measure, 0.03)
    turns = {name: [base_first for other, base_first in asked if other == name] for name in first}
    assert turns["fast"] == [] and turns["gone"] == [True] and turns["unlucky"] == [True, False, True]
    assert turns["slow"] == [True, False] * (MOST_PAIRS // 2)
    assert settled["fast"] == first["fast"] and settled["gone"] == first["gone"]
    assert not is_suspicious(settled["unlucky"], 0.03)
    verdicts = dict(zip(settled, (judgement.verdict for judgement in judge(list(settled.values()), 0.03)), strict=True))
    assert verdicts["slow"] is Verdict.SLOWER and verdicts["unlucky"] is Verdict.SAME


def test_the_runs_that_raised_a_suspicion_do_not_decide_it() -> None:
    def measure(name: str, base_first: bool) -> Pair:
        return Pair(quiet_run(100, 1), quiet_run(100, 2))

    first = {"unlucky": estimate_ratio([Pair([100.0] * 30, [200.0] * 30)])}
    assert abs(settle(first, measure, 0.03)["unlucky"].change) < 0.01
