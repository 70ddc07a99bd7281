"""Converts executed blocks to a core's cycles: llvm-mca's schedule of each block, at least the ports' bound, times its count.

Every block is taken as the body of a loop in its steady state: exact where a kernel spends its time, slightly optimistic elsewhere.
Caches are not modelled here: every access hits the first level.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tvmmobile.system.environment import cache_dir
from tvmmobile.virtual.board import Board
from tvmmobile.virtual.cores.bounds import least_cycles
from tvmmobile.virtual.cores.cost_cache import Code, Cost, CostCache
from tvmmobile.virtual.cores.encoding import NOP, words_of
from tvmmobile.virtual.cores.mca import cycles_of, disassemble, mca_version
from tvmmobile.virtual.profile import Block, basic_blocks, basic_blocks_of

HOTTEST = 8
#: Cycles per execution of each block, and whether they are the ports' bound alone.
CostsOf = Callable[[set[Code], Board], dict[Code, Cost]]
#: Raise this with every change that changes a modelled number: it separates the new numbers from the old in logs, caches and the gate.
#: tests/virtual/test_core_model.py pins numbers, and fails when they change under the same version.
MODEL_VERSION = 2


@dataclass(frozen=True)
class BlockCost:
    """One block's share of a run.

    Attributes:
        address: address in the program's memory.
        count: number of times it ran.
        cycles_each: modelled cycles per execution.
        assembly: its instructions, branch distances left out.
        bounds_only: llvm-mca did not know it, so the ports' bound is used.
    """

    address: int
    count: int
    cycles_each: float
    assembly: tuple[str, ...]
    bounds_only: bool = False

    @property
    def cycles(self) -> float:
        """Modelled cycles of all executions."""
        return self.count * self.cycles_each


@dataclass(frozen=True)
class CoreTime:
    """The modelled run of one core.

    Attributes:
        cycles: modelled core cycles.
        instructions: executed instructions, exact.
        seconds: `cycles` at the board's clock.
        hottest: the costliest blocks, most cycles first.
        unknown_instructions: number of executed instructions in blocks that llvm-mca could not schedule.
    """

    cycles: int
    instructions: int
    seconds: float
    hottest: tuple[BlockCost, ...]
    unknown_instructions: int


def model_hash(board: Board) -> str:
    """Return a hash (16 hex digits) of the board's values and the versions of this model and llvm-mca."""
    return hashlib.sha256(f"{MODEL_VERSION}\0{board.digest}\0{mca_version()}".encode()).hexdigest()[:16]


def core_time(blocks: Iterable[Block], board: Board, hottest: int = HOTTEST, costs_of: CostsOf | None = None) -> CoreTime:
    """Model one run from its executed translation blocks, and show the `hottest` of them.

    `costs_of` replaces this model of a block's cycles, for example by `corrected.corrected_costs`.
    """
    pieces = basic_blocks(blocks)
    codes = [words_of(piece.code) for piece in pieces]
    costs = (costs_of or _costs)(set(codes), board)
    timed = [BlockCost(piece.address, piece.count, costs[code][0], (), costs[code][1]) for piece, code in zip(pieces, codes, strict=True)]
    order = sorted(range(len(timed)), key=lambda i: (-timed[i].cycles, timed[i].address))[:hottest]
    texts = texts_of({word for i in order for word in codes[i]}, board)
    shown = tuple(
        BlockCost(t.address, t.count, t.cycles_each, tuple(texts[w] or f".inst\t{w:#010x}" for w in codes[i]), t.bounds_only)
        for i, t in ((i, timed[i]) for i in order)
    )
    cycles = round(sum(cost.cycles for cost in timed))
    return CoreTime(
        cycles=cycles,
        instructions=sum(piece.count * len(code) for piece, code in zip(pieces, codes, strict=True)),
        seconds=cycles / board.clock_hz,
        hottest=shown,
        unknown_instructions=sum(c.count * len(code) for c, code in zip(timed, codes, strict=True) if c.bounds_only),
    )


def block_cycles(blocks: Sequence[Block], board: Board, costs_of: CostsOf | None = None) -> list[float]:
    """Return the cycles per execution of each translation block, which add up to `core_time`'s cycles."""
    pieces, shares = basic_blocks_of(blocks)
    codes = [words_of(piece.code) for piece in pieces]
    costs = (costs_of or _costs)(set(codes), board)
    return [sum(costs[codes[place]][0] * share for place, share in members) for members in shares]


def _cache(board: Board) -> CostCache:
    return CostCache.at(cache_dir() / f"core-{model_hash(board)}.sqlite")


def texts_of(words: set[int], board: Board) -> dict[int, str]:
    """Return each instruction word as `name<TAB>operands`; "" where it does not decode."""
    cache = _cache(board)
    known = cache.texts(words)
    missing = sorted(words - known.keys())
    if missing:
        known |= cache.add_texts(dict(zip(missing, disassemble(missing), strict=True)))
    return known


def _costs(codes: set[Code], board: Board) -> dict[Code, Cost]:
    return costs_by(_cache(board), codes, board, lambda listings: cycles_of(listings, board.mcpu))


def costs_by(
    cache: CostCache,
    codes: set[Code],
    board: Board,
    schedule: Callable[[Sequence[list[str]]], Sequence[float | None]],
) -> dict[Code, Cost]:
    """Return costs by a schedule, never less than the ports' bounds; those missing in `cache` are computed and added.

    `schedule` gives the cycles of each listing; None for one that it does not know.
    """
    known = cache.costs(codes)
    missing = sorted(codes - known.keys())
    if missing:
        texts = texts_of({word for code in missing for word in code} | {NOP}, board)
        listings = [[texts[word] or texts[NOP] for word in code] for code in missing]
        least = [least_cycles(listing, board.core) for listing in listings]
        fresh: dict[Code, Cost] = {}
        for code, lowest, cycles in zip(missing, least, schedule(listings), strict=True):
            unknown = cycles is None or not all(texts[word] for word in code)
            fresh[code] = (max(lowest, cycles or 0.0), unknown)
        known |= cache.add_costs(fresh)
    return known
