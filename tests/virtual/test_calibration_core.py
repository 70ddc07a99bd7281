"""The corrected core model: dependent operations at the Cortex-A72's latencies, ports as bounds, base registers that do not wait."""

from __future__ import annotations

import pytest
from machine_code import assemble

from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.cores.bounds import least_cycles
from tvmmobile.virtual.cores.core_model import core_time
from tvmmobile.virtual.cores.corrected import VERSIONS, corrected_time
from tvmmobile.virtual.cores.cortex_a72 import CORTEX_A72
from tvmmobile.virtual.cores.operands import instruction_of
from tvmmobile.virtual.cores.out_of_order import operation_of, steady_cycles
from tvmmobile.virtual.profile import Block

PI4 = load_board("pi4")
BASE = 0x10000
CLAMP = (
    "ld1 {v0.4s, v1.4s, v2.4s, v3.4s}, [x1]\nfmax v0.4s, v0.4s, v31.4s\nfmax v1.4s, v1.4s, v31.4s\nfmax v2.4s, v2.4s, v31.4s\n"
    "fmax v3.4s, v3.4s, v31.4s\nst1 {v0.4s, v1.4s, v2.4s, v3.4s}, [x1], #64\n"
)


@pytest.mark.parametrize(
    ("block", "cycles"),
    [
        (["fadd\tv0.4s, v0.4s, v1.4s"], 4),
        (["fmul\tv0.4s, v0.4s, v1.4s"], 4),
        (["fmla\tv0.4s, v1.4s, v2.4s"], 3),  # the accumulator is forwarded
        (["fmla\tv0.4s, v0.4s, v2.4s"], 7),
        (["fmla\tv0.4s, v1.4s, v2.s[0]", "fmul\tv1.4s, v0.4s, v2.4s"], 11),
        (["add\tx0, x0, #1"], 1),
        (["add\tx0, x0, x1, lsl #2"], 2),
        (["ldr\tx0, [x0]"], 4),
        (["ldr\tq0, [x0], #16"], 1),
        (["ldr\tq0, [x0]", "fadd\tv1.4s, v1.4s, v0.4s", "subs\tx1, x1, #1", "b.ne\t#0"], 4),
        (["st1\t{ v0.4s, v1.4s, v2.4s, v3.4s }, [x0], #64"], 8),
        (["ldp\tq0, q1, [x0, #32]"], 2),
        (["fdiv\tv0.4s, v1.4s, v2.4s"], 8),
        (["subs\tx0, x0, #1", "b.ne\t#0"], 1),
        (["nop", "nop", "nop"], 1.5),  # the integer pipelines'
        ([], 0),
    ],
)
def test_blocks_of_known_cost(block: list[str], cycles: float) -> None:
    assert steady_cycles(block, CORTEX_A72) == pytest.approx(cycles, abs=0.13)


def test_operands() -> None:
    load = instruction_of("ld1\t{ v0.s }[1], [x0]")
    assert load.reads == ("v0", "x0") and load.writes == ("v0",)
    store = instruction_of("str\tq3, [x2, x1]")
    assert set(store.reads) == {"v3", "x2", "x1"} and store.writes == ()
    assert instruction_of("csel\tx0, x1, x2, eq").reads == ("x1", "x2", "flags")
    assert operation_of("cmp\tw2, w3", CORTEX_A72).writes == (("flags", 1),)
    assert instruction_of("mov\tw0, wzr").reads == ()
    assert instruction_of("prfm\tpldl1keep, [x1, #512]").writes == ()


def test_base_registers_are_updated_apart() -> None:
    """They are updated as soon as they are ready, whatever the access waits for; a store with its data late starts all the same."""
    late = ["fmul\tv0.4s, v0.4s, v1.4s", "fmul\tv0.4s, v0.4s, v1.4s", "str\tq0, [x0], #16", "ldr\tq0, [x0]"]
    assert steady_cycles(late, CORTEX_A72) == pytest.approx(3, abs=0.13)  # nine slots of dispatch
    assert operation_of("str\tx1, [sp, #-32]!", CORTEX_A72).updated == "sp"
    stored = operation_of("stp\tq0, q1, [x2, x3]", CORTEX_A72)
    assert stored.reads == ("x2", "x3") and stored.awaited == ("v0", "v1")
    assert operation_of("st2\t{ v0.4s, v1.4s }, [x0]", CORTEX_A72).reads == ("v0", "v1", "x0")  # it permutes them first


def test_a_clamp_no_longer_waits_for_its_own_store() -> None:
    blocks = [Block(BASE, 1000, assemble(CLAMP))]
    assert core_time(blocks, PI4).cycles > 20_000  # llvm-mca alone
    assert 8_000 <= corrected_time(blocks, PI4).cycles < 10_000  # the store pipeline's eight cycles


@pytest.mark.parametrize(
    "text",
    [CLAMP, "fmla v0.4s, v1.4s, v2.4s\n" * 3, "ldp q0, q1, [x0]\nstp q0, q1, [x1]\n", "sdiv x0, x1, x2\n", "add x0, x1, x2\n" * 7],
)
def test_never_below_the_ports_nor_above_llvm_mca(text: str) -> None:
    code = assemble(text)
    corrected = corrected_time([Block(BASE, 1000, code)], PI4, 1)
    assert least_cycles(corrected.hottest[0].assembly, PI4.core) <= corrected.hottest[0].cycles_each
    assert corrected.cycles <= core_time([Block(BASE, 1000, code)], PI4).cycles


def test_other_cores_are_left_alone() -> None:
    board = PI4.model_copy(update={"mcpu": "cortex-a57"})
    blocks = [Block(BASE, 1000, assemble(CLAMP))]
    assert corrected_time(blocks, board) == core_time(blocks, board, 0)


def test_pinned_numbers() -> None:
    """When these change, raise `version` in the core's file with them, and calibrate again."""
    chain = assemble("fmul v0.4s, v0.4s, v1.4s\nfrintm v0.4s, v0.4s\nfmla v2.4s, v0.4s, v1.4s\nfdiv v0.4s, v2.4s, v3.4s\n")
    blocks = [Block(BASE, 100, assemble(CLAMP)), Block(BASE + 0x100, 1000, chain)]
    assert (VERSIONS["cortex-a72"], corrected_time(blocks, PI4).cycles) == (6, 33831)
