"""What a core offers a kernel: vector unit, instructions, caches."""

from __future__ import annotations

from dataclasses import dataclass

_KIB, _MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Machine:
    """One core; by default one of ARMv8.0 of which nothing is known.

    Attributes:
        fma_lanes_per_cycle: float32 multiply-adds that it can start in a cycle (Arm's optimisation guides).
        l1d_bytes: its first-level data cache.
        l2_bytes: the level behind it.
        has: instructions beyond ARMv8.0: `half` (arithmetic in half precision), `dot` (SDOT, UDOT), `matrix` (SMMLA).
        in_order: starts instructions in the order of the program.
        inserts_beside: whether the insertion of 8 bytes from a general register starts beside an FMLA; of cores in order.
        vector_bytes: of a vector register.
        registers: vector registers.
        accumulators: independent sums that keep its multipliers busy.
    """

    fma_lanes_per_cycle: int = 4
    l1d_bytes: int = 32 * _KIB
    l2_bytes: int = 512 * _KIB
    has: tuple[str, ...] = ()
    in_order: bool = False
    inserts_beside: bool = False
    vector_bytes: int = 16
    registers: int = 32
    #: One FMA a cycle at the A72's latency of 7 cycles (3 when chained); measured, 12 suffice. Other cores were not measured.
    accumulators: int = 12


_V8_2 = ("half", "dot")
_V9 = (*_V8_2, "matrix")
#: By LLVM's name. Sizes of caches are the usual ones, for boards that do not show them.
_MACHINES = {
    "cortex-a35": Machine(in_order=True),
    "cortex-a53": Machine(in_order=True),
    "cortex-a55": Machine(l2_bytes=256 * _KIB, has=_V8_2, in_order=True, inserts_beside=True),
    "cortex-a57": Machine(l2_bytes=2 * _MIB),
    "cortex-a72": Machine(l2_bytes=1 * _MIB),
    "cortex-a73": Machine(4, 64 * _KIB, 1 * _MIB),
    "cortex-a75": Machine(8, 64 * _KIB, 256 * _KIB, _V8_2),
    "cortex-a76": Machine(8, 64 * _KIB, 512 * _KIB, _V8_2),
    "neoverse-n1": Machine(8, 64 * _KIB, 1 * _MIB, _V8_2),
    "cortex-a77": Machine(8, 64 * _KIB, 512 * _KIB, _V8_2),
    "cortex-a78": Machine(8, 64 * _KIB, 512 * _KIB, _V8_2),
    "cortex-a78c": Machine(8, 64 * _KIB, 512 * _KIB, _V8_2),
    "cortex-x1": Machine(16, 64 * _KIB, 1 * _MIB, _V8_2),
    "cortex-a510": Machine(8, 32 * _KIB, 256 * _KIB, _V9, in_order=True, inserts_beside=True),
    "cortex-a710": Machine(8, 64 * _KIB, 512 * _KIB, _V9),
    "cortex-a715": Machine(8, 64 * _KIB, 512 * _KIB, _V9),
    "cortex-x2": Machine(16, 64 * _KIB, 1 * _MIB, _V9),
    "cortex-x3": Machine(16, 64 * _KIB, 1 * _MIB, _V9),
}
#: What every AArch64 core can do.
BASELINE = Machine()


def machine_of(mcpu: str) -> Machine:
    """The core with LLVM's name `mcpu`; the baseline where it is not known."""
    return _MACHINES.get(mcpu, BASELINE)


def is_known(mcpu: str) -> bool:
    """Whether the core with LLVM's name `mcpu` has figures of its own."""
    return mcpu in _MACHINES
