"""Converts executed blocks to core cycles: each block's count, times the larger of llvm-mca's schedule and the ports' bound.

Every block is modelled as the body of a loop in its steady state, which is exact where kernels spend their time, and slightly optimistic
elsewhere. Caches are not modelled here: every access hits the first level.
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
#: Returns each block's cycles per execution, and whether they are only the ports' bound.
CostsOf = Callable[[set[Code], Board], dict[Code, Cost]]
#: Raise this with every change of modelled numbers: it separates the new numbers from the old in logs, caches and the gate.
#: tests/virtual/test_core_model.py pins numbers, and fails when they change under the same version.
MODEL_VERSION = 2


@dataclass(frozen=True)
class BlockCost:
    """The cost of one block in a run.

    Attributes:
        address: address in the program's memory.
        count: number of executions.
        cycles_each: modelled cycles per execution.
        assembly: instructions as text, without branch distances.
        bounds_only: true if llvm-mca does not know all instructions, so that only the ports' bound is used.
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
        instructions: exact number of executed instructions.
        seconds: time of `cycles` at the board's clock.
        hottest: the costliest blocks, in descending order of cycles.
        unknown_instructions: number of executed instructions in blocks that llvm-mca could not schedule.
    """

    cycles: int
    instructions: int
    seconds: float
    hottest: tuple[BlockCost, ...]
    unknown_instructions: int


def model_hash(board: Board) -> str:
    """Return a hash (16 hex digits) of the board's figures and the versions of this model and llvm-mca."""
    return hashlib.sha256(f"{MODEL_VERSION}\0{board.digest}\0{mca_version()}".encode()).hexdigest()[:16]


def core_time(blocks: Iterable[Block], board: Board, hottest: int = HOTTEST, costs_of: CostsOf | None = None) -> CoreTime:
    """Model a run from its executed translation blocks.

    Args:
        hottest: number of the costliest blocks to return.
        costs_of: model of a block's cycles that replaces llvm-mca, such as `corrected.corrected_costs`.
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
    """Return the cycles per execution of each translation block; weighted by their counts, they add up to `core_time`'s cycles."""
    pieces, shares = basic_blocks_of(blocks)
    codes = [words_of(piece.code) for piece in pieces]
    costs = (costs_of or _costs)(set(codes), board)
    return [sum(costs[codes[place]][0] * share for place, share in members) for members in shares]


def _cache(board: Board) -> CostCache:
    return CostCache.at(cache_dir() / f"core-{model_hash(board)}.sqlite")


def texts_of(words: set[int], board: Board) -> dict[int, str]:
    """Disassemble each instruction word as `name<TAB>operands`; "" if it is invalid."""
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
    """Return the costs of blocks: the cycles of a schedule, but never less than the ports' bound. Costs missing in `cache` are added to it.

    Args:
        schedule: returns the cycles of each block, given as text; `None` for a block with unknown instructions.
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
