"""The Cortex-A55's rules: which instructions issue together, how long each issues, when its result can be used.

- [llvm] LLVM, llvm/lib/Target/AArch64/AArch64SchedA55.td (commit 1d7cce3f), made from the guide: latencies of vector instructions, loads of
  8 bytes a cycle, dividers, and that what works on 16 bytes begins a cycle. The guide, "Arm Cortex-A55 Software Optimization Guide" (EPM
  128372), was not at hand itself;
- [slothy] a Cortex-A55 model for the Slothy optimizer, slothy/targets/aarch64/cortex_a55.py (commit 0219bd9b), from the guide and from its
  authors' measurements: latencies that [llvm] rounds up, accumulators, what takes more than a cycle, and that no vector store issues right
  after another;
- [ncnn] Tencent/ncnn, docs/developer-guide/arm-a53-a55-dual-issue.md, measured: an FMLA of 16 bytes issues with a load of 8 bytes, an
  insertion from a general register, and work on general registers; not with a load of 16 bytes, which takes two cycles;
- [vfp] hiroog/vfpbench, log/MediaTek Helio G99 iPlay 50 Pro.txt: what FADD, FMUL and FMLA took on a Cortex-A55, in single and in half
  precision; tests/virtual/test_cortex_a55.py has it. FMLA's accumulator comes no later than its other operands;
- [ramlat] ThomasKaiser/sbc-bench, results/40TX.txt: two cycles from a load to the next one's address.

General registers are as on the Cortex-A53 (`in_order_integer.py`); loads and stores have a pipeline each.
"""

from __future__ import annotations

import functools
import re

from tvmmobile.virtual.cores.in_order import IssueStep, Stages
from tvmmobile.virtual.cores.in_order_integer import (
    OPERAND,
    STORED,
    address_of,
    at_stage,
    general_at,
    step_by_kind,
    updated_base,
)
from tvmmobile.virtual.cores.in_order_vector import (
    ADDED_LATE,
    DIVISIONS,
    HANDED_OVER,
    INTERLEAVED_STORE,
    division_of,
    issue_cycles,
    latency_of,
)
from tvmmobile.virtual.cores.operands import Instruction, instruction_of

#: [ramlat] two cycles from a load to an address, and to an insertion, on which [ncnn] and XNNPACK's f32-gemm for this core rely: so two to
#: an ALU as well, where [llvm] has three. One more for the second of a pair [llvm].
_LOADED, _LOADED_PAIR, _LOADED_ADDRESS = 4, 5, 2
#: [slothy] D registers after 3, 4, … cycles, Q registers after 4, 6, …; [llvm] a lane, or one for all lanes, after 4.
_FIRST_BEAT, _LANE_LOADED = 2, 4
#: As on the Cortex-A53; nothing is published.
_STORED_VECTOR = 1
#: Vector instructions of which [llvm] and [vfp] have other figures than the Cortex-A53 shows: a product and an addition in four cycles.
OWN_NAMES = frozenset({"fmla", "fmls", "fmadd", "fmsub", "fnmadd", "fnmsub", "frecps", "frsqrts", "fmlal", "fmlal2", "fmlsl", "fmlsl2"})
#: [slothy] From a general register into all lanes; into one, 2.
_DUPLICATED = 3


@functools.lru_cache(maxsize=1 << 16)
def step_of(text: str) -> IssueStep:
    """Return how an instruction, `name<TAB>operands`, issues on a Cortex-A55."""
    return step_by_kind(instruction_of(text), _vector, _memory)


def _memory(instruction: Instruction) -> IssueStep:
    address, base = address_of(instruction), updated_base(instruction)
    if instruction.kind == "prefetch":
        return IssueStep(address, base, unit="load")
    if instruction.of_vectors:
        return _vector_store(instruction, address, base) if instruction.kind == "store" else _vector_load(instruction, address, base)
    if instruction.kind == "store":
        status = general_at(instruction.writes, _LOADED, _LOADED_ADDRESS)  # of a store-exclusive: after a load's time, nothing is published
        return IssueStep((*address, *at_stage(instruction.data, STORED)), (*base, *status), unit="store")
    pair = len(instruction.data) == 2 and instruction.operands[0] == "x"
    loaded = general_at(instruction.data, _LOADED_PAIR if pair else _LOADED, _LOADED_ADDRESS + pair)
    return IssueStep(address, (*base, *loaded), busy=("load", 1 + pair))


def _vector_load(instruction: Instruction, address: Stages, base: Stages) -> IssueStep:
    """Return how a load issues: 8 bytes leave the vector pipelines to an FMLA [ncnn], 16 bytes and lanes take them [slothy]."""
    data, quad = instruction.data, instruction.quad
    if instruction.lane or instruction.name in ("ld1r", "ld2r", "ld3r", "ld4r"):
        kept = at_stage(data, OPERAND) if instruction.lane else ()
        loaded = at_stage(data, _LANE_LOADED)
        return IssueStep((*address, *kept), (*base, *loaded), cycles=min(2, len(data)), unit="load", lanes=2, first=True)
    beats = 2 if quad else 1
    loaded = tuple((name, _FIRST_BEAT + beats * (index + 1)) for index, name in enumerate(data))
    if instruction.interleaved:  # [llvm] a cycle more, and each register has parts of all beats
        loaded = at_stage(data, _FIRST_BEAT + beats * len(data) + 1)
    if not quad:
        return IssueStep(address, (*base, *loaded), busy=("load", len(data)))
    return IssueStep(address, (*base, *loaded), cycles=beats * len(data), unit="load", lanes=2, first=True)


def _vector_store(instruction: Instruction, address: Stages, base: Stages) -> IssueStep:
    """Return how a store issues: 16 bytes a cycle, and a cycle without a vector store after it [slothy]."""
    data, quad = instruction.data, instruction.quad and not instruction.lane
    stored = tuple((name, _STORED_VECTOR + index) for index, name in enumerate(data))
    cycles = len(data) if quad or instruction.interleaved else (len(data) + 1) // 2
    if quad and instruction.interleaved:
        cycles = INTERLEAVED_STORE[instruction.name]
    busy = ("vector store", cycles + 1)
    return IssueStep((*address, *stored), base, cycles=cycles, unit="store", lanes=2 if quad else 1, first=quad, busy=busy)


def _vector(instruction: Instruction) -> IssueStep:
    name, operands, quad = instruction.name, instruction.operands, instruction.quad
    lanes = 2 if quad else 1
    reads = tuple((register, 0 if register[0] == "v" else OPERAND) for register in instruction.reads)
    if name in ADDED_LATE and instruction.reads[:1] == instruction.writes[:1]:
        reads = ((reads[0][0], HANDED_OVER), *reads[1:])
    if name in DIVISIONS:
        latency, busy = division_of(instruction)
        return IssueStep(reads, at_stage(instruction.writes, latency), lanes=lanes, first=quad, busy=("divide", busy))
    latency = latency_of(instruction)
    if operands[0] in "xw":
        ready = OPERAND + latency
        return IssueStep(reads, general_at(instruction.writes, ready, ready), lanes=1)
    inserts = name in ("ins", "mov") and "[" in operands.partition(",")[0]
    if re.search(r", [xw](?:\d|zr)", operands):
        if name == "dup":
            return IssueStep(reads, at_stage(instruction.writes, _DUPLICATED), lanes=lanes, first=quad)
        # [ncnn] with an FMLA. It does not read the half that it leaves alone, into which a load may be under way.
        reads = tuple(read for read in reads if read[0][0] != "v")
        return IssueStep(reads, at_stage(instruction.writes, latency), keeps=inserts)
    cycles = issue_cycles(instruction)
    lanes = 2 if cycles > 1 else lanes
    return IssueStep(reads, at_stage(instruction.writes, latency), keeps=inserts, cycles=cycles, lanes=lanes, first=lanes == 2)
