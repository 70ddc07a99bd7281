"""The Cortex-A76's figures for the out-of-order schedule.

- [guide] "Arm Cortex-A76 Software Optimization Guide", PJDOC-466751330-7215: pipelines (2.1), dispatch (4.1), one store of 16 bytes a cycle
  (4.4). The guide itself was not at hand; its figures are taken as those below quote them;
- [llvm] LLVM 17's AArch64SchedNeoverseN1.td, made from the guide of the Neoverse N1 (PJDOC-466751330-547726), which has the same pipelines:
  latencies and throughputs where nothing else is said, and the size of the window;
- [slothy] a Cortex-A76 model for the Slothy optimizer, made from version 10.0 of the guide: dispatch, throughputs of stores and of the
  loads and stores that sort lanes, and that SMLAL follows SMLAL after a cycle, which was measured on a Raspberry Pi 5
  (github.com/cheng-wei-huang0612/cortex-a76-smull-forwarding);
- [queues] Arm's presentation of the core as AnandTech reports it ("Arm's Cortex-A76 CPU Unveiled", 2018, page 3): issue queues of 16 for
  the branch pipeline, each of three integer and each of two vector pipelines, of 12 for each of two load/store pipelines.

llvm-mca 16 takes the Cortex-A57's tables for this core: three instructions a cycle, one Q-form FMLA a cycle where there are two, FMLA 10
cycles where there are 4.

Half precision takes the same two vector pipelines, eight lanes each: FMLA in 8H is as fast as in 4S. What runs in one of them alone is
slower in 8H: divisions, conversions and rounding take V0 two lanes at a time.
"""

from __future__ import annotations

import re

from tvmmobile.virtual.cores.operands import Instruction
from tvmmobile.virtual.cores.out_of_order import CoreTables, InstructionTiming

_Ports = tuple[tuple[str, int], ...]
_Cost = tuple[int, _Ports]

#: [guide] 2.1. `multi` is one of the three integer pipelines, `v0` and `v1` are the two vector pipelines; `data` is half of what a store
#: of 16 bytes takes.
_PIPELINES = {"branch": 1, "int": 3, "multi": 1, "memory": 2, "data": 2, "v": 2, "v0": 1, "v1": 1}
_V: _Ports = (("v", 1),)
_V0: _Ports = (("v0", 1),)
_V1: _Ports = (("v1", 1),)

#: Families of accumulations, and how long the next one of the family waits for the accumulator (the guides' figures in parentheses).
_CHAINS = dict.fromkeys(("fmla", "fmls"), ("fmla", 2)) | dict.fromkeys(("fmlal", "fmlal2"), ("fmlal", 2))
_CHAINS |= dict.fromkeys(("mla", "mls"), ("mla", 2)) | dict.fromkeys(("smlal", "smlal2", "umlal", "umlal2"), ("mlal", 1))
_CHAINS |= dict.fromkeys(("sdot", "udot"), ("dot", 1))
#: Either vector pipeline, in every shape.
_EITHER: dict[str, int] = {}
_EITHER |= dict.fromkeys(("fmla", "fmls", "fmadd", "fmsub", "fnmadd", "fnmsub", "frecps", "frsqrts"), 4)
_EITHER |= dict.fromkeys(("fmlal", "fmlal2", "fmlsl", "fmlsl2"), 5)
_EITHER |= dict.fromkeys(("fmul", "fmulx", "fnmul"), 3)
_EITHER |= dict.fromkeys(("sdot", "udot"), 2)
#: V0 alone; vectors of 2, 4 and 8 lanes take it once, twice and four times, with these latencies.
_LENGTHEN = frozenset({"fcvtl", "fcvtl2", "fcvtn", "fcvtn2", "fcvtxn", "fcvtxn2"})
_CONVERT = _LENGTHEN | {"fcvt", "scvtf", "ucvtf", "frecpe", "frsqrte", "urecpe", "ursqrte"}
_CONVERT |= {f"fcvt{mode}{sign}" for mode in "amnpz" for sign in "su"} | {f"frint{mode}" for mode in "aimnpxz"}
_CONVERT_COST = {2: (3, 1), 4: (4, 2), 8: (6, 4)}
#: Latency, and how long V0 is taken. The guide has ranges, since some operands end early; [llvm] has the longest latency and the shortest
#: time in the pipeline.
_DIVIDE = {"h": (7, 7), "s": (10, 7), "d": (15, 7), "4h": (7, 7), "8h": (13, 10), "2s": (10, 7), "4s": (10, 7), "2d": (15, 7)}
_SHIFT = frozenset({"shl", "sshr", "ushr", "shrn", "shrn2", "sshll", "ushll", "sshll2", "ushll2", "sli", "sri", "sshl", "ushl"})
_SHIFT |= {"sxtl", "uxtl", "sxtl2", "uxtl2", "shll", "shll2"}
_SLOW_SHIFT = frozenset({"ssra", "usra", "srsra", "ursra", "srshr", "urshr", "rshrn", "rshrn2", "sqxtn", "uqxtn", "sqxtun", "sqrshrn"})
_SLOW_SHIFT |= {"sqrshrun", "sqxtn2", "sqxtun2", "srshl", "urshl", "sqrshl", "saba", "uaba", "sabal", "uabal", "sadalp", "uadalp"}
_LONG_MULTIPLY = frozenset({f"{kind}{half}" for kind in ("smull", "umull", "smlal", "umlal", "smlsl", "umlsl") for half in ("", "2")})
_LONG_MULTIPLY |= {"sqdmull", "sqdmull2"}
_MULTIPLY = frozenset({"mul", "mla", "mls", "sqdmulh", "sqrdmulh"})
_REDUCE = frozenset({"addv", "saddlv", "uaddlv", "smaxv", "sminv", "umaxv", "uminv"})
_REDUCE_COST: dict[int, _Cost] = {4: (3, _V1), 8: (5, (*_V1, *_V)), 16: (6, (("v1", 2),))}
_REDUCE_FLOAT = frozenset({"fmaxv", "fminv", "fmaxnmv", "fminnmv"})

_GENERAL_MULTIPLY = frozenset({"mul", "madd", "msub", "mneg", "smull", "umull", "smaddl", "umaddl", "smsubl", "umsubl", "smnegl", "umnegl"})
_SHIFTED = re.compile(r", (lsl|lsr|asr|ror|[su]xt[bhwx])(?: #(\d+))?$")
_LOGICAL = frozenset({"and", "bic", "eon", "eor", "orn", "orr", "mov", "mvn"})
_MOVE = frozenset({"movz", "movk", "movn", "mov", "lsl", "lsr", "asr", "ror"})
#: A left shift up to this one costs an addition nothing.
_CHEAP_SHIFT = 4

#: Latency of ld1 by its number of registers.
_LOAD = {1: 5, 2: 5, 3: 6, 4: 6}
#: Latency of ld2 … ld4, and how often they take the vector pipelines, which sort the lanes ([slothy]; three registers: [llvm]).
_SORTED_LOAD = {"2": (7, 2), "3": (8, 3), "4": (10, 10)}
_SORTED_SHORT_LOAD = {"2": (7, 2), "3": (8, 3), "4": (8, 7)}
#: How often st2 … st4 take them, in Q form and shorter ([slothy]).
_SORTED_STORE, _SORTED_SHORT_STORE = {"2": 4, "3": 6, "4": 12}, {"2": 2, "3": 4, "4": 6}


def _timing(instruction: Instruction) -> InstructionTiming:
    if instruction.kind == "branch":
        linked = instruction.name in ("bl", "blr")
        return InstructionTiming(1, (("branch", 1), ("int", 1)) if linked else (("branch", 1),), 1 + linked)
    update = "int" if instruction.base else ""
    chain, chain_latency = "", 0
    if instruction.kind == "vector":
        latency, ports = _vector(instruction)
        chain, chain_latency = _CHAINS.get(instruction.name, ("", 0))
    elif instruction.kind == "general":
        latency, ports = _general(instruction.name, instruction.operands)
    else:
        latency, ports = _store(instruction) if instruction.kind == "store" else _load(instruction)
    # The guide's latencies count from the first cycle in a pipeline, those of the schedule from the last.
    spread = max(-(-cycles // _PIPELINES[port]) for port, cycles in ports) - 1
    return InstructionTiming(max(0, latency - spread), ports, _micro_operations(instruction, ports), update, chain, chain_latency)


def _micro_operations(instruction: Instruction, ports: _Ports) -> int:
    """What is dispatched: one for each access and for each time its vectors are sorted or stored; one for each pipeline otherwise."""
    if instruction.kind in ("load", "store"):
        return sum(cycles for port, cycles in ports if port != "data") + bool(instruction.base)
    return len(ports) + bool(instruction.base)


def _load(instruction: Instruction) -> _Cost:
    """One access for 16 bytes."""
    count, pair = len(instruction.data), instruction.name in ("ldp", "ldnp", "ldpsw")
    if instruction.kind == "prefetch":
        return 0, (("memory", 1),)
    if not instruction.of_vectors:
        return 4, (("memory", 2 if pair and instruction.operands.startswith("x") else 1),)
    if pair:
        return (7, (("memory", 2),)) if instruction.quad else (5, (("memory", 1),))
    if instruction.lane or instruction.name in ("ld1r", "ld2r", "ld3r", "ld4r"):
        return 8 if count == 4 else 7, (("memory", count), ("v", count))
    if instruction.interleaved:
        latency, sorting = (_SORTED_LOAD if instruction.quad else _SORTED_SHORT_LOAD)[instruction.name[2]]
        return latency, (("memory", count), ("v", sorting))
    return _LOAD[count], (("memory", count),)


def _store(instruction: Instruction) -> _Cost:
    """An address and a vector pipeline's slot for 16 bytes each, and 16 bytes of data a cycle ([guide] 4.4).

    [llvm] has the same throughput of STR in Q form from two addresses and two slots; one of each is what its D form takes, and 16 bytes are
    a pipeline's width.
    """
    count = len(instruction.data)
    if not instruction.of_vectors:
        halves = 2 if count == 2 and instruction.operands.startswith("x") else 1
        return 0, (("memory", halves), ("data", halves))
    halves = count * (2 if instruction.quad and not instruction.lane else 1)
    accesses = sorting = (halves + 1) // 2
    if instruction.interleaved and not instruction.lane:
        sorting = (_SORTED_STORE if instruction.quad else _SORTED_SHORT_STORE)[instruction.name[2]]
    return 0, (("memory", accesses), ("data", halves), ("v", sorting))


def _vector(instruction: Instruction) -> _Cost:
    name, operands, shape = instruction.name, instruction.operands, instruction.shape
    lanes = int(shape[:-1]) if shape[:-1] else 1
    general = re.search(r"(?:^|, )[xw](?:\d+|zr)\b", operands)
    if general:
        return _crossing(name, general.start() == 0)
    if name in _EITHER:
        return _EITHER[name], _V
    if name in ("fdiv", "fsqrt"):
        latency, busy = _DIVIDE[shape or operands[0]]
        return latency + (2 if name == "fsqrt" and latency == 15 else 0), (("v0", busy),)
    if name in _CONVERT:
        if not shape:
            return 3, _V0
        if name in _LENGTHEN:
            lanes = 2 if ".2d" in operands else 4
        latency, busy = _CONVERT_COST[max(2, lanes)]
        return latency, (("v0", busy),)
    if name in _REDUCE:
        return _REDUCE_COST[max(4, lanes)]
    if name in _REDUCE_FLOAT:
        return (8, (("v", 3),)) if lanes == 8 else (5, _V)
    if name in _SHIFT:
        return 2, _V1
    if name in _SLOW_SHIFT:
        return 4, _V1
    if name in _LONG_MULTIPLY:
        return 4, _V0
    if name in _MULTIPLY:
        return (5, (("v0", 2),)) if instruction.quad else (4, _V0)
    if name == "tbl" and operands.count(",") > 3:
        return 4, (("v", 4 if operands.count(",") == 4 else 3),)
    if name in ("fcmp", "fcmpe", "fccmp"):
        return 2, _V0
    return 2, _V


def _crossing(name: str, to_general: bool) -> _Cost:
    """Between the general and the vector registers."""
    if name in ("scvtf", "ucvtf"):
        return 6, (("multi", 1), ("v0", 1))
    if to_general:
        return (4, (("v0", 1), ("v1", 1))) if name.startswith("fcvt") else (2, _V1)
    if name in ("ins", "mov"):
        return 5, (("multi", 1), ("v", 1))
    return 3, (("multi", 1),)


def _general(name: str, operands: str) -> _Cost:
    if name in ("sdiv", "udiv"):
        return (20, (("multi", 5),)) if operands.startswith("x") else (12, (("multi", 5),))
    if name in ("smulh", "umulh"):
        return 5, (("multi", 3),)
    if name in _GENERAL_MULTIPLY:
        wide = operands.startswith("x") and name in ("mul", "madd", "msub", "mneg")
        return (4, (("multi", 3),)) if wide else (2, (("multi", 1),))
    if name in ("bfi", "bfxil", "bfm"):
        return 2, (("multi", 1),)
    shifted = _SHIFTED.search(operands)
    if shifted and name not in _MOVE and name not in _LOGICAL and not (shifted[1] == "lsl" and int(shifted[2]) <= _CHEAP_SHIFT):
        return 2, (("multi", 1),)
    return 1, (("int", 1),)


CORTEX_A76 = CoreTables(
    name="cortex-a76",
    source="Arm PJDOC-466751330-7215 and PJDOC-466751330-547726, as LLVM's AArch64SchedNeoverseN1.td and others quote them",
    window=128,  # [llvm]
    instructions_per_cycle=4,  # [guide] 4.1
    micro_operations_per_cycle=8,  # [guide] 4.1
    pipelines=_PIPELINES,
    part_of={"multi": "int", "v0": "v", "v1": "v"},
    queues={"branch": 16, "int": 48, "memory": 24, "v": 32},  # [queues]
    timing=_timing,
)
