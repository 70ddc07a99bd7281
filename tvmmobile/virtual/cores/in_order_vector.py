"""Vector instructions of the Cortex-A53 and Cortex-A55: latencies, dividers, and instructions that issue for two cycles.

Arm publishes a guide of the Cortex-A55 alone. Wherever somebody measured a Cortex-A53 as well, the figures are the same, save those of
floating-point multiplications with an addition, which `cortex_a53.py` has; so the Cortex-A55's figures stand for both.

- [llvm] LLVM, AArch64SchedA55.td (commit 1d7cce3f), made from Arm's "Cortex-A55 Software Optimization Guide" (EPM 128372);
- [slothy] the Slothy optimizer's Cortex-A55 model, from the same guide and its authors' measurements;
- [insn] Terminus-IMRC/insn-bench-rpi, README.md: latency and throughput of 30 vector instructions, measured on a Cortex-A53;
  tests/virtual/test_in_order.py has them. Logic 1, integer additions and comparisons 2, differences and pairwise sums 3, the rest 4;
  sums that accumulate (`sadalp`, `saba`) one in two cycles in either width; divisions 13 cycles, busy for 10;
- [llvm53] LLVM, AArch64SchedA53.td (commit 02b3d4f4), with figures measured on a Cortex-A53: the same as [insn]'s.
"""

from __future__ import annotations

from collections.abc import Iterable

from tvmmobile.virtual.cores.operands import Instruction

#: Cycles until a result can be used, of what is not named below: floating point, conversions, estimates, multiplications, and shifts
#: and narrowings that round or saturate.
VECTOR_RESULT = 4


def _signed_or_not(*names: str) -> tuple[str, ...]:
    return tuple(f"{sign}{name}" for sign in "su" for name in names)


def _halves(names: Iterable[str]) -> tuple[str, ...]:
    """Return names with and without `2`, for instructions that read or write the upper halves."""
    return tuple(f"{name}{half}" for name in names for half in ("", "2"))


_LOGIC = ("and", "orr", "eor", "bic", "orn", "mvn", "not", "movi", "mvni")  # [insn], [llvm]
_TWO = (
    *("add", "sub", "neg", "shl", "sshr", "ushr", "sshl", "ushl", "sli", "sri", *_halves(("xtn", "shrn", "shll"))),  # [insn], [llvm]
    *_halves(_signed_or_not("shll", "xtl")),  # [llvm]
    *_signed_or_not("max", "min", "maxp", "minp", "hadd", "rhadd", "hsub"),  # [insn], [llvm]
    *("cmeq", "cmge", "cmgt", "cmhi", "cmhs", "cmle", "cmlt"),  # [insn], [llvm]
    *("fcmeq", "fcmge", "fcmgt", "fcmle", "fcmlt", "facge", "facgt"),  # [insn]
    *("mov", "fmov", "ins", "dup", "umov", "smov", "fcsel", "cnt"),  # [slothy]
    *("bsl", "bit", "bif", "clz", "cls", "rev64", "rev32", "rev16", "rbit"),  # [insn]
    *("ext", "tbl", "tbx", "trn1", "trn2", "zip1", "zip2", "uzp1", "uzp2"),  # [slothy]
    *("aese", "aesd", "aesmc", "aesimc"),  # [slothy]
)
_THREE = (
    *("abs", "addp", "addv", "pmul", "pmull", "pmull2", "cmtst", "fcmp", "fcmpe", "fccmp", "fccmpe"),  # [insn], [llvm]
    *_halves(("addhn", "subhn", "rshrn")),  # [llvm]
    *_signed_or_not("abd", "addlp", "addlv", "qadd", "qsub", "rshr", "rshl", "sra"),  # [insn], [llvm]
    *_halves(_signed_or_not("addl", "addw", "subl", "subw", "abdl")),  # [llvm]
    *("sqabs", "sqneg", "suqadd", "usqadd"),  # [llvm]
)
#: Products: their pipelines add nothing. FMLA and its kin are each core's own.
PRODUCTS = frozenset(
    (
        *("mul", "mla", "mls", "sqdmulh", "sqrdmulh", "sqrdmlah", "sqrdmlsh", "pmul", "pmull", "pmull2", "sdot", "udot"),
        *_halves((*_signed_or_not("mull", "mlal", "mlsl"), "sqdmull", "sqdmlal", "sqdmlsl")),
        *("fmul", "fmulx", "fnmul"),
    )
)
#: [slothy] Integer products wait one cycle for a sum that the one before made: they need what they add to at their last stage.
ADDED_LATE = frozenset(("mla", "mls", "sdot", "udot", *_halves(_signed_or_not("mlal", "mlsl"))))
HANDED_OVER = 3
LATENCY = {name: cycles for cycles, names in ((1, _LOGIC), (2, _TWO), (3, _THREE)) for name in names}
DIVISIONS = frozenset({"fdiv", "fsqrt"})
#: [insn] one in two cycles, 8 bytes or 16: sums of differences and of neighbours that accumulate.
_TWO_CYCLES = frozenset((*_signed_or_not("adalp", "aba"), *_halves(_signed_or_not("abal"))))
#: [slothy] 16 bytes narrowed by a shift.
_TWO_CYCLES_WHOLE = frozenset({"shrn", "shrn2"})
_DIVIDED = {"h": (8, 5), "s": (13, 10), "d": (22, 19)}  # [insn], [llvm]; half precision [llvm]
_ROOT = {"h": (8, 5), "s": (12, 9), "d": (22, 19)}  # [insn] single, [llvm]
#: [slothy] how many cycles a store issues that interleaves 16-byte registers.
INTERLEAVED_STORE = {"st2": 2, "st3": 3, "st4": 5}


def latency_of(instruction: Instruction) -> int:
    """Return the cycles from issue until another vector instruction can use the result."""
    cycles = LATENCY.get(instruction.name, VECTOR_RESULT)
    return cycles + tables_of(instruction) - 1 if instruction.name in ("tbl", "tbx") else cycles


def issue_cycles(instruction: Instruction) -> int:
    """Return the cycles of issue: one, two, or one for each register of a table [slothy]."""
    if instruction.name in ("tbl", "tbx"):
        return tables_of(instruction)
    twice = instruction.name in _TWO_CYCLES or (instruction.quad and instruction.name in _TWO_CYCLES_WHOLE)
    return 2 if twice else 1


def tables_of(instruction: Instruction) -> int:
    """Count the registers of the table in which `tbl` or `tbx` looks up."""
    return instruction.operands.partition("{")[2].partition("}")[0].count("v")


def division_of(instruction: Instruction) -> tuple[int, int]:
    """Return the cycles until the result of `fdiv` or `fsqrt`, and those for which the divider is busy."""
    element = instruction.shape[-1] if instruction.shape else instruction.operands[0]
    return (_DIVIDED if instruction.name == "fdiv" else _ROOT)[element]
