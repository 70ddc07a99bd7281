"""The Cortex-A72's figures for the out-of-order schedule.

llvm-mca has no tables of this core and takes the Cortex-A57's, whose chains of dependent operations are longer: FMLA 10 cycles instead of
7, FMUL and FADD 5 instead of 4, a division of four floats 36; and the base register of a post-indexed store is ready only after the store.
Here are the Cortex-A72's figures:

- [guide] "Cortex-A72 Software Optimisation Guide", Arm UAN 0016A: pipelines, dispatch width, accumulator forwarding, integer latencies;
- [osaca] RRZE-HPC/OSACA, osaca/data/a72.yml: latencies and throughputs measured on a Raspberry Pi 4, as its pull request 60 says.
  FADD has 3 there and 4 in a chain of other operations; 4 is taken, also for minimum, maximum and conversions;
- [llvm] LLVM's scheduling model of the Cortex-A57: the reorder buffer's size (MicroOpBufferSize).
"""

from __future__ import annotations

import re

from tvmmobile.virtual.cores.operands import Instruction
from tvmmobile.virtual.cores.out_of_order import CoreTables, InstructionTiming

_Cost = tuple[int, tuple[tuple[str, int], ...]]

_ACCUMULATE = frozenset({"fmla", "fmls"})
#: Latency; Q forms of all but the comparisons take both vector pipelines ([osaca] throughputs).
_FLOAT = {"fadd": 4, "fsub": 4, "fabd": 4, "faddp": 4, "fmul": 4, "fmulx": 4, "fnmul": 4, "fmla": 7, "fmls": 7, "fmadd": 7, "fmsub": 7}
_FLOAT |= dict.fromkeys(("fmax", "fmin", "fmaxnm", "fminnm", "fmaxp", "fminp", "frecps", "frsqrts"), 4)
_FLOAT |= dict.fromkeys(
    ("scvtf", "ucvtf", "fcvt", "fcvtl", "fcvtl2", "fcvtn", "fcvtn2", "fcvtzs", "fcvtzu", "fcvtns", "fcvtas", "fcvtms"), 4
)
_FLOAT |= dict.fromkeys(("frintm", "frintn", "frintz", "frinta", "frintp", "frintx", "frinti", "frecpe", "frsqrte"), 4)
#: Latency, and how long the dividers of both pipelines are busy together. Some operands end early; [osaca]
#: measured one division of four floats in 8 cycles, the networks of the calibration divide by one or two (their weights are zero).
_QUAD_DIVISION, _DIVISION = (11, 16), (11, 4)
_DIVISIONS = frozenset({"fdiv", "fsqrt"})
_VECTOR_MULTIPLY = frozenset({"mul", "mla", "mls", "smull", "umull", "smlal", "umlal", "sqdmulh", "sqrdmulh", "smull2", "umull2"})
_MULTIPLY = frozenset({"mul", "madd", "msub", "mneg", "smull", "umull", "smaddl", "umaddl", "smulh", "umulh"})
_DIVIDE = frozenset({"sdiv", "udiv"})
_TO_GENERAL = frozenset({"umov", "smov"})
#: [guide] "late forwarding of accumulate operands"
_HANDED_OVER = 3


def _timing(instruction: Instruction) -> InstructionTiming:
    if instruction.kind == "branch":
        return InstructionTiming(0, (("branch", 1),))
    if instruction.kind in ("load", "store", "prefetch"):
        return _memory(instruction)
    return arithmetic_timing(instruction)


def arithmetic_timing(instruction: Instruction) -> InstructionTiming:
    """What an instruction on vector or general registers costs."""
    name, operands = instruction.name, instruction.operands
    latency, ports = _vector(name, operands, instruction.quad) if instruction.kind == "vector" else _general(name, operands)
    micro_operations = max(1, min(2, sum(cycles for _, cycles in ports)))
    chain = "fmla" if name in _ACCUMULATE else ""
    return InstructionTiming(latency, ports, micro_operations, "", chain, _HANDED_OVER if chain else 0)


def _memory(instruction: Instruction) -> InstructionTiming:
    """Loads 16 bytes a cycle, stores 8 ([osaca]); a written base register takes the integer pipelines ([guide])."""
    update = (("int", 1),) if instruction.base else ()
    if instruction.kind == "prefetch":
        return InstructionTiming(0, (("load", 1), *update))
    vector, quad, interleaved, lane = instruction.of_vectors, instruction.quad, instruction.interleaved, instruction.lane
    count = len(instruction.data) if vector and (quad or interleaved) else 1
    if instruction.kind == "store":
        cycles = 2 * count if quad and not lane else max(len(instruction.data), 1)
        permuted = (("vector", count),) if interleaved else ()
        return InstructionTiming(0, (*update, ("store", cycles), *permuted), max(1, min(cycles, 8)) + len(update))
    latency = (5 + count - 1 + (3 if interleaved or lane else 0)) if vector else 4
    merged = (("vector", count),) if interleaved or lane else ()
    return InstructionTiming(latency, (*update, ("load", count), *merged), count + len(update))


def _vector(name: str, operands: str, quad: bool) -> _Cost:
    if name in _DIVISIONS:
        latency, busy = _QUAD_DIVISION if quad else _DIVISION
        return latency, (("vector", busy),)
    if name in _FLOAT:
        return _FLOAT[name], (("vector", 2 if quad else 1),)
    if name in _VECTOR_MULTIPLY:
        return 5 if quad else 4, (("vector", 2 if quad else 1),)
    if name in _TO_GENERAL or (name == "fmov" and operands[0] in "xw"):
        return 5, (("load", 1),)
    if name in ("dup", "ins", "mov", "fmov") and re.search(r"\b[xw]\d+", operands):
        return 8, (("load", 1), ("vector", 1))
    return 3, (("vector", 1),)


def _general(name: str, operands: str) -> _Cost:
    if name in _DIVIDE:
        return 12, (("multi", 12),)
    if name in _MULTIPLY:
        return (5, (("multi", 3),)) if operands.startswith("x") and name in ("mul", "madd", "msub", "mneg") else (3, (("multi", 1),))
    if name not in ("lsl", "lsr", "asr", "movz", "movk", "mov") and re.search(r", (?:lsl|lsr|asr|ror|[su]xt[bhwx])\b", operands):
        return 2, (("multi", 1),)  # [guide] arithmetic with a shifted or extended operand
    return 1, (("int", 1),)


CORTEX_A72 = CoreTables(
    name="cortex-a72",
    source="Arm UAN 0016A; RRZE-HPC/OSACA, osaca/data/a72.yml",
    window=128,  # [llvm]
    instructions_per_cycle=3,  # [guide] 4.1
    micro_operations_per_cycle=3,  # [guide] 4.1
    pipelines={"load": 1, "store": 1, "vector": 2, "branch": 1, "int": 2, "multi": 1},  # [guide] "Pipeline overview"
    timing=_timing,
)
