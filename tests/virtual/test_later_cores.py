"""The schedules of the Cortex-A78, the Neoverse N2 and the Cortex-X4: latencies, pipelines, products of matrices."""

from __future__ import annotations

import pytest
from machine_code import assemble

from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.cores.core_model import core_time
from tvmmobile.virtual.cores.corrected import OUT_OF_ORDER, VERSIONS, corrected_time
from tvmmobile.virtual.cores.out_of_order import steady_cycles
from tvmmobile.virtual.profile import Block

NAMES = ("cortex-a78", "neoverse-n2", "cortex-x4")
#: `smmla v3.4s, v1.16b, v2.16b`, which the assembler's Cortex-A72 does not know.
SMMLA = (0x4E82A423).to_bytes(4, "little")


def sixteen(text: str) -> list[str]:
    """Return the instruction with sixteen results."""
    return [text.replace("v0", f"v{number}", 1) for number in range(16)]


@pytest.mark.parametrize(
    ("block", "cycles"),
    [
        (["fmla\tv0.4s, v1.4s, v2.4s"], (2, 2, 2)),  # the accumulator is forwarded
        (["fmla\tv0.8h, v1.8h, v2.h[3]"], (2, 2, 4)),  # but not on an X4 by an element
        (["fmla\tv0.8h, v0.8h, v2.h[3]"], (4, 4, 4)),
        (["sdot\tv0.4s, v1.16b, v2.4b[0]"], (1, 1, 1)),
        (["smmla\tv0.4s, v0.16b, v2.16b"], (1, 3, 3)),
        (["bfmmla\tv0.4s, v0.8h, v2.8h"], (5, 5, 6)),
        (["mul\tv0.4s, v0.4s, v1.4s"], (4, 4, 4)),
        (["mul\tx0, x0, x1"], (2, 2, 2)),
        (["ldr\tx0, [x0]"], (4, 4, 4)),
        (sixteen("fmla\tv0.8h, v30.8h, v31.h[0]"), (8, 8, 4)),
        (sixteen("smmla\tv0.4s, v30.16b, v31.16b"), (8, 8, 4)),
        (sixteen("bfmmla\tv0.4s, v30.8h, v31.8h"), (8, 8, 4)),
        (sixteen("smlal\tv0.4s, v30.4h, v31.4h"), (16, 16, 8)),
        (sixteen("smull\tv0.4s, v30.4h, v31.4h"), (16, 8, 8)),
        (sixteen("sadalp\tv0.4s, v31.8h"), (16, 16, 8)),
        (sixteen("scvtf\tv0.4s, v31.4s"), (32, 32, 16)),
        (["ldr\tq0, [x0]"] * 16, (16 / 3, 16 / 3, 16 / 3)),
        (["str\tq0, [x0]"] * 16, (8, 8, 8)),
        (["add\tx0, x1, x2"] * 16, (4, 4, 2)),
    ],
)
def test_blocks_of_known_cost(block: list[str], cycles: tuple[float, ...]) -> None:
    found = [steady_cycles(block, OUT_OF_ORDER[name]) for name in NAMES]
    if "smmla" in block[0] or "bfmmla" in block[0]:  # which the Cortex-A78 does not have
        found, cycles = found[1:], cycles[1:]
    assert found == pytest.approx(cycles, abs=0.4)


def test_a_core_that_llvm_mca_does_not_know_has_its_kins_tables() -> None:
    blocks = [Block(0x10000, 1000, assemble("fmla v0.4s, v1.4s, v2.4s\n") + SMMLA)]
    assert core_time(blocks, load_board("d9300")).unknown_instructions == 0


def test_pinned_numbers() -> None:
    """When these change, raise `version` in the core's file with them, and calibrate again."""
    clamp = "ld1 {v0.4s, v1.4s, v2.4s, v3.4s}, [x1]\nfmax v0.4s, v0.4s, v31.4s\nst1 {v0.4s, v1.4s, v2.4s, v3.4s}, [x1], #64\n"
    chain = "fmul v0.4s, v0.4s, v1.4s\nfrintm v0.4s, v0.4s\nfmla v2.4s, v0.4s, v1.4s\nfdiv v0.4s, v2.4s, v3.4s\n"
    sums = "smull v0.8h, v1.8b, v2.8b\nsadalp v3.4s, v0.8h\nldp q5, q6, [x0], #32\nstp q5, q6, [x1]\n"
    blocks = [Block(0x10000, 100, assemble(clamp)), Block(0x10100, 1000, assemble(chain)), Block(0x10200, 1000, assemble(sums) + SMMLA)]
    found = [corrected_time(blocks, load_board(board)).cycles for board in ("orin-nano", "cobalt100", "d9300")]
    assert (found, [VERSIONS[name] for name in NAMES]) == ([35262, 38262, 32200], [1, 1, 2])
