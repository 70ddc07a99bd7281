"""The trials of a kernel: records, and digests of schedules whose records a compacted log has dropped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Container, Iterable, Mapping, Set

from tvmmobile.kernels.serial import Schedule, TraceSchedule
from tvmmobile.tuning.compacted import DIGEST_LENGTH, Dropped
from tvmmobile.tuning.records import Record

#: The family of schedules sampled by MetaSchedule, which have no template.
SAMPLED = "metaschedule"


def family(schedule: Schedule) -> str:
    """Return the key for a schedule's digest: its template with version, such as `pointwise@2`."""
    return SAMPLED if isinstance(schedule, TraceSchedule) else f"{schedule.template}@{schedule.version}"


def digest(schedule: Schedule) -> str:
    """Return four characters that identify a schedule among those of its template tried for a kernel."""
    knobs = schedule.trace if isinstance(schedule, TraceSchedule) else ",".join(f"{name}={value}" for name, value in schedule.knobs)
    hashed = hashlib.sha256(knobs.encode(errors="surrogatepass")).digest()  # a file may hold half of a surrogate pair
    # 24 bits: where 64 of 10,000 schedules were dropped, one space in 26 has an untried one that looks like one of them.
    return base64.urlsafe_b64encode(hashed).decode()[:DIGEST_LENGTH]


class Trials:
    """Schedules tried for one kernel, each once.

    Attributes:
        records: records in the order they were made.
        dropped: digests of schedules that were tried and no longer have a record, by family.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.dropped: dict[str, set[str]] = {}
        self._numbers: dict[Schedule, int] = {}

    def __len__(self) -> int:
        """Return how many schedules were tried."""
        return len(self.records) + sum(map(len, self.dropped.values()))

    def add(self, records: Iterable[Record], dropped: Dropped = ()) -> None:
        """Add the content of a log's line; of two records of a schedule the first counts, unless the second was measured `again`."""
        before = len(self)
        known = {(family(record.schedule), digest(record.schedule)) for record in self.records} if dropped else ()
        for name, digests in dropped:
            self.dropped.setdefault(name, set()).update(one for one in digests if (name, one) not in known)
        for record in records:
            if record.schedule not in self._numbers:
                if self.dropped:
                    self.dropped.get(family(record.schedule), set()).discard(digest(record.schedule))
                self._numbers[record.schedule] = before + record.trial if record.trial else len(self) + 1
                self.records.append(record)
            elif record.again:
                self.records = [record if one.schedule == record.schedule else one for one in self.records]

    def has(self, schedule: Schedule) -> bool:
        """Return whether a schedule was tried."""
        if schedule in self._numbers:
            return True
        return bool(self.dropped) and digest(schedule) in self.dropped.get(family(schedule), ())

    def dropped_of(self, template: str, version: int) -> int:
        """Return how many schedules of a template were tried and no longer have a record."""
        return len(self.dropped.get(f"{template}@{version}", ()))

    def listed_dropped(self) -> Dropped:
        """Return `dropped` in the form of a log's lines."""
        return _as_lines(self.dropped)

    def dropped_without(self, kept: Container[object]) -> Dropped:
        """Return `dropped` after keeping only records of these schedules."""
        dropped = {name: set(digests) for name, digests in self.dropped.items()}
        for record in self.records:
            if record.schedule not in kept:
                dropped.setdefault(family(record.schedule), set()).add(digest(record.schedule))
        return _as_lines(dropped)

    def number(self, record: Record) -> int:
        """Return the number of a record among the kernel's trials, from 1."""
        return min(self._numbers[record.schedule], len(self))

    def course(self) -> list[tuple[int, float]]:
        """Return (trials so far, best latency in microseconds by then), where that improved and at the end."""
        found: list[tuple[int, float]] = []
        for record in self.records:
            if record.latency_us is not None and (not found or record.latency_us < found[-1][1]):
                found.append((self.number(record), record.latency_us))
        return [*found, (len(self), found[-1][1])] if found and found[-1][0] < len(self) else found


def _as_lines(dropped: Mapping[str, Set[str]]) -> Dropped:
    return tuple((name, frozenset(digests)) for name, digests in dropped.items() if digests)
