"""What an instruction reads and writes, from its text; the same for every core."""

from __future__ import annotations

import re
from dataclasses import dataclass

_REGISTER = re.compile(r"\b(?:([vqdshb])(\d+)\b|[xw](\d+)|(sp)\b)")
_BASE = re.compile(r"\[(x\d+|sp)")
_WRITES_BASE = re.compile(r"\]!|\], (?!\[)")  # not the lane in `{ v0.s }[1], [x0]`
_SHAPE = re.compile(r"\.(\d*[bhsd])\b")
_QUAD = re.compile(r"\.(?:16b|8h|4s|2d)\b")
_LANE = re.compile(r"\}\[\d+\]")

#: Instructions that read what they write, their first operand.
_READ_FIRST = frozenset(
    {"fmla", "fmls", "bsl", "bit", "bif", "ins", "mla", "mls", "movk", "bfi", "bfxil", "smlal", "umlal", "sadalp", "uadalp"}
)
_SET_FLAGS = frozenset({"cmp", "cmn", "tst", "adds", "subs", "ands", "bics", "ccmp", "ccmn", "fcmp", "fcmpe", "fccmp"})
_READ_FLAGS = frozenset(
    {"csel", "cset", "csinc", "csinv", "csneg", "cinc", "cneg", "csetm", "ccmp", "ccmn", "fcsel", "fccmp", "adc", "sbc"}
)
_NO_RESULT = frozenset(
    {"cmp", "cmn", "tst", "ccmp", "ccmn", "fcmp", "fcmpe", "fccmp", "nop", "cbz", "cbnz", "tbz", "tbnz", "b", "br", "ret"}
)
BRANCHES = frozenset({"b", "bl", "br", "blr", "ret", "cbz", "cbnz", "tbz", "tbnz"})


@dataclass(frozen=True)
class Instruction:
    """One instruction, taken apart.

    Attributes:
        name: its mnemonic.
        operands: their text.
        kind: `branch`, `load`, `store`, `prefetch`, `vector` (an operand is a vector register) or `general`.
        reads: register names in order, one name for all widths of a register; `flags` last.
        writes: register names; `flags` last. Without the base register.
        base: the base register of a pre- or post-indexed access, which it writes; "" for others.
        data: registers that a load writes or a store reads from.
        quad: whether the vectors are 16 bytes long.
        shape: `4s`, `8h`, … of the first vector, its letter alone for a lane (`s`); "" where there is none.
        lane: whether a load or store is of one lane.
        interleaved: whether a load or store is one of `ld2` … `st4`, which permute.
    """

    name: str
    operands: str
    kind: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    base: str = ""
    data: tuple[str, ...] = ()
    quad: bool = False
    shape: str = ""
    lane: bool = False
    interleaved: bool = False

    @property
    def of_vectors(self) -> bool:
        """Whether a load's or store's data are vector registers."""
        return any(register[0] == "v" for register in self.data)


def instruction_of(text: str) -> Instruction:
    """Take an instruction apart that `disassemble` gave."""
    name, _, operands = text.partition("\t")
    shape = _SHAPE.search(operands)
    if name in BRANCHES or name.startswith("b."):
        reads = registers_of(operands)
        return Instruction(name, operands, "branch", (*reads, "flags") if "." in name else reads, ())
    if name.startswith(("ld", "st", "prfm")):
        return _memory(name, operands, shape[1] if shape else "")
    registers = registers_of(operands)
    writes_none = name in _NO_RESULT
    destination = () if writes_none or not registers else registers[:1]
    reads = registers if writes_none or name in _READ_FIRST else registers[1:]
    reads += ("flags",) if name in _READ_FLAGS else ()
    return Instruction(
        name=name,
        operands=operands,
        kind="vector" if any(register[0] == "v" for register in registers) else "general",
        reads=reads,
        writes=destination + (("flags",) if name in _SET_FLAGS else ()),
        quad=bool(_QUAD.search(operands)),
        shape=shape[1] if shape else "",
    )


def registers_of(operands: str) -> tuple[str, ...]:
    """The registers in order; one name for all widths of a register."""
    found = []
    for vector, number, general, stack in _REGISTER.findall(operands):
        found.append(f"v{number}" if vector else stack or f"x{general}")
    return tuple(found)


def _memory(name: str, operands: str, shape: str) -> Instruction:
    base = _BASE.search(operands)
    data_text = operands[: operands.index("[")] if base and "{" not in operands else operands.partition("[x")[0].partition("[sp")[0]
    data = registers_of(data_text)
    address = registers_of(operands[len(data_text) :])
    lane = bool(_LANE.search(operands))
    kind = "prefetch" if name.startswith("prfm") else "store" if name.startswith("st") else "load"
    return Instruction(
        name=name,
        operands=operands,
        kind=kind,
        reads=data + address if kind == "store" or (kind == "load" and lane) else address,
        writes=data if kind == "load" else (),
        base=registers_of(base[1])[0] if base and _WRITES_BASE.search(operands) else "",
        data=data,
        quad=bool(_QUAD.search(data_text)) or data_text.startswith("q"),
        shape=shape,
        lane=lane,
        interleaved=name[:3] in ("ld2", "ld3", "ld4", "st2", "st3", "st4") and not name.endswith("r"),
    )
