"""The table of a variant's kernels: speed and limit of each, and time by layer type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tvmmobile.results.file import Context, KernelResult, VariantResult

#: Type of kernels whose type is not known.
OTHER = "other"
Limit = Literal["compute", "memory"]
#: A kernel is far off its record where it takes more than twice as long within the network, or less than half. Of the 256 kernels of
#: studies/results/networks.json, the virtual Pi 4's takes 0.90 to 1.83 times as long, the most where a pool's input has left the caches.
FAR = 2.0
#: The deviation must also exceed this time, which the clock's resolution and the gap between two kernels may account for.
_FAR_US = 5.0


@dataclass(frozen=True)
class Roof:
    """Limits of a kernel by cores and memory (Williams, Waterman, Patterson 2009, Roofline: an insightful visual performance model).

    Attributes:
        compute_gflops: the FMA units of the threads' cores, two operations for each multiply-add; `None` if their clock is unknown.
        memory_gb_per_s: bandwidth of the memory, read and written; `None` where it is not known.
    """

    compute_gflops: float | None
    memory_gb_per_s: float | None

    @property
    def ridge(self) -> float | None:
        """The operations per byte from which memory is fast enough for the FMA units."""
        return self.compute_gflops / self.memory_gb_per_s if self.compute_gflops and self.memory_gb_per_s else None

    def attainable_gflops(self, intensity: float | None) -> float:
        """Return the highest speed of a kernel with this many operations per byte; `None` means that it moves no bytes."""
        if self.compute_gflops is None:
            return math.inf
        if intensity is None or self.memory_gb_per_s is None:
            return self.compute_gflops
        return min(self.compute_gflops, intensity * self.memory_gb_per_s)


@dataclass(frozen=True)
class KernelRow:
    """Figures of one kernel; values that need its latency or its bytes are `None` where these are not known.

    Attributes:
        latency_us: latency within a run of the network, or in its record; see `KernelTable.within`.
        gflops: billion floating-point operations a second, two for each multiply-add.
        peak_share: share of the cores' FMA peak, 1 is all of it.
        time_share: share of the sum of all kernels' latencies, 1 is all of it.
        moved_bytes: bytes that it moved or must move, see `KernelTable.moved`.
        intensity: floating-point operations per such byte; `None` also if there are none.
        limit: the limit of its speed, by the roofline.
        limit_share: share of the speed that this limit allows, 1 is all of it.
    """

    kernel: KernelResult
    latency_us: float | None
    gflops: float | None
    peak_share: float | None
    time_share: float | None
    moved_bytes: int | None
    intensity: float | None
    limit: Limit | None
    limit_share: float | None


@dataclass(frozen=True)
class KernelTable:
    """Figures of all kernels of a variant, in order of execution.

    Attributes:
        within: the latencies are those within a run of the network; otherwise the tuning records have them, each timed alone.
        moved: the kind of bytes that are counted: all that memory gave and took, the least that there can be, or none.
        sum_share: time of all kernels within a run, over the latency of the network; `None` where that was not timed.
        roof: limits by the cores and the memory.
    """

    rows: tuple[KernelRow, ...]
    within: bool
    moved: Literal["dram", "least"] | None
    sum_share: float | None
    roof: Roof


@dataclass(frozen=True)
class KindRow:
    """Counts the kernels of one layer type, with their shares of multiply-adds and time, 1 is all."""

    kind: str
    kernels: int
    macs_share: float | None
    time_share: float | None


def kernel_table(variant: VariantResult, context: Context) -> KernelTable:
    """Return the table of a variant's kernels."""
    within = variant.kernels_us is not None
    moved = _moved(variant.kernels)
    memory = context.memory_bytes_per_s
    peak_gflops = 2e-9 * context.clock_hz * context.fma_lanes(variant.dtype) * variant.threads
    roof = Roof(peak_gflops if context.clock_hz >= 1 else None, memory / 1e9 if memory else None)
    total = math.fsum(kernel_us(variant, kernel) or 0.0 for kernel in variant.kernels)
    rows = tuple(_row(kernel, kernel_us(variant, kernel), total, moved, roof) for kernel in variant.kernels)
    share = variant.kernels_us / variant.latency_us if variant.kernels_us is not None else None
    return KernelTable(rows, within, moved, share, roof)


def is_far(record_us: float, found_us: float) -> bool:
    """Return whether a kernel that took `found_us` is far off a record of `record_us`."""
    return not record_us / FAR <= found_us <= record_us * FAR and abs(found_us - record_us) > _FAR_US


def far_off(variant: VariantResult) -> list[KernelResult]:
    """Return the kernels whose time within the network is far off their records', each once."""
    found = {
        kernel.name: kernel
        for kernel in variant.kernels
        if kernel.latency_us is not None and kernel.network_us is not None and is_far(kernel.latency_us, kernel.network_us)
    }
    return [] if variant.invalid else list(found.values())


def kernel_us(variant: VariantResult, kernel: KernelResult) -> float | None:
    """Return a kernel's latency: within the network where all of the variant's kernels were timed there, else as its record has it."""
    latency = kernel.network_us if variant.kernels_us is not None else kernel.latency_us
    return latency if latency is not None and 0 < latency < math.inf else None


def kind_rows(variant: VariantResult) -> list[KindRow]:
    """Return rows by layer type, most time first; empty where no kernel's type is known."""
    kinds: dict[str, list[KernelResult]] = {}
    for kernel in variant.kernels:
        kinds.setdefault(kernel.kind or OTHER, []).append(kernel)
    if not any(kernel.kind for kernel in variant.kernels):
        return []
    times = {kind: [kernel_us(variant, kernel) for kernel in members] for kind, members in kinds.items()}
    total = math.fsum(time or 0.0 for group in times.values() for time in group)
    macs = sum(kernel.macs for kernel in variant.kernels)
    rows = [
        KindRow(
            kind,
            len(members),
            sum(kernel.macs for kernel in members) / macs if macs else None,
            math.fsum(time or 0.0 for time in times[kind]) / total if total and all(times[kind]) else None,
        )
        for kind, members in kinds.items()
    ]
    return sorted(rows, key=lambda row: -(row.time_share or 0.0))


def limit_of(roof: Roof, intensity: float | None) -> Limit | None:
    """Return the lower roof of a kernel; `None` if one of them is unknown."""
    if roof.ridge is None:
        return None
    return "memory" if intensity is not None and intensity < roof.ridge else "compute"


def _row(kernel: KernelResult, latency_us: float | None, total_us: float, moved: str | None, roof: Roof) -> KernelRow:
    moved_bytes = {"dram": kernel.dram_bytes, "least": kernel.least_bytes, None: None}[moved]
    # Kernels without multiply-adds, such as pooling, have no speed in these terms.
    flops = 2 * kernel.macs
    gflops = flops / latency_us / 1e3 if latency_us and flops else None
    intensity = flops / moved_bytes if moved_bytes and flops else None
    limit = limit_of(roof, intensity) if flops and moved is not None else None
    return KernelRow(
        kernel,
        latency_us,
        gflops,
        gflops / roof.compute_gflops if gflops is not None and roof.compute_gflops else None,
        latency_us / total_us if latency_us else None,
        moved_bytes,
        intensity,
        limit,
        gflops / roof.attainable_gflops(intensity) if gflops is not None and limit else None,
    )


def _moved(kernels: Sequence[KernelResult]) -> Literal["dram", "least"] | None:
    """Return one kind of bytes for all kernels of a variant: counted and least bytes cannot be compared."""
    if kernels and all(kernel.dram_bytes is not None for kernel in kernels):
        return "dram"
    return "least" if kernels and all(kernel.least_bytes is not None for kernel in kernels) else None
