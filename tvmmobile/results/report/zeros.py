"""Kernels that leave zeros out, in words: how many, how many of their multiply-adds, and what that gains."""

from __future__ import annotations

import math

from tvmmobile.results.file import KernelResult, Results, VariantResult
from tvmmobile.results.report.wording import latency_ms, percent, plural


def zero_kernels(variant: VariantResult) -> list[KernelResult]:
    """Return a variant's kernels that leave zeros out."""
    return [kernel for kernel in variant.kernels if kernel.zeros]


def zero_sentences(results: Results) -> list[str]:
    """Return a sentence or two on each variant with kernels that leave zeros out."""
    return [_zero_sentence(variant, results.context.kind) for variant in results.variants if zero_kernels(variant)]


def _zero_sentence(variant: VariantResult, kind: str) -> str:
    """Say how many kernels leave zeros out, and compare sums of records with each other: the network's own latency is not one of them."""
    sparse = zero_kernels(variant)
    macs = sum(kernel.macs for kernel in sparse)
    share = math.fsum((kernel.zeros or 0.0) * kernel.macs for kernel in sparse) / macs if macs else None
    leave = "leaves" if len(sparse) == 1 else "leave"
    counted = f"{len(sparse)} of {plural(len(variant.kernels), 'kernel')} {leave} zeros out ({percent(share)} % of their multiply-adds)"
    records = [kernel.latency_us for kernel in variant.kernels if kernel.latency_us is not None]
    if variant.dense_us is None or len(records) < len(variant.kernels):
        return f"{variant.name}: {counted}."
    return (
        f"{variant.name}: {counted}. Tuning records of its kernels add up to {latency_ms(math.fsum(records))} ms {kind}; "
        f"of the best that leave none out, to {latency_ms(variant.dense_us)} ms {kind}."
    )
