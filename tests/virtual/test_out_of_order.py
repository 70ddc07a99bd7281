"""The schedule of out-of-order cores, to the cycle: a change of it makes every record old, and no hash would tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tvmmobile.virtual.cores.cortex_a72 import CORTEX_A72
from tvmmobile.virtual.cores.cortex_a73 import CORTEX_A73
from tvmmobile.virtual.cores.cortex_a76 import CORTEX_A76
from tvmmobile.virtual.cores.out_of_order import steady_cycles

CORES = {tables.name: tables for tables in (CORTEX_A72, CORTEX_A73, CORTEX_A76)}
GOLDEN = Path(__file__).resolve().parents[1] / "golden/virtual/blocks.txt"


def golden() -> list[tuple[dict[str, float], list[str]]]:
    """Blocks of real programs that between them have many kinds of instructions, and the cycles that a model in Python gave them."""
    found = []
    for part in GOLDEN.read_text(encoding="utf-8").split("\n\n"):
        head, *block = part.strip().splitlines()
        cycles = dict(each.rsplit(" ", 1) for each in head.removeprefix("# ").split(", "))
        found.append(({core: float(number) for core, number in cycles.items()}, [text.replace(" ", "\t", 1) for text in block]))
    return found


@pytest.mark.parametrize(("cycles", "block"), golden(), ids=range(len(golden())))
def test_blocks_cost_what_they_did(cycles: dict[str, float], block: Sequence[str]) -> None:
    assert {name: steady_cycles(block, tables) for name, tables in CORES.items()} == cycles


def test_blocks_without_end_and_without_instructions() -> None:
    """A chain of a thousand additions takes a cycle each; what is not known is left out."""
    chain = ["add\tx0, x0, #1"] * 1000
    for tables in CORES.values():
        assert steady_cycles(chain, tables) == pytest.approx(1000, abs=1)
        assert steady_cycles([], tables) == steady_cycles([""], tables) == 0.0


def test_a_window_without_end() -> None:
    """A division holds up what follows it until the window is as large as all that can be in flight."""
    block = ["udiv\tx0, x0, x1", *["add\tx2, x3, x4"] * 200]
    limited, free = (steady_cycles(block, replace(CORTEX_A76, window=window)) for window in (16, 1 << 20))
    assert free <= steady_cycles(block, CORTEX_A76) < limited
