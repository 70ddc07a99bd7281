"""Computes a region's modelled time, term by term, from the plugin's counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvmmobile.virtual.board import Board
from tvmmobile.virtual.calibration.fit import Fit, Phase, calibration_of
from tvmmobile.virtual.calibration.terms import Parameter, overlaps, summed_ms, term_ms, terms_of
from tvmmobile.virtual.cores.core_model import CoreTime, block_cycles
from tvmmobile.virtual.cores.corrected import corrected_time, costs_for
from tvmmobile.virtual.profile import MissCounts, Profile
from tvmmobile.virtual.timeline import Course, course_of

#: Resolution of phases: steps per octave of the ratio of memory's time to the core's, and its least and greatest value.
_STEPS, _LEAST_BUSY, _MOST_BUSY = 2, 1 / 16, 16


@dataclass(frozen=True)
class ModelledRun:
    """A region's modelled time and its parts.

    Attributes:
        threads: number of cores that it had.
        core: corrected core cycles, instructions and the hottest blocks, of all threads together.
        misses: misses of all threads together.
        term_ms: the terms of the modelled time by name: `core` and the kinds of misses, of one thread or, with several, along the chain of
            segments that nothing could start earlier; then `handover` and `bandwidth` (timeline.py). `core` alone, and with several
            threads `handover`, for a board whose core is not calibrated.
        calibrated: true if misses are in the modelled time.
        dram_bytes: bytes read from memory and written back to it.
        busy_ms: working time of each thread in milliseconds, longest first.
        phases: phases of the thread that was modelled, as `phases_of`; empty with several threads.
    """

    threads: int
    core: CoreTime
    misses: MissCounts
    term_ms: Mapping[str, float]
    calibrated: bool
    dram_bytes: int
    busy_ms: tuple[float, ...]
    phases: tuple[Phase, ...] = ()

    @property
    def modelled_ms(self) -> float:
        """Modelled time in milliseconds: the sum of `term_ms`."""
        return sum(self.term_ms.values())


@dataclass(frozen=True)
class RegionTime:
    """A region of a run: its modelled time, and the misses of all threads together."""

    modelled_ms: float
    misses: MissCounts


def modelled_run(profile: Profile, board: Board, threads: int = 1, hottest: int = 0, fit: Fit | None = None) -> ModelledRun:
    """Model a region, with the calibration `fit` in place of the core's, if given.

    The board's caches must be those that the plugin simulated. With `threads=1` the thread that opened the region is modelled, with more
    all of them, each on a core of its own: that thread on the first one, which is the fastest, the others by their number on the next ones.
    """
    fit = fit or calibration_of(board)
    parameters = fit.parameters if fit else ()
    seen = profile.of_thread(profile.thread) if threads == 1 else profile
    misses = seen.misses()
    core = corrected_time(seen.executed(), board, hottest)
    terms: Mapping[str, float] = term_ms(board, core.cycles, misses, parameters)
    phases: tuple[Phase, ...] = ()
    if threads == 1 and seen.segments and overlaps(board):
        cycles = _core_cycles(seen, board)
        terms, phases = summed_ms(_terms(seen, board, parameters, cycles)), _phases(seen, board, cycles)
    busy: tuple[float, ...] = (sum(terms.values()),)
    if threads > 1:
        course = modelled_course(seen, board, parameters)
        terms, busy = course.term_ms(fit.bandwidth.value if fit else 1.0), course.busy_ms
    return ModelledRun(
        threads=threads,
        core=core,
        misses=misses,
        term_ms=terms,
        calibrated=fit is not None,
        dram_bytes=misses.dram_bytes(board.caches.line_bytes),
        busy_ms=busy,
        phases=phases,
    )


def modelled_regions(profile: Profile, board: Board, threads: int = 1) -> list[RegionTime]:
    """Model each region of a run by itself, in the order they were opened; the arguments are those of `modelled_run`."""
    fit = calibration_of(board)
    parameters, bandwidth = (fit.parameters, fit.bandwidth.value) if fit else ((), 1.0)
    seen = profile.of_thread(profile.thread) if threads == 1 else profile
    worked = _worked(seen, board, parameters)
    found = []
    for region in dict.fromkeys(segment.region for segment in seen.segments):
        misses = sum((segment.misses for segment in seen.segments if segment.region == region), MissCounts())
        course = course_of(seen, board, worked, region)
        terms = course.term_ms(bandwidth) if threads > 1 else course.chain_ms
        found.append(RegionTime(sum(terms.values()), misses))
    return found


def modelled_course(profile: Profile, board: Board, parameters: Sequence[Parameter]) -> Course:
    """Return the course of a run in several threads, with misses priced by these parameters."""
    return course_of(profile, board, _worked(profile, board, parameters))


def phases_of(profile: Profile, board: Board) -> tuple[Phase, ...]:
    """Return a run's phases, summed where memory was about equally busy; none for a core that waits for each miss."""
    return _phases(profile, board, _core_cycles(profile, board)) if overlaps(board) else ()


def _phases(profile: Profile, board: Board, core_cycles: Sequence[float]) -> tuple[Phase, ...]:
    reads, stores = (terms_of(board)[name] for name in ("lines_read", "stores"))
    found: dict[tuple[int, bool], tuple[float, MissCounts]] = {}
    for cycles, segment in zip(core_cycles, profile.segments, strict=True):
        read_ms, stored_ms = reads.amount_ms(board, segment.misses), stores.amount_ms(board, segment.misses)
        busy = (read_ms + stored_ms) * board.clock_hz * 1e-3 / max(cycles, 1)
        kind = round(_STEPS * math.log2(min(max(busy, _LEAST_BUSY), _MOST_BUSY))), read_ms > stored_ms
        others, misses = found.get(kind, (0.0, MissCounts()))
        found[kind] = others + cycles, misses + segment.misses
    return tuple(Phase(round(cycles), misses) for _, (cycles, misses) in sorted(found.items()))


def _core_cycles(profile: Profile, board: Board) -> list[float]:
    """Return each segment's core cycles."""
    cycles = block_cycles(profile.executed(), board, costs_for(board))
    return [sum(cycles[index] * count for index, count in segment.counts.items()) for segment in profile.segments]


def _worked(profile: Profile, board: Board, parameters: Sequence[Parameter]) -> list[dict[str, float]]:
    """Return the terms of each segment's time in milliseconds, without waiting."""
    return _terms(profile, board, parameters, _core_cycles(profile, board))


def _terms(profile: Profile, board: Board, parameters: Sequence[Parameter], core_cycles: Sequence[float]) -> list[dict[str, float]]:
    order = sorted({segment.thread for segment in profile.segments}, key=lambda thread: (thread != profile.thread, thread))
    seen_by = {thread: board.at_clock_of(core) for core, thread in enumerate(order)}
    return [
        term_ms(seen_by[segment.thread], core, segment.misses, parameters)
        for core, segment in zip(core_cycles, profile.segments, strict=True)
    ]
