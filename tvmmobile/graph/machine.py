"""Describes a core to kernels: vector unit, instructions, caches."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvmmobile.graph.cores import all_cores, llvm_name


@dataclass(frozen=True)
class Machine:
    """A core; by default an unknown ARMv8.0 core.

    Attributes:
        fma_lanes_per_cycle: float32 multiply-adds that it can start per cycle (Arm's optimisation guides).
        l1d_bytes: its first-level data cache.
        l1d_ways: its associativity.
        l2_bytes: the second level.
        l3_bytes: a third level; 0 where there is none.
        has: instructions beyond ARMv8.0: `half` (arithmetic in half precision), `dot` (SDOT, UDOT), `matrix` (SMMLA),
            `bfloat16` (BFMMLA).
        in_order: starts instructions in the order of the program.
        inserts_beside: true if, on an in-order core, the insertion of 8 bytes from a general register starts beside an FMLA.
        vector_bytes: bytes of a vector register.
        registers: vector registers.
        accumulators: independent sums that keep its multipliers busy: latency × multiply-adds of a vector per cycle, or as measured.
        stores_multiply: a vector's store takes a slot of the pipelines that multiply.
        line_read, line_from_memory, line_written: cost of a 64-byte line beyond that of the instruction that accesses it, in the time of a
            vector's multiply-add: read from the second level, from memory, and written.
        line_shared: time in which memory delivers a line to several cores together, in the same unit.
        fewest_blocked, fewest_only_blocked: channels below which blocked layouts were never faster, and from which on they always were
            (MobileNet v1 on a Pi 4, modelled).
        most_fused: input channels beyond which no product is fused with the layers after it.
        strassen_channels: fewest input or output channels for which Strassen's algorithm pays. Modelled on a Pi 4, 28 × 28 pixels with
            64 → 128 channels take 1.09 ms directly and 1.11 ms this way, with 128 → 128 2.11 and 2.00 ms; 56 × 56 with 64 → 128 4.47 and
            4.51 ms, with 128 → 128 8.88 and 8.13 ms.
    """

    fma_lanes_per_cycle: int = 4
    l1d_bytes: int = 32 << 10
    l2_bytes: int = 512 << 10
    has: tuple[str, ...] = ()
    in_order: bool = False
    inserts_beside: bool = False
    vector_bytes: int = 16
    registers: int = 32
    accumulators: int = 12
    l1d_ways: int = 2
    l3_bytes: int = 0
    stores_multiply: bool = False
    line_read: float = 5.3
    line_from_memory: float = 14.4
    line_written: float = 42.0
    line_shared: float = 33.6
    fewest_blocked: int = 64
    fewest_only_blocked: int = 128
    most_fused: int = 256
    strassen_channels: int = 128

    @property
    def winograd_wins(self) -> float:
        """Largest `Winograd.share` with which float32 is faster than integers without SDOT.

        Of a direct sum's time in float32, integer kernels take 0.6 on a Cortex-A72 and 0.95 on an A53, where Winograd's take a quarter more
        than their share.
        """
        return 0.7 if self.in_order else 0.5

    @property
    def resident_bytes(self) -> int:
        """Bytes that stay in the first level while other data passes."""
        return self.l1d_bytes * 13 // 16

    @property
    def largest_cache_bytes(self) -> int:
        """Size of the last level before memory."""
        return max(self.l2_bytes, self.l3_bytes)

    @property
    def cached_bytes(self) -> int:
        """Bytes that stay in some level while other data passes."""
        return self.largest_cache_bytes * 3 // 4

    def line_again(self, passed: float) -> float:
        """Return the cost of reading a line again after this many bytes."""
        return self.line_read if passed <= self.cached_bytes else self.line_from_memory


#: Features of every AArch64 core.
BASELINE = Machine()
#: Features of any core, because a log does not name its core.
ANY = Machine(has=("half", "dot", "matrix", "bfloat16"))


@functools.cache
def _machines() -> Mapping[str, Machine]:
    """Return the cores with known figures, by LLVM's names."""
    return {llvm_name(core.cpu): _machine(core.figures) for core in all_cores() if core.figures is not None}


def _machine(figures: Mapping[str, Any]) -> Machine:
    return Machine(**{**figures, "has": tuple(figures.get("has", ()))})


def machine_of(mcpu: str) -> Machine:
    """Return the core with LLVM's name `mcpu`; the baseline if it is unknown."""
    return _machines().get(mcpu, BASELINE)


def is_known(mcpu: str) -> bool:
    """Return whether there are figures for the core that LLVM calls `mcpu`."""
    return mcpu in _machines()
