"""The Cortex-A76's figures for the out-of-order schedule.

- [guide] "Arm Cortex-A76 Software Optimization Guide", PJDOC-466751330-7215: pipelines (2.1), dispatch (4.1), one store of 16 bytes a cycle
  (4.4). The guide itself was not at hand; its figures are taken as those below quote them;
- [llvm] LLVM 17's AArch64SchedNeoverseN1.td, made from the guide of the Neoverse N1 (PJDOC-466751330-547726), which has the same pipelines:
  latencies and throughputs where nothing else is said, and the size of the window;
- [slothy] a Cortex-A76 model for the Slothy optimizer, made from version 10.0 of the guide: dispatch, throughputs of stores and of the
  loads and stores that sort lanes, and that SMLAL follows SMLAL after a cycle, which was measured on a Raspberry Pi 5
  (github.com/cheng-wei-huang0612/cortex-a76-smull-forwarding); and slothy/targets/aarch64/neoverse_n1_experimental.py, by which a product
  is handed over to an accumulation as well;
- [later] the guides of later cores with the same kinds of pipelines: sums, differences and shifts that accumulate take the accumulator of
  the one before after a cycle, products of integers after one or two;
- [units] divisions and conversions: Arm's guides of later cores with the same pipelines (Neoverse V2, 109898, 3.16, note 3) say that a
  division blocks "subsequent similar operations to the same pipeline", OSACA's n1.yml has a divider of its own behind V0, measured on a
  Neoverse N1, and llvm/llvm-project pull request 224046 measured on Neoverse V1 and V2 that a conversion in 4S or 8H is one micro-op,
  as is what a pipeline accepts in a cycle, at one in two and one in four cycles for each pipeline;
- [queues] Arm's presentation of the core as AnandTech reports it ("Arm's Cortex-A76 CPU Unveiled", 2018, page 3): issue queues of 16 for
  the branch pipeline, each of three integer and each of two vector pipelines, of 12 for each of two load/store pipelines.

llvm-mca 16 takes the Cortex-A57's tables for this core: three instructions a cycle, one Q-form FMLA a cycle where there are two, FMLA 10
cycles where there are 4.

Half precision takes the same two vector pipelines, eight lanes each: FMLA in 8H is as fast as in 4S. What runs in one of them alone is
slower in 8H: divisions, conversions and rounding take a unit behind V0 two lanes at a time ([units]). V0 accepts other work meanwhile.
"""

from __future__ import annotations

import re

from tvmmobile.virtual.cores.instruction_groups import general_group_of, vector_group_of
from tvmmobile.virtual.cores.operands import REPEATING, Instruction
from tvmmobile.virtual.cores.out_of_order import CoreTables, InstructionTiming

_Ports = tuple[tuple[str, int], ...]
_Cost = tuple[int, _Ports]

#: [guide] 2.1. `multi` is one of the three integer pipelines, `v0` and `v1` are the two vector pipelines; `data` is half of what a store
#: of 16 bytes takes.
_PIPELINES = {"branch": 1, "int": 3, "multi": 1, "memory": 2, "data": 2, "v": 2, "v0": 1, "v1": 1, "divider": 1, "converter": 1}
#: What a micro-operation that a pipeline has accepted goes on taking; the pipeline accepts other kinds meanwhile.
UNITS = frozenset({"divider", "converter"})
_V: _Ports = (("v", 1),)
_V0: _Ports = (("v0", 1),)
_V1: _Ports = (("v1", 1),)

#: Families of accumulations, and how long the next one of the family waits for the accumulator (the guides' figures in parentheses), from
#: the last cycle in the pipeline.
CHAINS = dict.fromkeys(("fmla", "fmls"), ("fmla", 2)) | {"fcmla": ("fcmla", 2)}
GROUP_CHAINS = {"multiplication": ("mla", 1), "long multiplication": ("mlal", 1), "dot product": ("dot", 1)}
GROUP_CHAINS |= {"float long multiply-accumulate": ("fmlal", 2), "saturating long multiplication": ("sqdmlal", 2)}
GROUP_CHAINS |= dict.fromkeys(
    ("accumulated shift", "accumulated sum", "accumulated difference", "accumulated long difference"), ("shifter", 1)
)
#: Latency in either vector pipeline, in V0 and in V1, in every shape.
_EITHER = {"float multiply-accumulate": 4, "reciprocal step": 4, "float long multiply-accumulate": 5, "float multiplication": 3}
_IN_V0 = {"long multiplication": 4, "saturating long multiplication": 4, "cryptography": 2, "float flags": 2}
_IN_V1 = {"shift": 2, "shift by register": 2, "rounding shift": 4, "saturating narrow": 4}
_IN_V1 |= {"accumulated shift": 4, "accumulated sum": 4, "accumulated difference": 4, "accumulated long difference": 4}
#: V0 alone; vectors of 2, 4 and 8 lanes take the unit behind it once, twice and four times, with these latencies.
_CONVERT = frozenset({"conversion", "length conversion", "rounding", "estimate"})
_CONVERT_COST = {2: (3, 1), 4: (4, 2), 8: (6, 4)}
#: Latency, and how long the divider is taken. The guide has ranges, since some operands end early; [llvm] has the longest latency and the
#: shortest time in the pipeline.
_DIVIDE = {"h": (7, 7), "s": (10, 7), "d": (15, 7), "4h": (7, 7), "8h": (13, 10), "2s": (10, 7), "4s": (10, 7), "2d": (15, 7)}
_REDUCE_COST: dict[int, _Cost] = {4: (3, _V1), 8: (5, (*_V1, *_V)), 16: (6, (("v1", 2),))}
#: Look-ups in three and four registers, and those that leave lanes alone in two to four: latency and slots.
_TABLES = {("tbl", 3): (4, 4), ("tbl", 4): (4, 3), ("tbx", 2): (4, 4), ("tbx", 3): (6, 3), ("tbx", 4): (6, 5)}

_SHIFTED = re.compile(r", (lsl|lsr|asr|ror|[su]xt[bhwx])(?: #(\d+))?$")
_LOGICAL = frozenset({"and", "bic", "eon", "eor", "orn", "orr", "mov", "mvn"})
_MOVE = frozenset({"movz", "movk", "movn", "mov", "lsl", "lsr", "asr", "ror"})
#: A left shift up to this one costs an addition nothing.
_CHEAP_SHIFT = 4

#: Nothing is published of the atomic instructions: a load, an operation and a store.
ATOMIC: _Cost = (5, (("memory", 2), ("int", 1), ("data", 1)))
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
        group = vector_group_of(instruction.name)
        latency, ports = vector_cost(instruction, group)
        chain, chain_latency = CHAINS.get(instruction.name) or GROUP_CHAINS.get(group, ("", 0))
    elif instruction.kind == "general":
        latency, ports = general_cost(instruction.name, instruction.operands)
    else:
        latency, ports = _store(instruction) if instruction.kind == "store" else _load(instruction)
    # The guide's latencies count from the first cycle in a pipeline, those of the schedule from the last.
    spread = max(-(-cycles // _PIPELINES[port]) for port, cycles in ports) - 1
    return InstructionTiming(max(0, latency - spread), ports, _micro_operations(instruction, ports), update, chain, chain_latency)


def _micro_operations(instruction: Instruction, ports: _Ports) -> int:
    """Count micro-operations: one for each access and for each time its vectors are sorted or stored; else one for each pipeline."""
    if instruction.kind in ("load", "store"):
        return sum(cycles for port, cycles in ports if port != "data") + bool(instruction.base)
    return sum(port not in UNITS for port, _ in ports) + bool(instruction.base)


def _load(instruction: Instruction) -> _Cost:
    """Return the cost of a load: one access for 16 bytes."""
    count, pair = len(instruction.data), instruction.name in ("ldp", "ldnp", "ldpsw")
    if instruction.kind == "prefetch":
        return 0, (("memory", 1),)
    if instruction.atomic:
        return ATOMIC
    if not instruction.of_vectors:
        return 4, (("memory", 2 if pair and instruction.operands.startswith("x") else 1),)
    if pair:
        return (7, (("memory", 2),)) if instruction.quad else (5, (("memory", 1),))
    if instruction.lane or instruction.name in REPEATING:
        return 8 if count == 4 else 7, (("memory", count), ("v", count))
    if instruction.interleaved:
        latency, sorting = (_SORTED_LOAD if instruction.quad else _SORTED_SHORT_LOAD)[instruction.name[2]]
        return latency, (("memory", count), ("v", sorting))
    return _LOAD[count], (("memory", count),)


def _store(instruction: Instruction) -> _Cost:
    """Return the cost of a store: for 16 bytes an address, a vector pipeline's slot and a cycle of data ([guide] 4.4).

    [llvm] has the same throughput of STR in Q form from two addresses and two slots; one of each is what its D form takes, and 16 bytes are
    a pipeline's width.
    """
    count = len(instruction.data)
    if instruction.atomic:
        return ATOMIC
    if not instruction.of_vectors:
        halves = 2 if count == 2 and instruction.operands.startswith("x") else 1
        # Whether a store-exclusive stored is known when its line is, as for a load.
        return 4 if instruction.status else 0, (("memory", halves), ("data", halves))
    halves = count * (2 if instruction.quad and not instruction.lane else 1)
    accesses = sorting = (halves + 1) // 2
    if instruction.interleaved and not instruction.lane:
        sorting = (_SORTED_STORE if instruction.quad else _SORTED_SHORT_STORE)[instruction.name[2]]
    return 0, (("memory", accesses), ("data", halves), ("v", sorting))


def vector_cost(instruction: Instruction, group: str) -> _Cost:
    """Return the latency and the pipelines of an instruction on vectors, whose group is `vector_group_of`'s."""
    name, operands, shape = instruction.name, instruction.operands, instruction.shape
    general = re.search(r"(?:^|, )[xw](?:\d+|zr)\b", operands)
    if general:
        return _crossing(name, general.start() == 0)
    if group in _EITHER:
        return _EITHER[group], _V
    if group in _IN_V0:
        return _IN_V0[group], _V0
    if group in _IN_V1:
        return _IN_V1[group], _V1
    if group == "float division":
        latency, busy = _DIVIDE[shape or operands[0]]
        return latency + (2 if name == "fsqrt" and latency == 15 else 0), (*_V0, ("divider", busy))
    if group in _CONVERT:
        return _conversion(instruction, group)
    if group in ("multiplication", "high multiplication"):
        return (5, (("v0", 2),)) if instruction.quad else (4, _V0)
    return _several_slots(instruction, group)


def _conversion(instruction: Instruction, group: str) -> _Cost:
    shape = instruction.shape
    if not shape:
        return 3, (*_V0, ("converter", 1))
    lanes = int(shape[:-1] or 1)
    if group == "length conversion":
        lanes = 2 if ".2d" in instruction.operands else 4
    latency, busy = _CONVERT_COST[max(2, lanes)]
    return latency, (*_V0, ("converter", busy))


def _several_slots(instruction: Instruction, group: str) -> _Cost:
    lanes = int(instruction.shape[:-1] or 1) if instruction.shape else 1
    if group == "reduction":
        return _REDUCE_COST[max(4, lanes)]
    if group == "float reduction":
        return (8, (("v", 3),)) if lanes == 8 else (5, _V)
    if group == "polynomial multiplication":
        if re.search(r"\.[12]d", instruction.operands):
            return 2, _V0
        return (4, (("v0", 2),)) if ".16b" in instruction.operands else (3, _V0)
    if group == "table look-up":
        tables = instruction.operands.partition("{")[2].partition("}")[0].count(",") + 1
        latency, slots = _TABLES.get((instruction.name, tables), (2, 1))
        return latency, (("v", slots),)
    return 2, _V


def _crossing(name: str, to_general: bool) -> _Cost:
    """Return the cost of a move between the general and the vector registers."""
    if name in ("scvtf", "ucvtf"):
        return 6, (("multi", 1), ("v0", 1))
    if to_general:
        return (4, (("v0", 1), ("v1", 1))) if name.startswith("fcvt") else (2, _V1)
    if name in ("ins", "mov"):
        return 5, (("multi", 1), ("v", 1))
    return 3, (("multi", 1),)


def general_cost(name: str, operands: str) -> _Cost:
    """Return the latency and the pipelines of an instruction on general registers."""
    group = general_group_of(name)
    if group == "division":
        return (20, (("multi", 5),)) if operands.startswith("x") else (12, (("multi", 5),))
    if group == "high multiplication":
        return 5, (("multi", 3),)
    if group == "multiplication":
        wide = operands.startswith("x") and name in ("mul", "madd", "msub", "mneg")
        return (4, (("multi", 3),)) if wide else (2, (("multi", 1),))
    if group in ("insertion", "checksum"):
        return 2, (("multi", 1),)
    if group == "extraction":
        return 3, (("int", 1), ("multi", 1))
    if group == "barrier":
        return 1, (("memory", 1),)  # [llvm] a cycle; what it waits for is other cores' and memory's
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
