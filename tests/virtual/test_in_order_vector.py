"""What in-order cores know of the instructions that kernels and peers execute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tvmmobile.virtual.cores import cortex_a53, cortex_a55
from tvmmobile.virtual.cores.in_order import IssueStep
from tvmmobile.virtual.cores.in_order_integer import GENERAL_NAMES
from tvmmobile.virtual.cores.in_order_vector import VECTOR_NAMES
from tvmmobile.virtual.cores.operands import instruction_of

EXECUTED = [
    line
    for line in Path(__file__).with_name("executed_instructions.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
#: Complex numbers came with ARMv8.3, products of two halves added to a float as an option of ARMv8.2: neither core has them.
_NEITHER = ("fcadd", "fcmla", "fmlal", "fmlsl")
_MEMORY = ("load", "store", "prefetch", "branch")


@pytest.mark.parametrize("names", [VECTOR_NAMES | core.OWN_NAMES for core in (cortex_a53, cortex_a55)], ids=["cortex-a53", "cortex-a55"])
def test_no_instruction_is_known_by_default_alone(names: frozenset[str]) -> None:
    assert len(EXECUTED) > 300
    for text in EXECUTED:
        instruction = instruction_of(text)
        if instruction.kind not in _MEMORY and not instruction.name.startswith(_NEITHER):
            assert instruction.name in (names if instruction.kind == "vector" else GENERAL_NAMES), text


@pytest.mark.parametrize("step_of", [cortex_a53.step_of, cortex_a55.step_of], ids=["cortex-a53", "cortex-a55"])
def test_each_issues_and_is_done_within_the_longest_division(step_of: Callable[[str], IssueStep]) -> None:
    for text in EXECUTED:
        step = step_of(text)
        assert 1 <= step.cycles <= 9 and step.lanes + step.adds <= 4, text
        assert all(0 <= stage <= 22 for _, stage in (*step.reads, *step.writes)), text
