"""Schedules the segments of several threads on a timeline, each after its predecessors, with one shared memory.

A segment begins when its thread's previous one has ended and the segment for which it waits has begun, plus a handover: the invalidation
of a line and its transfer between two cores, each assumed to take as long as an access to the cache level that the cores share. The region
ends with the last segment of the thread that opened it. Then memory is added: while all threads together request more bytes per second
than it can deliver, all of them wait. Its bandwidth is fitted, relative to the reads and writes of one core's copy of large arrays.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvmmobile.virtual.board import Board
from tvmmobile.virtual.profile import Profile, Segment

#: Raise this with every change of a number here.
TIMELINE_VERSION = 1


@dataclass(frozen=True)
class Course:
    """The timeline of a run.

    Attributes:
        chain_ms: time of each term along the critical path of segments, by name; then `handover`, the time of passing work between cores.
        busy_ms: working time of each thread, longest first.
        traffic: spans of time as (ms, bytes per ms), with the memory traffic that all threads together request.
        copied: bytes per ms that one core reads and writes in a copy.
    """

    chain_ms: dict[str, float]
    busy_ms: tuple[float, ...]
    traffic: tuple[tuple[float, float], ...]
    copied: float

    def term_ms(self, bandwidth: float) -> dict[str, float]:
        """Return the terms of the run's time in milliseconds; the last is `bandwidth`, for which all threads wait for memory.

        Args:
            bandwidth: memory bandwidth for all cores together, relative to `copied`.
        """
        most = bandwidth * self.copied
        return self.chain_ms | {"bandwidth": sum(ms * max(0.0, rate / most - 1) for ms, rate in self.traffic)}


def course_of(profile: Profile, board: Board, worked: Sequence[Mapping[str, float]], region: int | None = None) -> Course:
    """Return the timeline of a region, or by default of all regions one after the other.

    Args:
        worked: terms of each segment's time in milliseconds, without waiting.
        region: number of the region.
    """
    terms: defaultdict[str, float] = defaultdict(float)
    busy: defaultdict[int, float] = defaultdict(float)
    traffic: list[tuple[float, float]] = []
    members_of: defaultdict[int, list[int]] = defaultdict(list)
    for i, segment in enumerate(profile.segments):
        if region in (None, segment.region):
            members_of[segment.region].append(i)
    for members in members_of.values():
        chain, requested = _region_course(members, profile, board, worked)
        traffic += requested
        for name, ms in chain.items():
            terms[name] += ms
        for i in members:
            busy[profile.segments[i].thread] += sum(worked[i].values())
    return Course(dict(terms), tuple(sorted(busy.values(), reverse=True)), tuple(traffic), 2 * board.memory.copy_bytes_per_s * 1e-3)


def _region_course(
    members: Sequence[int], profile: Profile, board: Board, worked: Sequence[Mapping[str, float]]
) -> tuple[dict[str, float], list[tuple[float, float]]]:
    segments, handover = profile.segments, _handover_ms(board)
    begins: dict[int, float] = {}
    ends: dict[int, float] = {}
    cause: dict[int, tuple[int | None, bool]] = {}  # the segment for whose end, or (True) for whose beginning, a segment waited
    latest: dict[int, int] = {}
    for i in members:
        before = latest.get(segments[i].thread)
        begins[i], cause[i] = (ends[before] if before is not None else 0.0), (before, False)
        other = segments[i].after - 1
        if other in begins and begins[other] + handover > begins[i]:
            begins[i], cause[i] = begins[other] + handover, (other, True)
        ends[i] = begins[i] + sum(worked[i].values())
        latest[segments[i].thread] = i
    terms = dict.fromkeys(worked[members[0]], 0.0) | {"handover": 0.0}
    at: int | None = latest[profile.thread]
    whole = True  # whether the next segment on the path waited for this one's end, not only for its beginning
    while at is not None:
        if whole:
            for name, ms in worked[at].items():
                terms[name] += ms
        at, began = cause[at]
        whole = not began
        terms["handover"] += handover if began else 0.0
    return terms, _traffic([(begins[i], ends[i], segments[i]) for i in members], board, ends[latest[profile.thread]])


def _handover_ms(board: Board) -> float:
    caches = board.caches
    return 2 * (caches.l3_cycles if caches.has_l3 else caches.l2_cycles) / board.clock_hz * 1e3


def _traffic(spans: Sequence[tuple[float, float, Segment]], board: Board, end: float) -> list[tuple[float, float]]:
    """Return spans of time as (ms, bytes per ms) of all threads, with each segment's traffic spread evenly."""
    steps: defaultdict[float, float] = defaultdict(float)
    for begin, stop, segment in spans:
        stop = min(stop, end)
        if stop > begin:
            rate = (segment.misses.fills + segment.misses.write_backs) * board.caches.line_bytes / (stop - begin)
            steps[begin] += rate
            steps[stop] -= rate
    spans_of_traffic, rate = [], 0.0
    for place, following in itertools.pairwise(sorted(steps)):
        rate += steps[place]
        spans_of_traffic.append((following - place, rate))
    return spans_of_traffic
