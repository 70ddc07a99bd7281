"""Computes a region's modelled time, term by term, from the plugin's counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvmmobile.virtual.board import Board
from tvmmobile.virtual.calibration.fit import Phase, calibration_of
from tvmmobile.virtual.calibration.terms import Parameter, overlaps, summed_ms, term_ms, terms_of
from tvmmobile.virtual.cores.core_model import CoreTime, block_cycles
from tvmmobile.virtual.cores.corrected import corrected_time, costs_for
from tvmmobile.virtual.profile import MissCounts, Profile
from tvmmobile.virtual.timeline import Course, course_of

#: Resolution of phases: steps per octave of the ratio of memory time to core time, and bounds of this ratio.
_STEPS, _LEAST_BUSY, _MOST_BUSY = 2, 1 / 16, 16


@dataclass(frozen=True)
class ModelledRun:
    """A region's modelled time and its parts.

    Attributes:
        threads: number of threads, each on a core of its own.
        core: corrected core cycles, instructions and the hottest blocks, of all threads together.
        misses: misses of all threads together.
        term_ms: terms of the modelled time by name: `core` and the kinds of misses of one thread or, with several, along the critical path
            of segments, then `handover` and `bandwidth` (timeline.py). A board whose core is not calibrated only has `core` and, with
            several threads, `handover` and `bandwidth`.
        calibrated: true if the modelled time includes misses.
        dram_bytes: bytes read from memory and written back to it.
        busy_ms: working time of each thread in milliseconds, longest first.
        phases: phases of the modelled thread, see `phases_of`; empty with several threads.
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


def modelled_run(profile: Profile, board: Board, threads: int = 1, hottest: int = 0) -> ModelledRun:
    """Model a region of a run whose caches were simulated with the board's figures.

    Args:
        threads: 1 models the thread that opened the region; more model all threads, each on a core of its own: the opening thread on the
            first core, which is the fastest, and the others on the next cores, in the order of their numbers.
        hottest: number of the hottest blocks to return.
    """
    fit = calibration_of(board)
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
    """Model each region of a run by itself, in the order in which they were opened; see `modelled_run` for the arguments."""
    fit = calibration_of(board)
    parameters, bandwidth = (fit.parameters, fit.bandwidth.value) if fit else ((), 1.0)
    seen = profile.of_thread(profile.thread) if threads == 1 else profile
    worked = _worked(seen, board, parameters)
    regions = []
    for region in dict.fromkeys(segment.region for segment in seen.segments):
        misses = sum((segment.misses for segment in seen.segments if segment.region == region), MissCounts())
        course = course_of(seen, board, worked, region)
        terms = course.term_ms(bandwidth) if threads > 1 else course.chain_ms
        regions.append(RegionTime(sum(terms.values()), misses))
    return regions


def modelled_course(profile: Profile, board: Board, parameters: Sequence[Parameter]) -> Course:
    """Return the timeline of a run with several threads, with misses priced by `parameters`."""
    return course_of(profile, board, _worked(profile, board, parameters))


def phases_of(profile: Profile, board: Board) -> tuple[Phase, ...]:
    """Return a run's phases, those with similar ratios of memory to core time added up; none for cores that do not overlap the two."""
    return _phases(profile, board, _core_cycles(profile, board)) if overlaps(board) else ()


def _phases(profile: Profile, board: Board, core_cycles: Sequence[float]) -> tuple[Phase, ...]:
    reads, stores = (terms_of(board)[name] for name in ("lines_read", "stores"))
    sums: dict[tuple[int, bool], tuple[float, MissCounts]] = {}
    for cycles, segment in zip(core_cycles, profile.segments, strict=True):
        read_ms, stored_ms = reads.amount_ms(board, segment.misses), stores.amount_ms(board, segment.misses)
        busy = (read_ms + stored_ms) * board.clock_hz * 1e-3 / max(cycles, 1)
        kind = round(_STEPS * math.log2(min(max(busy, _LEAST_BUSY), _MOST_BUSY))), read_ms > stored_ms
        total, misses = sums.get(kind, (0.0, MissCounts()))
        sums[kind] = total + cycles, misses + segment.misses
    return tuple(Phase(round(cycles), misses) for _, (cycles, misses) in sorted(sums.items()))


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
