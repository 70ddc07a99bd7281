"""A block's cycles with llvm-mca's known errors on a Cortex-A72 put right; `tvmmobile virtual run` and the calibration use it.

`tune` and `bench` still score with `core_model` alone, which the shipped logs rest on. Two things differ here:

- llvm-mca makes the base register of a pre- or post-indexed access wait for the access itself. The core updates it in its integer pipelines
  in one cycle (OSACA's a72.yml has these pipelines for it), so the update is written out as an addition.
- llvm-mca knows the Cortex-A57's latencies only; `schedule.py` has the Cortex-A72's. The lower one of the two schedules counts: each is too
  slow where it errs. The ports' bounds hold for both, so that no block becomes cheaper than what it must execute.

Other cores than the Cortex-A72 are left as `core_model` has them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from tvmmobile.environment import cache_dir
from tvmmobile.virtual.board import Board
from tvmmobile.virtual.bounds import least_cycles
from tvmmobile.virtual.core_model import CoreTime, core_time, model_hash, texts_of
from tvmmobile.virtual.cost_cache import Code, Cost, CostCache
from tvmmobile.virtual.encoding import NOP
from tvmmobile.virtual.mca import cycles_of
from tvmmobile.virtual.profile import Block
from tvmmobile.virtual.schedule import steady_cycles

#: Raise this with every change that changes a number of this model; tests/test_calibration_core.py pins some.
CORRECTED_VERSION = 1
#: The cores of which there are better figures than llvm-mca's.
CORRECTED_CORES = frozenset({"cortex-a72"})
_POST_INDEXED = re.compile(r"^(.*)\[(x\d+|sp)\], (#-?\d+|x\d+)$")
_PRE_INDEXED = re.compile(r"^(.*)\[(x\d+|sp), (#-?\d+)\]!$")


def corrected_hash(board: Board) -> str:
    """Identifies what these core cycles rest on: the board, both models' versions and llvm-mca's (16 hex digits).

    Raises:
        UserError: llvm-mca is not installed.
    """
    return hashlib.sha256(f"{CORRECTED_VERSION}\0{model_hash(board)}".encode()).hexdigest()[:16]


def corrected_time(blocks: Sequence[Block], board: Board, hottest: int = 0) -> CoreTime:
    """As `core_time`, with the corrected cost of each block.

    Raises:
        UserError: llvm-mca or llvm-mc is not installed.
    """
    return core_time(blocks, board, hottest, corrected_costs if board.mcpu in CORRECTED_CORES else None)


def corrected_costs(codes: set[Code], board: Board) -> dict[Code, Cost]:
    """Cycles per execution, and whether they are the bound alone, for each block of a Cortex-A72.

    Raises:
        UserError: llvm-mca or llvm-mc is not installed.
    """
    cache = CostCache.at(cache_dir() / f"corrected-{corrected_hash(board)}.sqlite")
    known = cache.costs(codes)
    missing = sorted(codes - known.keys())
    if missing:
        texts = texts_of({word for code in missing for word in code} | {NOP}, board)
        listings = [[texts[word] or texts[NOP] for word in code] for code in missing]
        written_out = [with_updates_written_out(listing) for listing in listings]
        fresh: dict[Code, Cost] = {}
        for code, listing, cycles in zip(missing, listings, cycles_of(written_out, board.mcpu), strict=True):
            least = least_cycles(listing, board.core)
            unknown = cycles is None or not all(texts[word] for word in code)
            fresh[code] = (least if cycles is None else max(least, min(cycles, steady_cycles(listing, board.core))), unknown)
        known |= cache.add_costs(fresh)
    return known


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
