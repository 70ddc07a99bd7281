"""What is read off a set of variants: which of them no other beats, and how latency grows with multiply-adds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: Fewer points than this make a fitted exponent meaningless.
MIN_FIT_POINTS = 3


@dataclass(frozen=True)
class PowerLaw:
    """latency_us ≈ factor · macs ^ exponent.

    Attributes:
        r_squared: share of the logarithms' variance it explains.
        points: how many variants it was fitted to.
    """

    factor: float
    exponent: float
    r_squared: float
    points: int

    def latency_us(self, macs: float) -> float:
        """The fitted latency in microseconds."""
        return float(self.factor * macs**self.exponent)


def fit_power_law(macs: Sequence[float], latencies_us: Sequence[float]) -> PowerLaw | None:
    """Least squares on logarithms; `None` with fewer than `MIN_FIT_POINTS` different counts, or where a value has no logarithm."""
    pairs = list(zip(macs, latencies_us, strict=True))
    if len(set(macs)) < MIN_FIT_POINTS or not all(0 < value < math.inf for pair in pairs for value in pair):
        return None
    x, y = [math.log(first) for first, _ in pairs], [math.log(second) for _, second in pairs]
    slope, intercept = statistics.linear_regression(x, y)
    r_squared = statistics.correlation(x, y) ** 2 if len(set(y)) > 1 else 1.0
    return PowerLaw(math.exp(intercept), slope, r_squared, len(pairs))


def pareto_front(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Indices of the points that no other point beats: none costs at most as much, gains at least as much, and betters it in one of them.

    Returns:
        By ascending cost.
    """
    order = sorted(range(len(costs)), key=lambda index: (costs[index], -gains[index]))
    front: list[int] = []
    for index in order:
        same = bool(front) and (costs[front[-1]], gains[front[-1]]) == (costs[index], gains[index])
        if not front or same or gains[index] > gains[front[-1]]:
            front.append(index)
    return front
