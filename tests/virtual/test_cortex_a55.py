"""The in-order schedule with the Cortex-A55's rules, against what was measured on one and what its kernels rest on."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from straight_issue import straight_issue
from vfpbench import INSTRUCTIONS, loop

from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.cores import cortex_a53, in_order
from tvmmobile.virtual.cores.bounds import least_cycles
from tvmmobile.virtual.cores.corrected import CORES, WAITS, corrected_time
from tvmmobile.virtual.cores.cortex_a55 import step_of
from tvmmobile.virtual.profile import Block

steady_cycles, waits_of = (partial(verb, step_of=step_of) for verb in (in_order.steady_cycles, in_order.waits_of))
on_a_cortex_a53 = partial(in_order.steady_cycles, step_of=cortex_a53.step_of)
RK3566 = load_board("rk3566")
FMLA, FMLA_8H = "fmla\tv8.4s, v4.4s, v2.s[0]", "fmla\tv8.8h, v4.8h, v2.h[0]"
#: Millions of instructions a second on the Cortex-A55 of a Helio G99, hiroog/vfpbench, log/MediaTek Helio G99 iPlay 50 Pro.txt.
CLOCK_MHZ = 2000


@pytest.mark.parametrize(
    ("name", "shape", "kind", "mops"),
    [
        ("fmul", "2s", "n8", 3792.6),
        ("fmla", "2s", "n8", 3789.7),
        ("fmul", "4s", "n8", 1942.3),
        ("fadd", "4s", "n8", 1941.8),
        ("fmla", "4s", "n8", 1942.2),
        ("fmla", "4h", "n8", 3790.2),
        ("fmla", "8h", "n8", 1942.3),
        ("fmul", "2s", "ns4", 1990.5),
        ("fadd", "2s", "ns4", 1991.1),
        ("fmla", "2s", "ns4", 1990.5),
        ("fmla", "4s", "ns4", 1942.1),
        ("fmla", "8h", "ns4", 1941.9),
        ("fmla", "2s", "n1", 497.8),
        ("fmla", "4s", "n1", 497.6),
        ("fmla", "8h", "n1", 497.8),
        ("fmul", "4s", "n1", 1942.1),
        ("fmadd", "s", "n8", 3791.6),
        ("fmadd", "s", "ns4", 1990.9),
        ("fmadd", "s", "n1", 497.7),
        ("fmadd", "d", "n1", 497.6),
    ],
)
def test_loops_that_were_measured(name: str, shape: str, kind: str, mops: float) -> None:
    assert steady_cycles(loop(name, shape, kind)) / INSTRUCTIONS == pytest.approx(CLOCK_MHZ / mops, rel=0.01)


def test_loads_beside_multiplications() -> None:
    """ncnn's guide for this core aims at this: half a vector loaded, the other half by way of a general register, the pointer moved."""
    beside = ["ldr\td0, [x0]", "ldr\tx23, [x0, #8]", "add\tx0, x0, #16", "ldr\td1, [x1]"]
    beside += ["ins\tv0.d[1], x23", "ldr\tx23, [x1, #8]", "add\tx1, x1, #16", "ins\tv1.d[1], x23"]
    around = [text for number, other in enumerate(beside) for text in (other, FMLA.replace("v8", f"v{8 + number}"))]
    assert steady_cycles(around) == 8 < on_a_cortex_a53(around)
    # Whole vectors take the loads two cycles, in which no product begins.
    whole = ["ldr\tq0, [x0], #16", "ldr\tq1, [x1], #16", *around[1::2]]
    assert steady_cycles(whole) == 12


def test_blocks_of_three_multiplications() -> None:
    """Each with a load, an insertion and the load of the next other half, as in XNNPACK's f32-gemm for this core."""
    block = []
    for number in range(4):
        beside = f"ldr\td{20 + number}, [x0]", f"ins\tv{20 + (number - 1) % 4}.d[1], x8", "ldr\tx8, [x1]"
        block += [text for place, other in enumerate(beside) for text in (FMLA.replace("v8", f"v{8 + 3 * number + place}"), other)]
    assert steady_cycles(block) == 12 and waits_of(block)["registers"] == 0


@pytest.mark.parametrize(
    ("cycles", "sequence"),
    [
        (1, [FMLA, "ldr\td1, [x10]"]),
        (1, [FMLA_8H, "ldr\td1, [x10]"]),
        (2, ["ldr\td1, [x10]", FMLA]),  # what works on 16 bytes begins a cycle
        (1, [FMLA, "ldr\tx1, [x10]"]),
        (1, [FMLA, "add\tx10, x10, #16"]),
        (1, [FMLA, "ins\tv1.d[1], x5"]),
        (3, ["ldr\tq1, [x10]", FMLA]),
        (2, ["ldr\tq1, [x10]", "add\tx3, x4, x5"]),
        (2, [FMLA, FMLA.replace("v8", "v9")]),
        (1, ["ldr\tx1, [x10]", "str\tx2, [x11]"]),  # a pipeline each
        (2, ["ldr\tx1, [x10]", "ldr\tx2, [x11]"]),
        (1, ["add\tx0, x0, x0", "add\tx0, x0, x0"]),
        (8, ["ldp\tq0, q1, [x10]", "ldp\tq2, q3, [x10, #32]"]),
    ],
)
def test_what_issues_together(cycles: int, sequence: list[str]) -> None:
    assert straight_issue([step_of(text) for text in sequence]) == cycles


@pytest.mark.parametrize(
    ("cycles", "block"),
    [
        (2, ["ldr\tx0, [x0]"]),  # measured by ramlat
        (1, ["ldr\tx1, [x0], #8"]),
        (2, ["ldr\tq1, [x0], #16"]),
        (2, ["ldp\tx2, x3, [x1]"]),
        (1, ["ldp\tw2, w3, [x1]"]),
        (2, ["str\tq0, [x1]"]),  # no vector store right after another
        (2, ["stp\td0, d1, [x1]"]),
        (3, ["stp\tq0, q1, [x1]"]),
        (6, ["st4\t{ v0.4s, v1.4s, v2.4s, v3.4s }, [x1]"]),
        (8, ["ld4\t{ v0.4s, v1.4s, v2.4s, v3.4s }, [x1]"]),
        (1, ["ld1r\t{ v0.4s }, [x1]"]),
        (1, ["mla\tv0.4s, v1.4s, v2.4s"]),  # the accumulator is handed over
        (4, ["mla\tv0.4s, v0.4s, v2.4s"]),
        (1, ["smlal\tv0.4s, v1.4h, v2.4h"]),
        (6, [f"uadalp\tv{i}.4s, v8.8h" for i in range(3)]),
        (1, ["sdot\tv0.4s, v1.16b, v2.4b[1]"]),
        (4, ["sdot\tv0.4s, v0.16b, v2.16b"]),
        (1, ["smull\tv0.8h, v1.8b, v2.8b"]),
        (1, ["smlal2\tv0.8h, v1.16b, v2.16b"]),
        (4, ["smlal2\tv0.8h, v0.16b, v2.16b"]),
        (4, ["smull\tv0.8h, v0.8b, v2.8b"]),
        (8, [f"fmla\tv{i}.8h, v8.8h, v9.h[0]" for i in range(8)]),
        (4, ["sqrdmulh\tv0.8h, v0.8h, v1.8h"]),
        (4, ["sqxtn\tv0.4h, v0.4s"]),
        (2, ["shrn\tv0.4h, v1.4s, #8"]),
        (3, ["srshr\tv0.4s, v0.4s, #3"]),
        (4, ["fcvtns\tv0.4s, v0.4s"]),
        (4, ["tbl\tv0.16b, { v1.16b, v2.16b, v3.16b, v4.16b }, v5.16b"]),
        (4, ["frsqrts\tv0.4s, v0.4s, v1.4s"]),
        (2, ["dmb\tish"] * 2),
        (4, ["dup\tv0.4s, w1", "umov\tw2, v0.s[0]"]),
        (1, ["eor\tv0.16b, v0.16b, v1.16b"]),
        (2, ["add\tv0.4s, v0.4s, v1.4s"]),
        (4, ["fmax\tv0.4s, v0.4s, v1.4s"]),
        (10, ["fdiv\tv0.4s, v1.4s, v2.4s"]),
        (5, ["fdiv\tv0.8h, v1.8h, v2.8h"]),
        (9, ["fsqrt\ts0, s1"]),
        (1, ["subs\tx0, x0, #1", "b.ne\t#0"]),
        (1, ["prfm\tpldl1keep, [x3, #64]"]),
        (0, []),
    ],
)
def test_blocks_of_known_cost(cycles: float, block: list[str]) -> None:
    assert steady_cycles(block) == pytest.approx(cycles)


def test_what_a_block_waits_for() -> None:
    chain = waits_of(["fmla\tv0.4s, v1.4s, v2.4s"])
    assert chain["registers"] > 60 and chain["resources"] == 0
    assert waits_of(["ldr\tq0, [x0]", "ldr\tq1, [x1]"])["resources"] > 90


_SOME = [FMLA, FMLA_8H, "fadd\tv0.2s, v0.2s, v0.2s", "ldr\td1, [x10]", "ldr\tx1, [x10]", "str\td2, [x10]", "str\tq2, [x10]", "nop"]
_SOME += ["ins\tv3.d[1], x0", "b.ne\t#0", "subs\tx5, x5, #1", "add\tx1, x1, x2, lsl #3", "ldr\tq4, [x3], #16", "ldp\td4, d5, [x3]"]
_SOME += ["ld1\t{ v4.4s, v5.4s }, [x3], #32", "st1\t{ v6.4s, v7.4s }, [x4]", "fcmp\ts0, s1", "mul\tx1, x2, x3", "fdiv\ts1, s2, s3"]
_SOME += ["dup\tv1.4s, w3", "ld1r\t{ v5.4s }, [x3]", "umov\tw2, v1.s[1]", "ld1\t{ v4.s }[1], [x3], #4", "zip1\tv0.4s, v1.4s, v2.4s"]


@given(st.lists(st.sampled_from(_SOME), min_size=1, max_size=30))
def test_no_block_is_below_its_bound(block: list[str]) -> None:
    assert steady_cycles(block) >= least_cycles(block, RK3566.core) - 1e-9
    assert steady_cycles(block * 2) == pytest.approx(2 * steady_cycles(block), abs=0.8)


def test_a_board_with_it_is_modelled_so() -> None:
    for made, expected in ((CORES["cortex-a55"], steady_cycles), (WAITS["cortex-a55"], waits_of)):
        assert isinstance(made, partial) and (made.func, made.keywords) == (expected.func, expected.keywords)
    code = bytes.fromhex("20cc214e") * 4  # fmla v0.4s, v1.4s, v1.4s
    assert corrected_time([Block(0x10000, 1000, code)], RK3566).cycles == 16_000
