"""The integer pipelines that the Cortex-A53 and the Cortex-A55 have in common: general registers, addresses, branches.

- [gcc] GCC, gcc/config/arm/cortex-a53.md, contributed by Arm. Its latencies with forwarding ("bypasses") are those of a pipeline of stages:
  an ALU's operands are needed at stage 2 and shifted ones at 1, its result is there at 3 and a shift's at 2; store data and conditions are
  needed at 3; what a multiplier or a load gives is there at 4;
- [llvm] LLVM, AArch64SchedA55.td: the same distances of ALU, shifted operand, multiplier and division (`ReadAdvance`); and a comment in
  LLVM's tests (llvm-mca/AArch64/Cortex/IPC) that of two dependent additions the second issues with the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from tvmmobile.virtual.cores.in_order import IssueStep, Stages
from tvmmobile.virtual.cores.operands import Instruction

# Stages at which an operand is needed.
ADDRESS, EARLY_OPERAND, OPERAND, STORED = 0, 1, 2, 3
# Stages at which a result can be used. An ALU works at stage 1 where its operands are there, so that the first two of a chain of additions
# issue together.
_COMPUTED, _SHIFT, _MULTIPLIED = 3, 2, 4
_UPDATED_BASE = 1
#: An integer division: the first version of [gcc] (2013).
_DIVIDED = 8
#: Prefix of a general register used as an address, which has its own time.
_AS_ADDRESS = "@"

_MULTIPLY = frozenset(
    ("mul", "mneg", "madd", "msub", "smulh", "umulh", *(f"{s}m{kind}l" for s in "su" for kind in ("ul", "neg", "add", "sub")))
)
_DIVIDE = frozenset({"sdiv", "udiv"})
_SHIFTS = frozenset({"mov", "movz", "movn", "adr", "adrp", "lsl", "lsr", "asr", "ror"})
_BIT_FIELDS = frozenset(
    ("ubfx", "sbfx", "ubfiz", "sbfiz", "ubfm", "sbfm", "bfi", "bfxil", "extr", "sxtw", "sxth", "sxtb", "uxtw", "uxth", "uxtb")
)
#: [llvm] Barriers, and others that are not arithmetic, take the branch pipeline: the next instruction issues a cycle later. How long a
#: barrier waits for stores to end is not published.
_SYSTEM = frozenset({"dmb", "dsb", "isb", "sb", "mrs", "msr", "dc", "ic", "svc", "brk", "udf", "clrex"})
_SHIFTED = re.compile(r", (?:lsl|lsr|asr|ror|[su]xt[bhwx])\b")


def at_stage(registers: Iterable[str], stage: int) -> Stages:
    """Return registers that are needed or ready at one stage."""
    return tuple((name, stage) for name in registers)


def general_at(registers: Iterable[str], stage: int, address_stage: int) -> Stages:
    """Return when general registers can be used, also as addresses."""
    return tuple(pair for name in registers for pair in ((name, stage), (_AS_ADDRESS + name, address_stage)))


def address_of(instruction: Instruction) -> Stages:
    """Return the registers that an access needs for its address."""
    with_data = instruction.kind == "store" or instruction.lane
    return at_stage((_AS_ADDRESS + name for name in instruction.reads[len(instruction.data) if with_data else 0 :]), ADDRESS)


def updated_base(instruction: Instruction) -> Stages:
    """Return the base register of a pre- or post-indexed access."""
    return general_at((instruction.base,) if instruction.base else (), _UPDATED_BASE, _UPDATED_BASE)


def step_by_kind(
    instruction: Instruction, vector: Callable[[Instruction], IssueStep], memory: Callable[[Instruction], IssueStep]
) -> IssueStep:
    """Return how an instruction issues, by the core's own rules if it computes on vectors or accesses memory."""
    if instruction.kind == "branch":
        return _branch_step(instruction)
    if instruction.kind == "general":
        return _general_step(instruction)
    return vector(instruction) if instruction.kind == "vector" else memory(instruction)


def _branch_step(instruction: Instruction) -> IssueStep:
    """Return how a branch issues."""
    return IssueStep(at_stage(instruction.reads, STORED), unit="branch")


def _general_step(instruction: Instruction) -> IssueStep:
    """Return how an instruction on general registers issues."""
    name, operands = instruction.name, instruction.operands
    early = at_stage(instruction.reads, EARLY_OPERAND)
    if name in _MULTIPLY:
        return IssueStep(early, general_at(instruction.writes, _MULTIPLIED, _MULTIPLIED), unit="multiply")
    if name in _DIVIDE:
        return IssueStep(early, general_at(instruction.writes, _DIVIDED, _DIVIDED), busy=("divide integers", _DIVIDED))
    if name in _SHIFTS and "," in operands:
        return IssueStep(early, general_at(instruction.writes, _SHIFT, _SHIFT))
    written = general_at(instruction.writes, _COMPUTED, _COMPUTED)
    if name in _SYSTEM:
        return IssueStep(early, written, unit="branch")
    if name in _BIT_FIELDS or _SHIFTED.search(operands):
        return IssueStep(early, written)
    return IssueStep(at_stage(instruction.reads, OPERAND), written, soon=True)
