"""How often a board's clock is asked: until times are steady, often and long enough, and not for ever."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from tvmmobile.system.clock import NS_PER_MS, ClockPlan, sample_clock


class Board:
    """Runs that take `base` ns once warm, and more before; `noise` is relative."""

    def __init__(self, base: float, cold_runs: int = 0, noise: float = 0.0) -> None:
        self.base, self.cold_runs, self.noise = base, cold_runs, noise
        self.rng = random.Random(1)
        self.goes: list[int] = []
        self.runs = 0

    def __call__(self, count: int) -> Sequence[float]:
        self.goes.append(count)
        return [self._run() for _ in range(count)]

    def _run(self) -> float:
        self.runs += 1
        cold = 1.0 + max(0, self.cold_runs - self.runs) / max(self.cold_runs, 1)
        return self.base * cold * (1 + self.noise * (2 * self.rng.random() - 1))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.floats(1e3, 1e9), st.integers(1, 60), st.integers(0, 2000), st.integers(0, 5000))
def test_enough_samples_and_no_more_than_the_limit_allows(base: float, repeat: int, least_ms: int, most_ms: int) -> None:
    board = Board(base)
    samples = sample_clock(board, ClockPlan(repeat=repeat, min_total_ms=least_ms, max_total_ms=most_ms)).samples_ns
    total, limit = sum(samples), most_ms * NS_PER_MS
    if most_ms and repeat * base > limit:
        assert len(samples) == max(1, int(limit / base))
    else:
        assert len(samples) >= repeat
    if not most_ms or limit >= least_ms * NS_PER_MS + base:
        assert total >= least_ms * NS_PER_MS * 0.999
    if most_ms:
        assert total <= max(limit, base) * 1.001


def test_samples_are_taken_in_one_go_when_times_are_steady() -> None:
    board = Board(1e6, cold_runs=60, noise=0.001)
    sampled = sample_clock(board, ClockPlan(settle=0.02, repeat=30, max_total_ms=5000))
    assert sampled.steady and len(sampled.samples_ns) == 30
    assert board.goes[-1] == 31, "the first run after a pause does not count"

    assert max(sampled.samples_ns) < 1.05e6


def test_a_clock_that_rises_late_is_waited_for() -> None:
    begin = time.monotonic()

    def run(count: int) -> list[float]:
        time.sleep(0.005)
        return [2e6 if time.monotonic() - begin < 0.04 else 1e6] * count

    hasty = sample_clock(run, ClockPlan(settle=0.02, repeat=3, max_total_ms=60_000))
    assert hasty.steady and max(hasty.samples_ns) == 2e6, "two windows at the low clock agree"
    patient = sample_clock(run, ClockPlan(settle=0.02, warm_s=0.06, repeat=3, max_total_ms=60_000))
    assert patient.steady and set(patient.samples_ns) == {1e6}


def test_what_never_settles_is_timed_all_the_same_and_says_so() -> None:
    board = Board(1e6, noise=0.9)
    sampled = sample_clock(board, ClockPlan(settle=1e-9, repeat=5, max_total_ms=100))
    assert not sampled.steady and len(sampled.samples_ns) == 5
    assert board.runs * 1e6 < 2.2 * 100 * NS_PER_MS


def test_one_sample_is_one_run() -> None:
    board = Board(5e6)
    assert len(sample_clock(board, ClockPlan()).samples_ns) == 1 and board.runs == 1
