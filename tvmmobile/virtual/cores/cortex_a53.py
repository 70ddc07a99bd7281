"""The Cortex-A53's rules: which instructions issue together, how long each issues, when its result can be used.

Arm publishes no optimisation guide of this core. `in_order_vector.py` has what it shares with the Cortex-A55. Sources of the rest:

- [qsdr] daniestevez/qsdr, qsdr-benchmarks/tests/instruction_benchmark/aarch64 (commit 05d8b9d5): cycles that the performance counter of a
  Cortex-A53 showed for short sequences; tests/virtual/test_in_order.py has them.
- [ncnn] Tencent/ncnn, docs/developer-guide/arm-a53-a55-dual-issue.md: what its kernels for this core rest on, measured.
- [gcc] GCC, gcc/config/arm/cortex-a53.md, contributed by Arm: pipelines, forwarding. `in_order_integer.py` has the stages of general
  registers; what a load gives is there at stage 4.
- [llvm] LLVM, llvm/lib/Target/AArch64/AArch64SchedA53.td (commit 02b3d4f4): structured loads; "only the addend forwards; the multiplicands
  do not", measured;
- [insn] Terminus-IMRC/insn-bench-rpi: an FMLA whose operands are all the last one's result takes 8 cycles, and so do the steps of a
  division by Newton's method (FRECPS, FRSQRTS);
- [vfp] hiroog/vfpbench, measured on two Cortex-A53 (tests/virtual/test_in_order.py): an FMLA waits 4 cycles for its accumulator and 8 for
  a factor. The FMADD that takes 8 there hands its result on as a *factor*: the logs are of 2020, and the source was `fmadd s0, s0, s8, s9`
  until July 2024 (commit 664d5c1). Where an FMADD's addend is the result of the fourth before it, each takes a cycle: so it waits 4 cycles
  for it, as FMLA does.
"""

from __future__ import annotations

import functools
import re

from tvmmobile.virtual.cores.in_order import IssueStep, Stages
from tvmmobile.virtual.cores.in_order_integer import (
    EARLY_OPERAND,
    OPERAND,
    STORED,
    address_of,
    at_stage,
    general_at,
    step_by_kind,
    updated_base,
)
from tvmmobile.virtual.cores.in_order_vector import (
    ADDED_LATE,
    DIVISIONS,
    HANDED_OVER,
    INTERLEAVED_STORE,
    LATENCY,
    PRODUCTS,
    VECTOR_RESULT,
    division_of,
    issue_cycles,
    latency_of,
)
from tvmmobile.virtual.cores.operands import Instruction, instruction_of

#: [qsdr] saxpy_rustc takes 16 cycles a trip if a stored vector is needed a stage later than one that is added.
_STORED_VECTOR = 1
# A load gives its data to another's address a stage earlier than to an ALU [gcc].
_LOADED, _LOADED_PAIR, _LOADED_ADDRESS = 4, 5, 3

_FUSED = frozenset({"fmla", "fmls", "fmadd", "fmsub", "fnmadd", "fnmsub"})
#: Steps of Newton's method, a product and an addition as FMLA is [insn].
_STEPS = frozenset({"frecps", "frsqrts"})
#: Vector instructions that this core executes in its own way.
OWN_NAMES = _FUSED | _STEPS
#: [gcc], [vfp] The second half of an FMLA, the addition, begins when the product is there, and so late the accumulator is needed.
_ADDED_AT = 4
#: [qsdr] `ins` from a general register; [gcc] into all lanes, and back.
_INSERTED, _DUPLICATED, _TO_GENERAL = 2, 4, 5
#: [qsdr] eight bytes a cycle: D registers after 3, 4, … cycles, Q registers after 4, 6, …; a lane, or one for all lanes, after 4 [llvm].
_FIRST_BEAT, _LANE_LOADED = 2, 4


@functools.lru_cache(maxsize=1 << 16)
def step_of(text: str) -> IssueStep:
    """Return how an instruction, `name<TAB>operands`, issues on a Cortex-A53."""
    return step_by_kind(instruction_of(text), _vector, _memory)


def _memory(instruction: Instruction) -> IssueStep:
    data = instruction.data
    address, base = address_of(instruction), updated_base(instruction)
    if instruction.of_vectors:
        return _vector_memory(instruction, address, base)
    if instruction.kind == "store":
        status = general_at(instruction.writes, _LOADED, _LOADED_ADDRESS)  # of a store-exclusive: after a load's time, nothing is published
        return IssueStep((*address, *at_stage(data, STORED)), (*base, *status), unit="memory")
    # [gcc] 16 bytes through a path of 8: two cycles.
    pair = len(data) == 2 and instruction.operands[0] == "x"
    loaded = general_at(data, _LOADED_PAIR if pair else _LOADED, _LOADED_ADDRESS + pair)
    return IssueStep(address, (*base, *loaded), cycles=2 if pair else 1, alone=pair, unit="memory")


def _vector_memory(instruction: Instruction, address: Stages, base: Stages) -> IssueStep:
    data, quad = instruction.data, instruction.quad
    single = len(data) == 1 and not quad and not instruction.lane
    if instruction.kind == "store":
        # [qsdr] a register a cycle: the path to the cache is 16 bytes wide, and two stores of 8 bytes do not issue together.
        stored = tuple((name, _STORED_VECTOR + index) for index, name in enumerate(data))
        cycles = INTERLEAVED_STORE[instruction.name] if quad and instruction.interleaved else len(data)
        return IssueStep((*address, *stored), base, cycles=cycles, alone=cycles > 1, unit="memory", lanes=1 if single else 2)
    if instruction.lane or instruction.name in ("ld1r", "ld2r", "ld3r", "ld4r"):  # [qsdr] a lane does not issue with `ins`
        kept = at_stage(data, OPERAND) if instruction.lane else ()
        loaded = at_stage(data, _LANE_LOADED)
        return IssueStep((*address, *kept), (*base, *loaded), cycles=len(data), unit="memory", lanes=2, first=True, adds=2)
    beats = 2 if quad else 1
    loaded = tuple((name, _FIRST_BEAT + beats * (index + 1)) for index, name in enumerate(data))
    if instruction.interleaved:  # [llvm] a cycle more, and each register has parts of all beats
        loaded = at_stage(data, _FIRST_BEAT + beats * len(data) + 1)
    if single:
        return IssueStep(address, (*base, *loaded), unit="memory", lanes=1, adds=1)
    return IssueStep(address, (*base, *loaded), cycles=beats * len(data), alone=True, unit="memory", lanes=2, adds=2)


def _vector(instruction: Instruction) -> IssueStep:
    name, operands = instruction.name, instruction.operands
    lanes = 2 if instruction.quad else 1
    whole = lanes == 2  # [qsdr] what takes both halves is the first of its cycle, or waits for the next
    reads = tuple((register, 0 if register[0] == "v" else EARLY_OPERAND) for register in instruction.reads)
    if name in OWN_NAMES:
        return _fused(instruction, reads, lanes)
    if name in PRODUCTS:
        if name in ADDED_LATE and instruction.reads[:1] == instruction.writes[:1]:
            reads = ((reads[0][0], HANDED_OVER), *reads[1:])
        return IssueStep(reads, at_stage(instruction.writes, latency_of(instruction)), lanes=lanes, first=whole)
    if name in DIVISIONS:
        latency, busy = division_of(instruction)
        return IssueStep(reads, at_stage(instruction.writes, latency), lanes=lanes, first=whole, busy=("divide", busy))
    if operands[0] in "xw":
        return IssueStep(reads, general_at(instruction.writes, _TO_GENERAL, _TO_GENERAL), lanes=1, adds=1)
    inserts = name in ("ins", "mov") and "[" in operands.partition(",")[0]
    if re.search(r", [xw](?:\d|zr)", operands):
        lanes = lanes if name == "dup" else 1
        latency = _INSERTED if inserts or name == "fmov" else _DUPLICATED
        # It does not read the half that it leaves alone: [qsdr] a load into that half may be under way.
        reads = at_stage((register for register in instruction.reads if register[0] != "v"), EARLY_OPERAND)
        return IssueStep(reads, at_stage(instruction.writes, latency), keeps=inserts, lanes=lanes, first=lanes == 2, adds=lanes)
    cycles = issue_cycles(instruction)
    lanes = 2 if cycles > 1 else lanes  # [insn] `vpadal.u32 d` takes two cycles, too: the other half has nothing to do meanwhile
    latency = latency_of(instruction)
    if name == "mov" and "[" not in operands:
        latency = LATENCY["orr"]  # [insn] as which a copy is encoded
    elif "flags" in instruction.writes:
        latency = VECTOR_RESULT  # [gcc]
    return IssueStep(reads, at_stage(instruction.writes, latency), keeps=inserts, cycles=cycles, lanes=lanes, first=lanes == 2, adds=lanes)


def _fused(instruction: Instruction, reads: Stages, lanes: int) -> IssueStep:
    """Return how a product issues, and an addition as soon as the product is there."""
    if instruction.name not in _STEPS:
        # FMLA has its accumulator among what it reads, first; FMADD has it last.
        at = 0 if instruction.name in ("fmla", "fmls") else len(reads) - 1
        reads = tuple((register, _ADDED_AT if index == at else stage) for index, (register, stage) in enumerate(reads))
    written = at_stage(instruction.writes, _ADDED_AT + VECTOR_RESULT)
    return IssueStep(reads, written, lanes=lanes, first=lanes == 2, adds_late=lanes, adds_late_stage=_ADDED_AT)
