"""Computes a lower bound on a block's cost from its instruction mix and the core's ports alone.

A schedule is only as good as its tables. No block can be cheaper than its loads on the load ports, its stores on the store ports, its
vector operations on the vector ports, its branches, or the dispatch of its instructions. The numbers of ports come from the board's file,
as does the width of a vector port: a Q-form floating-point operation occupies two ports of 64 bits or one of 128. Other operations that
occupy more than one port or cycle are left out, as cores differ there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tvmmobile.virtual.board import CorePorts
from tvmmobile.virtual.cores.operands import BRANCHES, REPEATING

_QUAD = re.compile(r"\bv\d+\.(?:16b|8h|4s|2d)\b")
_VECTOR = re.compile(r"\b(?:v\d+\.|[bhsdq]\d+\b)")
_REGISTER_LIST = re.compile(r"\{([^}]*)\}")
_QUAD_PAIR = re.compile(r"^\s*q\d+\s*,\s*q\d+")
#: In Q form, two pipelines of 64 bits (Cortex-A72 Software Optimisation Guide, UAN 0016A, "ASIMD floating-point instructions": throughput
#: 1, D form 2) or one of 128 (Cortex-A76 Software Optimization Guide, PJDOC-466751330-7215: throughput 2 in both forms).
#: Not comparisons, of which a Cortex-A72 does two a cycle in Q form (RRZE-HPC/OSACA, osaca/data/a72.yml).
_BOTH_HALVES = frozenset(
    {"fmla", "fmls", "fmul", "fmulx", "fadd", "fsub", "fabd", "fmax", "fmin", "fmaxnm", "fminnm", "faddp", "fmaxp", "fminp"}
)


def least_cycles(instructions: Iterable[str], core: CorePorts) -> float:
    """Return a lower bound on the mean cycles of these instructions over many executions."""
    return max(port_cycles(instructions, core).values())


def port_cycles(instructions: Iterable[str], core: CorePorts) -> dict[str, float]:
    """Return the cycles for which one execution occupies each part of the core, by the part's name."""
    total = loads = stores = vector = branches = 0
    quad_ports = 2 if core.vector_bits == 64 else 1
    for text in instructions:
        name, _, operands = text.partition("\t")
        total += 1
        if name.startswith(("ld", "prfm")):
            loads += _transfers(name, operands)
        elif name.startswith("st"):
            stores += _transfers(name, operands)
        elif name in BRANCHES or name.startswith("b."):
            branches += 1
        elif _VECTOR.search(operands):
            vector += quad_ports if name in _BOTH_HALVES and _QUAD.search(operands) else 1
    return {
        "dispatch": total / core.dispatch_width,
        "load ports": loads / core.load_ports,
        "store ports": stores / core.store_ports,
        "vector ports": vector / core.vector_ports,
        "branch ports": branches / core.branch_ports,
    }


def _transfers(name: str, operands: str) -> int:
    """Count a load's or store's accesses of at most 16 bytes."""
    registers = _REGISTER_LIST.search(operands)
    if registers:
        count = registers.group(1).count(",") + 1
        if not _QUAD.search(registers.group(1)):
            count = (count + 1) // 2
        return 1 if name in REPEATING or operands[registers.end() :].startswith("[") else count
    return 2 if _QUAD_PAIR.match(operands) else 1
