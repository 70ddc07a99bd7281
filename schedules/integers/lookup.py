"""Lookup of vectors of bytes in a table of 256 bytes, as one block of inline assembly.

Registers hold a quarter of the table at a time; TBL returns 0 for bytes of the other quarters. LLVM would hoist the loads of the whole
table out of a kernel's loops, and then either spill the sums or find no four consecutive registers for TBL.
"""

from __future__ import annotations

from tvmmobile.schedules.emit.in_order_loop import VECTOR_BYTES, inline_function

#: Most vectors that are looked up together.
MOST_TOGETHER = 4
#: Bytes per quarter of the table, and its registers, which are caller-saved.
_QUARTER, _REGISTERS = 64, tuple(f"v{number}" for number in range(16, 20))


def symbol_of(vectors: int) -> str:
    """Return the name of the function that looks up `vectors` vectors."""
    return f"tvmmobile_lookup_{vectors}"


def lookup(vectors: int) -> str:
    """Return the function `symbol_of`(bytes, table), both pointers, in LLVM IR; it replaces `vectors` vectors of bytes in place."""
    numbers = range(3 * vectors + 1)
    kinds, constraints = ["<4 x float>"] * len(numbers), ["=&w"] * len(numbers)
    operands = [*constraints, *(str(vectors + n) for n in range(vectors)), "r", *(f"~{{{register}}}" for register in _REGISTERS)]
    inputs = [*(f"<4 x float> %v{n}" for n in range(vectors)), "ptr %table"]
    head = f"@{symbol_of(vectors)}(ptr %acc, ptr %table)"
    return inline_function(head, _assembly(vectors, f"${len(numbers) + vectors}"), kinds, operands, inputs, vectors, vectors)


def _assembly(vectors: int, table: str) -> list[str]:
    """Return the instructions; operands are results, bytes, indices into a quarter, and the constant that turns bytes into these."""

    def operand(kind: int, vector: int) -> str:
        return f"${{{kind * vectors + vector}}}.16b"

    registers = "{" + ", ".join(f"{register}.16b" for register in _REGISTERS) + "}"
    lines = []
    for first in range(0, 4 * _QUARTER, _QUARTER):
        for pair in range(0, len(_REGISTERS), 2):
            low, high = (register.replace("v", "q") for register in _REGISTERS[pair : pair + 2])
            lines.append(f"ldp {low}, {high}, [{table}, #{first + VECTOR_BYTES * pair}]")
        numbers = range(vectors)
        if not first:
            lines += [f"tbl {operand(0, n)}, {registers}, {operand(1, n)}" for n in numbers]
            continue
        lines.append(f"movi {operand(3, 0)}, #{first}")
        lines += [f"eor {operand(2, n)}, {operand(1, n)}, {operand(3, 0)}" for n in numbers]
        lines += [f"tbl {operand(2, n)}, {registers}, {operand(2, n)}" for n in numbers]
        lines += [f"orr {operand(0, n)}, {operand(0, n)}, {operand(2, n)}" for n in numbers]
    return lines
