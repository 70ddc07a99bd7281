"""The Cortex-A72's two vector pipelines apart: integer products in F0, shifts and sums in place in F1; results of 16 bytes in dispatch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machine_code import assemble

from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.cores.corrected import CORES, corrected_time
from tvmmobile.virtual.cores.cortex_a72 import CORTEX_A72
from tvmmobile.virtual.cores.cortex_a73 import CORTEX_A73
from tvmmobile.virtual.cores.cortex_a76 import CORTEX_A76
from tvmmobile.virtual.cores.explain import limit_of
from tvmmobile.virtual.cores.out_of_order import pipeline_cycles, steady_cycles
from tvmmobile.virtual.profile import Block

PI4, A311D, PI5 = load_board("pi4"), load_board("a311d"), load_board("pi5")


def products_of_eight() -> list[str]:
    """4×4 sums of sixteen products of 8 bits each: two products of eight and a sum of pairs; 256 multiplications."""
    block = [f"ldr\tq{place}, [x0, #{16 * place}]" for place in range(4)] + ["ldp\tq4, q5, [x1], #32", "ldp\tq6, q7, [x1], #32"]
    for row in range(4):
        for column in range(4):
            sums, into = 16 + 4 * row + column, 8 + column
            block.append(f"smull\tv{into}.8h, v{row}.8b, v{4 + column}.8b")
            block.append(f"smlal2\tv{into}.8h, v{row}.16b, v{4 + column}.16b")
            block.append(f"sadalp\tv{sums}.4s, v{into}.8h")
    return [*block, "subs\tx2, x2, #1", "b.ne\t#0"]


@pytest.mark.parametrize(
    ("block", "cycles"),
    [
        (["smull\tv0.8h, v1.8b, v2.8b"], 1),
        (["smull2\tv0.8h, v1.16b, v2.16b", "umlal2\tv3.8h, v1.16b, v2.16b"], 2),
        (["mul\tv0.4s, v1.4s, v2.4s"], 2),  # [osaca]
        (["mul\tv0.2s, v1.2s, v2.2s"], 1),
        (["sqrdmulh\tv0.8h, v1.8h, v2.8h"], 2),
        (["shl\tv0.4s, v1.4s, #2", "sshr\tv2.4s, v3.4s, #2"], 2),  # [osaca]
        (["sshll\tv0.4s, v1.4h, #0", "ushll2\tv2.4s, v3.8h, #0"], 2),
        (["sshl\tv0.4s, v1.4s, v2.4s"], 2),  # [osaca]
        (["srshl\tv0.4s, v1.4s, v2.4s"], 2),
        (["sqrshrn\tv0.4h, v1.4s, #4", "sqxtn\tv2.8b, v3.8h"], 2),
        (["xtn\tv0.4h, v1.4s", "xtn\tv2.4h, v3.4s"], 1),
        (["smull\tv0.8h, v1.8b, v2.8b", "sshr\tv3.4s, v4.4s, #2", "sadalp\tv5.4s, v6.8h", "smull\tv7.8h, v1.8b, v2.8b"], 8 / 3),
        (["smull\tv0.8h, v1.8b, v2.8b", "add\tv3.4s, v4.4s, v5.4s"], 4 / 3),  # dispatch, two slots each
        (["smull\tv0.8h, v1.8b, v2.8b", "add\tv3.2s, v4.2s, v5.2s"], 1),
        (["scvtf\tv0.4s, v1.4s"], 2),  # [osaca]
        (["fcvtns\tv0.2s, v1.2s", "fcvtzs\tv2.2d, v3.2d"], 2),
        (["frintm\tv0.4s, v1.4s", "fadd\tv2.4s, v3.4s, v4.4s"], 2),  # an addition's halves beside one conversion's
        (["zip1\tv0.4s, v1.4s, v2.4s", "uzp2\tv3.8h, v1.8h, v2.8h"], 4 / 3),  # [osaca]
        (["bsl\tv0.16b, v1.16b, v2.16b", "bit\tv3.16b, v1.16b, v2.16b"], 3),
        (["bit\tv3.16b, v1.16b, v2.16b"], 3),  # it waits for the register whose bits it keeps
        (["fcmgt\tv0.4s, v1.4s, v2.4s", "fcmge\tv3.4s, v1.4s, v2.4s"], 4 / 3),  # [osaca]
        (["fsqrt\tv0.4s, v1.4s"], 14),  # [osaca]
        (["ld1r\t{ v0.4s }, [x0]"], 1),
        (["stp\tx0, x1, [x2]"], 2),  # [osaca]
        (["st2\t{ v0.s, v1.s }[1], [x0]"], 1),
        (["st1\t{ v0.d }[1], [x0]"], 1),
        (["st4\t{ v0.4s, v1.4s, v2.4s, v3.4s }, [x0]"], 8),
        (["umulh\tx0, x1, x2"], 4),  # [osaca]
        (["ld2\t{ v0.16b, v1.16b }, [x0]"], 2),
        (["tbl\tv0.16b, { v1.16b }, v2.16b"], 1.5),
        (["add\tx2, x14, #16, lsl #12           // =65536"] * 2, 1),
        ([f"fmla\tv{i}.4s, v8.4s, v9.4s" for i in range(4)], 4),
        (["fdiv\tv0.4s, v1.4s, v2.4s", *(f"fmla\tv{i}.4s, v8.4s, v9.4s" for i in range(3, 8))], 8),  # a division does not keep them waiting
    ],
)
def test_throughput(block: list[str], cycles: float) -> None:
    assert steady_cycles(block, CORTEX_A72) == pytest.approx(cycles, abs=0.13)


@pytest.mark.parametrize(
    ("block", "cycles"),
    [
        (["smlal\tv0.4s, v1.4h, v2.4h"], 1),
        (["smlal2\tv0.4s, v1.8h, v2.8h"], 1),
        (["sadalp\tv0.4s, v1.8h"], 1),
        (["ssra\tv0.4s, v1.4s, #2"], 1),
        (["mla\tv0.4s, v1.4s, v2.4s"], 2),
        (["smull\tv0.8h, v0.8b, v1.8b"], 4),  # no accumulator, but a factor
        (["smull\tv0.8h, v1.8b, v2.8b", "smlal2\tv0.8h, v1.16b, v2.16b", "mov\tv1.16b, v0.16b"], 1 + 4 + 3),
        (["smlal\tv0.4s, v0.4h, v2.4h"], 4),
        (["sadalp\tv0.4s, v1.8h", "smlal\tv0.4s, v2.4h, v3.4h"], 8),  # different families hand nothing over
        (["sqxtn\tv0.8b, v0.8h"], 4),
        (["sqxtn2\tv0.16b, v1.8h"], 4),
        (["mov\tv0.s[1], v1.s[0]"], 3),
        (["mov\tw0, v1.s[1]", "dup\tv1.4s, w0"], 13),
        (["fmov\tw0, s0", "fmov\ts0, w0"], 10),
        (["fmadd\ts0, s1, s2, s0"], 7),
        (["frecps\tv0.4s, v0.4s, v1.4s"], 7),
        (["stxr\tw0, w1, [x0]"], 4),
        (["fcvtl\tv0.4s, v0.4h"], 7),
        (["faddp\tv0.4s, v0.4s, v1.4s"], 7),
        (["faddp\tv0.2s, v0.2s, v1.2s"], 4),
        (["fmaxv\ts0, v0.4s", "dup\tv0.4s, v0.s[0]"], 8 + 3),
        (["addv\ts0, v0.4s", "dup\tv0.4s, v0.s[0]"], 4 + 3),
        (["saddlv\ts0, v0.8h", "dup\tv0.8h, v0.h[0]"], 7 + 3.5),  # F1 is taken now and then
        (["uaddlv\th0, v0.16b", "dup\tv0.16b, v0.b[0]"], 8 + 3),
        (["tbl\tv0.16b, { v0.16b }, v2.16b"], 6),
        (["tbl\tv0.16b, { v0.16b, v1.16b }, v2.16b"], 9),
        (["tbl\tv0.8b, { v0.16b, v1.16b }, v2.8b"], 6),
        (["scvtf\ts0, w0", "fcvtzs\tw0, s0"], 9 + 9),
        (["frintm\tv0.4s, v0.4s"], 4),
        (["umulh\tx0, x0, x1"], 6),  # [osaca]
        (["mul\tx0, x0, x1"], 5),  # [osaca]
        (["mul\tw0, w0, w1"], 3),
        (["sdiv\tw0, w0, w1"], 12),
        (["sqdmlal\tv0.4s, v1.4h, v2.4h"], 2),
    ],
)
def test_chains(block: list[str], cycles: float) -> None:
    assert steady_cycles(block, CORTEX_A72) == pytest.approx(cycles, abs=0.13)


def test_products_of_eight_bits_are_bound_by_one_pipeline_or_by_dispatch() -> None:
    """32 products, which F0 alone makes, for 256 multiplications: eight a cycle, and on an A76, whose V0 alone makes them.

    On an A72, dispatch takes longer: 48 results of 16 bytes and 8 that are loaded, two slots each, two pointers, and the loop's two.
    """
    block = products_of_eight()
    busy = pipeline_cycles(block, CORTEX_A72)
    assert (busy["f0"], busy["f1"], busy["load"]) == (32, 16, 8)
    for tables, cycles in ((CORTEX_A72, ((48 + 8) * 2 + 2 + 2) / 3), (CORTEX_A73, 32), (CORTEX_A76, 32)):
        assert steady_cycles(block, tables) == pytest.approx(cycles, abs=0.5), tables.name


def test_llvm_mca_does_not_undercut_the_pipelines() -> None:
    """It lets both pipelines shift and convert."""
    code = assemble(
        "\n".join(f"sshll v{i}.4s, v{i + 8}.4h, #0\nscvtf v{i + 16}.2s, v{i + 24}.2s\nushr v{i}.4s, v{i + 8}.4s, #3" for i in range(8))
    )
    time = corrected_time([Block(0x10000, 1000, code)], PI4, 1)
    assert time.hottest[0].cycles_each == pytest.approx(16, abs=0.2)
    assert limit_of(time.hottest[0], PI4) == "pipelines `f1`: 16 of 16 cycles"


def test_an_integer_kernel_costs_the_same_by_the_boards() -> None:
    code = assemble("".join(text.partition("//")[0] + "\n" for text in products_of_eight() if not text.startswith("b.")))
    for board, cycles in ((PI4, 115 / 3), (A311D, 32), (PI5, 32)):
        time = corrected_time([Block(0x10000, 1000, code)], board, 1)
        assert time.hottest[0].cycles_each == pytest.approx(cycles, abs=0.5), board.name
        assert CORES[board.mcpu](time.hottest[0].assembly) == time.hottest[0].cycles_each


@pytest.mark.parametrize(
    ("name", "shape", "registers", "cycles"),
    [
        ("fabs", "2s", "chain", 3.00),
        ("fabs", "4s", "chain", 3.00),
        ("fabs", "2s", "pairs", 0.50),
        ("fabs", "4s", "pairs", 0.69),
        ("fadd", "2s", "chain", 4.00),
        ("fadd", "4s", "chain", 4.00),
        ("fadd", "4s", "pairs", 1.00),
        ("fmul", "4s", "chain", 4.00),
        ("fmul", "2s", "triples", 0.50),
        ("fmul", "4s", "triples", 1.00),
        ("fmla", "2s", "chain", 7.00),
        ("fmla", "4s", "chain", 7.00),
        ("fmla", "2s", "pairs", 0.50),
        ("fmla", "4s", "pairs", 1.00),
        ("fmla", "4s", "triples", 1.00),
    ],
)
def test_loops_that_were_measured(name: str, shape: str, registers: str, cycles: float) -> None:
    """Terminus-IMRC/insn-bench-rpi, README.md, Cortex-A72 (64bit): cycles of each of 32, 16 or 10 instructions between SUBS and B.NE."""
    count, step = {"chain": (32, 0), "pairs": (16, 2), "triples": (10, 3)}[registers]
    sources = 1 if name == "fabs" else 2
    loop = ["subs\tw0, w0, #1"]
    for first in range(0, count * step, step) if step else [0] * count:
        read = [first + min(step, 1 + place if step == 3 else 1) if step else 0 for place in range(sources)]
        loop.append(f"{name}\t" + ", ".join(f"v{number}.{shape}" for number in (first, *read)))
    loop.append("b.ne\t#0")
    assert len(loop) == count + 2
    assert steady_cycles(loop, CORTEX_A72) / count == pytest.approx(cycles, rel=0.055)


def test_an_operation_waits_in_the_queue_of_one_pipeline() -> None:
    """Eight entries each: integer products for F0 alone fill its queue, and what could go through F1 is not dispatched behind them."""
    products = [f"mul\tv{i}.2s, v30.2s, v31.2s" for i in range(12)]
    others = [f"eor\tv{12 + i}.8b, v30.8b, v31.8b" for i in range(12)]
    waiting = ["ldr\tx0, [x0]", "fmov\td30, x0", *products, *others]
    assert steady_cycles(waiting, CORTEX_A72) > steady_cycles(waiting, replace(CORTEX_A72, queues={**CORTEX_A72.queues, "f0": 99})) + 2
    in_turn = [text for pair in zip(products, others, strict=True) for text in pair]
    assert steady_cycles(in_turn, CORTEX_A72) == pytest.approx(12, abs=0.2)
