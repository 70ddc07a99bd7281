"""Fits latency against multiply-adds, and finds the variants that depart from the α²ρ² law of cost, as far as the numbers tell.

The law starts at the largest variant of a network. A variant departs from it in two ways: its multiply-adds themselves do not fall as α²ρ²
(Howard et al. 2017, MobileNets, section 3.3, has depthwise and first layers fall as α only), or each of them takes longer. The first
follows from the layers; the terms of a modelled latency and the kernels' times explain the second.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tvmmobile.results.file import Context, VariantResult
from tvmmobile.results.report.kernel_rows import OTHER, kernel_us

#: A latency follows the law if it deviates by less than this fraction; smaller parts are not named.
TOLERANCE = 0.05
_SMALLEST_PART = 0.01
_MOST_PARTS = 2
_TERMS = {"core": "core cycles", "cache_hits": "loads from outer caches", "lines_read": "lines read from memory", "stores": "stores"}
_TERMS |= {"loads_from_memory": "loads from memory"}  # in results from before the term covered all lines
#: Fewer points than this make a fitted exponent meaningless.
MIN_FIT_POINTS = 3


@dataclass(frozen=True)
class PowerLaw:
    """Approximates latency_us as factor · macs ^ exponent.

    Attributes:
        r_squared: share of the logarithms' variance it explains.
        points: number of variants it was fitted to.
    """

    factor: float
    exponent: float
    r_squared: float
    points: int

    def latency_us(self, macs: float) -> float:
        """Return the fitted latency in microseconds."""
        return float(self.factor * macs**self.exponent)


def fit_power_law(macs: Sequence[float], latencies_us: Sequence[float]) -> PowerLaw | None:
    """Fit least squares on logarithms; `None` with fewer than `MIN_FIT_POINTS` different counts, or where a value has no logarithm."""
    pairs = list(zip(macs, latencies_us, strict=True))
    if len(set(macs)) < MIN_FIT_POINTS or not all(0 < value < math.inf for pair in pairs for value in pair):
        return None
    x, y = [math.log(first) for first, _ in pairs], [math.log(second) for _, second in pairs]
    slope, intercept = statistics.linear_regression(x, y)
    r_squared = statistics.correlation(x, y) ** 2 if len(set(y)) > 1 else 1.0
    return PowerLaw(math.exp(intercept), slope, r_squared, len(pairs))


@dataclass(frozen=True)
class Departure:
    """Compares a variant with the law.

    Attributes:
        law_us: latency that the law gives this variant, from the largest variant's.
        ratio: latency over the law's: `macs_ratio` times `time_ratio`.
        macs_ratio: multiply-adds over the law's.
        time_ratio: time for each multiply-add over the largest variant's.
        peak_share: share of the FMA peak, as a fraction; `None` if the clock is unknown.
        shares: share of each layer type with a larger share of the multiply-adds than in the largest variant, here and there.
        terms: changes of a modelled latency's terms: of each one's time for a multiply-add, as shares of the largest variant's.
        kinds: layer types that take longer than the law has them take, in microseconds more.

    The last three name what weighs most, the weightiest first, and are empty for a variant that follows the law.
    """

    law_us: float
    ratio: float
    macs_ratio: float
    time_ratio: float
    peak_share: float | None
    shares: Mapping[str, tuple[float, float]]
    terms: Mapping[str, float]
    kinds: Mapping[str, float]

    @property
    def departs(self) -> bool:
        """True if the variant is further from the law than `TOLERANCE`."""
        return abs(self.ratio - 1) > TOLERANCE


def departures(variants: Sequence[VariantResult], context: Context) -> list[Departure]:
    """Compare each variant of one network and setting with the law through the one with most multiply-adds; none for one alone."""
    if len({(variant.alpha, variant.resolution) for variant in variants}) < 2:
        return []
    largest = reference_of(variants)
    return [_departure(variant, largest, context) for variant in variants]


def reference_of(variants: Sequence[VariantResult]) -> VariantResult:
    """Return the variant that the law starts at."""
    return max(variants, key=lambda variant: variant.macs)


def _departure(variant: VariantResult, largest: VariantResult, context: Context) -> Departure:
    share = (variant.alpha * variant.resolution / (largest.alpha * largest.resolution)) ** 2
    law_us = largest.latency_us * share
    macs_ratio = variant.macs / (largest.macs * share)
    ratio = variant.latency_us / law_us
    time_ratio = ratio / macs_ratio
    peak_share = variant.peak_share(context)
    if abs(ratio - 1) <= TOLERANCE:
        return Departure(law_us, ratio, macs_ratio, time_ratio, peak_share, {}, {}, {})
    shares = _grown_shares(variant, largest) if abs(macs_ratio - 1) >= _SMALLEST_PART else {}
    slower = abs(time_ratio - 1) >= _SMALLEST_PART
    terms, kinds = (_term_parts(variant, largest), _kind_parts(variant, largest)) if slower else ({}, {})
    return Departure(law_us, ratio, macs_ratio, time_ratio, peak_share, shares, terms, kinds)


def _grown_shares(variant: VariantResult, largest: VariantResult) -> dict[str, tuple[float, float]]:
    """Return the layer types that have a larger share of the multiply-adds than in the largest variant: their share here and there."""
    mine, theirs = (_by_kind(each, lambda kernel_macs, _: float(kernel_macs)) for each in (variant, largest))
    if mine is None or theirs is None:
        return {}
    mine, theirs = _comparable(mine, theirs)
    total, reference = sum(mine.values()), sum(theirs.values())
    if not total or not reference:
        return {}
    shares = {kind: (mine[kind] / total, theirs.get(kind, 0.0) / reference) for kind in mine}
    return {kind: shares[kind] for kind in _largest({kind: here - there for kind, (here, there) in shares.items()})}


def _term_parts(variant: VariantResult, largest: VariantResult) -> dict[str, float]:
    """Return how much each term of a modelled latency changes the time per multiply-add, as a share of the largest variant's."""
    unit = largest.latency_us / 1e3 / largest.macs
    names = [name for name in variant.term_ms if name in largest.term_ms]
    changes = {
        _TERMS.get(name, name.replace("_", " ")): (variant.term_ms[name] / variant.macs - largest.term_ms[name] / largest.macs) / unit
        for name in names
    }
    slower = variant.latency_us / variant.macs > largest.latency_us / largest.macs
    chosen = _largest(changes if slower else {name: -change for name, change in changes.items()})
    return {name: changes[name] for name in chosen}


def _kind_parts(variant: VariantResult, largest: VariantResult) -> dict[str, float]:
    """Return the layer types that exceed the law's prediction from the largest variant, with the excess in microseconds."""
    mine, theirs = (_by_kind(each, lambda _, kernel_time: kernel_time) for each in (variant, largest))
    if mine is None or theirs is None or variant.latency_us / variant.macs <= largest.latency_us / largest.macs:
        return {}
    mine, theirs = _comparable(mine, theirs)
    scale = variant.macs / largest.macs
    extra = {kind: time - theirs.get(kind, 0.0) * scale for kind, time in mine.items()}
    chosen = _largest({kind: time / variant.latency_us for kind, time in extra.items()})
    return {kind: extra[kind] for kind in chosen}


def _by_kind(variant: VariantResult, value: Callable[[int, float], float]) -> dict[str, float] | None:
    """Return the sum over the kernels of each layer type; `None` where a kernel has no type or was not timed."""
    sums: dict[str, float] = {}
    for kernel in variant.kernels:
        time = kernel_us(variant, kernel)
        if not kernel.kind or (time is None and kernel.macs):
            return None
        sums[kernel.kind] = sums.get(kernel.kind, 0.0) + value(kernel.macs, time or 0.0)
    return sums or None


def _comparable(mine: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Join types in these sums that either side has fused: a fused kernel's parts cannot be separated."""
    groups: list[set[str]] = []
    for kind in (*mine, *theirs):
        layers = set(kind.split(" + "))
        touching = [group for group in groups if group & layers]
        groups = [group for group in groups if not group & layers] + [layers.union(*touching)]

    def joined(sums: Mapping[str, float]) -> dict[str, float]:
        found: dict[str, float] = {}
        for kind, value in sums.items():
            group = next(group for group in groups if set(kind.split(" + ")) <= group)
            name = " with ".join(sorted(group)) if group != {OTHER} else "other layers"
            found[name] = found.get(name, 0.0) + value
        return found

    return joined(mine), joined(theirs)


def _largest(parts: Mapping[str, float]) -> list[str]:
    """Return the names of the largest parts that are worth naming."""
    order = sorted((name for name in parts if parts[name] >= _SMALLEST_PART), key=lambda name: -parts[name])
    return order[:_MOST_PARTS]
