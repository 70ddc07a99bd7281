"""A block's cycles by the cores' own tables instead of llvm-mca's alone; every modelled time rests on it.

- Cortex-A72: llvm-mca makes the base register of a pre- or post-indexed access wait for the access itself. The core updates it in its
  integer pipelines in one cycle (OSACA's a72.yml has these pipelines for it), so the update is written out as an addition. And llvm-mca
  knows the Cortex-A57's latencies only; `cortex_a72.py` has the Cortex-A72's. The lower one of the two schedules counts: each is too slow
  where it errs. But llvm-mca lets either vector pipeline shift and convert, which one of them alone does, so no block is cheaper than the
  time for which it keeps a pipeline of the Cortex-A72 busy.
- Cortex-A76: llvm-mca takes the Cortex-A57's tables here too, with half the vector pipelines and three instructions a cycle. They are wrong
  in both directions for this core, so its own schedule counts alone (`cortex_a76.py`).
- Cortex-A53: in order, where llvm-mca's figures are two to four times too slow; its own schedule counts alone (`cortex_a53.py`).
- Cortex-A55: in order; llvm-mca's tables leave out what forwards a result early, what issues together and what does not. Its own schedule
  counts alone (`cortex_a55.py`).
- Cortex-A73: llvm-mca takes the Cortex-A57's tables, three instructions a cycle instead of two. Its own schedule counts alone
  (`cortex_a73.py`).

The ports' bounds hold for all, so that no block becomes cheaper than what it must execute. Other cores are left as `core_model` has them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tvmmobile.system.environment import cache_dir
from tvmmobile.virtual.board import Board
from tvmmobile.virtual.cores import cortex_a53, cortex_a55, in_order
from tvmmobile.virtual.cores.core_model import CoreTime, CostsOf, core_time, costs_by, model_hash
from tvmmobile.virtual.cores.cortex_a72 import CORTEX_A72
from tvmmobile.virtual.cores.cortex_a73 import CORTEX_A73
from tvmmobile.virtual.cores.cortex_a76 import CORTEX_A76
from tvmmobile.virtual.cores.cost_cache import Code, Cost, CostCache
from tvmmobile.virtual.cores.mca import cycles_of
from tvmmobile.virtual.cores.out_of_order import pipeline_cycles, steady_cycles, waits_of
from tvmmobile.virtual.profile import Block

#: Raise a core's with every change that changes a number of its own: what was calibrated, tuned or measured for the others stays valid.
#: tests/virtual/test_calibration_core.py, test_in_order.py and test_cortex_a76.py pin some numbers.
VERSIONS: Mapping[str, int] = {"cortex-a53": 5, "cortex-a55": 5, "cortex-a72": 5, "cortex-a73": 5, "cortex-a76": 6}
#: The cores of which there are better figures than llvm-mca's, by LLVM's names: cycles of a block that runs over and over.
CORES: Mapping[str, Callable[[Sequence[str]], float]] = {
    "cortex-a53": partial(in_order.steady_cycles, step_of=cortex_a53.step_of),
    "cortex-a55": partial(in_order.steady_cycles, step_of=cortex_a55.step_of),
    "cortex-a72": partial(steady_cycles, tables=CORTEX_A72),
    "cortex-a73": partial(steady_cycles, tables=CORTEX_A73),
    "cortex-a76": partial(steady_cycles, tables=CORTEX_A76),
}
#: What such a block waits for, as `mca.pressures_of` names it.
WAITS: Mapping[str, Callable[[Sequence[str]], dict[str, float]]] = {
    "cortex-a53": partial(in_order.waits_of, step_of=cortex_a53.step_of),
    "cortex-a55": partial(in_order.waits_of, step_of=cortex_a55.step_of),
    "cortex-a72": partial(waits_of, tables=CORTEX_A72),
    "cortex-a73": partial(waits_of, tables=CORTEX_A73),
    "cortex-a76": partial(waits_of, tables=CORTEX_A76),
}
#: How long such a block keeps the pipelines of its core's tables busy, by their names.
PIPELINES: Mapping[str, Callable[[Sequence[str]], dict[str, float]]] = {
    "cortex-a72": partial(pipeline_cycles, tables=CORTEX_A72),
    "cortex-a73": partial(pipeline_cycles, tables=CORTEX_A73),
    "cortex-a76": partial(pipeline_cycles, tables=CORTEX_A76),
}
#: Cores whose schedule llvm-mca's is compared with; the lower one counts, but not below what `PIPELINES` says.
LOWER_OF_BOTH = frozenset({"cortex-a72"})
_POST_INDEXED = re.compile(r"^(.*)\[(x\d+|sp)\], (#-?\d+|x\d+)$")
_PRE_INDEXED = re.compile(r"^(.*)\[(x\d+|sp), (#-?\d+)\]!$")


def corrected_hash(board: Board) -> str:
    """Identifies what these core cycles rest on: the board, both models' versions and llvm-mca's (16 hex digits)."""
    return hashlib.sha256(f"{corrected_version(board.mcpu)}\0{model_hash(board)}".encode()).hexdigest()[:16]


def corrected_version(mcpu: str) -> int:
    """The version of what this model knows of a core; 0 where it knows nothing of it."""
    return VERSIONS.get(mcpu, 0)


def corrected_time(blocks: Sequence[Block], board: Board, hottest: int = 0) -> CoreTime:
    """As `core_time`, with the corrected cost of each block."""
    return core_time(blocks, board, hottest, costs_for(board))


def costs_for(board: Board) -> CostsOf | None:
    """The best model there is of this board's blocks: None for llvm-mca alone."""
    return corrected_costs if board.mcpu in CORES else None


def corrected_costs(codes: set[Code], board: Board) -> dict[Code, Cost]:
    """Cycles per execution, and whether they are the bound alone, for each block of one of the `CORES`."""
    cache = CostCache.at(cache_dir() / f"corrected-{corrected_hash(board)}.sqlite")
    return costs_by(cache, codes, board, lambda listings, least: _scheduled(listings, least, board.mcpu))


def _scheduled(listings: Sequence[list[str]], least: Sequence[float], mcpu: str) -> list[float | None]:
    scheduled: list[float | None] = [CORES[mcpu](listing) for listing in listings]
    if mcpu in LOWER_OF_BOTH:
        # llvm-mca, the slowest part of all this, is asked only where it can make a difference.
        floors = [max(*PIPELINES[mcpu](listing).values(), low) for listing, low in zip(listings, least, strict=True)]
        open_ones = [place for place, cycles in enumerate(scheduled) if cycles is None or cycles > floors[place]]
        others = cycles_of([with_updates_written_out(listings[place]) for place in open_ones], mcpu)
        for place, other in zip(open_ones, others, strict=True):
            own = scheduled[place]
            scheduled[place] = None if other is None or own is None else max(floors[place], min(own, other))
    return scheduled


def with_updates_written_out(block: Sequence[str]) -> list[str]:
    """The block with each pre- or post-indexed access as an access and an addition to its base register."""
    written: list[str] = []
    for text in block:
        if after := _POST_INDEXED.match(text):
            written += [f"{after[1]}[{after[2]}]", _addition(after[2], after[3])]
        elif before := _PRE_INDEXED.match(text):
            written += [_addition(before[2], before[3]), f"{before[1]}[{before[2]}]"]
        else:
            written.append(text)
    return written


def _addition(register: str, by: str) -> str:
    if by.startswith("#-"):
        return f"sub\t{register}, {register}, #{by[2:]}"
    return f"add\t{register}, {register}, {by}"
