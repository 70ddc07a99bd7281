"""The Cortex-A72's figures for the out-of-order schedule.

llvm-mca has no tables of this core and takes the Cortex-A57's, whose chains of dependent operations are longer: FMLA 10 cycles instead of
7, FMUL and FADD 5 instead of 4, a division of four floats 36; and the base register of a post-indexed store is ready only after the store.
Here are the Cortex-A72's figures:

- [guide] "Cortex-A72 Software Optimisation Guide", Arm UAN 0016A: pipelines, dispatch width, accumulator forwarding, integer latencies;
- [osaca] RRZE-HPC/OSACA, osaca/data/a72.yml: latencies and throughputs measured on a Raspberry Pi 4, as its pull request 60 says.
  FADD has 3 there and 4 in a chain of other operations; 4 is taken, also for minimum, maximum and conversions. Rows with a latency of 1
  and a throughput of a half stand for what was not measured, and are not used;
- [slothy] slothy-optimizer/slothy, slothy/targets/aarch64/cortex_a72_frontend.py, made from the guide: which of the two vector pipelines
  multiplies and which one shifts;
- [insn] Terminus-IMRC/insn-bench-rpi, README.md: cycles of vector instructions measured on a Cortex-A72, independent ones and chains;
  tests/virtual/test_cortex_a72.py has them;
- [chips] Chips and Cheese, "ARM's Cortex A72: aarch64 for the Masses" (2023), measured on a Graviton: an issue queue for each pipeline;
- [llvm] LLVM's AArch64SchedA57.td, the tables of the Cortex-A57, made from that core's guide: the reorder buffer's size
  (MicroOpBufferSize), and what the others leave out: W is F0, X is F1, V is either of them.

F0 alone multiplies integers and converts, F1 alone shifts and sums in place; either adds, permutes, and computes floats of 8 bytes. A float
operation of 16 bytes goes through either of them twice ([chips]); its first half is ready as early as all of one of 8 bytes ([insn]).

Vector registers are 8 bytes long ([chips]): a result of 16 bytes takes two of them, and two of the three slots of dispatch. Independent
additions or logic of 16 bytes take 0.69 to 0.73 cycles each in a loop with two other instructions, where two pipelines would do two a
cycle, and do with 8 bytes ([insn]). Loads are taken to be so as well. Left out: the guide's limits on what is dispatched to one pipeline
in a cycle, as it does not say in which cycle an operation of two slots counts; that 31 results of 16 bytes can be in flight ([chips]),
which the queues hardly allow; and that FMAX of 16 bytes is as fast as an addition of integers ([insn]), where bounds.py says half so fast.
"""

from __future__ import annotations

import re
from dataclasses import replace

from tvmmobile.virtual.cores.instruction_groups import general_group_of, vector_group_of
from tvmmobile.virtual.cores.operands import REPEATING, Instruction
from tvmmobile.virtual.cores.out_of_order import CoreTables, InstructionTiming

_Ports = tuple[tuple[str, int], ...]
_Cost = tuple[int, _Ports]

#: [guide] "Pipeline overview": `vector` is F0 and F1.
VECTOR_PIPELINES = {"vector": 2, "f0": 1, "f1": 1}
VECTOR_PARTS = {"f0": "vector", "f1": "vector"}
#: Either pipeline, in every shape: latency. [osaca] sums, comparisons and permutations, half a cycle each in Q form.
_EITHER = {"arithmetic": 3, "permutation": 3, "float comparison": 3, "float flags": 3}
#: Twice in Q form: latency. [osaca]; a reciprocal step is an FMLA ([llvm] has the same latency for both).
_WIDE = {"selection": 3, "float sum": 4, "float extremum": 4, "float multiplication": 4, "float multiply-accumulate": 7}
_WIDE |= {"reciprocal step": 7}
#: F0 alone: latency after the last cycle in it, and whether Q form takes it twice ([osaca], [slothy]; long products [llvm], [slothy]).
_F0 = {"multiplication": (4, True), "high multiplication": (4, True), "long multiplication": (4, False), "cryptography": (3, False)}
_F0 |= {"saturating long multiplication": (4, False), "polynomial multiplication": (4, False)}
#: [osaca] F0 alone converts and rounds, two lanes at a time; estimates with them, as in [llvm].
_CONVERT = frozenset({"conversion", "rounding", "estimate"})
#: F1 alone, likewise ([osaca] shifts and differences, [slothy] accumulated shifts, the rest [llvm]).
_F1 = {"difference": (3, False), "shift": (3, False), "shift by register": (3, True), "saturating narrow": (4, False)}
_F1 |= {"accumulated shift": (4, False), "accumulated sum": (4, False), "accumulated difference": (4, True)}
_F1 |= {"accumulated long difference": (4, False)}
#: [llvm] Families that hand their results over to each other's accumulators, and the cycles from the last one in the pipeline.
_CHAINS = {"multiplication": ("product", 1), "long multiplication": ("product", 1)}
_CHAINS |= {"saturating long multiplication": ("saturated product", 2)}
_CHAINS |= dict.fromkeys(("accumulated shift", "accumulated sum", "accumulated difference", "accumulated long difference"), ("shifter", 1))
#: [guide] "late forwarding of accumulate operands"
_CHAINS |= {"float multiply-accumulate": ("fmla", 3)}
#: Latency, and how long the dividers of both pipelines are busy together, by shape. Some operands end early; [osaca] measured these. They
#: keep other divisions waiting, and nothing else ([guide]); the Cortex-A73's tables have them as slots of the pipelines.
_DIVISION, _DIVISION_BUSY, _ROOT_BUSY = 11, {"s": 4, "d": 8, "2s": 8, "4s": 16, "2d": 16}, {"s": 6, "d": 14, "2s": 14, "4s": 28, "2d": 28}
#: [llvm] From a vector register to a general one, and the other way; [osaca]'s 4 for a conversion on the way, where the Cortex-A57 has 5.
_TO_GENERAL, _FROM_GENERAL, _TO_LANES = 5, 5, 8
_CONVERTED = 9
#: A register shifted or extended; an immediate, `#16, lsl #12`, is neither.
_SHIFTED = re.compile(r", [xw]\d+, (?:lsl|lsr|asr|ror|[su]xt[bhwx])\b")
#: [llvm] Sums over a register, by its lanes; from the last cycle.
_REDUCTION: dict[int, _Cost] = {4: (4, (("f1", 1),)), 8: (7, (("vector", 1), ("f1", 1))), 16: (7, (("f1", 2),))}
#: [osaca], [llvm] From the first-level cache to a general and to a vector register; [llvm] 3 more for lanes sorted or repeated.
_LOADED, _LOADED_VECTOR, _SORTED = 4, 5, 3
_LANE_BYTES = {"b": 1, "h": 2, "s": 4, "d": 8}
#: Instructions that write 16 bytes.
_SIXTEEN_BYTES = re.compile(r"(?:v\d+\.(?:16b|8h|4s|2d)\b(?!\[)|q\d+\b)")
#: The three-operand forms are no accumulations of a register that they write.
_WITHOUT_CHAIN = frozenset({"fmadd", "fmsub", "fnmadd", "fnmsub"})


def _timing(instruction: Instruction) -> InstructionTiming:
    if instruction.kind == "branch":
        return InstructionTiming(0, (("branch", 1),))
    if instruction.kind in ("load", "store", "prefetch"):
        return _memory(instruction)
    timing = arithmetic_timing(instruction)
    return timing if instruction.kind == "general" else _in_passes(instruction, timing)


def _in_passes(instruction: Instruction, timing: InstructionTiming) -> InstructionTiming:
    """Adapt a vector instruction's timing: 16 bytes go through one pipeline twice and take two slots of dispatch."""
    slots = 2 if _SIXTEEN_BYTES.match(instruction.operands) else timing.micro_operations
    if vector_group_of(instruction.name) == "float division":
        busy = timing.ports[0][1] // VECTOR_PIPELINES["vector"]
        return replace(timing, ports=(("vector", 1), ("divider", busy)), micro_operations=slots)
    if timing.ports == (("vector", 2),):  # the figures count from the first pass
        timing = replace(timing, latency=timing.latency - 1, chain_latency=max(0, timing.chain_latency - 1))
    return replace(timing, micro_operations=slots)


def arithmetic_timing(instruction: Instruction) -> InstructionTiming:
    """Return the cost of an instruction that accesses no memory, if operations of 16 bytes take both vector pipelines at once."""
    if instruction.kind == "general":
        latency, ports = _general(instruction.name, instruction.operands)
        return InstructionTiming(latency, ports)
    group = vector_group_of(instruction.name)
    latency, ports = _vector(instruction, group)
    chain, chain_latency = _CHAINS.get(group, ("", 0)) if instruction.name not in _WITHOUT_CHAIN else ("", 0)
    return InstructionTiming(latency, ports, max(1, min(2, sum(cycles for _, cycles in ports))), "", chain, chain_latency)


def _memory(instruction: Instruction) -> InstructionTiming:
    """Return the cost of an access: 16 bytes a cycle, stores 8 ([osaca]); updating the base register takes an integer pipeline [guide]."""
    update = "int" if instruction.base else ""
    if instruction.kind == "prefetch":
        return InstructionTiming(0, (("load", 1),), 1, update)
    vector, sorting = instruction.of_vectors, sorting_slots(instruction)
    sorted_ports = (("vector", sorting),) if sorting else ()
    if instruction.kind == "store":
        cycles = stored_halves(instruction)
        status = _LOADED if instruction.status else 0  # it is known when the line is
        return InstructionTiming(status, (("store", cycles), *sorted_ports), max(1, min(cycles, 8)) + bool(update), update)
    count = load_accesses(instruction)
    latency = (_LOADED_VECTOR + count - 1 + (_SORTED if sorting else 0)) if vector else _LOADED
    registers = 2 * len(instruction.data) if vector and instruction.quad else count
    return InstructionTiming(latency, (("load", count), *sorted_ports), max(count, registers) + bool(update), update)


def load_accesses(instruction: Instruction) -> int:
    """Count the accesses of at most 16 bytes of a load; [llvm] those for one lane or all lanes are half as many as registers."""
    count = len(instruction.data) if instruction.of_vectors else 1
    if instruction.lane or instruction.name in REPEATING:
        return max(1, count // 2)
    return count if instruction.quad else (count + 1) // 2


def stored_halves(instruction: Instruction) -> int:
    """Count the 8-byte cycles that a store takes; shorter registers take one each, except lanes ([llvm])."""
    count = max(1, len(instruction.data))
    if instruction.lane:
        return max(1, count * _LANE_BYTES[instruction.shape] // 8)
    return count * (2 if instruction.of_vectors and instruction.quad else 1)


def sorting_slots(instruction: Instruction) -> int:
    """Count the slots of an access in the vector pipelines, which sort or repeat lanes; [llvm] LD1R, LD2 … LD4 and ST2 … ST4."""
    count = len(instruction.data)
    if instruction.kind == "load" and (instruction.lane or instruction.name in REPEATING):
        return min(count, 3)
    if not instruction.interleaved:
        return 0
    if instruction.lane or not instruction.quad:
        return (count + 1) // 2
    return 4 if count == 3 else count


def _vector(instruction: Instruction, group: str) -> _Cost:
    name, operands, shape = instruction.name, instruction.operands, instruction.shape
    quad = shape in ("16b", "8h", "4s", "2d")
    general = re.search(r"(?:^|, )[xw](?:\d+|zr)\b", operands)
    if general:
        return _crossing(name, general.start() == 0)
    if group in _EITHER:
        return _EITHER[group], (("vector", 1),)
    if group in _WIDE:
        return _WIDE[group], (("vector", 2 if quad else 1),)
    if group in _CONVERT:
        return (3, (("f0", 2),)) if shape == "4s" else (4, (("f0", 1),))
    if group in _F0 or group in _F1:
        port = "f0" if group in _F0 else "f1"
        latency, twice = (_F0 if port == "f0" else _F1)[group]
        return latency, ((port, 2 if quad and twice else 1),)
    if group == "rounding shift":
        return 4, (("f1", 2 if quad and "#" not in operands and "n" not in name else 1),)  # narrowing ones have a constant
    if group == "float division":
        busy = _DIVISION_BUSY if name == "fdiv" else _ROOT_BUSY
        return _DIVISION, (("vector", busy.get(shape or operands[0], 4)),)
    if group == "length conversion":
        return 6, (("f0", 2), ("vector", 1))  # [llvm] three slots; a permutation and a conversion of four lanes
    if group == "reduction":
        return _REDUCTION[max(4, int(shape[:-1] or 4))]
    latency, slots = _several_slots(instruction, group, quad)
    return latency - (slots - 1) // VECTOR_PIPELINES["vector"], (("vector", slots),)


def _several_slots(instruction: Instruction, group: str, quad: bool) -> tuple[int, int]:
    """Return latency from the first slot, and slots, of instructions that permute and compute ([llvm], with this core's latencies)."""
    if group in ("float pair sum", "float pair extremum"):
        return (7, 3) if quad else (4, 1)
    if group == "float reduction":
        return 8, 3
    if group == "table look-up":
        tables = instruction.operands.partition("{")[2].partition("}")[0].count(",") + 1
        return (3 * tables + 3, 2 * tables + 1) if quad else (3 * tables, tables)
    return 3, 1  # half precision, dot products: this core has none of it


def _crossing(name: str, to_general: bool) -> _Cost:
    """Return the cost of a move between general and vector registers, through the load pipeline ([osaca], [llvm])."""
    if name.startswith(("fcvt", "scvtf", "ucvtf")):
        return _CONVERTED, (("load", 1), ("f0", 1))
    if to_general:
        return _TO_GENERAL, (("load", 1),)
    if name == "fmov":
        return _FROM_GENERAL, (("load", 1),)
    return _TO_LANES, (("load", 1), ("vector", 1))


def _general(name: str, operands: str) -> _Cost:
    group = general_group_of(name)
    if group == "division":
        return 1, (("multi", 12),)
    if group == "multiplication":
        wide = operands.startswith("x") and name in ("mul", "madd", "msub", "mneg")
        return 3, (("multi", 3 if wide else 1),)  # [osaca] the result after 5 cycles and 3
    if group == "high multiplication":
        return 3, (("multi", 4),)  # [osaca] after 6 cycles
    if group in ("insertion", "checksum"):
        return 2, (("multi", 1),)  # [llvm], [slothy]
    if group == "extraction" and operands.startswith("x"):
        return 3, (("int", 1), ("multi", 1))  # [llvm]
    if group == "barrier":
        return 1, (("store", 1),)  # [llvm] a cycle; what it waits for is other cores' and memory's
    if _SHIFTED.search(operands):
        return 2, (("multi", 1),)  # [guide] arithmetic with a shifted or extended operand
    return 1, (("int", 1),)


CORTEX_A72 = CoreTables(
    name="cortex-a72",
    source="Arm UAN 0016A; RRZE-HPC/OSACA, osaca/data/a72.yml; Terminus-IMRC/insn-bench-rpi; LLVM, AArch64SchedA57.td",
    window=128,  # [llvm]
    instructions_per_cycle=3,  # [guide] 4.1
    micro_operations_per_cycle=3,  # [guide] 4.1
    pipelines={"load": 1, "store": 1, "branch": 1, "int": 2, "multi": 1, "divider": 1, **VECTOR_PIPELINES},  # [guide] "Pipeline overview"
    part_of=VECTOR_PARTS,
    queues={"load": 8, "store": 8, "branch": 10, "int": 16, "multi": 8, "f0": 8, "f1": 8},  # [chips]
    chosen={"vector": ("f1", "f0")},  # [chips] a queue for each pipeline
    timing=_timing,
    early_stores=True,  # [guide] "Store instructions"
)
