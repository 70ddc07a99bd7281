"""The Neoverse N2's figures for the out-of-order schedule; they serve the Cortex-A710, A715 and A720 as well.

- [n2] LLVM's AArch64SchedNeoverseN2.td, made from the core's guide (PJDOC-466751330-18256), as llvm-mca 19.1.7 prints it for one
  instruction: latencies, pipelines, window and the macro-operations that are dispatched a cycle;
- [a78] `cortex_a78.py`, for what is as in all cores of the family.

LLVM takes these tables for the Cortex-A710, A715 and A720, too. In cycles, most of ncnn's networks in floats take as many on an A720
as on an N2, within 5 % (the rows of both in calibrated/published.json).
"""

from __future__ import annotations

from tvmmobile.virtual.cores.cortex_a78 import PARTS, CoreFamily, family_timing
from tvmmobile.virtual.cores.out_of_order import CoreTables

_N2 = CoreFamily(
    pipelines={"branch": 2, "simple": 4, "multi": 2, "first": 1, "access": 3, "load": 3, "store": 2, "data": 2}
    | {"v": 2, "v0": 1, "v1": 1, "stored": 2, "divider": 1, "converter": 1},
    long_multiply=(3, (("v", 1),)),
    division={"2s": (10, 10), "4s": (10, 10), "4h": (10, 10), "8h": (13, 13), "2d": (15, 15)},
)
NEOVERSE_N2 = CoreTables(
    name="neoverse-n2",
    source="Arm PJDOC-466751330-18256, as LLVM's AArch64SchedNeoverseN2.td quotes it",
    window=160,  # [n2]
    instructions_per_cycle=5,  # [n2]
    micro_operations_per_cycle=10,  # [n2] a macro-operation is up to two
    pipelines=_N2.pipelines,
    part_of=PARTS,
    queues={"branch": 32, "simple": 64, "access": 36, "v": 32},  # [a78]
    timing=family_timing(_N2),
)
