"""Summarises a program's modelled run as JSON, and describes how far its time can be trusted."""

from __future__ import annotations

from typing import Any

from tvmmobile.virtual.board import Board
from tvmmobile.virtual.calibration.fit import calibration_of, mean_error, run_hash, worst_error
from tvmmobile.virtual.cores.core_model import model_hash
from tvmmobile.virtual.cores.explain import HotBlock
from tvmmobile.virtual.program import ProgramRun

_UNCONFIRMED = "no measurement has confirmed"


def summary(done: ProgramRun, board: Board) -> dict[str, Any]:
    """Return the JSON of a run for `virtual run --json`."""
    return {
        "board": board.name,
        "kind": "modelled",
        "instructions": done.core.instructions,
        "core_cycles": done.core.cycles,
        "l1d_misses": done.modelled.misses.l1d,
        "l2_misses": done.modelled.misses.l2,
        "dram_bytes": done.modelled.dram_bytes,
        "scheduled_core_cycles": done.modelled.core.cycles,
        "loads_from_l2": done.modelled.misses.loads_from_l2,
        "loads_from_l3": done.modelled.misses.loads_from_l3,
        "loads_from_memory": done.modelled.misses.loads_from_memory,
        "store_misses": done.modelled.misses.stores,
        "threads": done.modelled.threads,
        "busy_ms": list(done.modelled.busy_ms),
        "modelled_ms": done.modelled.modelled_ms,
        "modelled_terms": list(done.modelled.term_ms),
        "term_ms": dict(done.modelled.term_ms),
        "term_shares": {name: ms / max(done.modelled.modelled_ms, 1e-12) for name, ms in done.modelled.term_ms.items()},
        "calibrated": done.modelled.calibrated,
        "regions": done.regions,
        "zeroed_lines": done.zeroed_lines,
        "other_threads_instructions": done.other_instructions,
        "unknown_instructions": done.core.unknown_instructions,
        "core_model": model_hash(board),
        "timing_model": run_hash(board, done.modelled.threads),
    }


def block_summary(block: HotBlock) -> dict[str, Any]:
    """Return the JSON of a block for `virtual run --json --top`."""
    cost = block.cost
    return {
        "place": block.place,
        "address": cost.address,
        "count": cost.count,
        "cycles_each": cost.cycles_each,
        "cycles": cost.cycles,
        "share": block.share,
        "limit": block.limit,
        "assembly": list(cost.assembly),
    }


def trust(board: Board, threads: int) -> str:
    """Describe in a sentence or two how far the modelled time of a board can be trusted, and which of its figures are assumed."""
    return _confirmed(board, threads) + (f" Assumed: {board.assumed}." if board.assumed else "")


def _confirmed(board: Board, threads: int) -> str:
    if own := board.calibration:
        off = f"{own.mean_error:.1%} off, {own.worst_error:.1%} at worst"
        return f"Calibrated by its own file on {own.points} kernels and networks: left out of the fit, one was modelled {off}."
    fit = calibration_of(board)
    if fit is None:
        return f"{board.name} is uncalibrated: the time is the core's alone, and {_UNCONFIRMED} it. Misses are counted only."
    alone, boards = fit.of_board(fit.left_out_errors, board.name), " and ".join(fit.board_names)
    errors = alone if threads == 1 else fit.check_errors().get(f"{board.name}, 4 threads, left out", ())
    if errors:
        beginning = f"Calibrated on {len(errors)} networks: left out of the fit, one was modelled"
        return f"{beginning} {mean_error(errors):.1%} off, {worst_error(errors):.1%} at worst."
    if alone:
        return f"Calibrated on {len(alone)} networks in one thread; {_UNCONFIRMED} it here for several."
    verb = "has" if len(fit.boards) == 1 else "have"
    return f"Calibrated on {boards}, which {verb} the same core; {_UNCONFIRMED} it here."


def doubt(board: Board) -> str:
    """Return "; no measurement has confirmed this board", to follow a latency, if no published row is of it; else ""."""
    fit = calibration_of(board)
    seen = {*fit.board_names, *(check.board for check in fit.checks)} if fit else set()
    return "" if board.calibration or board.name in seen else f"; {_UNCONFIRMED} this board"
