"""A block's cycles by our own tables of the cores in place of llvm-mca's; every modelled time depends on it.

- Cortex-A72: llvm-mca knows the Cortex-A57's latencies only, lets either vector pipeline shift and convert, which one of them alone does,
  dispatches three results of 16 bytes a cycle, of which the core takes three halves, and makes the base register of a post-indexed access
  wait for the access. Its own schedule counts alone (`cortex_a72.py`).
- Cortex-A76: llvm-mca takes the Cortex-A57's tables here too, with half the vector pipelines and three instructions a cycle. They are wrong
  in both directions for this core, so its own schedule counts alone (`cortex_a76.py`).
- Cortex-A53: in order, where llvm-mca's figures are two to four times too slow; its own schedule counts alone (`cortex_a53.py`).
- Cortex-A55: in order; llvm-mca's tables leave out what forwards a result early, what issues together and what does not. Its own schedule
  counts alone (`cortex_a55.py`).
- Cortex-A78 and Cortex-X4: llvm-mca 16 takes the Cortex-A57's tables for one and does not know the other; for the Neoverse N2 it dispatches
  ten instructions a cycle instead of five. Their own schedules count alone (`cortex_a78.py`, `neoverse_n2.py`, `cortex_x4.py`).
- Cortex-A73: llvm-mca takes the Cortex-A57's tables, three instructions a cycle instead of two. Its own schedule counts alone
  (`cortex_a73.py`).

The ports' bounds hold for all, so that no block becomes cheaper than what it must execute. Other cores are left as `core_model` has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tvmmobile.system.environment import cache_dir
from tvmmobile.virtual.board import Board
from tvmmobile.virtual.cores import cortex_a53, cortex_a55, in_order
from tvmmobile.virtual.cores.core_model import CoreTime, CostsOf, core_time, costs_by, model_hash
from tvmmobile.virtual.cores.cortex_a72 import CORTEX_A72
from tvmmobile.virtual.cores.cortex_a73 import CORTEX_A73
from tvmmobile.virtual.cores.cortex_a76 import CORTEX_A76
from tvmmobile.virtual.cores.cortex_a78 import CORTEX_A78
from tvmmobile.virtual.cores.cortex_x4 import CORTEX_X4
from tvmmobile.virtual.cores.cost_cache import Code, Cost, CostCache
from tvmmobile.virtual.cores.neoverse_n2 import NEOVERSE_N2
from tvmmobile.virtual.cores.out_of_order import steady_cycles, waits_of
from tvmmobile.virtual.profile import Block

#: Raise a core's version with every change to its numbers; calibrations, records and results of the others stay valid.
#: tests/virtual/test_calibration_core.py, test_in_order.py and test_cortex_a76.py pin some numbers.
VERSIONS: Mapping[str, int] = {
    "cortex-a53": 5,
    "cortex-a55": 5,
    "cortex-a72": 6,
    "cortex-a73": 5,
    "cortex-a76": 6,
    "cortex-a78": 1,
    "cortex-x4": 2,
    "neoverse-n2": 1,
}
_IN_ORDER = {"cortex-a53": cortex_a53.step_of, "cortex-a55": cortex_a55.step_of}
#: The tables of out-of-order cores, by LLVM's names.
OUT_OF_ORDER = {tables.name: tables for tables in (CORTEX_A72, CORTEX_A73, CORTEX_A76, CORTEX_A78, CORTEX_X4, NEOVERSE_N2)}
#: The cores with better figures than llvm-mca's, by LLVM's names: cycles of a block in a loop.
CORES: Mapping[str, Callable[[Sequence[str]], float]] = {
    **{name: partial(in_order.steady_cycles, step_of=step_of) for name, step_of in _IN_ORDER.items()},
    **{name: partial(steady_cycles, tables=tables) for name, tables in OUT_OF_ORDER.items()},
}
#: What such a block waits for, as `mca.pressures_of` names it.
WAITS: Mapping[str, Callable[[Sequence[str]], dict[str, float]]] = {
    **{name: partial(in_order.waits_of, step_of=step_of) for name, step_of in _IN_ORDER.items()},
    **{name: partial(waits_of, tables=tables) for name, tables in OUT_OF_ORDER.items()},
}


def corrected_hash(board: Board) -> str:
    """Return a hash (16 hex digits) of the board's values and the versions of both models and llvm-mca."""
    return hashlib.sha256(f"{corrected_version(board.mcpu)}\0{model_hash(board)}".encode()).hexdigest()[:16]


def corrected_version(mcpu: str) -> int:
    """Return the version of this model's figures of a core; 0 if it has none."""
    return VERSIONS.get(mcpu, 0)


def corrected_time(blocks: Sequence[Block], board: Board, hottest: int = 0) -> CoreTime:
    """Model a run as `core_time` does, with the corrected cost of each block."""
    return core_time(blocks, board, hottest, costs_for(board))


def costs_for(board: Board) -> CostsOf | None:
    """Return the best model of this board's blocks; None for llvm-mca alone."""
    return corrected_costs if board.mcpu in CORES else None


def corrected_costs(codes: set[Code], board: Board) -> dict[Code, Cost]:
    """Return cycles per execution, and whether they are the bound alone, for each block of one of the `CORES`."""
    cache = CostCache.at(cache_dir() / f"corrected-{corrected_hash(board)}.sqlite")
    return costs_by(cache, codes, board, lambda listings: [CORES[board.mcpu](listing) for listing in listings])
