"""The kernels of a variant for its table: each one's speed, and where the time goes by layer type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvmmobile.results import Context, KernelResult, VariantResult


@dataclass(frozen=True)
class KernelRow:
    """One kernel; values that need its latency are `None` where it was never timed.

    Attributes:
        gflops: billion floating-point operations a second, two for each multiply-add.
        peak_share: of the core's FMA peak, 1 is all of it.
        time_share: of the sum of all kernels' latencies, 1 is all of it.
    """

    kernel: KernelResult
    latency_us: float | None
    gflops: float | None
    peak_share: float | None
    time_share: float | None


@dataclass(frozen=True)
class KindRow:
    """All kernels of one layer type: how many, and their shares of multiply-adds and time, 1 is all."""

    kind: str
    kernels: int
    macs_share: float | None
    time_share: float | None


def kernel_rows(variant: VariantResult, context: Context) -> list[KernelRow]:
    """Rows in order of execution."""
    total = _total_us(variant.kernels)
    peak_per_us = context.clock_hz * 1e-6 * context.fma_lanes_per_cycle * variant.threads
    rows = []
    for kernel in variant.kernels:
        latency = _known(kernel.latency_us)
        if latency is None:
            rows.append(KernelRow(kernel, None, None, None, None))
            continue
        # Kernels without multiply-adds, such as pooling, have no speed in these terms.
        gflops = 2 * kernel.macs / latency / 1e3 if kernel.macs else None
        share = kernel.macs / (latency * peak_per_us) if kernel.macs else None
        rows.append(KernelRow(kernel, latency, gflops, share, latency / total))
    return rows


def kind_rows(variant: VariantResult) -> list[KindRow]:
    """Rows by layer type, most time first; empty where no kernel's type is known."""
    kinds: dict[str, list[KernelResult]] = {}
    for kernel in variant.kernels:
        kinds.setdefault(kernel.kind, []).append(kernel)
    if set(kinds) <= {""}:
        return []
    total, macs = _total_us(variant.kernels), sum(kernel.macs for kernel in variant.kernels)
    rows = [
        KindRow(
            kind or "other",
            len(members),
            sum(kernel.macs for kernel in members) / macs if macs else None,
            _total_us(members) / total if total and all(_known(kernel.latency_us) for kernel in members) else None,
        )
        for kind, members in kinds.items()
    ]
    return sorted(rows, key=lambda row: -(row.time_share or 0.0))


def _known(latency_us: float | None) -> float | None:
    return latency_us if latency_us is not None and 0 < latency_us < math.inf else None


def _total_us(kernels: Sequence[KernelResult]) -> float:
    return math.fsum(_known(kernel.latency_us) or 0.0 for kernel in kernels)
