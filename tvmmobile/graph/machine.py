"""A core as kernels see it: vector unit, instructions, caches."""

from __future__ import annotations

from dataclasses import dataclass, replace

_KIB, _MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Machine:
    """One core; by default an unknown one of ARMv8.0.

    Attributes:
        fma_lanes_per_cycle: float32 multiply-adds that it can start per cycle (Arm's optimisation guides).
        l1d_bytes: its first-level data cache.
        l1d_ways: lines of the same set that it keeps.
        l2_bytes: the level behind it.
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
    """

    fma_lanes_per_cycle: int = 4
    l1d_bytes: int = 32 * _KIB
    l2_bytes: int = 512 * _KIB
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
        """Return the cost of a line that is read again after this many bytes."""
        return self.line_read if passed <= self.cached_bytes else self.line_from_memory


#: Thresholds for all cores, which were found on a Pi 4. Channels below which blocked layouts were never faster, and from which on they
#: always were (MobileNet v1, modelled).
FEWEST_BLOCKED, FEWEST_ONLY_BLOCKED = 64, 128
#: Input channels beyond which no product is fused with what follows it.
MOST_FUSED = 256
#: Fewest input or output channels for which Strassen's algorithm pays (modelled): 28 × 28 pixels with 64 → 128 channels take 1.09 ms
#: directly and 1.11 ms this way, with 128 → 128 2.11 and 2.00 ms; 56 × 56 with 64 → 128 4.47 and 4.51 ms, with 128 → 128 8.88 and 8.13 ms.
STRASSEN_CHANNELS = 128

_V8_2 = ("half", "dot")
_V9 = (*_V8_2, "matrix", "bfloat16")
#: 64-bit pipelines that take a Q-form multiply-add every other cycle each: as the Cortex-A72, with its latency of 7 cycles (3 from
#: accumulator to accumulator). Measured there, 12 sums suffice.
_A73 = Machine(l1d_bytes=64 * _KIB, l1d_ways=16, l2_bytes=1 * _MIB)
#: Two pipelines of 128 bits, 4 cycles from a multiply-add to its result. Lines from a level of its own cost nothing that could be measured,
#: those that leave for memory the most (as calibrated for the Cortex-A76).
_A76 = Machine(
    8,
    64 * _KIB,
    512 * _KIB,
    _V8_2,
    accumulators=8,
    l1d_ways=4,
    l3_bytes=2 * _MIB,
    stores_multiply=True,
    line_read=0.2,
    line_from_memory=5.0,
    line_written=20.0,
)
_X1 = replace(_A76, fma_lanes_per_cycle=16, l2_bytes=1 * _MIB, accumulators=16)
#: In order, a vector's multiply-add a cycle, with a result after 8 cycles (Cortex-A55: 4). Four lines a set. Lines cost what they do where
#: these cores are calibrated: a Pi 3B+, an RK3566.
_A53 = Machine(in_order=True, accumulators=8, l1d_ways=4, line_read=0.0, line_from_memory=14.9, line_written=49.4)
_A55 = replace(_A53, l2_bytes=256 * _KIB, has=_V8_2, inserts_beside=True, line_read=6.1, line_from_memory=16.3, line_written=27.3)
#: Machines by LLVM's name of the core. Cache sizes are the usual ones, for boards that do not report them.
_MACHINES = {
    "cortex-a35": _A53,
    "cortex-a53": _A53,
    "cortex-a55": _A55,
    "cortex-a57": Machine(l2_bytes=2 * _MIB),
    "cortex-a72": Machine(l2_bytes=1 * _MIB),
    "cortex-a73": _A73,
    "cortex-a75": replace(_A73, fma_lanes_per_cycle=8, l2_bytes=256 * _KIB, has=_V8_2),
    "cortex-a76": _A76,
    "neoverse-n1": replace(_A76, l2_bytes=1 * _MIB),
    "cortex-a77": _A76,
    "cortex-a78": _A76,
    "cortex-a78c": _A76,
    "cortex-x1": _X1,
    "cortex-a510": replace(_A55, fma_lanes_per_cycle=8, has=_V9),
    "cortex-a710": replace(_A76, has=_V9),
    "cortex-a715": replace(_A76, has=_V9),
    "cortex-a720": replace(_A76, has=_V9),
    "neoverse-n2": replace(_A76, l2_bytes=1 * _MIB, has=_V9),
    "cortex-x2": replace(_X1, has=_V9),
    "cortex-x3": replace(_X1, has=_V9),
    "cortex-x4": replace(_X1, has=_V9),
}
#: Features of every AArch64 core.
BASELINE = Machine()
#: Features of any core: a log does not say which core it is of.
ANY = Machine(has=_V9)


def machine_of(mcpu: str) -> Machine:
    """Return the core with LLVM's name `mcpu`; the baseline if it is unknown."""
    return _MACHINES.get(mcpu, BASELINE)


def is_known(mcpu: str) -> bool:
    """Return whether there are figures for the core that LLVM calls `mcpu`."""
    return mcpu in _MACHINES
