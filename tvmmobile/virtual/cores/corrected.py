"""Computes a block's cycles with our own core tables in place of llvm-mca's; every modelled time depends on it.

A core's file names its schedule, and explains what is wrong with llvm-mca's (`core_timing.py`). The ports' bounds apply to all cores, so
that no block is cheaper than what it has to execute. For cores without a schedule of their own, `core_model` is used unchanged.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tvmmobile.system.environment import cache_dir
from tvmmobile.virtual.board import Board
from tvmmobile.virtual.cores import in_order
from tvmmobile.virtual.cores.core_model import CoreTime, CostsOf, core_time, costs_by, model_hash
from tvmmobile.virtual.cores.core_timing import scheduled_cores
from tvmmobile.virtual.cores.cost_cache import Code, Cost, CostCache
from tvmmobile.virtual.cores.out_of_order import CoreTables, steady_cycles, waits_of
from tvmmobile.virtual.profile import Block


def _schedule(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), name)


#: Version of each core's schedule; tests pin some numbers with it.
VERSIONS: Mapping[str, int] = {name: timing.version for name, timing in scheduled_cores().items()}
_SCHEDULES = {name: _schedule(timing.schedule) for name, timing in scheduled_cores().items()}
#: The tables of out-of-order cores, by LLVM's names.
OUT_OF_ORDER: Mapping[str, CoreTables] = {name: tables for name, tables in _SCHEDULES.items() if isinstance(tables, CoreTables)}
#: Functions that return an instruction's `IssueStep` on in-order cores, by LLVM's names.
_IN_ORDER: Mapping[str, Callable[[str], in_order.IssueStep]] = {name: _SCHEDULES[name] for name in _SCHEDULES.keys() - OUT_OF_ORDER.keys()}
#: Functions that return a block's cycles in a loop, for cores with better figures than llvm-mca's, by LLVM's names.
CORES: Mapping[str, Callable[[Sequence[str]], float]] = {
    **{name: partial(in_order.steady_cycles, step_of=step_of) for name, step_of in _IN_ORDER.items()},
    **{name: partial(steady_cycles, tables=tables) for name, tables in OUT_OF_ORDER.items()},
}
#: Functions that return what such a block waits for, with the names of `mca.pressures_of`.
WAITS: Mapping[str, Callable[[Sequence[str]], dict[str, float]]] = {
    **{name: partial(in_order.waits_of, step_of=step_of) for name, step_of in _IN_ORDER.items()},
    **{name: partial(waits_of, tables=tables) for name, tables in OUT_OF_ORDER.items()},
}


def corrected_hash(board: Board) -> str:
    """Return a hash (16 hex digits) of the board's figures and the versions of both models and llvm-mca."""
    return hashlib.sha256(f"{corrected_version(board.mcpu)}\0{model_hash(board)}".encode()).hexdigest()[:16]


def corrected_version(mcpu: str) -> int:
    """Return the version of a core's schedule; 0 if it has none."""
    return VERSIONS.get(mcpu, 0)


def corrected_time(blocks: Sequence[Block], board: Board, hottest: int = 0) -> CoreTime:
    """Model a run as `core_time` does, with the corrected cost of each block."""
    return core_time(blocks, board, hottest, costs_for(board))


def costs_for(board: Board) -> CostsOf | None:
    """Return the best model of block costs for a board; `None` for llvm-mca alone."""
    return corrected_costs if board.mcpu in CORES else None


def corrected_costs(codes: set[Code], board: Board) -> dict[Code, Cost]:
    """Return the cost of each block on a board with one of the `CORES`: cycles per execution, and whether they are only the bound."""
    cache = CostCache.at(cache_dir() / f"corrected-{corrected_hash(board)}.sqlite")
    return costs_by(cache, codes, board, lambda listings: [CORES[board.mcpu](listing) for listing in listings])
