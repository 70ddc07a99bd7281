"""Error rates of the gate's verdicts, counted on simulated runs of single variants with the noise that docs/gate.md states."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from studies.checks import simulate_gate
from tvmmobile.gate.statistics import CONFIDENCE, Verdict

#: What remains of the confidence where `regress` looks at a variant again and again.
REPEATED_CONFIDENCE = 0.9

RUNS = (1, 2, 3, 5)
#: Least number of equal variants that are called the same, by the number of runs a side: a gate that is never sure is useless.
LEAST_SAME = (0.27, 0.48, 0.66, 0.85)


def most_missed(comparisons: int, confidence: float) -> float:
    """Return the largest acceptable number of variants that are slower by the threshold and called the same: three standard deviations
    above the expected number.
    """
    return (1 - confidence) * comparisons + 3 * (confidence * (1 - confidence) * comparisons) ** 0.5


def check_runs(comparisons: int, most_alarms: Sequence[int]) -> None:
    """Judge equal variants, variants slower by the threshold, and slower ones, by each number of runs."""
    slowdowns = (0.0, simulate_gate.THRESHOLD, simulate_gate.SLOWDOWN)
    equal, doubtful, slower = simulate_gate.verdicts_by_runs(comparisons, 3, slowdowns, RUNS)
    for verdicts, least, most in zip(equal, LEAST_SAME, most_alarms, strict=True):
        assert verdicts[Verdict.SLOWER] <= most and verdicts[Verdict.SAME] >= least * comparisons
    assert all(verdicts[Verdict.SAME] <= most_missed(comparisons, CONFIDENCE) for verdicts in doubtful)
    assert all(verdicts[Verdict.SAME] <= 0.01 * comparisons for verdicts in slower)


def test_a_slowdown_is_not_called_the_same() -> None:
    check_runs(150, (1, 1, 1, 1))


@pytest.mark.long
@pytest.mark.parametrize(("drift", "most_alarms"), [(simulate_gate.DRIFT, (6, 3, 3, 3)), (0.0, (1, 1, 1, 1))])
def test_many_slowdowns_are_not_called_the_same(monkeypatch: pytest.MonkeyPatch, drift: float, most_alarms: Sequence[int]) -> None:
    """Runs drift up or down, or not at all, which is equivalent to equal drift in all runs. `ALPHA` of 600 is 6."""
    monkeypatch.setattr(simulate_gate, "DRIFT", drift)
    check_runs(600, most_alarms)


@pytest.mark.long
def test_repeats_leave_little_open() -> None:
    slowdowns = (0.0, simulate_gate.THRESHOLD, simulate_gate.SLOWDOWN)
    equal, doubtful, slower = (simulate_gate.verdicts_of_regress(600, 4, slowdown) for slowdown in slowdowns)
    assert equal[Verdict.SLOWER] <= 1 and equal[Verdict.TOO_NOISY] <= 6
    assert doubtful[Verdict.SAME] <= most_missed(600, REPEATED_CONFIDENCE)
    assert slower[Verdict.SAME] <= 6 and slower[Verdict.SLOWER] >= 0.95 * 600
