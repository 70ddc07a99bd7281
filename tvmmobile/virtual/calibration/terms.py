"""What a run's time consists of besides its core cycles: a few terms, each an amount of the run times a parameter of its core.

Amounts are in milliseconds: counts of the simulated caches times a documented time of the board, so that a parameter is the share of that
time that the core really waits. What is fetched ahead in time costs nothing, what nothing hides costs all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tvmmobile.virtual.board import Board
from tvmmobile.virtual.profile import MissCounts

#: Raise this with every change of the terms.
TERMS_VERSION = 3
#: As near to a bound, relative to the width between both, a parameter counts as lying on it.
ON_BOUND = 1e-3


@dataclass(frozen=True)
class Term:
    """One kind of waiting.

    Attributes:
        amount_ms: milliseconds of a run on a board if the parameter were 1.
        what: what the parameter is a share of.
        most: what it cannot be more than, on a board.
        most_source: why.
    """

    amount_ms: Callable[[Board, MissCounts], float]
    what: str
    most: Callable[[Board], float]
    most_source: str


def _hits_ms(board: Board, misses: MissCounts) -> float:
    caches = board.caches
    return (misses.loads_from_l2 * caches.l2_cycles + misses.loads_from_l3 * caches.l3_cycles) / board.clock_hz * 1e3


def _line_copies_ms(board: Board, lines: int) -> float:
    return lines * board.line_copy_ns * 1e-6


def _latency_in_line_copies(board: Board) -> float:
    return board.memory.latency_ns / board.line_copy_ns


_LATENCY = "no more than a random read that no cache has (latency_ns)"
#: By name, in the order in which they are shown.
TERMS: Mapping[str, Term] = {
    "cache_hits": Term(
        _hits_ms,
        "the latency of the level that had the line (l2_cycles, l3_cycles), for each load that missed the first one",
        lambda board: 1.0,
        "no more than a random read",
    ),
    "lines_read": Term(
        lambda board, misses: _line_copies_ms(board, misses.fills),
        "the time in which one core copies a line in memory (copy_bytes_per_s), for each line read from it, by loads and by stores",
        _latency_in_line_copies,
        _LATENCY,
    ),
    "stores": Term(
        lambda board, misses: _line_copies_ms(board, misses.stores),
        "the time in which one core copies a line in memory, for each store that missed the first level, wherever the line was",
        _latency_in_line_copies,
        _LATENCY,
    ),
}


@dataclass(frozen=True)
class Parameter:
    """One core's share of a term's amount, or another fitted figure.

    Attributes:
        name: of the term.
        what: what it is a share of.
        value: the share.
        low: what it cannot be less than.
        high: what it cannot be more than.
        low_source: where `low` is from.
        high_source: where `high` is from.
        unbounded: its value in a fit without bounds.
        note: why it lies on a bound, if it does.
    """

    name: str
    what: str
    value: float
    low: float
    high: float
    low_source: str
    high_source: str
    unbounded: float
    note: str = ""

    @property
    def on_bound(self) -> bool:
        """Whether the value lies on one of its bounds."""
        return min(self.value - self.low, self.high - self.value) <= ON_BOUND * (self.high - self.low)


def term_ms(board: Board, core_cycles: float, misses: MissCounts, parameters: Sequence[Parameter]) -> dict[str, float]:
    """Each term of the modelled time in milliseconds, by its name: `core`, then those of the parameters."""
    return {"core": core_cycles / board.clock_hz * 1e3} | {p.name: p.value * TERMS[p.name].amount_ms(board, misses) for p in parameters}
