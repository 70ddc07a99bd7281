"""The Cortex-A53's rules: which instructions issue together, how long each issues, when its result can be used.

Arm publishes no optimisation guide of this core. Sources:

- [qsdr] daniestevez/qsdr, qsdr-benchmarks/tests/instruction_benchmark/aarch64 (commit 05d8b9d5): cycles that the performance counter of a
  Cortex-A53 showed for short sequences; tests/virtual/test_in_order.py has them.
- [ncnn] Tencent/ncnn, docs/developer-guide/arm-a53-a55-dual-issue.md: what its kernels for this core rest on, measured.
- [gcc] GCC, gcc/config/arm/cortex-a53.md, contributed by Arm: pipelines, forwarding. `in_order_integer.py` has the stages of general
  registers; what a load gives is there at stage 4.
- [llvm] LLVM, llvm/lib/Target/AArch64/AArch64SchedA53.td: structured loads, dividers.
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
    branch_step,
    general_at,
    general_step,
    updated_base,
)
from tvmmobile.virtual.cores.operands import Instruction, instruction_of

#: [qsdr] saxpy_rustc takes 16 cycles a trip if a stored vector is needed a stage later than one that is added.
_STORED_VECTOR = 1
# A load gives its data to another's address a stage earlier than to an ALU [gcc].
_LOADED, _LOADED_PAIR, _LOADED_ADDRESS = 4, 5, 3

_FUSED = frozenset({"fmla", "fmls", "fmadd", "fmsub", "fnmadd", "fnmsub"})
_VECTOR_MULTIPLY = frozenset({"fmul", "fmulx", "fnmul", "mul", "mla", "mls", "sqdmulh", "sqrdmulh", "pmull"})
_VECTOR_MULTIPLY |= {"smull", "umull", "smull2", "umull2", "smlal", "umlal", "smlal2", "umlal2"}
_DIVISIONS = frozenset({"fdiv", "fsqrt"})
#: [gcc] The second half of an FMLA, the addition, begins when the product is there, and so late the accumulator is needed.
_VECTOR_RESULT, _ADDED_AT = 4, 4
#: [gcc], [llvm] a division of floats, one or four.
_DIVISION_RESULT, _DIVISION_BUSY = 14, 13
#: [qsdr] `ins` from a general register; [gcc] into all lanes, and back.
_INSERTED, _DUPLICATED, _TO_GENERAL = 2, 4, 5
#: [qsdr] eight bytes a cycle: D registers after 3, 4, … cycles, Q registers after 4, 6, …; a lane, or one for all lanes, after 4 [llvm].
_FIRST_BEAT, _LANE_LOADED = 2, 4


@functools.lru_cache(maxsize=1 << 16)
def step_of(text: str) -> IssueStep:
    """How an instruction, `name<TAB>operands`, issues on a Cortex-A53."""
    instruction = instruction_of(text)
    if instruction.kind == "branch":
        return branch_step(instruction)
    if instruction.kind == "vector":
        return _vector(instruction)
    if instruction.kind == "general":
        return general_step(instruction)
    return _memory(instruction)


def _memory(instruction: Instruction) -> IssueStep:
    data = instruction.data
    address, base = address_of(instruction), updated_base(instruction)
    if instruction.of_vectors:
        return _vector_memory(instruction, address, base)
    if instruction.kind == "store":
        return IssueStep((*address, *at_stage(data, STORED)), base, unit="memory")
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
        return IssueStep((*address, *stored), base, cycles=len(data), alone=len(data) > 1, unit="memory", lanes=1 if single else 2)
    if instruction.lane or instruction.name in ("ld1r", "ld2r", "ld3r", "ld4r"):  # [qsdr] a lane does not issue with `ins`
        kept = at_stage(data, OPERAND) if instruction.lane else ()
        loaded = at_stage(data, _LANE_LOADED)
        return IssueStep((*address, *kept), (*base, *loaded), cycles=len(data), unit="memory", lanes=2, first=True, adds=2)
    beats = 2 if quad else 1
    later = _FIRST_BEAT + int(instruction.interleaved)  # [llvm] a cycle more
    loaded = tuple((name, later + beats * (index + 1)) for index, name in enumerate(data))
    if single:
        return IssueStep(address, (*base, *loaded), unit="memory", lanes=1, adds=1)
    return IssueStep(address, (*base, *loaded), cycles=beats * len(data), alone=True, unit="memory", lanes=2, adds=2)


def _vector(instruction: Instruction) -> IssueStep:
    name, operands = instruction.name, instruction.operands
    lanes = 2 if instruction.quad else 1
    whole = lanes == 2  # [qsdr] what takes both halves is the first of its cycle, or waits for the next
    reads = tuple((register, 0 if register[0] == "v" else EARLY_OPERAND) for register in instruction.reads)
    if name in _FUSED:
        written = at_stage(instruction.writes, _ADDED_AT + _VECTOR_RESULT)
        # FMLA has its accumulator among what it reads, first; FMADD has it last.
        at = 0 if name in ("fmla", "fmls") else len(reads) - 1
        reads = tuple((register, _ADDED_AT if index == at else stage) for index, (register, stage) in enumerate(reads))
        return IssueStep(reads, written, lanes=lanes, first=whole, adds_late=lanes, adds_late_stage=_ADDED_AT)
    if name in _VECTOR_MULTIPLY:
        return IssueStep(reads, at_stage(instruction.writes, _VECTOR_RESULT), lanes=lanes, first=whole)
    if name in _DIVISIONS:
        return IssueStep(reads, at_stage(instruction.writes, _DIVISION_RESULT), lanes=2, first=True, busy=("divide", _DIVISION_BUSY))
    if operands[0] in "xw":
        return IssueStep(reads, general_at(instruction.writes, _TO_GENERAL, _TO_GENERAL), lanes=1, adds=1)
    inserts = name in ("ins", "mov") and "[" in operands.partition(",")[0]
    if re.search(r", [xw](?:\d|zr)", operands):
        lanes = lanes if name == "dup" else 1
        latency = _INSERTED if inserts or name == "fmov" else _DUPLICATED
        # It does not read the half that it leaves alone: [qsdr] a load into that half may be under way.
        reads = at_stage((register for register in instruction.reads if register[0] != "v"), EARLY_OPERAND)
        return IssueStep(reads, at_stage(instruction.writes, latency), keeps=inserts, lanes=lanes, first=lanes == 2, adds=lanes)
    written = (*at_stage(instruction.writes, _VECTOR_RESULT),)
    return IssueStep(reads, written, keeps=inserts, lanes=lanes, first=whole, adds=lanes)
