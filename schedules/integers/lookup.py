"""Vectors of bytes through a table of 256 bytes, as a single piece of assembly.

A quarter of the table is in registers at a time, in which TBL finds 0 for the bytes of the other quarters. LLVM would load all of it ahead
of a kernel's loops, and then either spill their sums or find no four registers in a row for TBL.
"""

from __future__ import annotations

from tvmmobile.schedules.emit.in_order_loop import VECTOR_BYTES, inline_function

#: Vectors that are looked up together, at most.
MOST_TOGETHER = 4
#: Bytes of a quarter of the table, and its registers: functions need not save these.
_QUARTER, _REGISTERS = 64, tuple(f"v{number}" for number in range(16, 20))


def symbol_of(vectors: int) -> str:
    """Return the name of the function that looks up this many vectors."""
    return f"tvmmobile_lookup_{vectors}"


def lookup(vectors: int) -> str:
    """Return the function `symbol_of`(bytes, table), both pointers, as LLVM's text: it replaces this many vectors of bytes."""
    numbers = range(3 * vectors + 1)
    kinds, constraints = ["<4 x float>"] * len(numbers), ["=&w"] * len(numbers)
    operands = [*constraints, *(str(vectors + n) for n in range(vectors)), "r", *(f"~{{{register}}}" for register in _REGISTERS)]
    inputs = [*(f"<4 x float> %v{n}" for n in range(vectors)), "ptr %table"]
    head = f"@{symbol_of(vectors)}(ptr %acc, ptr %table)"
    return inline_function(head, _assembly(vectors, f"${len(numbers) + vectors}"), kinds, operands, inputs, vectors, vectors)


def _assembly(vectors: int, table: str) -> list[str]:
    """Return the instructions; of the operands, results come first, then bytes, places in a quarter, and what makes them of bytes."""

    def operand(kind: int, vector: int) -> str:
        return f"${{{kind * vectors + vector}}}.16b"

    registers = "{" + ", ".join(f"{register}.16b" for register in _REGISTERS) + "}"
    lines = []
    for first in range(0, 4 * _QUARTER, _QUARTER):
        for pair in range(0, len(_REGISTERS), 2):
            one, other = (register.replace("v", "q") for register in _REGISTERS[pair : pair + 2])
            lines.append(f"ldp {one}, {other}, [{table}, #{first + VECTOR_BYTES * pair}]")
        every = range(vectors)
        if not first:
            lines += [f"tbl {operand(0, n)}, {registers}, {operand(1, n)}" for n in every]
            continue
        lines.append(f"movi {operand(3, 0)}, #{first}")
        lines += [f"eor {operand(2, n)}, {operand(1, n)}, {operand(3, 0)}" for n in every]
        lines += [f"tbl {operand(2, n)}, {registers}, {operand(2, n)}" for n in every]
        lines += [f"orr {operand(0, n)}, {operand(0, n)}, {operand(2, n)}" for n in every]
    return lines
