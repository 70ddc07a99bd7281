"""The least a block can cost, from its instruction mix and the core's ports alone.

llvm-mca schedules well but is only as good as its tables, and does not know every instruction. No block may be cheaper than its loads
through the load ports, its stores through the store ports, its vector work through F0 and F1, its branches, and three instructions a cycle
(Cortex-A72 Software Optimisation Guide, UAN 0016A, pipeline overview, tables and 4.1; the port counts come from the board's file).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tvmmobile.virtual.board import Core

_QUAD = re.compile(r"\bv\d+\.(?:16b|8h|4s|2d)\b")
_VECTOR = re.compile(r"\b(?:v\d+\.|[bhsdq]\d+\b)")
_REGISTER_LIST = re.compile(r"\{([^}]*)\}")
_QUAD_PAIR = re.compile(r"^\s*q\d+\s*,\s*q\d+")
#: Q-form floating-point arithmetic occupies both vector pipelines (guide, "ASIMD floating-point instructions": throughput 1; D form: 2).
_BOTH_PIPES = frozenset(
    {"fmla", "fmls", "fmul", "fmulx", "fadd", "fsub", "fabd", "fmax", "fmin", "fmaxnm", "fminnm", "faddp", "fmaxp", "fminp"}
    | {"fcmeq", "fcmge", "fcmgt", "fcmle", "fcmlt", "facge", "facgt"}
)
_BRANCHES = frozenset({"b", "bl", "br", "blr", "ret", "cbz", "cbnz", "tbz", "tbnz"})


def least_cycles(instructions: Iterable[str], core: Core) -> float:
    """Cycles below which one execution of these instructions cannot go, on average over many."""
    return max(port_cycles(instructions, core).values())


def port_cycles(instructions: Iterable[str], core: Core) -> dict[str, float]:
    """Cycles that each part of the core is busy with one execution, by the part's name."""
    total = loads = stores = vector = branches = 0
    for text in instructions:
        name, _, operands = text.partition("\t")
        total += 1
        if name.startswith(("ld", "prfm")):
            loads += _transfers(operands)
        elif name.startswith("st"):
            stores += _transfers(operands)
        elif name in _BRANCHES or name.startswith("b."):
            branches += 1
        elif _VECTOR.search(operands):
            vector += 2 if name in _BOTH_PIPES and _QUAD.search(operands) else 1
    return {
        "dispatch": total / core.dispatch_width,
        "load ports": loads / core.load_ports,
        "store ports": stores / core.store_ports,
        "vector ports": vector / core.vector_ports,
        "branch ports": branches / core.branch_ports,
    }


def _transfers(operands: str) -> int:
    """How many accesses of at most 16 bytes a load or store makes."""
    registers = _REGISTER_LIST.search(operands)
    if registers:
        return registers.group(1).count(",") + 1
    return 2 if _QUAD_PAIR.match(operands) else 1
