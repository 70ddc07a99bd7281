"""The course of the search: how fast a network's kernels were together, after so many trials of each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvmmobile.results.file import KernelResult, VariantResult


def search_course(variant: VariantResult) -> list[tuple[int, float]]:
    """(Trials per kernel, sum of the kernels' best latencies by then in microseconds), where that improved and at the end.

    Begins where every searched kernel has a first latency. A kernel that was not searched counts with its record's latency all along; empty
    where none was searched, or where a kernel has neither.
    """
    searched = [kernel for kernel in variant.kernels if kernel.course]
    if not searched or any(not kernel.course and kernel.latency_us is None for kernel in variant.kernels if kernel.macs):
        return []
    constant = math.fsum(kernel.latency_us or 0.0 for kernel in variant.kernels if not kernel.course)
    first = max(kernel.course[0][0] for kernel in searched)
    trials = sorted({first} | {point[0] for kernel in searched for point in kernel.course if point[0] > first})
    sums = [(count, constant + math.fsum(_best(kernel, count) for kernel in searched)) for count in trials]
    return [point for place, point in enumerate(sums) if place in (0, len(sums) - 1) or point[1] != sums[place - 1][1]]


def most_trials(variants: Sequence[VariantResult]) -> int:
    """Of any kernel."""
    return max((kernel.course[-1][0] for variant in variants for kernel in variant.kernels if kernel.course), default=0)


def _best(kernel: KernelResult, trials: int) -> float:
    return min(latency for count, latency in kernel.course if count <= trials)
