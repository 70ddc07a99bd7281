"""The Cortex-A76's schedule: latencies, two 128-bit vector pipelines, half precision, stores, queues."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machine_code import assemble

from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.cores.bounds import least_cycles
from tvmmobile.virtual.cores.corrected import CORES, VERSIONS, corrected_time
from tvmmobile.virtual.cores.cortex_a72 import CORTEX_A72
from tvmmobile.virtual.cores.cortex_a76 import CORTEX_A76
from tvmmobile.virtual.cores.out_of_order import operation_of, steady_cycles
from tvmmobile.virtual.profile import Block

PI5 = load_board("pi5")
#: ncnn's exponential has chains like this one: each step needs the one before.
CHAIN = ["fmla\tv0.4s, v0.4s, v1.4s"] * 8 + ["ldr\tq0, [x0], #16", "subs\tx1, x1, #1", "b.ne\t#0"]


@pytest.mark.parametrize(
    ("block", "cycles"),
    [
        (["fmla\tv0.4s, v1.4s, v2.4s"], 2),  # the accumulator is forwarded
        (["fmla\tv0.4s, v0.4s, v2.4s"], 4),
        (["fmla\tv0.8h, v0.8h, v2.h[3]"], 4),
        (["fmul\tv0.4s, v0.4s, v1.4s"], 3),
        (["fmul\tv1.4s, v0.4s, v3.4s", "fmla\tv0.4s, v1.4s, v2.4s"], 7),
        (["fadd\tv0.8h, v0.8h, v1.8h"], 2),
        (["fmax\tv0.4s, v0.4s, v1.4s"], 2),
        (["frintm\tv0.2s, v0.2s"], 3),
        (["frintm\tv0.4s, v0.4s"], 4),
        (["frintm\tv0.8h, v0.8h"], 6),
        (["smlal\tv0.4s, v1.4h, v2.4h"], 1),
        (["mul\tv0.4s, v0.4s, v1.4s"], 5),
        (["mla\tv0.4s, v1.4s, v2.4s"], 2),
        (["smull\tv0.8h, v1.8b, v2.8b", "smlal2\tv0.8h, v1.16b, v2.16b", "mov\tv1.16b, v0.16b"], 1 + 4 + 2),
        (["sadalp\tv0.4s, v1.8h"], 1),
        (["usra\tv0.4s, v1.4s, #3"], 1),
        (["sdot\tv0.4s, v1.16b, v2.4b[0]"], 1),
        (["fmlal\tv0.4s, v1.4h, v2.h[1]"], 2),
        (["sqxtn\tv0.8b, v0.8h"], 4),
        (["frecpe\tv0.8h, v0.8h"], 6),
        (["frecps\tv0.4s, v0.4s, v1.4s"], 4),
        (["tbl\tv0.16b, { v0.16b, v1.16b }, v2.16b"], 2),
        (["mov\tv0.s[1], v1.s[0]"], 2),
        (["stlxr\tw0, w1, [x0]"], 4),
        (["ldaddal\tw0, w0, [x1]"], 5),
        (["add\tx0, x0, #1"], 1),
        (["add\tx0, x0, x1, lsl #2"], 1),
        (["add\tx0, x0, x1, lsl #5"], 2),
        (["add\tx0, x0, w1, sxtw #1"], 2),
        (["orr\tx0, x0, x1, lsl #5"], 1),
        (["mul\tw0, w0, w1"], 2),
        (["mul\tx0, x0, x1"], 4),
        (["ldr\tx0, [x0]"], 4),
        (["ldr\tq0, [x0], #16"], 1),  # the base register
        (["ldr\tq0, [x0]", "fadd\tv1.4s, v1.4s, v0.4s", "subs\tx1, x1, #1", "b.ne\t#0"], 2),
        (["fmov\tw0, s0", "fmov\ts0, w0"], 5),
    ],
)
def test_chains(block: list[str], cycles: float) -> None:
    assert steady_cycles(block, CORTEX_A76) == pytest.approx(cycles, abs=0.13)


@pytest.mark.parametrize(
    ("block", "cycles"),
    [
        ([f"fmla\tv{i}.4s, v30.4s, v31.s[0]" for i in range(16)], 8),
        ([f"fmla\tv{i}.8h, v30.8h, v31.h[0]" for i in range(16)], 8),
        ([f"fmla\tv{i}.4h, v30.4h, v31.h[0]" for i in range(16)], 8),
        ([f"sdot\tv{i}.4s, v30.16b, v31.4b[0]" for i in range(16)], 8),
        (["smull\tv0.8h, v1.8b, v2.8b", "umlal2\tv3.8h, v1.16b, v2.16b"], 2),
        (["smull\tv0.8h, v1.8b, v2.8b", "sadalp\tv3.4s, v4.8h"], 1),
        (["sqrdmulh\tv0.8h, v1.8h, v2.8h"], 2),
        (["sqrshrn2\tv0.16b, v1.8h, #4", "sqrshl\tv2.4s, v3.4s, v4.4s"], 4),  # the first keeps half of what it writes
        (["frsqrte\tv0.8h, v1.8h"], 4),
        (["tbl\tv0.16b, { v1.16b, v2.16b, v3.16b }, v5.16b"], 2),
        (["fdiv\tv0.4s, v1.4s, v2.4s"], 7),
        (["fdiv\tv0.8h, v1.8h, v2.8h"], 10),
        (["fcvtl\tv0.4s, v1.4h"], 2),
        (["fcvtzs\tv0.8h, v1.8h"], 4),
        # One micro-operation each: V0 and V1 take the sums meanwhile, as they do beside a division.
        (["fcvtzs\tv0.8h, v1.8h", *[f"fadd\tv{2 + i}.8h, v30.8h, v31.8h" for i in range(7)]], 4),
        (["fdiv\tv0.8h, v1.8h, v2.8h", *[f"fadd\tv{3 + i}.8h, v30.8h, v31.8h" for i in range(19)]], 10),
        (["fdiv\tv0.8h, v1.8h, v2.8h", "fcvtzs\tv3.8h, v4.8h", "scvtf\tv5.8h, v6.8h"], 10),
        (["scvtf\tv0.4s, v1.4s", "smull\tv2.4s, v3.4h, v4.4h"], 2),
        (["scvtf\ts0, s1", "frintm\ts2, s3"], 2),
        (["shl\tv0.4s, v1.4s, #2", "sshr\tv2.4s, v3.4s, #2"], 2),  # one of the two alone can shift
        (["ldr\tq0, [x0]", "ldr\tq1, [x0, #16]"], 1),
        (["ldp\tq0, q1, [x0]"], 1),
        (["ld1\t{ v0.8h, v1.8h, v2.8h, v3.8h }, [x0]"], 2),
        (["ld1r\t{ v0.8h }, [x0]"], 0.5),
        (["str\tq0, [x0]"], 1),
        (["str\td0, [x0]", "str\td1, [x0, #8]"], 1),
        (["str\tx1, [x0]", "str\tx2, [x0, #8]"], 1),
        (["stp\tx1, x2, [x0]"], 1),
        (["stp\tq0, q1, [x0]"], 2),
        (["st1\t{ v0.4s, v1.4s, v2.4s, v3.4s }, [x0], #64"], 4),
        (["subs\tx0, x0, #1", "b.ne\t#0"], 1),
        (["add\tx0, x8, #1", "add\tx1, x8, #1", "add\tx2, x8, #1"], 1),
        (["nop"] * 8, 8 / 3),  # the integer pipelines'
        (["fmla\tv0.4s, v30.4s, v31.4s", "add\tx0, x8, #1"] * 2, 4),
        (["sdiv\tw0, w1, w2"], 5),
        ([], 0),
    ],
)
def test_throughput(block: list[str], cycles: float) -> None:
    assert steady_cycles(block, CORTEX_A76) == pytest.approx(cycles, abs=0.13)


def test_a_store_does_not_hold_up_the_next_address() -> None:
    clamp = ["ld1\t{ v0.8h, v1.8h }, [x1]", "fmax\tv0.8h, v0.8h, v31.8h", "fmax\tv1.8h, v1.8h, v31.8h"]
    assert steady_cycles([*clamp, "st1\t{ v0.8h, v1.8h }, [x1], #32"], CORTEX_A76) == pytest.approx(2, abs=0.13)


def test_waiting_work_fills_the_queues() -> None:
    """Iterations of a chain overlap only as far as the vector pipelines' queues hold them."""
    queued, unbounded = steady_cycles(CHAIN, CORTEX_A76), steady_cycles(CHAIN, replace(CORTEX_A76, queues={}))
    assert unbounded <= queued
    long = [f"fmla\tv0.4s, v0.4s, v{1 + i % 30}.4s" for i in range(60)] + ["ldr\tq0, [x0], #16"]
    # Of 240 cycles, those overlap that the 32 last operations of the iteration before take.
    assert steady_cycles(long, replace(CORTEX_A76, queues={})) < steady_cycles(long, CORTEX_A76) < 240


def test_names_of_pipelines() -> None:
    """Every instruction takes pipelines that the core has, and its parts of kinds lie in kinds."""
    texts = ["bl\t#0", "b.eq\t#0", "ldr\tx0, [x1]", "ld4\t{ v0.8h, v1.8h, v2.8h, v3.8h }, [x0], #64", "st3\t{ v0.2s, v1.2s, v2.2s }, [x0]"]
    texts += ["prfm\tpldl1keep, [x1, #512]", "fcvtzs\tw0, s0", "scvtf\ts0, w0", "umov\tw0, v1.s[2]", "dup\tv0.4s, w1", "ins\tv0.s[1], w2"]
    texts += ["fmaxv\th0, v1.8h", "addv\ts0, v1.4s", "fdiv\ts0, s1, s2", "fdiv\th0, h1, h2", "fcmp\ts0, s1", "sqxtn\tv0.4h, v1.4s", "ret"]
    texts += ["tbl\tv0.16b, { v1.16b, v2.16b }, v3.16b", "fsqrt\tv0.2d, v1.2d", "st1\t{ v0.s }[1], [x0], #4", "umulh\tx0, x1, x2", "nop"]
    for tables in (CORTEX_A72, CORTEX_A76):
        for text in texts:
            timing = operation_of(text, tables).timing
            assert {port for port, _ in timing.ports} <= set(tables.pipelines), text
            assert steady_cycles([text], tables) > 0
        assert set(tables.part_of) | set(tables.part_of.values()) | set(tables.queues) <= set(tables.pipelines)


def test_the_schedule_counts_alone_but_not_below_the_ports() -> None:
    code = assemble("fmla v0.4s, v1.4s, v2.4s\nfmla v3.4s, v1.4s, v2.4s\nldr q4, [x0], #16\n")
    time = corrected_time([Block(0x10000, 1000, code)], PI5, 1)
    each = time.hottest[0].cycles_each
    assert each == max(CORES["cortex-a76"](time.hottest[0].assembly), least_cycles(time.hottest[0].assembly, PI5.core))


def test_pinned_numbers() -> None:
    """When these change, raise `version` in the core's file with them, and calibrate again."""
    clamp = "ld1 {v0.4s, v1.4s, v2.4s, v3.4s}, [x1]\nfmax v0.4s, v0.4s, v31.4s\nst1 {v0.4s, v1.4s, v2.4s, v3.4s}, [x1], #64\n"
    chain = "fmul v0.4s, v0.4s, v1.4s\nfrintm v0.4s, v0.4s\nfmla v2.4s, v0.4s, v1.4s\nfdiv v0.4s, v2.4s, v3.4s\n"
    units = "fcvtzs v0.4s, v1.4s\nfdiv v2.4s, v1.4s, v3.4s\nscvtf v4.4s, v1.4s\n" + "fadd v5.4s, v1.4s, v3.4s\n" * 4
    blocks = [Block(0x10000, 100, assemble(clamp)), Block(0x10100, 1000, assemble(chain)), Block(0x10200, 1000, assemble(units))]
    assert (VERSIONS["cortex-a76"], corrected_time(blocks, PI5).cycles) == (6, 28400)
