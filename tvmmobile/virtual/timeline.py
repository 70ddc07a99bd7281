"""Places several threads' segments on a time axis, each after its predecessors, with one shared memory.

A segment begins when its thread's previous one has ended and the segment that it waits for has begun, plus a handover: the line's
invalidation and its transfer between two cores, each assumed to take as long as an access to the level that the cores share. The last
segment of the thread that opened the region ends it. Then memory: as long as all threads together ask for more bytes per second than it can
deliver, all of them wait. What it can deliver is fitted, as a share of what one core reads and writes in a copy of large arrays.
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
    """The course of a run.

    Attributes:
        chain_ms: time of each term along the chain of segments that nothing could start earlier, by name; then `handover` for the time
            of passing work between cores.
        busy_ms: working time of each thread, longest first.
        traffic: (ms, bytes per ms): how long all threads together asked for how much, where they asked for any.
        copied: bytes a millisecond that one core reads and writes in a copy.
    """

    chain_ms: dict[str, float]
    busy_ms: tuple[float, ...]
    traffic: tuple[tuple[float, float], ...]
    copied: float

    def term_ms(self, bandwidth: float) -> dict[str, float]:
        """Return the terms of the run's time; the last is `bandwidth`, the time that all threads wait for memory.

        Args:
            bandwidth: memory's rate for all cores together, as a share of `copied`.
        """
        most = bandwidth * self.copied
        return self.chain_ms | {"bandwidth": sum(ms * max(0.0, rate / most - 1) for ms, rate in self.traffic)}


def course_of(profile: Profile, board: Board, worked: Sequence[Mapping[str, float]], region: int | None = None) -> Course:
    """Put the segments of a region on a time axis, by default those of all regions, one after the other.

    `worked` has the terms of each segment's time in milliseconds, without waiting.
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
    cause: dict[int, tuple[int | None, bool]] = {}  # the segment whose end, or beginning (True), a segment waited for
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
    whole = True  # the segment counts up to its end, not only up to its beginning
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
    """Return spans of time with all threads' bytes per millisecond, spreading each segment's traffic evenly."""
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
