"""The loops of hiroog/vfpbench (src/VFP64SP_Test.cpp), each 40 instructions of a kind, and how it names them.

They are those of the source until July 2024 (commit 664d5c1), when `fmadd s0, s0, s8, s9` became `fmadd s0, s8, s9, s0`: an FMADD handed
its result on as a factor before, as an addend since. The logs that tests rest on are older.
"""

from __future__ import annotations

_LOOP = ["subs\tw0, w0, #1", "b.ne\t#0"]
INSTRUCTIONS = 40


def loop(name: str, shape: str, kind: str) -> list[str]:
    """Return a loop of one instruction.

    Args:
        name: the instruction's name, such as `fmla`; `fmadd` is of scalars.
        shape: shape of its vectors; of scalars, their letter.
        kind: `n8`, eight registers in turn; `n1`, always the same; `ns4`, as `n8` with an operand that was written four instructions
            before: a factor; of FMADD its addend.
    """
    body = []
    for place in range(INSTRUCTIONS):
        to = 0 if kind == "n1" else place % 8
        factor = (to + 4) % 8 if kind == "ns4" else 9
        if name == "fmadd":
            body.append(f"fmadd\t{shape}{to}, {shape}{to}, {shape}8, {shape}{factor}")
        else:
            body.append(f"{name}\tv{to}.{shape}, v8.{shape}, v{factor}.{shape}")
    return body + _LOOP
