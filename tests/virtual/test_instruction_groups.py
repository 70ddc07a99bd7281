"""Every instruction that kernels and peers execute has a cost that somebody chose, and no bound contradicts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.cores.bounds import least_cycles
from tvmmobile.virtual.cores.corrected import OUT_OF_ORDER
from tvmmobile.virtual.cores.instruction_groups import GENERAL_GROUPS, VECTOR_GROUPS
from tvmmobile.virtual.cores.operands import instruction_of
from tvmmobile.virtual.cores.out_of_order import CoreTables, operation_of, pipeline_cycles, steady_cycles

_LINES = (Path(__file__).parent / "executed_instructions.txt").read_text().splitlines()
INSTRUCTIONS = [line for line in _LINES if not line.startswith("#")]
BOARDS = {"cortex-a72": "pi4", "cortex-a73": "a311d", "cortex-a76": "pi5"}
BOARDS |= {"cortex-a78": "orin-nano", "cortex-x4": "d9300", "neoverse-n2": "cobalt100"}


def test_every_name_is_in_a_group() -> None:
    assert len(INSTRUCTIONS) > 400
    unknown = set()
    for instruction in map(instruction_of, INSTRUCTIONS):
        groups = {"vector": VECTOR_GROUPS, "general": GENERAL_GROUPS}.get(instruction.kind)
        if groups is not None and instruction.name not in groups:
            unknown.add(instruction.name)
    assert not unknown


@pytest.mark.parametrize("tables", OUT_OF_ORDER.values(), ids=lambda tables: tables.name)
def test_costs_are_possible(tables: CoreTables) -> None:
    """Pipelines that the core has, a schedule that is never below what they take, and a bound that is never above it."""
    core = load_board(BOARDS[tables.name]).core
    for text in INSTRUCTIONS:
        timing = operation_of(text, tables).timing
        assert {port for port, _ in timing.ports} <= set(tables.pipelines), text
        busy = max(pipeline_cycles([text], tables).values())
        dispatched = max(1 / tables.instructions_per_cycle, timing.micro_operations / tables.micro_operations_per_cycle)
        assert steady_cycles([text], tables) >= busy - 0.2, text
        assert least_cycles([text], core) <= max(busy, dispatched) + 1e-9, text
