"""Parses an instruction's text into the operands that it reads and writes, which are the same on all cores."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

_REGISTER = re.compile(r"\b(?:([vqdshb])(\d+)\b|[xw](\d+)|(sp)\b)")
_BASE = re.compile(r"\[(x\d+|sp)")
_WRITES_BASE = re.compile(r"\]!|\], (?!\[)")  # not the lane in `{ v0.s }[1], [x0]`
_SHAPE = re.compile(r"\.(\d*[bhsd])\b")
_QUAD = re.compile(r"\.(?:16b|8h|4s|2d)\b")
_LANE = re.compile(r"\}\[\d+\]")

#: Instructions that also read the first operand, which they write: as an accumulator, or to keep part of it.
_READ_FIRST = frozenset(
    {"fmla", "fmls", "mla", "mls", "bsl", "bit", "bif", "movk", "bfi", "bfxil", "bfm", "bfc", "sli", "sri", "tbx", "suqadd", "usqadd"}
    | {f"fml{sign}l{half}" for sign in "as" for half in ("", "2")}
    | {f"{sign}ml{to}l{half}" for sign in "su" for to in "as" for half in ("", "2")}
    | {f"sqdml{to}l{half}" for to in "as" for half in ("", "2")}
    | {"sqrdmlah", "sqrdmlsh", "fcmla", "bfdot", "bfmlalb", "bfmlalt", "bfmmla"}
    | {"sdot", "udot", "usdot", "sudot", "smmla", "ummla", "usmmla"}
    | {f"{sign}{name}" for sign in "su" for name in ("adalp", "aba", "abal", "abal2", "sra", "rsra")}
    | {f"{name}2" for name in ("xtn", "sqxtn", "sqxtun", "uqxtn", "shrn", "rshrn", "fcvtn", "fcvtxn", "bfcvtn")}
    | {f"{name}hn2" for name in ("add", "radd", "sub", "rsub")}
    | {f"{kind}{rounds}shr{unsigned}n2" for kind in ("sq", "uq") for rounds in ("", "r") for unsigned in ("", "u")}
    | {"aese", "aesd", "sha1c", "sha1m", "sha1p", "sha1su0", "sha1su1", "sha256h", "sha256h2", "sha256su0", "sha256su1"}
)
#: Instructions that also read their vector if the other operand is an immediate: `orr v0.4s, #3`.
_READ_FIRST_WITH_IMMEDIATE = frozenset({"orr", "bic"})
_INTO_LANE = frozenset({"ins", "mov", "fmov"})
_COMPARE = frozenset({"cmp", "cmn", "tst", "ccmp", "ccmn", "fcmp", "fcmpe", "fccmp", "fccmpe"})
_SET_FLAGS = _COMPARE | {"adds", "subs", "ands", "bics", "adcs", "sbcs", "negs", "ngcs"}
_READ_FLAGS = frozenset(
    {"csel", "cset", "csinc", "csinv", "csneg", "cinc", "cinv", "cneg", "csetm", "ccmp", "ccmn", "fcsel", "fccmp", "fccmpe"}
    | {"adc", "adcs", "sbc", "sbcs", "ngc", "ngcs"}
)
_NO_RESULT = _COMPARE | {"msr", "dc", "ic", "at", "tlbi"}
#: Store-exclusive instructions, which write the status of the store to their first register.
_EXCLUSIVE_STORE = re.compile(r"stl?x[rp][bh]?$")
#: Atomic instructions of ARMv8.1, with a register for the operand and, except for `st…`, one for memory's old value.
_ATOMIC = re.compile(r"(?:ld|st)(?:add|clr|eor|set|[su]max|[su]min)a?l?[bh]?$|(?:swp|cas|casp)a?l?[bh]?$")
#: Loads of one element into all lanes.
REPEATING = frozenset({"ld1r", "ld2r", "ld3r", "ld4r"})
#: Number of parsed instructions to cache; they recur in a kernel's blocks and in other kernels.
INSTRUCTIONS_KEPT = 1 << 16
BRANCHES = frozenset({"b", "bl", "br", "blr", "ret", "cbz", "cbnz", "tbz", "tbnz"})


@dataclass(frozen=True)
class Instruction:
    """One parsed instruction.

    Attributes:
        name: mnemonic.
        operands: text of the operands.
        kind: `branch`, `load`, `store`, `prefetch`, `vector` (an operand is a vector register) or `general`.
        reads: names of registers in order, with one name for all widths of a register; `flags` last.
        writes: names of registers without `base`; `flags` last.
        base: base register that a pre- or post-indexed access updates; "" for others.
        data: registers that a load writes, or whose content a store writes to memory.
        quad: true if vectors have 16 bytes.
        shape: arrangement of the first vector, such as `4s`, or its letter alone for a lane (`s`); "" without a vector.
        lane: true for a load or store of one lane.
        interleaved: true for `ld2` … `st4`, which permute lanes.
        accumulates: true if the first operand, the first of `reads`, is both read and written.
        keeps: true if it writes one lane of its first operand, which is not among `reads`, and keeps the others.
        atomic: true for the atomic read-modify-write instructions of ARMv8.1.
        status: true for a store-exclusive, which writes a status register.
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
    accumulates: bool = False
    keeps: bool = False
    atomic: bool = False
    status: bool = False

    @property
    def of_vectors(self) -> bool:
        """True for a load or store of vector registers."""
        return any(register[0] == "v" for register in self.data)


@functools.lru_cache(maxsize=INSTRUCTIONS_KEPT)
def instruction_of(text: str) -> Instruction:
    """Parse an instruction's text from `disassemble`."""
    name, _, operands = text.partition("\t")
    shape = _SHAPE.search(operands)
    if name in BRANCHES or name.startswith("b."):
        reads = registers_of(operands)
        return Instruction(name, operands, "branch", (*reads, "flags") if "." in name else reads, ())
    if _ATOMIC.match(name):
        return _atomic(name, operands)
    if name.startswith(("ld", "st", "prfm", "prfum")):
        return _memory(name, operands, shape[1] if shape else "")
    registers = registers_of(operands)
    first = operands.partition(",")[0]
    written = () if name in _NO_RESULT else registers_of(first)[:1]
    accumulates = bool(written) and (name in _READ_FIRST or (name in _READ_FIRST_WITH_IMMEDIATE and registers == written))
    return Instruction(
        name=name,
        operands=operands,
        kind="vector" if any(register[0] == "v" for register in registers) else "general",
        reads=(registers if accumulates else registers[len(written) :]) + (("flags",) if name in _READ_FLAGS else ()),
        writes=written + (("flags",) if name in _SET_FLAGS else ()),
        quad=bool(_QUAD.search(operands)),
        shape=shape[1] if shape else "",
        accumulates=accumulates,
        keeps=name in _INTO_LANE and "[" in first,
    )


def registers_of(operands: str) -> tuple[str, ...]:
    """Return the names of the registers in order, with one name for all widths of a register."""
    names = []
    for vector, number, general, stack in _REGISTER.findall(operands):
        names.append(f"v{number}" if vector else stack or f"x{general}")
    return tuple(names)


def _atomic(name: str, operands: str) -> Instruction:
    """Parse an atomic instruction: `cas` reads and writes its comparand; the others read the first register and write the second."""
    listed, _, place = operands.partition("[")
    count = 2 if name.startswith("casp") else 1
    texts = listed.rstrip(", ").split(", ")
    held = texts[:count] if name.startswith("cas") else texts[count:]
    result = registers_of(" ".join(held))
    return Instruction(
        name=name,
        operands=operands,
        kind="store" if name.startswith("st") else "load",
        reads=registers_of(" ".join(texts if name.startswith("cas") else texts[:count])) + registers_of(place),
        writes=result,
        data=result or registers_of(listed),
        atomic=True,
    )


def _memory(name: str, operands: str, shape: str) -> Instruction:
    base = _BASE.search(operands)
    data_text = operands[: operands.index("[")] if base and "{" not in operands else operands.partition("[x")[0].partition("[sp")[0]
    data = registers_of(data_text)
    address = registers_of(operands[len(data_text) :])
    lane = bool(_LANE.search(operands))
    status = bool(_EXCLUSIVE_STORE.match(name))
    written = registers_of(data_text.partition(",")[0]) if status else ()  # none where it is wzr
    data = data[len(written) :]
    kind = "prefetch" if name.startswith("prf") else "store" if name.startswith("st") else "load"
    return Instruction(
        name=name,
        operands=operands,
        kind=kind,
        reads=data + address if kind == "store" or (kind == "load" and lane) else address,
        writes=data if kind == "load" else written,
        base=registers_of(base[1])[0] if base and _WRITES_BASE.search(operands) else "",
        data=data,
        quad=bool(_QUAD.search(data_text)) or data_text.startswith("q"),
        shape=shape,
        lane=lane,
        interleaved=name[:3] in ("ld2", "ld3", "ld4", "st2", "st3", "st4") and not name.endswith("r"),
        status=status,
    )
