"""Describes latencies on several thread counts: which is fastest, and what each further core gains."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping

from tvmmobile.results.file import Results
from tvmmobile.results.report.wording import plural, signed
from tvmmobile.system.errors import some_of

#: Gain of up to twice as many threads below which the further cores are as good as wasted.
_LEAST_GAIN = 1.1


def thread_sentences(results: Results) -> list[str]:
    """Return sentences on the fastest thread count, counts not compared, variants where another one is faster, and wasted cores.

    There are none for a single count.
    """
    variants = [variant for variant in results.variants if variant.other_threads_us and not variant.invalid]
    if not variants:
        return []
    chosen, kind = results.context.threads, results.context.kind
    latencies = [{int(count): us for count, us in variant.other_threads_us.items()} | {chosen: variant.latency_us} for variant in variants]
    counts = sorted(set.intersection(*map(set, latencies)))
    mean = {count: statistics.geometric_mean(latency[count] for latency in latencies) for count in counts}
    gains = [f"{mean[count] / mean[chosen]:.2f} times as fast as on {count}" for count in counts if count != chosen]
    lines = []
    if gains:
        lines.append(
            f"Fastest on {plural(chosen, 'thread')}, {kind}: {', '.join(gains)}{' (geometric means)' if len(variants) > 1 else ''}."
        )
    if some := sorted(set.union(*map(set, latencies)) - set(counts)):
        lines.append(f"Not compared: a thread count of {' or '.join(map(str, some))}, for which some networks have no valid latency.")
    quicker = [(variant, latency) for variant, latency in zip(variants, latencies, strict=True) if _best(latency) != chosen]
    if quicker:
        each = [
            f"{variant.name} on {plural(_best(latency), 'thread')} ({min(latency.values()) / 1e3:.2f} ms, "
            f"{latency[chosen] / 1e3:.2f} on {chosen})"
            for variant, latency in quicker
        ]
        lines.append(f"Faster on another count: {some_of(each)}.")
    for fewer, count in itertools.pairwise(counts):
        gain = mean[fewer] / mean[count]
        if count <= 2 * fewer and gain < _LEAST_GAIN:
            lines.append(f"{plural(count, 'thread')} instead of {fewer}: {signed(gain - 1)} speed, so the further cores are wasted.")
    return lines


def _best(latency: Mapping[int, float]) -> int:
    return min(latency, key=lambda count: latency[count])
