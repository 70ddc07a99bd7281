"""Tests of the registers that instructions read and write, by their text."""

from __future__ import annotations

import pytest

from tvmmobile.virtual.cores.operands import Instruction, instruction_of, registers_of


@pytest.mark.parametrize(
    "text",
    [
        *(f"{name}\tv0.8h, v1.16b, v2.16b" for name in ("smlal2", "umlal2", "smlsl2", "umlsl2", "sabal2", "uabal2")),
        *(f"{name}\tv0.4s, v1.4h, v2.4h" for name in ("smlal", "umlsl", "sqdmlal", "sqdmlsl", "fmlal", "fmlsl", "fmlal2", "fmlsl2")),
        *(f"{name}\tv0.4s, v1.16b, v2.16b" for name in ("sdot", "udot", "usdot", "smmla", "ummla", "usmmla", "bfdot", "bfmmla")),
        "sudot\tv0.4s, v1.16b, v2.4b[0]",
        *(f"{name}\tv0.4s, v1.4s, v2.4s" for name in ("mla", "mls", "sqrdmlah", "sqrdmlsh", "saba", "uaba", "fmla", "fmls", "bsl")),
        *(f"{name}\tv0.4s, v1.4s, #3" for name in ("ssra", "usra", "srsra", "ursra", "sli", "sri")),
        *(f"{name}\tv0.8h, v1.4s" for name in ("xtn2", "sqxtn2", "sqxtun2", "uqxtn2", "fcvtn2", "fcvtxn2")),
        *(f"{name}\tv0.8h, v1.4s, #4" for name in ("shrn2", "rshrn2", "sqshrn2", "sqrshrn2", "uqrshrn2", "sqrshrun2", "sqshrun2")),
        *(f"{name}\tv0.8h, v1.4s, v2.4s" for name in ("addhn2", "raddhn2", "subhn2", "rsubhn2")),
        "sadalp\tv0.4s, v1.8h",
        "fcmla\tv0.4s, v1.4s, v2.4s, #90",
        "tbx\tv0.16b, { v1.16b }, v2.16b",
        "usqadd\tv0.16b, v1.16b",
        "movk\tx0, #1, lsl #16",
        "bfi\tw0, w1, #2, #3",
    ],
)
def test_what_accumulates_reads_its_destination_first(text: str) -> None:
    instruction = instruction_of(text)
    assert instruction.accumulates
    assert instruction.reads == registers_of(text.partition("\t")[2])


@pytest.mark.parametrize(
    "text",
    [
        "trn2\tv0.4s, v1.4s, v2.4s",
        "zip2\tv0.4s, v1.4s, v2.4s",
        "smull2\tv0.8h, v1.16b, v2.16b",
        "xtn\tv0.4h, v1.4s",
        "fcvtl2\tv0.4s, v1.8h",
        "orr\tv0.16b, v1.16b, v2.16b",
        "saddlp\tv0.4s, v1.8h",
        "fmadd\ts0, s1, s2, s3",
        "sqxtn\tv0.8b, v1.8h",
        "movi\tv0.4s, #3",
    ],
)
def test_what_does_not_accumulate(text: str) -> None:
    instruction = instruction_of(text)
    assert not instruction.accumulates and "v0" not in instruction.reads and instruction.writes == ("v0",)


@pytest.mark.parametrize(
    ("text", "reads", "writes"),
    [
        ("orr\tv0.4s, #3", ("v0",), ("v0",)),
        ("subs\txzr, x1, x2", ("x1", "x2"), ("flags",)),
        ("msr\tFPCR, x1", ("x1",), ()),
        ("mrs\tx1, FPCR", (), ("x1",)),
        ("dc\tzva, x0", ("x0",), ()),
        ("dmb\tish", (), ()),
        ("isb", (), ()),
        ("ngcs\tx0, x1", ("x1", "flags"), ("x0", "flags")),
        ("ldaxr\tw0, [x1]", ("x1",), ("x0",)),
        ("ldxp\tx0, x1, [x2]", ("x2",), ("x0", "x1")),
        ("stlxr\tw2, w0, [x1]", ("x0", "x1"), ("x2",)),
        ("stxp\tw2, x3, x4, [sp]", ("x3", "x4", "sp"), ("x2",)),
        ("stxr\twzr, w0, [x1]", ("x0", "x1"), ()),
        ("stlr\tw0, [x1]", ("x0", "x1"), ()),
        ("ldaddal\tw0, w1, [x2]", ("x0", "x2"), ("x1",)),
        ("ldsetb\tw0, wzr, [x2]", ("x0", "x2"), ()),
        ("stadd\tw0, [x1]", ("x0", "x1"), ()),
        ("swpl\tx5, x6, [x7]", ("x5", "x7"), ("x6",)),
        ("casal\tw0, w1, [x2]", ("x0", "x1", "x2"), ("x0",)),
        ("casp\tx0, x1, x2, x3, [x4]", ("x0", "x1", "x2", "x3", "x4"), ("x0", "x1")),
        ("ldar\tw0, [x1]", ("x1",), ("x0",)),
    ],
)
def test_reads_and_writes(text: str, reads: tuple[str, ...], writes: tuple[str, ...]) -> None:
    instruction = instruction_of(text)
    assert (instruction.reads, instruction.writes) == (reads, writes)


def test_a_lane_that_is_written_keeps_the_others() -> None:
    def kept(text: str) -> Instruction:
        instruction = instruction_of(text)
        assert instruction.keeps
        return instruction

    assert kept("mov\tv0.s[1], v1.s[0]").reads == ("v1",)
    assert kept("mov\tv0.s[1], w2").reads == ("x2",)
    assert kept("fmov\tv0.d[1], x3").writes == ("v0",)
    assert not instruction_of("mov\tw0, v1.s[1]").keeps and not instruction_of("mov\tv0.16b, v1.16b").keeps
