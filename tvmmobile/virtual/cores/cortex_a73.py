"""The Cortex-A73's figures for the out-of-order schedule.

Arm publishes no optimisation guide of this core, and llvm-mca takes the Cortex-A57's tables. Sources:

- [vfp] hiroog/vfpbench, log/Hisilicon Kirin710 P30Lite.txt: what FADD, FMUL, FMLA and FMADD took on a Cortex-A73;
  tests/virtual/test_cortex_a73.py has it. Two instructions a cycle on 8 bytes, one on 16; FADD and FMUL take 4 cycles, FMLA 7, and 3 to the
  next one's accumulator. The Cortex-A72 does the same, but for the instructions a cycle, and one FMADD every cycle;
- [anand] AnandTech, "The ARM Cortex A73 - Artemis Unveiled" (2016, page 2): two instructions decoded a cycle, six micro-operations
  dispatched; and its review of the Kirin 960 (2017, pages 2 and 3): two integer pipelines for all operations, but one of them alone
  multiplies; two load/store pipelines, either of which loads and stores; up to 30 % more bytes read from the first level than an A72 reads,
  which has one load of 16 bytes a cycle, and nearly as many fewer written;
- [ramlat] ThomasKaiser/sbc-bench, results/4rWn.txt (S922X): 3 cycles from a load to the next one's address, 4 where it is an index;
- [a72] `cortex_a72.py`, for what nobody published of this core: other latencies, stores of 8 bytes a cycle, the window.
"""

from __future__ import annotations

from dataclasses import replace

from tvmmobile.virtual.cores.cortex_a72 import (
    CORTEX_A72,
    VECTOR_PARTS,
    VECTOR_PIPELINES,
    arithmetic_timing,
    load_accesses,
    sorting_slots,
    stored_halves,
)
from tvmmobile.virtual.cores.operands import Instruction
from tvmmobile.virtual.cores.out_of_order import CoreTables, InstructionTiming

#: `multi` is one of the two integer pipelines; `data` is a store's 8 bytes.
_PIPELINES = {"memory": 2, "data": 1, "branch": 1, "int": 2, "multi": 1, **VECTOR_PIPELINES}
#: [a72] From the first-level cache to a vector register; [ramlat] to a general one.
_LOADED_VECTOR, _LOADED = 5, 3
#: [a72] A lane, a repeated element, or an access that interleaves, takes so much longer.
_SORTED = 3
_FUSED_SCALAR = frozenset({"fmadd", "fmsub", "fnmadd", "fnmsub"})


def _timing(instruction: Instruction) -> InstructionTiming:
    if instruction.kind == "branch":
        return InstructionTiming(0, (("branch", 1),))
    if instruction.kind in ("load", "prefetch"):
        return _load(instruction)
    if instruction.kind == "store":
        return _store(instruction)
    if instruction.name in _FUSED_SCALAR:
        return InstructionTiming(7, (("vector", 2),), 2)  # [vfp] one a cycle, unlike FMLA of 8 bytes
    timing = arithmetic_timing(instruction)
    own = {"load": "memory", "store": "memory"}
    return replace(timing, ports=tuple((own.get(port, port), cycles) for port, cycles in timing.ports))


def _load(instruction: Instruction) -> InstructionTiming:
    """Return the cost of a load: an access for 16 bytes [a72]."""
    if instruction.kind == "prefetch":
        return InstructionTiming(0, (("memory", 1),))
    vector, sorting = instruction.of_vectors, sorting_slots(instruction)
    count = load_accesses(instruction)
    latency = _LOADED_VECTOR + (_SORTED if sorting else 0) if vector else _LOADED
    ports = (("memory", count), *((("vector", sorting),) if sorting else ()))
    return InstructionTiming(latency, ports, count + bool(instruction.base), _update(instruction))


def _store(instruction: Instruction) -> InstructionTiming:
    """Return the cost of a store: an access for 16 bytes, and a cycle of data for 8."""
    halves = stored_halves(instruction)
    accesses = (halves + 1) // 2
    sorting = sorting_slots(instruction)
    ports = (("memory", accesses), ("data", halves), *((("vector", sorting),) if sorting else ()))
    return InstructionTiming(_LOADED if instruction.status else 0, ports, accesses + bool(instruction.base), _update(instruction))


def _update(instruction: Instruction) -> str:
    """Return the pipeline that a written base register takes, without waiting for the access [a72]."""
    return "int" if instruction.base else ""


CORTEX_A73 = CoreTables(
    name="cortex-a73",
    source="hiroog/vfpbench, Kirin 710; AnandTech 10347 and 11088; RRZE-HPC/OSACA, osaca/data/a72.yml",
    window=CORTEX_A72.window,  # [a72]
    instructions_per_cycle=2,  # [anand], [vfp]
    micro_operations_per_cycle=6,  # [anand]
    pipelines=_PIPELINES,
    part_of={"multi": "int", **VECTOR_PARTS},  # [a72] which of the vector pipelines multiplies integers and which one shifts
    timing=_timing,
)
