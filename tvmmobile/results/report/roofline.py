"""What the cores and the memory allow a kernel (Williams, Waterman, Patterson 2009, Roofline: an insightful visual performance model)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tvmmobile.results.file import Context

Limit = Literal["compute", "memory"]


@dataclass(frozen=True)
class Roof:
    """The two roofs.

    Attributes:
        compute_gflops: the FMA units of the threads' cores, two operations for each multiply-add.
        memory_gb_per_s: what memory delivers, read and written; `None` where it is not known.
    """

    compute_gflops: float
    memory_gb_per_s: float | None

    @property
    def ridge(self) -> float | None:
        """Operations for each byte from which on memory is fast enough for the FMA units."""
        return self.compute_gflops / self.memory_gb_per_s if self.memory_gb_per_s else None

    def attainable_gflops(self, intensity: float | None) -> float:
        """The most that a kernel with so many operations for each byte can do; `None` moves nothing."""
        if intensity is None or self.memory_gb_per_s is None:
            return self.compute_gflops
        return min(self.compute_gflops, intensity * self.memory_gb_per_s)


def roof_of(context: Context, dtype: str, threads: int) -> Roof:
    """The roofs for so many threads that compute in this precision."""
    memory = context.memory_bytes_per_s
    return Roof(2e-9 * context.clock_hz * context.fma_lanes(dtype) * threads, memory / 1e9 if memory else None)


def limit_of(roof: Roof, intensity: float | None) -> Limit | None:
    """Which roof is lower for a kernel; `None` where that of memory is not known."""
    if roof.ridge is None:
        return None
    return "memory" if intensity is not None and intensity < roof.ridge else "compute"
