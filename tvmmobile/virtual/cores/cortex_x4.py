"""The Cortex-X4's figures for the out-of-order schedule.

- [v3] LLVM's AArch64SchedNeoverseV3.td, made from the guide of the Neoverse V3 (109678), the same core for servers: pipelines, and ten
  macro-operations dispatched a cycle. A load/store pipeline, two for loads and one for stores;
- [v2] LLVM's AArch64SchedNeoverseV2.td, made from the guide of the Neoverse V2 (109898; a Cortex-X3), as llvm-mca 19.1.7 prints it for one
  instruction: latencies;
- [arm] Arm's presentation of the core (2023): 384 operations in flight;
- [fit] a multiply-add by an element, as ncnn's products in half precision have them, waits for the whole latency of the one before.
  [v2] and [v3] hand a sum over after two cycles there, too; but then resnet18, left out of the fit, is 47 % off, and with four cycles
  5 %. The one X4 that was measured is a phone's, whose cores have two clocks;
- [a78] `cortex_a78.py`, for what is as in all cores of the family.
"""

from __future__ import annotations

from tvmmobile.virtual.cores.cortex_a78 import PARTS, CoreFamily, family_timing
from tvmmobile.virtual.cores.out_of_order import CoreTables

_X4 = CoreFamily(
    # [v3] V0 and V2 multiply integers, V1 and V3 shift, stores pass through V0 and V1.
    pipelines={"branch": 3, "simple": 8, "multi": 2, "first": 1, "access": 4, "load": 3, "store": 2, "data": 2}
    | {"v": 4, "v0": 2, "v1": 2, "stored": 2, "divider": 2, "converter": 2},
    division={"2s": (10, 5), "4s": (10, 10), "4h": (10, 5), "8h": (13, 13), "2d": (15, 15)},  # [v2]
    sorted_stores=2,  # [v2]
    products={"bfloat16 product": 5, "bfloat16 matrix product": 6},  # [v2]
    hands_elements_over=False,  # [fit]
)
CORTEX_X4 = CoreTables(
    name="cortex-x4",
    source="Arm 109678, as LLVM's AArch64SchedNeoverseV3.td quotes it; Arm 109898, as AArch64SchedNeoverseV2.td does",
    window=384,  # [arm]
    instructions_per_cycle=10,  # [v3]
    micro_operations_per_cycle=20,  # [v3] a macro-operation is up to two
    pipelines=_X4.pipelines,
    part_of=PARTS,
    timing=family_timing(_X4),
)
