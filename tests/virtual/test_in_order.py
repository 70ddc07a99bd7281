"""The in-order schedule with the Cortex-A53's rules, against cycles that the performance counter of a real one showed."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.cores import in_order
from tvmmobile.virtual.cores.bounds import least_cycles
from tvmmobile.virtual.cores.corrected import corrected_time
from tvmmobile.virtual.cores.cortex_a53 import step_of
from tvmmobile.virtual.cores.in_order import IssueStep, steady_issue, straight_issue
from tvmmobile.virtual.profile import Block

steady_cycles, waits_of = (partial(verb, step_of=step_of) for verb in (in_order.steady_cycles, in_order.waits_of))
PI3 = load_board("pi3bplus")
FADD, FADD_D = "fadd\tv0.4s, v0.4s, v0.4s", "fadd\tv0.2s, v0.2s, v0.2s"
LOAD_D, LOAD_X, STORE_D, STORE_Q = "ldr\td1, [x10]", "ldr\tx1, [x10]", "str\td2, [x10]", "str\tq2, [x10]"
INSERT = "ins\tv3.d[1], x0"


# What a Cortex-A53 took: daniestevez/qsdr, qsdr-benchmarks/tests/instruction_benchmark/aarch64, commit 05d8b9d5.
@pytest.mark.parametrize(
    ("cycles", "sequence"),
    [
        # neon/dual_issue.rs: a load or store of 64 bits with arithmetic on both halves or on one
        (2, [LOAD_D, FADD]),
        (2, [FADD, LOAD_D]),
        (1, [FADD_D, LOAD_D]),
        (1, [LOAD_D, FADD_D]),
        (2, [LOAD_X, FADD]),
        (1, [FADD, LOAD_X]),
        (1, [LOAD_D, INSERT]),
        (1, [INSERT, LOAD_D]),
        (2, [LOAD_D, "ins\tv1.d[1], x0"]),
        (2, ["ld1\t{ v1.d }[0], [x10]", INSERT]),
        (2, [INSERT, "ld1\t{ v1.d }[0], [x10]"]),
        (2, [FADD, STORE_Q]),
        (2, [STORE_Q, FADD]),
        (2, [LOAD_D, STORE_Q]),
        (2, [INSERT, STORE_Q]),
        (2, [STORE_Q, INSERT]),
        (2, [LOAD_D, STORE_D]),
        (1, [FADD, "str\tx1, [x10]"]),
        (2, ["str\tx1, [x10]", FADD]),
        (2, [FADD, "mov\tx1, v1.d[0]"]),
        (2, ["mov\tx1, v1.d[0]", FADD]),
        # neon/gpr.rs
        (1, [INSERT, "ins\tv1.d[1], x1"]),
        (2, [INSERT, "ins\tv3.d[0], x1"]),
        (3, [INSERT, "fadd\tv3.4s, v3.4s, v3.4s"]),
        # neon/load: 64 bits a cycle
        (2, ["ldr\tq0, [x10]"]),
        (5, ["ldr\tq0, [x10]", FADD]),
        (7, ["ldr\tq1, [x10]", "ldr\tq0, [x10]", FADD]),
        (4, ["ldp\tq0, q1, [x10]"]),
        (5, ["ldp\tq0, q1, [x10]", FADD]),
        (7, ["ldp\tq1, q0, [x10]", FADD]),
        (11, ["ld1\t{ v3.4s, v2.4s, v1.4s, v0.4s }, [x10]", FADD]),
        (4, ["ldr\td0, [x10]", FADD]),
        (5, ["ldr\td1, [x10]", "ldr\td0, [x10]", FADD]),
        (2, ["ldp\td0, d1, [x10]"]),
        (7, ["ldp\td3, d2, [x10]", "ldp\td1, d0, [x10]", FADD]),
        # neon/store: a register a cycle
        (1, [STORE_Q]),
        (2, [STORE_D, STORE_D]),
        (4, ["st1\t{ v0.4s, v1.4s, v2.4s, v3.4s }, [x10]"]),
        (3, ["stp\tq1, q2, [x10]", FADD]),
        # neon/arith, arith.rs, nop.rs
        (5, [FADD, FADD]),
        (2, [FADD, "fmul\tv1.4s, v1.4s, v2.4s"]),
        (2, ["add\tx0, x0, x0", "add\tx1, x1, x1", "add\tx2, x2, x2"]),
        (1, ["add\tx0, x0, x0"] * 2),
        (3, ["add\tx0, x0, x0"] * 4),
        (2, ["nop"] * 3),
    ],
)
def test_sequences_that_were_measured(cycles: int, sequence: list[str]) -> None:
    assert straight_issue([step_of(text) for text in sequence]) == cycles


# The same source: loops whose branch is predicted (branch.rs, neon/kernels/saxpy.rs), a trip each.
@pytest.mark.parametrize(
    ("cycles", "loop"),
    [
        (5, [*(f"fadd\tv{n}.4s, v{n}.4s, v{n}.4s" for n in range(4)), "add\tx0, x0, #1", "cmp\tx0, x1", "b.ne\t#0"]),
        (
            16,
            ["add\tx3, x4, x5", "add\tx5, x5, #32", "cmp\tx5, x6", "ldp\tq0, q1, [x3]"]
            + [f"{name}\tv{n}.4s, v{n}.4s, v8.4s" for name in ("fmul", "fadd") for n in (0, 1)]
            + ["stp\tq0, q1, [x3]", "b.ne\t#0"],
        ),
    ],
)
def test_loops_that_were_measured(cycles: int, loop: list[str]) -> None:
    assert steady_cycles(loop) == cycles


def test_three_multiplications_and_a_load_every_four_cycles() -> None:
    """What ncnn's guide for this core aims at: half a vector loaded, the other half by way of a general register, the pointer moved."""
    around = ["ldr\td0, [x2]", "mov\tv1.d[1], x21", "fmla\tv8.4s, v4.4s, v2.s[0]", "ldr\tx25, [x2, #8]", "fmla\tv9.4s, v4.4s, v2.s[1]"]
    around += ["add\tx2, x2, #16", "fmla\tv10.4s, v4.4s, v2.s[2]", "nop"]
    assert steady_cycles(around) == 4
    # Whole vectors take the loads two cycles, in which nothing else issues.
    assert steady_cycles(["ldr\tq0, [x2], #16", *around[2:3], *around[4:5], *around[6:7]]) >= 5


def test_a_vector_load_waits_where_a_product_is_added() -> None:
    products = [f"fmla\tv{n}.4s, v4.4s, v2.s[0]" for n in range(8, 16)]
    assert straight_issue([step_of(text) for text in [*products[:1], "nop", "nop", *products[1:4], LOAD_D]]) == 6
    assert straight_issue([step_of(text) for text in [*products[:4], LOAD_D]]) == 9  # cycles 4 to 7 belong to the four additions
    assert straight_issue([step_of(text) for text in [*products[:4], LOAD_X]]) == 4


@pytest.mark.parametrize(
    ("cycles", "block"),
    [
        (4, ["fmla\tv0.4s, v1.4s, v2.4s"]),  # the accumulator is forwarded
        (8, ["fmla\tv0.4s, v0.4s, v2.4s"]),
        (4, ["fmadd\ts0, s1, s2, s0"]),
        (3, ["ldr\tx0, [x0]"]),
        (13, ["fdiv\tv0.4s, v1.4s, v2.4s"]),
        (1, ["ldr\tx1, [x0], #8"]),
        (2, ["ldr\tq1, [x0], #16"]),
        (1, ["subs\tx0, x0, #1", "b.ne\t#0"]),
        (0, []),
    ],
)
def test_blocks_of_known_cost(cycles: float, block: list[str]) -> None:
    assert steady_cycles(block) == pytest.approx(cycles)


def test_what_a_block_waits_for() -> None:
    chain = waits_of(["fadd\tv0.4s, v0.4s, v1.4s"])
    assert chain["registers"] > 70 and chain["resources"] == 0
    loads = waits_of(["ldr\tq0, [x0]", "ldr\tq1, [x1]"])
    assert loads["registers"] == 0 and loads["resources"] == pytest.approx(50, abs=5)
    assert waits_of(["nop"] * 4) == {"registers": 0, "resources": 0}
    assert waits_of([]) == {"registers": 0, "resources": 0}


_SOME = [FADD, FADD_D, LOAD_D, LOAD_X, STORE_D, STORE_Q, INSERT, "nop", "b.ne\t#0", "subs\tx5, x5, #1", "add\tx1, x1, x2, lsl #3"]
_SOME += ["ldr\tq4, [x3], #16", "ld1\t{ v4.4s, v5.4s }, [x3], #32", "fmla\tv6.4s, v4.4s, v5.s[1]", "prfm\tpldl1keep, [x3, #64]"]
_SOME += ["st1\t{ v6.4s, v7.4s }, [x4]", "fcmp\ts0, s1", "mul\tx1, x2, x3", "fdiv\ts1, s2, s3", "dup\tv1.4s, w3", "ld1r\t{ v5.4s }, [x3]"]


@given(st.lists(st.sampled_from(_SOME), min_size=1, max_size=30))
def test_no_block_is_below_its_bound(block: list[str]) -> None:
    assert steady_cycles(block) >= least_cycles(block, PI3.core) - 1e-9
    assert steady_cycles(block * 2) == pytest.approx(2 * steady_cycles(block), abs=0.8)


def test_the_engine_knows_no_instructions() -> None:
    assert steady_issue([]) == 0
    assert steady_issue([IssueStep()] * 3) == 1.5
    assert steady_issue([IssueStep(unit="memory")] * 3) == 3
    assert steady_issue([IssueStep(alone=True), IssueStep()]) == 2
    assert steady_issue([IssueStep(cycles=4, unit="memory"), IssueStep(), IssueStep()]) == 4  # the second slot is free for both
    assert straight_issue([IssueStep(reads=(("a", 0),), writes=(("a", 5),))] * 2) == 6


def test_a_pi_3_is_modelled_with_it() -> None:
    code = bytes.fromhex("20cc214e") * 4  # fmla v0.4s, v1.4s, v1.4s
    assert corrected_time([Block(0x10000, 1000, code)], PI3).cycles == 16_000
