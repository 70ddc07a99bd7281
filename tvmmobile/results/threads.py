"""Picks the fastest of results of the same networks on several thread counts."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from tvmmobile.results.file import Results, VariantResult
from tvmmobile.system.errors import UserError

Timed = TypeVar("Timed", bound=Results)


def tried_counts(cores: int) -> tuple[int, ...]:
    """Return the thread counts to try on that many cores: powers of two, and all of them."""
    return (*(1 << power for power in range((cores - 1).bit_length())), cores)


def fastest(by_count: Sequence[Timed]) -> Timed:
    """Return the results of the thread count with the least latencies (geometric mean of all variants); each variant also gets its
    valid latencies on the others. A count with an invalid latency is only chosen if every count has one.

    Raises:
        UserError: a variant was not timed on each count.
    """
    found = {results.context.threads: {_key(variant): variant for variant in results.variants} for results in by_count}
    check_counts(found)
    best = min(
        list(filter(all_valid, by_count)) or by_count,
        key=lambda results: statistics.geometric_mean(variant.latency_us for variant in results.variants),
    )
    chosen = best.context.threads
    others = {count: variants for count, variants in found.items() if count != chosen}
    return replace(best, variants=tuple(_with_others(variant, others) for variant in best.variants))


def check_counts(by_count: Mapping[int, Collection[Hashable]]) -> None:
    """Raise `UserError` if the thread counts, the keys, do not all have the same networks."""
    if len({frozenset(networks) for networks in by_count.values()}) > 1:
        raise UserError(f"some networks have no library for one of {sorted(by_count)} threads.", "Time them one thread count at a time.")


def all_valid(results: Results) -> bool:
    """Return whether the latencies of all variants count."""
    return not any(variant.invalid for variant in results.variants)


def spoiled_sentence(by_count: Sequence[Results]) -> str:
    """Return a sentence on the thread counts that `fastest` does not choose because of invalid latencies; "" if it compares all."""
    spoiled = [results for results in by_count if not all_valid(results)]
    if not spoiled or len(by_count) == 1:
        return ""
    if len(spoiled) == len(by_count):
        return "note: each thread count has latencies that are not valid; the fastest is chosen all the same."
    counts = " or ".join(str(results.context.threads) for results in spoiled)
    return f"note: some latencies for a thread count of {counts} are not valid, so the fastest is chosen among the others."


def _key(variant: VariantResult) -> tuple[str | float, ...]:
    return variant.model, variant.alpha, variant.resolution, variant.input, variant.precision, variant.format, variant.network_sha256


def _with_others(variant: VariantResult, others: Mapping[int, Mapping[tuple[str | float, ...], VariantResult]]) -> VariantResult:
    same = {count: variants[_key(variant)] for count, variants in others.items()}
    return replace(variant, other_threads_us={str(count): other.latency_us for count, other in same.items() if not other.invalid})
