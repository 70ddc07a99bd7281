"""The in-order schedule with the Cortex-A53's rules, against cycles that the performance counter of a real one showed."""

from __future__ import annotations

import random
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_code import assemble
from straight_issue import straight_issue
from vfpbench import INSTRUCTIONS, loop

from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.cores import in_order
from tvmmobile.virtual.cores.bounds import least_cycles
from tvmmobile.virtual.cores.corrected import VERSIONS, corrected_time
from tvmmobile.virtual.cores.cortex_a53 import step_of
from tvmmobile.virtual.cores.in_order import IssueStep, steady_issue
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


# What a Cortex-A53 took: Terminus-IMRC/insn-bench-rpi, README.md, its 64-bit names in the place of 32-bit ones (`vpadal.u32` is `uadalp`).
# Each row: an instruction of 16 bytes (of 8 where it says so), its cycles where all of its operands are the last one's result, and where
# none is.
@pytest.mark.parametrize(
    ("instruction", "latency", "each"),
    [
        ("and v.16b, v.16b, v.16b", 1.06, 1.13),
        ("add v.4s, v.4s, v.4s", 2, 1.13),
        ("add v.2s, v.2s, v.2s", 2, 0.56),
        ("neg v.4s, v.4s", 2, 1.13),
        ("bif v.16b, v.16b, v.16b", 2, 1.13),
        ("bsl v.16b, v.16b, v.16b", 2, 1.13),
        ("cmhs v.4s, v.4s, v.4s", 2, 1.13),
        ("fcmge v.4s, v.4s, v.4s", 2, 1.13),
        ("facge v.4s, v.4s, v.4s", 2, 1.13),
        ("clz v.4s, v.4s", 2, 1.13),
        ("umax v.4s, v.4s, v.4s", 2, 1.13),
        ("urhadd v.4s, v.4s, v.4s", 2, 1.13),
        ("rev64 v.16b, v.16b", 2, 1.13),
        ("uabd v.4s, v.4s, v.4s", 3, 1.13),
        ("abs v.4s, v.4s", 3, 1.13),
        ("addp v.2s, v.2s, v.2s", 3, 0.56),
        ("uaba v.4s, v.4s, v.4s", 4, 2.13),
        ("uaba v.2s, v.2s, v.2s", 4, 2.06),
        ("uadalp v.2d, v.4s", 4, 2.13),
        ("uadalp v.1d, v.2s", 4, 2.06),
        ("mul v.4s, v.4s, v.4s", 4, 1.13),
        ("mla v.4s, v.4s, v.4s", 4, 1.13),
        ("fabs v.4s, v.4s", 4, 1.06),
        ("fadd v.4s, v.4s, v.4s", 4, 1.06),
        ("fmax v.4s, v.4s, v.4s", 4, 1.06),
        ("fmul v.2s, v.2s, v.2s", 4, 0.56),
        ("faddp v.2s, v.2s, v.2s", 4, 0.56),
        ("frecpe v.4s, v.4s", 4, 1.13),
        ("frsqrte v.4s, v.4s", 4, 1.13),
        ("frecps v.4s, v.4s, v.4s", 8, 1.13),
        ("frsqrts v.2s, v.2s, v.2s", 8, 0.56),
        ("fmla v.4s, v.4s, v.4s", 8, 1.06),
        ("fmla v.2s, v.2s, v.2s", 8, 0.56),
        ("fmla v.2d, v.2d, v.2d", 8, 1.06),
        ("fdiv v.2s, v.2s, v.2s", 13, 10.13),
        ("fdiv v.4s, v.4s, v.4s", 13, 10.38),
        ("fdiv v.2d, v.2d, v.2d", 22, 19.25),
    ],
)
def test_instructions_that_were_measured(instruction: str, latency: float, each: float) -> None:
    name, _, operands = instruction.partition(" ")
    around = ["subs\tw0, w0, #1", "b.ne\t#0"]
    chain = [f"{name}\t{operands.replace('v', 'v0')}"] * 32
    apart = [f"{name}\t{operands.replace('v', f'v{place + 1}').replace(f'v{place + 1}', f'v{place}', 1)}" for place in range(0, 32, 2)]
    assert steady_cycles(chain + around) / 32 == pytest.approx(latency, abs=0.04)
    assert steady_cycles(apart + around) / 16 == pytest.approx(each, rel=0.07)  # the measured loop's end cost up to two cycles


# Millions of instructions a second on the Cortex-A53 of an MSM8937 at 1401 MHz, and on that of a Kirin 710 at the 1512 MHz that its
# rows of one instruction a cycle show (it names 1709): hiroog/vfpbench, log/Hisilicon Kirin710 P30Lite.txt and
# log/Qualcomm Technologies, Inc MSM8937_430_ZenFone3MaxZC553KL.txt.
@pytest.mark.parametrize(
    ("name", "shape", "kind", "mops", "others_mops"),
    [
        ("fmul", "2s", "n8", 2661.9, 2861.2),
        ("fmla", "2s", "n8", 2661.0, 2865.5),
        ("fmla", "4s", "n8", 1362.4, 1472.3),
        ("fmul", "4s", "ns4", 1363.4, 1481.8),
        ("fmla", "2s", "ns4", 690.1, 751.0),  # a factor is needed at once: eight cycles
        ("fmla", "4s", "ns4", 698.9, 755.4),
        ("fmla", "2s", "n1", 349.3, 377.0),  # an accumulator four later: four cycles
        ("fmla", "4s", "n1", 349.2, 375.5),
        ("fmadd", "s", "n1", 174.7, 189.4),  # its result is the next one's factor
        ("fmadd", "d", "n1", 174.6, 188.6),
        ("fmadd", "s", "n8", 1397.1, 1502.5),
        ("fmadd", "s", "ns4", 1396.9, 1510.4),  # the fourth one's result is its addend: four cycles, not eight
    ],
)
def test_multiplications_that_were_measured(name: str, shape: str, kind: str, mops: float, others_mops: float) -> None:
    each = steady_cycles(loop(name, shape, kind)) / INSTRUCTIONS
    assert each == pytest.approx(1401 / mops, rel=0.015)
    assert each == pytest.approx(1512 / others_mops, rel=0.015)


def test_blocks_of_three_multiplications_after_a_load() -> None:
    """The order of XNNPACK's f32-gemm for this core: an insertion with each load, and the next other half beside a multiplication."""
    block: list[str] = []
    for number in range(8):
        products = [f"fmla\tv{8 + 3 * (number % 4) + place}.4s, v{4 + number % 2}.4s, v2.s[{place}]" for place in range(3)]
        block += [f"ldr\td{24 + number}, [x0]", f"mov\tv{24 + (number - 1) % 8}.d[1], x8", products[0], "ldr\tx8, [x1]", *products[1:]]
    assert steady_cycles(block) == 32
    # In the order for a Cortex-A55, whose loads and insertions find a place beside multiplications, they find none here.
    other = [
        text for at in range(0, 48, 6) for text in (block[at + 2], block[at], block[at + 4], block[at + 1], block[at + 5], block[at + 3])
    ]
    assert steady_cycles(other) >= 48


def test_products_of_bytes() -> None:
    """Billions of operations a second of gemmlowp's kernels on the Cortex-A53 of a Nexus 5X at 1.44 GHz (its pull requests 69 and 78).

    9.45 where words are added, lane by lane; 8.85 before, over which a kernel that adds sums of bytes was "no improvement". Were its sums
    as fast as its products, it would have been one by a quarter.
    """
    clock_ghz = 1.44
    lanes = [
        f"umlal{half}\tv{8 + place}.4s, v{2 + place // 8}.{shape}, v0.h[{place % 8}]"
        for place in range(24)
        for half, shape in (("", "4h"), ("2", "8h"))
    ]
    words = [f"ldr\td{place}, [x{place // 3}], #8" for place in range(5)] + [f"uxtl\tv{place}.8h, v{place}.8b" for place in range(5)]
    assert 2 * 4 * 48 * clock_ghz / steady_cycles([*words, *lanes, "subs\tx2, x2, #2", "b.ne\t#0"]) == pytest.approx(9.45, rel=0.03)
    loads = [f"ldr\tq{place}, [x{place // 4}], #16" for place in range(8)]
    pairs = [(row, column) for column in range(4) for row in range(4)]
    sums: list[str] = []
    for at in range(0, 16, 4):
        some = list(enumerate(pairs[at : at + 4]))
        sums += [f"smull\tv{8 + place}.8h, v{row}.8b, v{4 + column}.8b" for place, (row, column) in some]
        sums += [f"smlal2\tv{8 + place}.8h, v{row}.16b, v{4 + column}.16b" for place, (row, column) in some]
        sums += [f"sadalp\tv{16 + at + place}.4s, v{8 + place}.8h" for place, _ in some]
    assert 8.85 < 2 * 16 * 16 * clock_ghz / steady_cycles([*loads, *sums, "subs\tx2, x2, #16", "b.ne\t#0"]) < 1.06 * 8.85


def test_pinned_numbers() -> None:
    """When these change, raise `version` in the core's file with them, and calibrate again."""
    text = "fmla v0.4s, v1.4s, v2.4s\nsmull v3.8h, v4.8b, v5.8b\nsadalp v6.4s, v3.8h\nsqxtn v7.4h, v6.4s\nldr q8, [x0], #16\n"
    text += "frecps v9.4s, v8.4s, v0.4s\nfdiv v10.4s, v9.4s, v8.4s\nst2 {v10.4s, v11.4s}, [x1]\nstlxr w2, w3, [x4]\n"
    blocks = [Block(0x10000, 1000, assemble(text))]
    boards = load_board("pi3bplus"), load_board("rk3566")
    assert [(VERSIONS[board.mcpu], corrected_time(blocks, board).cycles) for board in boards] == [(5, 37000), (5, 33000)]


def test_three_multiplications_and_a_load_every_four_cycles() -> None:
    """ncnn's guide for this core aims at this: half a vector loaded, the other half by way of a general register, the pointer moved."""
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
        (10, ["fdiv\tv0.4s, v1.4s, v2.4s"]),
        (13, ["fdiv\ts0, s0, s1"]),
        (12, ["fsqrt\ts0, s0"]),
        (1, ["smlal\tv0.4s, v1.4h, v2.4h"]),  # as on the Cortex-A55, a product waits a cycle for the sum of the one before
        (4, ["smlal\tv0.4s, v0.4h, v2.4h"]),
        (1, ["smlsl2\tv0.4s, v1.8h, v2.8h"]),
        (4, ["sqxtn2\tv0.8h, v1.4s"]),  # keeps the lower half
        (3, ["ldxr\tw1, [x2]", "stxr\tw3, w1, [x2]", "cbnz\tw3, #0"]),
        (4, ["sqrdmulh\tv0.8h, v0.8h, v1.8h"]),
        (2, ["shl\tv0.4s, v0.4s, #3"]),
        (3, ["srshr\tv0.4s, v0.4s, #3"]),
        (2, ["shrn\tv0.4h, v0.4s, #8", "nop"]),
        (4, ["sqxtn\tv0.4h, v0.4s"]),
        (1, ["tbl\tv0.16b, { v1.16b }, v2.16b"]),
        (4, ["tbl\tv0.16b, { v1.16b, v2.16b, v3.16b, v4.16b }, v5.16b"]),
        (2, ["zip1\tv0.4s, v0.4s, v1.4s"]),
        (4, ["scvtf\tv0.4s, v0.4s"]),
        (5, ["st4\t{ v0.4s, v1.4s, v2.4s, v3.4s }, [x1]"]),
        (8, ["ld4\t{ v0.4s, v1.4s, v2.4s, v3.4s }, [x1]"]),
        (16, ["ld4\t{ v0.4s, v1.4s, v2.4s, v3.4s }, [x1]", "mov\tx1, v0.d[0]"]),  # 11 until any register is whole, 5 to the address
        (2, ["dmb\tish"] * 2),  # nothing issues after a barrier in its cycle
        (1, ["ldaxr\tw1, [x2]"]),
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


@pytest.mark.parametrize("seed", range(40))
def test_a_schedule_that_repeats_is_the_one_of_all_trips(seed: int) -> None:
    rng = random.Random(seed)

    def stages(count: int) -> tuple[tuple[str, int], ...]:
        return tuple((f"{rng.choice('vx')}{rng.randrange(4)}", rng.randrange(6)) for _ in range(count))

    steps = [
        IssueStep(
            reads=stages(rng.randrange(3)),
            writes=stages(rng.randrange(2)),
            keeps=rng.random() < 0.3,
            cycles=rng.choice([1, 1, 1, 2, 3]),
            unit=rng.choice(["", "", "memory", "branch", "multiply"]),
            lanes=rng.randrange(3),
            first=rng.random() < 0.1,
            alone=rng.random() < 0.1,
            adds=rng.randrange(3),
            adds_late=rng.randrange(3),
            adds_late_stage=rng.randrange(5),
            soon=rng.random() < 0.2,
            busy=rng.choice([("", 0), ("", 0), ("divide", 7)]),
        )
        for _ in range(rng.randrange(1, 12))
    ]
    issued = [straight_issue(steps * trips) for trips in (3, 11)]
    assert steady_issue(steps) == (issued[1] - issued[0]) / 8
