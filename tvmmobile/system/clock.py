"""Repeats a timed run on a board until its times are steady, then often and long enough, up to a limit."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Runs of the first window; two windows in a row whose medians agree are called steady.
WINDOW = 5
#: Warming up may take this part of the time that sampling may take.
_WARMUP_SHARE = 0.5
NS_PER_MS = 1e6


@dataclass(frozen=True)
class ClockPlan:
    """A plan of runs.

    Attributes:
        settle: relative difference between the medians of two windows below which times are steady; 0 to skip the check.
        warm_s: least duration of the warm-up, if `settle` is not 0.
        repeat: least number of samples.
        min_total_ms: least duration of all samples together.
        max_total_ms: greatest duration of all samples together; 0 for no limit. At least one is taken.
    """

    settle: float = 0.0
    warm_s: float = 0.0
    repeat: int = 1
    min_total_ms: int = 0
    max_total_ms: int = 0


@dataclass(frozen=True)
class Samples:
    """Times of single runs in ns, in order, and whether they were steady before the first."""

    samples_ns: tuple[float, ...]
    steady: bool


def sample_clock(run: Callable[[int], Sequence[float]], plan: ClockPlan) -> Samples:
    """Warm up until times are steady, then take samples; `run` does the given number of runs at once and returns the time of each in ns."""
    limit_ns = plan.max_total_ms * NS_PER_MS if plan.max_total_ms else math.inf
    steady = plan.settle == 0.0 or _warm_up(run, plan.settle, plan.warm_s, limit_ns * _WARMUP_SHARE)
    samples = list(run(1))
    expected_ns = max(samples[0], 1.0)
    wanted = max(plan.repeat, math.ceil(plan.min_total_ms * NS_PER_MS / expected_ns))
    most = max(1, int(limit_ns / expected_ns)) if limit_ns < math.inf else wanted
    # One run more, and the first is dropped: it finds the board as a pause has left it.
    samples = list(run(min(wanted, most) + 1))[1:] if min(wanted, most) > 1 else samples
    return Samples(tuple(samples), steady)


def _warm_up(run: Callable[[int], Sequence[float]], settle: float, warm_s: float, limit_ns: float) -> bool:
    """Run windows, each twice as long as the last, until two in a row agree; return whether they did within `limit_ns`.

    With windows of equal length a slow drift would look steady, and two short ones at a low clock agree before the governor has raised it.
    """
    count, begin = WINDOW, time.monotonic()
    before, spent = statistics.median(window := run(count)), sum(window)
    while spent < limit_ns:
        count *= 2
        window = run(count)
        now = statistics.median(window)
        spent += sum(window)
        if abs(now - before) <= settle * before and time.monotonic() - begin >= warm_s:
            return True
        before = now
    return False
