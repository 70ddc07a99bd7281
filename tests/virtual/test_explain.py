"""Why a block costs what it costs: a busy part of the core, or operations that wait for each other."""

from __future__ import annotations

import pytest

from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.cores.core_model import BlockCost
from tvmmobile.virtual.cores.corrected import CORES
from tvmmobile.virtual.cores.explain import limit_of

CHAIN = ("fadd\tv0.4s, v0.4s, v1.4s",) * 4  # each needs the one before
LOADS = tuple(f"ldr\tq{i}, [x0, #{16 * i}]" for i in range(8))
CORES_OF = {"pi3bplus": "cortex-a53", "pi4": "cortex-a72", "pi5": "cortex-a76"}


def limit(board: str, assembly: tuple[str, ...]) -> str:
    return limit_of(BlockCost(0, 1, CORES[CORES_OF[board]](assembly), assembly), load_board(board))


@pytest.mark.parametrize("board", list(CORES_OF))
def test_a_chain_of_operations(board: str) -> None:
    assert limit(board, CHAIN).startswith("its schedule, waiting for results of earlier instructions")


@pytest.mark.parametrize("board", ["pi4", "pi5"])
def test_a_busy_part(board: str) -> None:
    assert limit(board, LOADS).startswith("load ports: ")


def test_pairs_that_do_not_issue_together() -> None:
    """A load of 16 bytes takes the Cortex-A53's load pipeline for two cycles, more than the bound counts."""
    assert limit("pi3bplus", LOADS).startswith("its schedule, waiting for execution units")


def test_results_of_sixteen_bytes_fill_dispatch() -> None:
    """Two of the Cortex-A72's three slots each, which nothing of 8 bytes needs."""
    assert limit("pi4", tuple(f"eor\tv{i}.16b, v30.16b, v31.16b" for i in range(6))) == "dispatch: 4 of 4 cycles"
    assert limit("pi4", tuple(f"eor\tv{i}.8b, v30.8b, v31.8b" for i in range(6))).startswith("vector ports: 3 of 3")
