"""The Cortex-A78's figures for the out-of-order schedule, and the rules that it shares with the later cores of its family.

- [n2] LLVM's AArch64SchedNeoverseN2.td, made from the guide of the Neoverse N2 (a Cortex-A710 for servers);
- [v1] LLVM's AArch64SchedNeoverseV1.td, made from the guide of the Neoverse V1 (PJDOC-466751330-9685; a Cortex-X1 for servers, which is of
  the A78's year and has its pipelines, the vector ones twice). Figures of both are as llvm-mca 19.1.7 prints them for one instruction;
- [a76] `cortex_a76.py`: what accumulates after how many cycles, divisions and conversions in units behind V0, the queues' sizes where
  nothing else is said;
- [arm] Arm's presentation of the core as AnandTech reports it ("Arm's New Cortex-A78 and Cortex-X1", 2020): six macro-operations a cycle
  from their cache, two branch, two simple and two multiplying integer pipelines, two for loads and stores and a third one for loads.
  Twice as many bytes are stored a cycle. As in the A77, 160 operations in flight.

The Cortex-A78's own guide (102160) was not at hand: a figure is [v1]'s for half as many vector pipelines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tvmmobile.virtual.cores.cortex_a76 import ATOMIC, CHAINS, GROUP_CHAINS, UNITS, general_cost, vector_cost
from tvmmobile.virtual.cores.instruction_groups import general_group_of, vector_group_of
from tvmmobile.virtual.cores.operands import REPEATING, Instruction
from tvmmobile.virtual.cores.out_of_order import CoreTables, InstructionTiming

_Ports = tuple[tuple[str, int], ...]
_Cost = tuple[int, _Ports]

#: [n2] Products of matrices and in bfloat16: latency, and from one sum to the next.
_PRODUCTS = {"dot product": 3, "matrix product": 3, "bfloat16 product": 4, "bfloat16 matrix product": 5}
_LATER_CHAINS = {"matrix product": ("matrix", 1), "bfloat16 product": ("bfdot", 2), "bfloat16 matrix product": ("bfmmla", 3)}
#: [v1], [n2] Of ld1 by its number of registers, and of ld2 … ld4.
_LOAD = {1: 6, 2: 6, 3: 6, 4: 7}
_SORTED_LOAD, _SORTED_LANE = {"2": 8, "3": 8, "4": 9}, 8
#: [v1], [n2] How often st2 … st4 take the vector pipelines that store.
_SORTED_STORE, _SORTED_SHORT_STORE = {"2": 2, "3": 3, "4": 6}, {"2": 1, "3": 2, "4": 3}
_DIVISIONS = {"w": 12, "x": 20}
_BY_ELEMENT = re.compile(r"\.[hs]\[\d+\]$")


@dataclass(frozen=True)
class CoreFamily:
    """The figures in which a core differs from others of its family.

    Attributes:
        pipelines: each kind's number. `load` and `store` are accesses, `simple` all that computes on general registers, `multi` what also
            multiplies, `first` the one of these that divides and moves to vector registers; `v0` and `v1` the vector pipelines that
            multiply integers and that shift, `stored` those that stores pass through.
        long_multiply: latency and pipelines of products of integers that widen.
        division: latency and cycles of the divider by shape, where they are not the Cortex-A76's.
        general_division: cycles of the divider of general registers; a division's latency if empty.
        pairs: accesses of a load of two 8-byte general registers.
        sorted_stores: passes of st2 … st4 through the vector pipelines, as a multiple of the usual ones.
        products: latencies that are not the Neoverse N2's.
        hands_elements_over: whether a multiply-add by an element hands its sum over early, as others do.
    """

    pipelines: Mapping[str, int]
    long_multiply: _Cost = (3, (("v0", 1),))
    division: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    general_division: int = 0
    pairs: int = 1
    sorted_stores: int = 1
    products: Mapping[str, int] = field(default_factory=dict)
    hands_elements_over: bool = True


def family_timing(family: CoreFamily) -> Callable[[Instruction], InstructionTiming]:
    """Return what an instruction costs on a core of the family."""
    return partial(_timing, family=family)


#: Kinds that are some of another kind's pipelines, in every core of the family.
PARTS = {"load": "access", "store": "access", "multi": "simple", "first": "multi", "v0": "v", "v1": "v", "stored": "v"}


def _timing(instruction: Instruction, family: CoreFamily) -> InstructionTiming:
    if instruction.kind == "branch":
        linked = instruction.name in ("bl", "blr")
        return InstructionTiming(1, (("branch", 1), ("simple", 1)) if linked else (("branch", 1),), 1 + linked)
    chain, chain_latency = "", 0
    if instruction.kind == "vector":
        group = vector_group_of(instruction.name)
        latency, ports = _vector(instruction, group, family)
        if family.hands_elements_over or not _BY_ELEMENT.search(instruction.operands):
            chain, chain_latency = CHAINS.get(instruction.name) or (GROUP_CHAINS | _LATER_CHAINS).get(group, ("", 0))
    elif instruction.kind == "general":
        latency, ports = _general(instruction, family)
    else:
        latency, ports = _store(instruction, family) if instruction.kind == "store" else _load(instruction, family)
    # The guides' latencies count from the first cycle in a pipeline, those of the schedule from the last.
    spread = max((-(-cycles // family.pipelines[port]) for port, cycles in ports if port not in UNITS), default=1) - 1
    operations = sum(cycles if instruction.kind in ("load", "store") else 1 for port, cycles in ports if port not in {*UNITS, "data"})
    update = "simple" if instruction.base else ""
    return InstructionTiming(max(0, latency - spread), ports, operations + bool(update), update, chain, chain_latency)


def _load(instruction: Instruction, family: CoreFamily) -> _Cost:
    """Return the cost of a load: one access for 16 bytes ([v1], [n2])."""
    count, pair = len(instruction.data), instruction.name in ("ldp", "ldnp", "ldpsw")
    if instruction.kind == "prefetch":
        return 0, (("load", 1),)
    if instruction.atomic:
        return _atomic()
    if not instruction.of_vectors:
        return 4, (("load", family.pairs if pair and instruction.operands.startswith("x") else 1),)
    if pair:
        return 6, (("load", 2 if instruction.quad else 1),)
    if instruction.lane or instruction.name in REPEATING:
        return _SORTED_LANE, (("load", count), ("v", count))
    if instruction.interleaved:
        return _SORTED_LOAD[instruction.name[2]], (("load", count if instruction.quad else (count + 1) // 2), ("v", count))
    return _LOAD[count], (("load", count if instruction.quad or count == 1 else (count + 1) // 2),)


def _store(instruction: Instruction, family: CoreFamily) -> _Cost:
    """Return the cost of a store ([v1], [n2]): an address for up to 32 bytes of STP, else for 16; a vector pipeline's slot for 16."""
    count = len(instruction.data)
    if instruction.atomic:
        return _atomic()
    if not instruction.of_vectors:
        return 4 if instruction.status else 0, (("store", 1), ("data", 1))
    if instruction.name in ("stp", "stnp"):
        return 0, (("store", 1), ("stored", 2 if instruction.quad else 1))
    slots = count if instruction.quad else (count + 1) // 2
    if instruction.interleaved and not instruction.lane:
        sorting = (_SORTED_STORE if instruction.quad else _SORTED_SHORT_STORE)[instruction.name[2]]
        return 0, (("store", slots), ("stored", sorting * family.sorted_stores))
    return 0, (("store", slots), ("stored", slots))


def _atomic() -> _Cost:
    """Return the cost of the instructions that read, change and write memory, of which nothing is published ([a76])."""
    names = {"memory": "store", "int": "simple"}
    return ATOMIC[0], tuple((names.get(port, port), 1) for port, _ in ATOMIC[1])


def _vector(instruction: Instruction, group: str, family: CoreFamily) -> _Cost:
    general = re.search(r"(?:^|, )[xw](?:\d+|zr)\b", instruction.operands)
    if general is None:
        if group in _PRODUCTS:
            return family.products.get(group, _PRODUCTS[group]), (("v", 1),)
        if group in ("long multiplication", "saturating long multiplication") and "mull" in instruction.name:
            return family.long_multiply
        if group in ("multiplication", "high multiplication"):
            return 4, (("v0", 1),)
        shape = instruction.shape or instruction.operands[0]
        if group == "float division" and shape in family.division:
            latency, busy = family.division[shape]
            return latency, (("v0", 1), ("divider", busy))
    latency, ports = vector_cost(instruction, group)
    return latency, tuple(("first" if port == "multi" else port, cycles) for port, cycles in ports)


def _general(instruction: Instruction, family: CoreFamily) -> _Cost:
    group = general_group_of(instruction.name)
    if group == "division":
        latency = _DIVISIONS[instruction.operands[0]]
        return latency, (("first", family.general_division or latency),)
    if group in ("multiplication", "high multiplication"):
        return (3 if group == "high multiplication" else 2), (("multi", 1),)
    if group == "barrier":
        return 1, (("store", 1),)
    latency, ports = general_cost(instruction.name, instruction.operands)
    return latency, tuple(("simple" if port == "int" else "multi", cycles) for port, cycles in ports)


_A78 = CoreFamily(
    # [arm]; half of [v1]'s vector pipelines.
    pipelines={"branch": 2, "simple": 4, "multi": 2, "first": 1, "access": 3, "load": 3, "store": 2, "data": 2}
    | {"v": 2, "v0": 1, "v1": 1, "stored": 2, "divider": 1, "converter": 1},
    general_division=5,  # [v1]
    pairs=2,  # [v1]
    products={"dot product": 2},  # [v1]
)
CORTEX_A78 = CoreTables(
    name="cortex-a78",
    source="Arm PJDOC-466751330-9685, as LLVM's AArch64SchedNeoverseV1.td quotes it, with half of its vector pipelines; AnandTech 15813",
    window=160,  # [arm]
    instructions_per_cycle=6,  # [arm]
    micro_operations_per_cycle=12,  # [arm]
    pipelines=_A78.pipelines,
    part_of=PARTS,
    queues={"branch": 32, "simple": 64, "access": 36, "v": 32},  # [a76] for each of its pipelines
    timing=family_timing(_A78),
)
