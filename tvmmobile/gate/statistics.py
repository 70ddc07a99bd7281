"""The gate's statistics: decides from runs of an old and a new library whether the new one is slower. Pure: nothing is run or read here.

Samples of one run depend on one another, have outliers and drift, and two runs of the same library differ by more than the samples of
either suggest. So a run counts by the median of its samples. For one pair of runs the error of their ratio is that of the medians (a
bootstrap over blocks of neighbouring samples) plus the known spread between runs (`RUN_TO_RUN`); for several interleaved
pairs it follows from the ratios themselves (Student's t).

A slowdown counts if it is significant at `ALPHA` for all variants together (Holm), and exceeds the threshold. "Same" is not a lack of
significance but an equivalence test: the upper limit of the slowdown at `CONFIDENCE` is below the threshold. `./studies/run simulate_gate`
counts how often either goes wrong; docs/gate.md has the results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import stats

#: Chance of a false alarm on any of the variants compared.
ALPHA = 0.01
#: Standard deviation of the medians of separate runs of one library, as a share: 1 % between runs, and as much for a drift of 2 % over a
#: run, which moves its median by half of that.
RUN_TO_RUN = math.hypot(0.01, 0.01)
#: Prior knowledge of the spread between runs counts as much as this many observed pairs.
_KNOWN_FREEDOM = 12
#: Confidence with which "same" excludes a slowdown beyond the threshold.
CONFIDENCE = 0.95
#: This confidence while more pairs of runs may follow: each look is another chance to clear a slow variant, and all together leave 90 %.
_CONFIDENCE_EARLY = 0.99
#: The error of a run with fewer samples cannot be estimated.
MIN_SAMPLES = 8
#: Most interleaved pairs of runs to decide a suspicion.
MOST_PAIRS = 14
#: Samples further apart than this hardly depend on one another; and blocks that a run is divided into, at least.
_BLOCK, _MIN_BLOCKS = 5, 4
_RESAMPLES = 200
#: Samples of all resamples that are in memory at once, unless a single one has more.
_AT_ONCE = 1 << 18

Samples = Sequence[float]
Key = TypeVar("Key")


class Verdict(StrEnum):
    """The gate's verdict on a variant."""

    SLOWER = "slower"
    FASTER = "faster"
    SAME = "same"
    TOO_NOISY = "too noisy"
    NOT_COMPARABLE = "not comparable"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Pair:
    """Samples of a run of the old library and one of the new one, in order and of any unit, at least one each."""

    base: Samples
    new: Samples


@dataclass(frozen=True)
class Estimate:
    """Estimates how much slower the new library is.

    Attributes:
        log_ratio: logarithm of new over old latency.
        error: its standard error, infinite if unknown; from several pairs, by how much they differ.
        freedom: degrees of freedom of the error.
        pairs: number of pairs of runs behind the estimate.
        known: the error that the medians' errors and `RUN_TO_RUN` lead to, however alike several pairs are; infinite if unknown.
    """

    log_ratio: float
    error: float
    freedom: float
    pairs: int
    known: float = math.inf

    @property
    def change(self) -> float:
        """The new latency over the old one, less 1."""
        return math.expm1(self.log_ratio)

    def p_value(self, sign: int) -> float:
        """Return the chance of such an effect from equal libraries: a slowdown (`sign` 1) or a speed-up (-1)."""
        if self.error == 0:
            return 0.0 if sign * self.log_ratio > 0 else 1.0
        return float(stats.t.sf(sign * self.log_ratio / self.error, self.freedom))

    def least_significant(self, hypotheses: int) -> float:
        """Return the smallest slowdown that is certainly significant among that many hypotheses, as a share; infinite if there is none."""
        if math.isinf(self.error):
            return math.inf
        return math.expm1(min(float(stats.t.isf(ALPHA / hypotheses, self.freedom)) * self.error, 700.0))

    def excludes(self, threshold: float, confidence: float) -> bool:
        """Return whether no slowdown beyond the threshold is compatible with the runs, at this one-sided confidence."""
        error, freedom = self._spread()
        return self.log_ratio + float(stats.t.isf(1 - confidence, freedom)) * error <= math.log1p(threshold)

    def _spread(self) -> tuple[float, float]:
        """Return standard error and degrees of freedom, from the known spread of runs and the spread of these pairs.

        Their variances are averaged by degrees of freedom (Smyth 2004, Linear models and empirical Bayes methods: a moderated t).
        """
        if self.pairs == 1:
            return self.error, min(self.freedom, _KNOWN_FREEDOM)
        if math.isinf(self.known):
            # Two or three ratios may agree by chance; runs differ by `RUN_TO_RUN` all the same.
            return max(self.error, RUN_TO_RUN * math.sqrt(2 / self.pairs)), self.freedom
        freedom = _KNOWN_FREEDOM + self.freedom
        return math.sqrt((_KNOWN_FREEDOM * self.known**2 + self.freedom * self.error**2) / freedom), freedom


@dataclass(frozen=True)
class Judgement:
    """A verdict with its evidence.

    Attributes:
        change: new over old latency, less 1.
        p: probability of a slowdown from equal libraries, corrected for the number of variants; `None` where latencies are deterministic.
        detects: a slowdown beyond this share would not have been called the same.
        pairs: runs of each side.
    """

    verdict: Verdict
    change: float
    p: float | None
    detects: float
    pairs: int


def check_samples(samples: Samples) -> None:
    """Raise `ValueError` unless there are samples, and all are positive finite numbers."""
    if not len(samples):
        raise ValueError("no samples")
    for value in samples:
        if not 0 < value < math.inf:
            raise ValueError(f"{value!r} is not a latency")


def judge_exact(base: float, new: float, threshold: float) -> Judgement:
    """Return the verdict on two latencies without noise, by the threshold alone; raise `ValueError` unless both are positive and finite."""
    check_samples((base, new))
    change = new / base - 1
    verdict = Verdict.SLOWER if change > threshold else Verdict.FASTER if change < -threshold else Verdict.SAME
    return Judgement(verdict, change, None, threshold, 1)


def judge(estimates: Sequence[Estimate], threshold: float) -> list[Judgement]:
    """Return the verdicts, in order, on variants that are compared together; changes up to `threshold` do not count.

    "Same" has `CONFIDENCE` for each variant alone: it excludes a slowdown beyond the threshold. A smaller one, or a speed-up, may be there.
    """
    slower = holm([estimate.p_value(1) for estimate in estimates])
    faster = holm([estimate.p_value(-1) for estimate in estimates])
    found = []
    for estimate, p_slower, p_faster in zip(estimates, slower, faster, strict=True):
        cleared = estimate.excludes(threshold, CONFIDENCE)
        detects = threshold if cleared else max(estimate.least_significant(len(estimates)), threshold)
        if p_slower <= ALPHA and estimate.change > threshold:
            verdict = Verdict.SLOWER
        elif p_faster <= ALPHA and estimate.change < -threshold:
            verdict = Verdict.FASTER
        else:
            verdict = Verdict.SAME if cleared else Verdict.TOO_NOISY
        found.append(Judgement(verdict, estimate.change, p_slower, detects, estimate.pairs))
    return found


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979, A simple sequentially rejective multiple test procedure)."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    corrected = [0.0] * len(values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = highest
    return corrected


def estimate_ratio(pairs: Sequence[Pair]) -> Estimate:
    """Estimate how much slower the new library is, from pairs of runs; raise `ValueError` without a pair, or for a bad sample."""
    if not pairs:
        raise ValueError("no runs")
    return combine([_estimate_pair(pair) for pair in pairs])


def without_spread(estimate: Estimate) -> Estimate:
    """Return a single pair's estimate for a machine with unknown spread between runs: it decides nothing alone."""
    return replace(estimate, error=math.inf, known=math.inf)


def _estimate_pair(pair: Pair) -> Estimate:
    """Return the estimate from one pair of runs; raise `ValueError` for a bad sample."""
    check_samples(pair.base)
    check_samples(pair.new)
    base, new = (np.asarray(side, dtype=np.float64) for side in (pair.base, pair.new))
    log_ratio = float(np.log(np.median(new)) - np.log(np.median(base)))
    parts = [_median_error(side) for side in (base, new)]
    variance = 2 * RUN_TO_RUN**2 + sum(error**2 for error, _ in parts)
    if math.isinf(variance):
        return Estimate(log_ratio, math.inf, 1.0, 1)
    # Satterthwaite: what runs differ by is known, so only the medians' errors cost degrees of freedom.
    spent = sum(error**4 / freedom for error, freedom in parts)
    return Estimate(log_ratio, math.sqrt(variance), variance**2 / spent if spent else math.inf, 1, math.sqrt(variance))


def combine(singles: Sequence[Estimate]) -> Estimate:
    """Combine estimates of single pairs of runs, at least one."""
    if len(singles) == 1:
        return singles[0]
    ratios, count = [single.log_ratio for single in singles], len(singles)
    known = math.sqrt(sum(single.known**2 for single in singles)) / count
    return Estimate(float(np.mean(ratios)), float(stats.sem(ratios)), count - 1, count, known)


def settle(
    first: Mapping[Key, Estimate],
    measure: Callable[[Key, bool], Pair | None],
    threshold: float,
    most_pairs: int = MOST_PAIRS,
    unwatched: Collection[Key] = (),
) -> dict[Key, Estimate]:
    """Repeat what may be slower, old and new library interleaved, until it is cleared or `most_pairs` pairs of runs are there.

    Only the pairs decide a suspicion: the runs that raised it were picked for being slow. Since pairs can only clear a variant
    before the last of them, looking at it after each one makes no false alarm likelier.

    Args:
        first: each variant's estimate from single runs.
        measure: runs both libraries of a variant, the old one first if so told; `None` where that cannot be done.
        unwatched: the variants whose spread between runs is not known; see `without_spread`. More pairs clear or convict them.

    Returns:
        The estimate to judge each variant by.
    """
    open_keys = [key for key, estimate in first.items() if is_suspicious(estimate, threshold)]
    singles: dict[Key, list[Estimate]] = {key: [] for key in open_keys}
    repeated: dict[Key, Estimate] = {}
    for number in range(most_pairs):
        for key in list(open_keys):
            # Old, new, new, old: a steady drift affects both sides equally.
            pair = measure(key, number % 2 == 0)
            if pair is None:
                open_keys.remove(key)
                continue
            single = _estimate_pair(pair)
            singles[key].append(without_spread(single) if key in unwatched else single)
            if len(singles[key]) > 1:
                repeated[key] = combine(singles[key])
                if not is_suspicious(repeated[key], threshold):
                    open_keys.remove(key)
    return {key: repeated.get(key, estimate) for key, estimate in first.items()}


def is_suspicious(estimate: Estimate, threshold: float) -> bool:
    """Return whether a slowdown beyond the threshold cannot be excluded so far."""
    return not estimate.excludes(threshold, CONFIDENCE if estimate.pairs == 1 else _CONFIDENCE_EARLY)


def _median_error(samples: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return standard error of the logarithm of a run's median, and its degrees of freedom; infinite with too few samples."""
    if len(samples) < MIN_SAMPLES:
        return math.inf, 1.0
    length = min(_BLOCK, len(samples) // _MIN_BLOCKS)
    count = len(samples) // length
    medians = _resampled_medians(np.log(samples[len(samples) - count * length :]), length)
    return float(np.std(medians, ddof=1)), float(count - 1)


def _resampled_medians(values: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """Return `_RESAMPLES` medians of values drawn in blocks of `length` with replacement, as many blocks as the values have.

    The values are sorted once. A resample then has its median where the counts of its sorted values reach half; counts of values far from
    the middle are only added up. So time and memory grow little faster than the number of values.
    """
    total, count = len(values), len(values) // length
    order = np.argsort(values, kind="stable")
    block_of = order // length
    # By Hoeffding's inequality, a median lies further from the middle with a probability below 1e-13, whatever the values.
    reach = math.ceil(4 * length * math.sqrt(count))
    first, end = max(0, total // 2 - reach), min(total, total // 2 + reach)
    smaller = np.bincount(block_of[:first], minlength=count)
    random, medians = np.random.default_rng(0), []
    for rows in _shares(_RESAMPLES, max(1, _AT_ONCE // total)):
        picked = random.integers(0, count, (rows, count))
        places = picked + count * np.arange(rows)[:, np.newaxis]
        times = np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count)
        seen = smaller[picked].sum(axis=1)[:, np.newaxis] + np.cumsum(times[:, block_of[first:end]], axis=1)
        middle = [order[first + np.argmax(seen > rank, axis=1)] for rank in ((total - 1) // 2, total // 2)]
        medians.append(values[middle].sum(axis=0) / 2)
    return np.concatenate(medians)


def _shares(whole: int, most: int) -> list[int]:
    """Return the parts of `whole`, none above `most`."""
    return [min(most, whole - start) for start in range(0, whole, most)]
