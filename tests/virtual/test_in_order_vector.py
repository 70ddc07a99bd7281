"""In-order cores know the instructions that kernels and peers execute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tvmmobile.virtual.cores import cortex_a53, cortex_a55
from tvmmobile.virtual.cores.in_order import IssueStep
from tvmmobile.virtual.cores.in_order_integer import _BIT_FIELDS, _DIVIDE, _MULTIPLY, _SHIFTS, _SYSTEM
from tvmmobile.virtual.cores.in_order_vector import DIVISIONS, LATENCY, PRODUCTS, _halves, _signed_or_not
from tvmmobile.virtual.cores.operands import instruction_of

EXECUTED = [
    line
    for line in Path(__file__).with_name("executed_instructions.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
#: Complex numbers came with ARMv8.3, products of two halves added to a float as an option of ARMv8.2: neither core has them.
_NEITHER = ("fcadd", "fcmla", "fmlal", "fmlsl")
#: Instructions of four cycles that the tables of `in_order_vector` do not name.
_FOUR = (
    *("fabs", "fneg", "fabd", "fadd", "fsub", "fmax", "fmin", "fmaxnm", "fminnm"),  # [insn], [llvm]
    *("faddp", "fmaxp", "fminp", "fmaxnmp", "fminnmp", "fmaxv", "fminv", "fmaxnmv", "fminnmv"),  # [insn], [llvm]
    *(f"frint{mode}" for mode in "aimnpxz"),
    *("frecpe", "frecpx", "frsqrte", "urecpe", "ursqrte"),  # [insn], [llvm53]
    *("fcvt", "scvtf", "ucvtf", *_halves(("fcvtl", "fcvtn", "fcvtxn")), *(f"fcvt{mode}{sign}" for mode in "amnpz" for sign in "su")),
    *_signed_or_not("maxv", "minv", "aba", "adalp", "rsra", "qshl", "qrshl"),  # [insn], [llvm]
    *_halves(_signed_or_not("abal", "qxtn", "qshrn", "qrshrn")),
    *_halves(("sqxtun", "sqshrun", "sqrshrun", "raddhn", "rsubhn")),
    "sqshlu",
)
#: What is treated as an ALU instruction, as anything unknown is.
_ALU = (
    *("add", "sub", "adds", "subs", "neg", "negs", "adc", "adcs", "sbc", "sbcs", "ngc", "ngcs", "cmp", "cmn", "tst", "ccmp", "ccmn"),
    *("and", "ands", "orr", "orn", "eor", "eon", "bic", "bics", "mvn", "movk", "cls", "clz", "rbit", "rev", "rev16", "rev32"),
    *("csel", "cset", "csetm", "csinc", "csinv", "csneg", "cinc", "cinv", "cneg"),
    *(f"crc32{kind}{size}" for kind in ("", "c") for size in "bhwx"),
    *("nop", "yield", "bti", "hint", "sev", "sevl", "wfe", "paciasp", "autiasp", "xpaclri"),
)
VECTOR_NAMES = frozenset({*LATENCY, *_FOUR, *PRODUCTS, *DIVISIONS})
GENERAL_NAMES = frozenset({*_MULTIPLY, *_DIVIDE, *_SHIFTS, *_BIT_FIELDS, *_SYSTEM, *_ALU})
_MEMORY = ("load", "store", "prefetch", "branch")


@pytest.mark.parametrize("names", [VECTOR_NAMES | core.OWN_NAMES for core in (cortex_a53, cortex_a55)], ids=["cortex-a53", "cortex-a55"])
def test_no_instruction_is_known_by_default_alone(names: frozenset[str]) -> None:
    assert len(EXECUTED) > 300
    for text in EXECUTED:
        instruction = instruction_of(text)
        if instruction.kind not in _MEMORY and not instruction.name.startswith(_NEITHER):
            assert instruction.name in (names if instruction.kind == "vector" else GENERAL_NAMES), text


@pytest.mark.parametrize("step_of", [cortex_a53.step_of, cortex_a55.step_of], ids=["cortex-a53", "cortex-a55"])
def test_each_issues_and_is_done_within_the_longest_division(step_of: Callable[[str], IssueStep]) -> None:
    for text in EXECUTED:
        step = step_of(text)
        assert 1 <= step.cycles <= 9 and step.lanes + step.adds <= 4, text
        assert all(0 <= stage <= 22 for _, stage in (*step.reads, *step.writes)), text
