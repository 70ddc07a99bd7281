"""Terms of a run's modelled time besides its core cycles: amounts of the run times parameters of its core.

Amounts are in milliseconds: counts of the simulated caches times a documented time of the board. A parameter is thus the share of that
time for which the core really waits: 0 if all lines are prefetched in time, 1 if no latency is hidden.

On most cores, the share of hidden latency does not depend on how busy the core is: their terms add up. A Cortex-A76 and later cores keep
dozens of lines in flight, so that memory accesses overlap with computation, and in each phase of a run (plugin/phases.c) the longer of the
two counts. In the first layers of MobileNet v2, which do little work on much data, no traffic is hidden; in a matrix product that streams
its weights, all of it is. A Cortex-A76 reads lines at the rate of the memory's bus, which is documented and not fitted. A line that a store
fetches and that is written back later costs more than its share of a copy, as in tinymembench's "2-pass copy", where reading and writing
alternate as in a network: 36 ns a line on a Raspberry Pi 5, compared with 12 in a plain copy (ThomasKaiser/sbc-bench, results/Au3jaA.txt),
and 18 instead of 6 on an RK3588 (results/41BH.txt).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tvmmobile.virtual.board import Board
from tvmmobile.virtual.cores.core_timing import timing_of
from tvmmobile.virtual.profile import MissCounts

#: A parameter this close to a bound, relative to the distance between both, counts as lying on it.
ON_BOUND = 1e-3


@dataclass(frozen=True)
class Term:
    """One kind of stall.

    Attributes:
        amount_ms: returns the milliseconds of a run on a board for a parameter of 1.
        what: the quantity of which the parameter is a share.
        most: its upper bound on a board.
        most_source: source of `most`.
        least: its lower bound.
        least_source: source of `least`.
    """

    amount_ms: Callable[[Board, MissCounts], float]
    what: str
    most: Callable[[Board], float]
    most_source: str
    least: float = 0.0
    least_source: str = "fetched ahead in time"


def _hits_ms(board: Board, misses: MissCounts) -> float:
    caches = board.caches
    return (misses.loads_from_l2 * caches.l2_cycles + misses.loads_from_l3 * caches.l3_cycles) / board.clock_hz * 1e3


def _line_copies_ms(board: Board, lines: int) -> float:
    return lines * board.line_copy_ns * 1e-6


def _latency_in_line_copies(board: Board) -> float:
    return board.memory.latency_ns / board.line_copy_ns


_LATENCY = "no more than a random read that no cache has (latency_ns)"
#: Terms by name, in the order in which they are shown.
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
#: Terms of cores that overlap computation with memory accesses.
_OVERLAPPING_TERMS: Mapping[str, Term] = {
    "cache_hits": TERMS["cache_hits"],
    "lines_read": Term(
        lambda board, misses: misses.loads_from_memory * board.caches.line_bytes / board.memory.peak_bytes_per_s * 1e3,
        "the time in which the memory's bus moves a line (peak_bytes_per_s), for each line that a load reads from it",
        lambda board: 1.0,
        "prefetchers keep the bus busy (not fitted)",
        1.0,
        "the bus moves no line faster (not fitted)",
    ),
    "stores": Term(
        lambda board, misses: _line_copies_ms(board, misses.fills - misses.loads_from_memory),
        "the time in which one core copies a line in memory, for each line that a store fetches from it and that goes back later",
        _latency_in_line_copies,
        _LATENCY,
        0.0,
        "sent back in pauses",
    ),
}


def _copied(what: str, amount_ms: Callable[[Board, MissCounts], float], source: str) -> Term:
    """Return a term that is not fitted, but priced at the rate of one core's copy."""
    return Term(
        amount_ms,
        f"the time in which one core copies a line in memory (copy_bytes_per_s), for each line that {what}",
        lambda board: 1.0,
        source,
        1.0,
        source,
    )


#: Terms of later cores, a single one of which cannot saturate the bus: it reads lines no faster than it copies them. Fitting both rates
#: makes the errors of left-out networks larger.
_LATER_TERMS: Mapping[str, Term] = {
    "cache_hits": TERMS["cache_hits"],
    "lines_read": _copied(
        "a load reads from it", lambda board, misses: _line_copies_ms(board, misses.loads_from_memory), "a copy's rate (not fitted)"
    ),
    "stores": _copied(
        "a store fetches from it and that goes back later", _OVERLAPPING_TERMS["stores"].amount_ms, "a copy's rate (not fitted)"
    ),
}
#: Version and terms by the kind of `CoreTiming.memory`. Raise the version with every change of the terms.
_KINDS: Mapping[str, tuple[int, Mapping[str, Term]]] = {
    "added": (3, TERMS),
    "bus_rate": (4, _OVERLAPPING_TERMS),
    "copy_rate": (6, _LATER_TERMS),
}


def overlaps(board: Board) -> bool:
    """Return whether the board's core overlaps computation with memory accesses."""
    return timing_of(board.mcpu).memory != "added"


def terms_of(board: Board) -> Mapping[str, Term]:
    """Return the terms of the board's core by name; the names are those of `TERMS`."""
    return _KINDS[timing_of(board.mcpu).memory][1]


def terms_version(mcpu: str) -> int:
    """Return the version of the terms that a core (LLVM's name) has."""
    return _KINDS[timing_of(mcpu).memory][0]


@dataclass(frozen=True)
class Parameter:
    """A core's fitted parameter: its share of a term's amount, or the memory bandwidth.

    Attributes:
        name: name of the term.
        what: the quantity of which it is a share.
        value: the share.
        low: its lower bound.
        high: its upper bound.
        low_source: source of `low`.
        high_source: source of `high`.
        unbounded: its value in a fit without bounds.
        note: remark about a value that lies on a bound; otherwise empty.
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
        """True if the value lies on one of its bounds."""
        return min(self.value - self.low, self.high - self.value) <= ON_BOUND * (self.high - self.low)


def term_ms(board: Board, core_cycles: float, misses: MissCounts, parameters: Sequence[Parameter]) -> dict[str, float]:
    """Return each term of the modelled time in milliseconds, by name: `core`, then those of the parameters.

    For cores that overlap computation with memory accesses, the arguments are those of one phase. The time by which memory exceeds the
    core is then divided among the memory terms in proportion.
    """
    terms = terms_of(board)
    times = {"core": core_cycles / board.clock_hz * 1e3} | {p.name: p.value * terms[p.name].amount_ms(board, misses) for p in parameters}
    if parameters and overlaps(board):
        memory = times["lines_read"] + times["stores"]
        exposed = max(0.0, 1 - (times["core"] + times["cache_hits"]) / memory) if memory else 0.0
        times |= {name: exposed * times[name] for name in ("lines_read", "stores")}
    return times


def summed_ms(phases: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Add up the terms of a run's phases, in milliseconds by name."""
    total: defaultdict[str, float] = defaultdict(float)
    for terms in phases:
        for name, ms in terms.items():
            total[name] += ms
    return dict(total)
