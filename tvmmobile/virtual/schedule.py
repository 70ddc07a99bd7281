"""A block's cycles on a Cortex-A72 by its own latencies: an out-of-order core's schedule of the block run over and over.

llvm-mca has no tables of this core and takes the Cortex-A57's, whose chains of dependent operations are longer: FMLA 10 cycles instead of
7, FMUL and FADD 5 instead of 4, a division of four floats 36; and the base register of a post-indexed store is ready only after the store.
Here are the Cortex-A72's figures:

- [guide] "Cortex-A72 Software Optimisation Guide", Arm UAN 0016A: pipelines, dispatch width, accumulator forwarding, integer latencies;
- [osaca] RRZE-HPC/OSACA, osaca/data/a72.yml: latencies and throughputs measured on a Raspberry Pi 4, as its pull request 60 says.
  FADD has 3 there and 4 in a chain of other operations; 4 is taken, also for minimum, maximum and conversions.

The model: micro-operations are dispatched in order, `dispatch_width` a cycle, into a window of 128; each starts when its operands are ready
and its pipeline is free, in any order, and they leave the window in order. Nothing misses a cache and no branch is predicted wrongly.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tvmmobile.virtual.board import Core

#: Micro-operations in flight: the size of the reorder buffer, which LLVM's scheduling model has too (MicroOpBufferSize).
WINDOW = 128
_TRIPS = 24
_WARM_TRIPS = 8
#: From dispatch to the earliest start; it moves every schedule alike, and matters only through the window.
_DISPATCH_LATENCY = 1

_REGISTER = re.compile(r"\b(?:([vqdshb])(\d+)\b|[xw](\d+)|(sp)\b)")
_BASE = re.compile(r"\[(x\d+|sp)")
_WRITES_BASE = re.compile(r"\]!|\], (?!\[)")  # not the lane in `{ v0.s }[1], [x0]`
_QUAD = re.compile(r"\.(?:16b|8h|4s|2d)\b")

#: Instructions that read what they write, their first operand.
_ACCUMULATE = frozenset({"fmla", "fmls"})
_READ_FIRST = _ACCUMULATE | {"bsl", "bit", "bif", "ins", "mla", "mls", "movk", "bfi", "bfxil", "smlal", "umlal", "sadalp", "uadalp"}
_SET_FLAGS = frozenset({"cmp", "cmn", "tst", "adds", "subs", "ands", "bics", "ccmp", "ccmn", "fcmp", "fcmpe", "fccmp"})
_READ_FLAGS = frozenset(
    {"csel", "cset", "csinc", "csinv", "csneg", "cinc", "cneg", "csetm", "ccmp", "ccmn", "fcsel", "fccmp", "adc", "sbc"}
)
_NO_RESULT = frozenset(
    {"cmp", "cmn", "tst", "ccmp", "ccmn", "fcmp", "fcmpe", "fccmp", "nop", "cbz", "cbnz", "tbz", "tbnz", "b", "br", "ret"}
)
_BRANCHES = frozenset({"b", "bl", "br", "blr", "ret", "cbz", "cbnz", "tbz", "tbnz"})
#: Latency; Q forms of all but the comparisons take both vector pipelines ([osaca] throughputs).
_FLOAT = {"fadd": 4, "fsub": 4, "fabd": 4, "faddp": 4, "fmul": 4, "fmulx": 4, "fnmul": 4, "fmla": 7, "fmls": 7, "fmadd": 7, "fmsub": 7}
_FLOAT |= dict.fromkeys(("fmax", "fmin", "fmaxnm", "fminnm", "fmaxp", "fminp", "frecps", "frsqrts"), 4)
_FLOAT |= dict.fromkeys(
    ("scvtf", "ucvtf", "fcvt", "fcvtl", "fcvtl2", "fcvtn", "fcvtn2", "fcvtzs", "fcvtzu", "fcvtns", "fcvtas", "fcvtms"), 4
)
_FLOAT |= dict.fromkeys(("frintm", "frintn", "frintz", "frinta", "frintp", "frintx", "frinti", "frecpe", "frsqrte"), 4)
#: Latency, and how long the dividers of both pipelines are busy together. Some operands end early; [osaca]
#: measured one division of four floats in 8 cycles, the networks of the calibration divide by one or two (their weights are zero).
_QUAD_DIVISION, _DIVISION = (11, 16), (11, 4)
_DIVISIONS = frozenset({"fdiv", "fsqrt"})
_VECTOR_MULTIPLY = frozenset({"mul", "mla", "mls", "smull", "umull", "smlal", "umlal", "sqdmulh", "sqrdmulh", "smull2", "umull2"})
_MULTIPLY = frozenset({"mul", "madd", "msub", "mneg", "smull", "umull", "smaddl", "umaddl", "smulh", "umulh"})
_DIVIDE = frozenset({"sdiv", "udiv"})
_TO_GENERAL = frozenset({"umov", "smov"})


@dataclass(frozen=True)
class Operation:
    """One instruction as the core sees it.

    Attributes:
        reads: register names.
        writes: register names and the cycles until each can be used.
        ports: pipelines and the cycles that each is busy.
        accumulator: the first register read, if the same kind of instruction can hand it over early (a chain of FMLA).
        micro_operations: what it takes in dispatch and in the window.
    """

    reads: tuple[str, ...]
    writes: tuple[tuple[str, int], ...]
    ports: tuple[tuple[str, int], ...]
    accumulator: str = ""
    micro_operations: int = 1


def steady_cycles(block: Sequence[str], core: Core) -> float:
    """Cycles per execution of a block that runs over and over, on average.

    Args:
        block: instructions as `disassemble` gives them.
        core: its dispatch width and number of pipelines.
    """
    operations = [operation_of(text) for text in block if text]
    if not operations:
        return 0.0
    width = {
        "load": core.load_ports,
        "store": core.store_ports,
        "vector": core.vector_ports,
        "branch": core.branch_ports,
        "int": 2,
        "multi": 1,
    }
    busy: dict[str, defaultdict[int, int]] = {name: defaultdict(int) for name in width}
    ready: defaultdict[str, int] = defaultdict(int)
    early: dict[str, int] = {}
    leaves: list[int] = []  # when each micro-operation in flight leaves the window
    dispatched = retired = warm = 0
    for trip in range(_TRIPS):
        for op in operations:
            count = op.micro_operations
            dispatched = max(dispatched, core.dispatch_width * leaves[-WINDOW]) if len(leaves) >= WINDOW else dispatched
            start = dispatched // core.dispatch_width + _DISPATCH_LATENCY
            dispatched += count
            for place, name in enumerate(op.reads):
                taken_over = place == 0 and name == op.accumulator and name in early
                start = max(start, early[name] if taken_over else ready[name])
            end = start
            for port, cycles in op.ports:
                end = max(end, _occupy(busy[port], start, cycles, width[port]))
            done = end
            for name, latency in op.writes:
                ready[name] = end + latency
                early.pop(name, None)
                done = max(done, end + latency)
            if op.accumulator:
                early[op.accumulator] = end + 3  # [guide] "late forwarding of accumulate operands"
            retired = max(retired, done)
            leaves += [retired] * count
            del leaves[:-WINDOW]
        if trip == _WARM_TRIPS - 1:
            warm = retired
    return (retired - warm) / (_TRIPS - _WARM_TRIPS)


def _occupy(used: defaultdict[int, int], start: int, cycles: int, ports: int) -> int:
    """Take `cycles` free slots of a pipeline from `start` on; the cycle of the last one."""
    at = start
    while True:
        while used[at] >= ports:
            at += 1
        used[at] += 1
        cycles -= 1
        if not cycles:
            return at


def operation_of(text: str) -> Operation:
    """An instruction's registers, latencies and pipelines."""
    name, _, operands = text.partition("\t")
    if name in _BRANCHES or name.startswith("b."):
        return Operation((*_names(operands), "flags") if "." in name else _names(operands), (), (("branch", 1),))
    if name.startswith(("ld", "st", "prfm")):
        return _memory(name, operands)
    registers = _names(operands)
    writes_none = name in _NO_RESULT
    destination = () if writes_none or not registers else registers[:1]
    reads = registers if writes_none or name in _READ_FIRST else registers[1:]
    reads += ("flags",) if name in _READ_FLAGS else ()
    vector = any(register[0] == "v" for register in registers)
    latency, ports = _vector(name, operands) if vector else _general(name, operands)
    writes = tuple((register, latency) for register in destination)
    writes += (("flags", latency),) if name in _SET_FLAGS else ()
    return Operation(
        reads, writes, ports, destination[0] if name in _ACCUMULATE else "", max(1, min(2, sum(cycles for _, cycles in ports)))
    )


def _names(operands: str) -> tuple[str, ...]:
    """The registers in order; one name for all widths of a register."""
    found = []
    for vector, number, general, stack in _REGISTER.findall(operands):
        found.append(f"v{number}" if vector else stack or f"x{general}")
    return tuple(found)


def _memory(name: str, operands: str) -> Operation:
    base = _BASE.search(operands)
    data_text = operands[: operands.index("[")] if base and "{" not in operands else operands.partition("[x")[0].partition("[sp")[0]
    data = _names(data_text)
    address = _names(operands[len(data_text) :])
    writes: tuple[tuple[str, int], ...] = ()
    ports: tuple[tuple[str, int], ...] = ()
    if base and _WRITES_BASE.search(operands):
        writes += ((_names(base[1])[0], 1),)  # [guide] latency of the base register in parentheses
        ports += (("int", 1),)
    vector = any(register[0] == "v" for register in data)
    lane = bool(re.search(r"\}\[\d+\]", operands))
    quad = bool(_QUAD.search(data_text)) or data_text.startswith("q")
    interleaved = name[:3] in ("ld2", "ld3", "ld4", "st2", "st3", "st4") and not name.endswith("r")
    count = len(data) if vector and (quad or interleaved) else 1
    if name.startswith("prfm"):
        return Operation(address, writes, (("load", 1), *ports))
    if name.startswith("st"):
        cycles = 2 * count if quad and not lane else max(len(data), 1)  # [osaca] eight bytes a cycle
        ports += (("store", cycles),) + ((("vector", count),) if interleaved else ())
        return Operation(data + address, writes, ports, "", max(1, min(cycles, 8)) + (len(writes) > 0))
    latency = (5 + count - 1 + (3 if interleaved or lane else 0)) if vector else 4
    ports += (("load", count),) + ((("vector", count),) if interleaved or lane else ())
    reads = data + address if lane else address
    return Operation(reads, writes + tuple((register, latency) for register in data), ports, "", count + (len(writes) > 0))


def _vector(name: str, operands: str) -> tuple[int, tuple[tuple[str, int], ...]]:
    quad = bool(_QUAD.search(operands))
    if name in _DIVISIONS:
        latency, busy = _QUAD_DIVISION if quad else _DIVISION
        return latency, (("vector", busy),)
    if name in _FLOAT:
        return _FLOAT[name], (("vector", 2 if quad else 1),)
    if name in _VECTOR_MULTIPLY:
        return 5 if quad else 4, (("vector", 2 if quad else 1),)
    if name in _TO_GENERAL or (name == "fmov" and operands[0] in "xw"):
        return 5, (("load", 1),)
    if name in ("dup", "ins", "mov", "fmov") and re.search(r"\b[xw]\d+", operands):
        return 8, (("load", 1), ("vector", 1))
    return 3, (("vector", 1),)


def _general(name: str, operands: str) -> tuple[int, tuple[tuple[str, int], ...]]:
    if name in _DIVIDE:
        return 12, (("multi", 12),)
    if name in _MULTIPLY:
        return (5, (("multi", 3),)) if operands.startswith("x") and name in ("mul", "madd", "msub", "mneg") else (3, (("multi", 1),))
    if name not in ("lsl", "lsr", "asr", "movz", "movk", "mov") and re.search(r", (?:lsl|lsr|asr|ror|[su]xt[bhwx])\b", operands):
        return 2, (("multi", 1),)  # [guide] arithmetic with a shifted or extended operand
    return 1, (("int", 1),)
