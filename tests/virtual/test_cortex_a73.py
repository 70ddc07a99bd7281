"""The out-of-order schedule with the Cortex-A73's figures, against what was measured on one."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_code import assemble
from vfpbench import INSTRUCTIONS, loop

from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.cores.bounds import least_cycles
from tvmmobile.virtual.cores.corrected import CORES, WAITS, corrected_time
from tvmmobile.virtual.cores.cortex_a72 import CORTEX_A72
from tvmmobile.virtual.cores.cortex_a73 import CORTEX_A73
from tvmmobile.virtual.cores.out_of_order import operation_of, steady_cycles
from tvmmobile.virtual.profile import Block

A311D = load_board("a311d")
cycles_of = partial(steady_cycles, tables=CORTEX_A73)
#: Millions of instructions a second on the Cortex-A73 of a Kirin 710, hiroog/vfpbench, log/Hisilicon Kirin710 P30Lite.txt. Its `ns4` row of
#: FMADD, 1741.5, is left out: 5 cycles from a result to an addend, where FMLA waits 3.
CLOCK_MHZ = 2189


@pytest.mark.parametrize(
    ("name", "shape", "kind", "mops"),
    [
        ("fmul", "2s", "n8", 4147.1),
        ("fadd", "2s", "n8", 4146.1),
        ("fmla", "2s", "n8", 4147.8),
        ("fmul", "4s", "n8", 2177.2),
        ("fadd", "4s", "n8", 2177.9),
        ("fmla", "4s", "n8", 2177.8),
        ("fmul", "2s", "ns4", 2178.0),
        ("fadd", "2s", "ns4", 2177.9),
        ("fmla", "2s", "ns4", 1244.5),
        ("fmul", "4s", "ns4", 2177.0),
        ("fmla", "4s", "ns4", 1244.6),
        ("fmul", "2s", "n1", 4146.8),
        ("fmla", "2s", "n1", 725.9),
        ("fmul", "4s", "n1", 2177.5),
        ("fmla", "4s", "n1", 725.8),
        ("fmadd", "s", "n8", 2178.4),
        ("fmadd", "s", "n1", 311.1),
        ("fmadd", "d", "n1", 311.1),
    ],
)
def test_loops_that_were_measured(name: str, shape: str, kind: str, mops: float) -> None:
    assert cycles_of(loop(name, shape, kind)) / INSTRUCTIONS == pytest.approx(CLOCK_MHZ / mops, rel=0.011)


@pytest.mark.parametrize(
    ("cycles", "block"),
    [
        (3, ["ldr\tx0, [x0]"]),  # measured by ramlat
        (2, [f"add\tx{i}, x8, #1" for i in range(4)]),  # two instructions a cycle, not an A72's three
        (1.5, ["ldr\tq0, [x0]", "ldr\tq1, [x1]", "add\tx2, x8, #1"]),
        (2, ["ldp\tq0, q1, [x0]", "ldp\tq2, q3, [x0, #32]"]),
        (2, ["str\tq0, [x0]"]),
        (1, ["str\td0, [x0]"]),
        (1, ["str\tx1, [x0]"]),
        (8, ["st1\t{ v0.4s, v1.4s, v2.4s, v3.4s }, [x0], #64"]),
        (2, ["mul\tw0, w1, w2", "mul\tw3, w4, w5"]),  # one of the two pipelines multiplies
        (1, ["ldr\tq0, [x0], #16"]),
        (2, ["ldr\tq0, [x1]", "fmla\tv0.4s, v2.4s, v1.4s", "str\tq0, [x1], #16"]),  # the next address does not wait for the sum
        (0.5, ["nop"]),
        (0.5, ["prfm\tpldl1keep, [x1, #512]"]),
        (0, []),
    ],
)
def test_blocks_of_known_cost(cycles: float, block: list[str]) -> None:
    assert cycles_of(block) == pytest.approx(cycles, abs=0.07)


def test_a_kernels_loop_is_bound_by_decoding() -> None:
    """16 multiplications, with loads and pointers beside them; of 8 bytes each, an A72 decodes three a cycle."""
    block = [f"fmla\tv{8 + i}.4s, v{i % 4}.4s, v4.s[{i % 4}]" for i in range(16)]
    block += [f"ldr\tq{i % 5}, [x0, #{16 * i}]" for i in range(10)] + ["add\tx5, x5, #1", "add\tx6, x6, #1", "add\tx7, x7, #1"] * 3
    block += ["subs\tx2, x2, #1", "b.ne\t#0"]
    assert cycles_of(block) == pytest.approx(len(block) / 2, abs=0.5)
    halves = [text.replace(".4s", ".2s").replace("\tq", "\td") for text in block]
    assert steady_cycles(halves, CORTEX_A72) == pytest.approx(len(block) / 3, abs=0.5) and cycles_of(halves) == cycles_of(block)


_SOME = ["fmla\tv6.4s, v4.4s, v5.s[1]", "fadd\tv0.2s, v0.2s, v0.2s", "ldr\td1, [x10]", "ldr\tq4, [x3], #16", "str\tq2, [x10]", "nop"]
_SOME += ["st3\t{ v0.2s, v1.2s, v2.2s }, [x0]", "ld4\t{ v0.4s, v1.4s, v2.4s, v3.4s }, [x0], #64", "ld1\t{ v4.s }[1], [x3], #4", "ret"]
_SOME += ["fmadd\ts0, s1, s2, s3", "umov\tw0, v1.s[2]", "dup\tv0.4s, w1", "ins\tv0.s[1], w2", "b.eq\t#0", "stp\tx1, x2, [x0, #-16]!"]
_SOME += ["sdiv\tw0, w1, w2", "fdiv\tv0.4s, v1.4s, v2.4s", "add\tx1, x1, x2, lsl #3", "prfm\tpldl1keep, [x1, #512]", "scvtf\ts0, w0"]


@given(st.lists(st.sampled_from(_SOME), min_size=1, max_size=20))
def test_no_block_is_below_its_ports(block: list[str]) -> None:
    """The exception is warm-up: the first trips' start is not counted, the last one's end is."""
    assert cycles_of(block) >= 0.9 * max(len(block) / 2, least_cycles(block, A311D.core) - 0.5)
    for text in block:
        assert {port for port, _ in operation_of(text, CORTEX_A73).timing.ports} <= set(CORTEX_A73.pipelines), text


def test_a_board_with_it_is_modelled_so() -> None:
    block = ["fmla\tv0.4s, v1.4s, v2.4s", "ldr\tq4, [x0], #16"]
    assert CORES["cortex-a73"](block) == cycles_of(block) and WAITS["cortex-a73"](block)["registers"] > 90
    code = assemble("fmla v0.4s, v1.4s, v2.4s\nldr q4, [x0], #16\n")
    assert corrected_time([Block(0x10000, 1000, code)], A311D).cycles == 3000
