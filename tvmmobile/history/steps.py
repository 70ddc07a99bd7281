"""Finds the commits at which a latency changed for good. Pure: nothing is run or read here.

The logarithms of a line of latencies are cut into segments of constant level, by the cut of least squares with a penalty for each step
(optimal partitioning: Jackson et al. 2005, An algorithm for optimal partitioning of data on an interval). A step stays if Student's t
between its two segments is significant at `ALPHA` after a correction for the places at which it might have been found (Bonferroni). The
noise is estimated from the differences of neighbours, which steps hardly affect, together with the spread that runs are known to have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import stats

from tvmmobile.gate.statistics import RUN_TO_RUN

#: Chance that a line without any change shows a step, at most.
ALPHA = 0.02
#: Confidence of a step's size, and of the commits that it may have come with.
CONFIDENCE = 0.95
#: The known spread of runs counts like this many runs, as in the gate.
_KNOWN_FREEDOM = 12
#: Degrees of freedom of a median absolute difference for each value: its efficiency for normal noise.
_EFFICIENCY = 0.37
#: A latency that differs by more standard deviations than this from each of its neighbours is a spike.
_SPIKE, _NEAR = 4.0, 2
#: Modelled latencies that differ by no more than this share are equal: files hold them rounded.
_EQUAL = 1e-6
#: Weights of a place and its neighbours in the choice of a step's place. Noise often makes two places, two apart, about as likely: the
#: place between them is then at most one off. A slightly larger weight for the place itself decides when one place stands out.
_CLOSE = (1.0, 1.1, 1.0)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """A lasting change of the latency between two commits.

    Attributes:
        at: index of the first latency of the new level; chosen so that the step is at most one off as often as possible.
        first, last: the step is at one of these indices, `CONFIDENCE` sure.
        change: the new level over the old one, less 1.
        low, high: limits of `change`, `CONFIDENCE` sure.
        p: probability of such a step anywhere in a line without one; 0 for modelled latencies, which have no noise.
    """

    at: int
    first: int
    last: int
    change: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Segmentation:
    """The levels, steps and outliers of a series of latencies.

    Attributes:
        steps: the steps, in order.
        levels: latency of each segment, geometric mean, one more than there are steps; in the latencies' unit.
        spikes: indices of single latencies far from all their neighbours, which belong to no level.
        noise: standard deviation of a single run, as a share; 0 for modelled latencies.
    """

    steps: tuple[Step, ...]
    levels: tuple[float, ...]
    spikes: tuple[int, ...]
    noise: float


def find_steps(latencies: Sequence[float], runs: Sequence[int], exact: bool) -> Segmentation:
    """Find the steps in a line of latencies.

    Args:
        latencies: latency of each commit, in the order of the commits; geometric means of its runs.
        runs: number of runs of each commit.
        exact: they are modelled, so that each change is one of the code.
    """
    values, weights = np.log(np.asarray(latencies, float)), np.asarray(runs, float)
    if exact or len(values) < 2:
        return _exact(values)
    noise, freedom = _noise(values, weights)
    spikes = _spikes(values, weights, noise)
    kept = np.setdiff1d(np.arange(len(values)), spikes)
    line = _Line(values[kept], weights[kept], noise, freedom)
    cuts = line.significant(line.best_cuts())
    if cuts:
        # Differences across steps are among those that the noise was estimated from: now they can be left out.
        noise, freedom = _noise(values[kept], weights[kept], cuts)
        line = _Line(values[kept], weights[kept], noise, freedom)
        cuts = line.significant(line.best_cuts())
    bounds = [0, *cuts, len(kept)]
    steps = [line.step(*place) for place in zip(bounds, bounds[1:], bounds[2:], strict=False)]
    at = [Step(int(kept[step.at]), int(kept[step.first]), int(kept[step.last]), step.change, step.low, step.high, step.p) for step in steps]
    levels = [math.exp(line.mean(begin, end)) for begin, end in pairwise(bounds)]
    return Segmentation(tuple(at), tuple(levels), tuple(map(int, spikes)), noise)


def _exact(values: Array) -> Segmentation:
    """Return every change of modelled latencies, or no step in a single latency."""
    cuts = [index for index in range(1, len(values)) if abs(values[index] - values[index - 1]) > _EQUAL]
    changes = [math.expm1(values[index] - values[index - 1]) for index in cuts]
    levels = [math.exp(values[index]) for index in (0, *cuts) if len(values)]
    steps = [Step(index, index, index, change, change, change, 0.0) for index, change in zip(cuts, changes, strict=True)]
    return Segmentation(tuple(steps), tuple(levels), (), 0.0)


def _noise(values: Array, weights: Array, cuts: Sequence[int] = ()) -> tuple[float, float]:
    """Return the standard deviation of one run and its degrees of freedom, averaged with what is known of runs (a moderated t)."""
    differences = np.delete(np.abs(np.diff(values)) / np.sqrt(1 / weights[1:] + 1 / weights[:-1]), [cut - 1 for cut in cuts])
    seen, freedom = float(np.median(differences)) / float(stats.norm.ppf(0.75)), _EFFICIENCY * len(differences)
    variance = (_KNOWN_FREEDOM * RUN_TO_RUN**2 + freedom * seen**2) / (_KNOWN_FREEDOM + freedom)
    return math.sqrt(variance), _KNOWN_FREEDOM + freedom


def _spikes(values: Array, weights: Array, noise: float) -> npt.NDArray[np.intp]:
    """Return indices of latencies far from all neighbours: a single run of a busy board is not a change of the code."""
    far = np.ones(len(values), bool)
    for shift in range(1, _NEAR + 1):
        differs = np.abs(values[shift:] - values[:-shift]) > _SPIKE * noise * np.sqrt(1 / weights[shift:] + 1 / weights[:-shift])
        far[shift:] &= differs
        far[:-shift] &= differs
    return np.flatnonzero(far & (weights == 1)) if len(values) > _NEAR else np.arange(0)


class _Line:
    """Sums over latencies, from which the cost of any segment follows at once."""

    def __init__(self, values: Array, weights: Array, noise: float, freedom: float) -> None:
        # The first value as origin keeps differences of sums exact.
        self._shift = float(values[0])
        scaled = (values - self._shift) / noise
        self._weight, self._sum, self._square = (
            np.concatenate([[0.0], np.cumsum(each)]) for each in (weights, weights * scaled, weights * scaled**2)
        )
        self._noise, self._freedom, self.count = noise, freedom, len(values)

    def mean(self, begin: int, end: int) -> float:
        """Return the mean logarithm of a segment."""
        return self._shift + self._noise * float((self._sum[end] - self._sum[begin]) / (self._weight[end] - self._weight[begin]))

    def _cost(self, begin: npt.NDArray[np.intp] | int, end: npt.NDArray[np.intp] | int) -> Array:
        """Return sums of squares around the means of segments, in units of the noise."""
        segment: Array = self._sum[end] - self._sum[begin]
        total: Array = self._square[end] - self._square[begin] - segment**2 / (self._weight[end] - self._weight[begin])
        return total

    def best_cuts(self) -> list[int]:
        """Return the first indices of all segments but the first, for the cheapest cut of the line into segments of two or more."""
        penalty = 2 * math.log(max(self.count, 2))
        cheapest, origin = np.full(self.count + 1, np.inf), np.zeros(self.count + 1, int)
        cheapest[0] = -penalty
        for end in range(2, self.count + 1):
            begins = np.arange(end - 1)
            costs = cheapest[: end - 1] + self._cost(begins, end) + penalty
            origin[end] = int(np.argmin(costs))
            cheapest[end] = costs[origin[end]]
        cuts, end = [], self.count
        while origin[end] > 0:
            end = int(origin[end])
            cuts.append(end)
        return cuts[::-1]

    def significant(self, cuts: list[int]) -> list[int]:
        """Leave out the least significant step until all are."""
        while cuts:
            bounds = [0, *cuts, self.count]
            ps = [self._difference(*place)[2] for place in zip(bounds, bounds[1:], bounds[2:], strict=False)]
            if max(ps) <= ALPHA:
                break
            del cuts[ps.index(max(ps))]
        return cuts

    def step(self, begin: int, cut: int, end: int) -> Step:
        """Return the step between two segments and its possible indices, equally likely beforehand, weighed by likelihood."""
        places = np.arange(begin + 1, end)
        costs = self._cost(begin, places) + self._cost(places, end)
        likelihood = np.exp((costs.min() - costs) / 2)
        order = np.argsort(-likelihood, kind="stable")
        enough = int(np.searchsorted(np.cumsum(likelihood[order]), CONFIDENCE * likelihood.sum())) + 1
        likely = places[order[:enough]]
        at = int(places[int(np.argmax(np.convolve(likelihood, _CLOSE)[1:-1]))])
        size, error, p = self._difference(begin, cut, end)
        reach = error * float(stats.t.isf((1 - CONFIDENCE) / 2, self._freedom))
        low, change, high = (math.expm1(value) for value in (size - reach, size, size + reach))
        return Step(at, min(at, int(likely.min())), max(at, int(likely.max())), change, low, high, p)

    def _difference(self, begin: int, cut: int, end: int) -> tuple[float, float, float]:
        """Return the difference of two neighbouring segments' means, its standard error, and its p-value for all places together."""
        size = self.mean(cut, end) - self.mean(begin, cut)
        before, after = (float(self._weight[stop] - self._weight[start]) for start, stop in ((begin, cut), (cut, end)))
        error = self._noise * math.sqrt(1 / before + 1 / after)
        return size, error, min(1.0, (self.count - 1) * 2 * float(stats.t.sf(abs(size) / error, self._freedom)))
