"""The trials of a kernel: its records, and digests of the schedules whose records a compacted log has dropped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Container, Iterable, Mapping, Set

from tvmmobile.kernels.serial import Schedule, TraceSchedule
from tvmmobile.tuning.compacted import DIGEST_LENGTH, Dropped
from tvmmobile.tuning.records import Record

#: Family of schedules that MetaSchedule sampled, which have no template.
SAMPLED = "metaschedule"


def family(schedule: Schedule) -> str:
    """Return a schedule's family: its template and version, such as `pointwise@2`, or `SAMPLED`."""
    return SAMPLED if isinstance(schedule, TraceSchedule) else f"{schedule.template}@{schedule.version}"


def digest(schedule: Schedule) -> str:
    """Return four characters that identify a schedule among the schedules of its family that were tried for a kernel."""
    knobs = schedule.trace if isinstance(schedule, TraceSchedule) else ",".join(f"{name}={value}" for name, value in schedule.knobs)
    hashed = hashlib.sha256(knobs.encode(errors="surrogatepass")).digest()  # logs may contain lone surrogates
    # 24 bits: with 64 of 10,000 schedules dropped, one space in 26 has an untried schedule whose digest collides.
    return base64.urlsafe_b64encode(hashed).decode()[:DIGEST_LENGTH]


class Trials:
    """The schedules that were tried for one kernel, without duplicates.

    Attributes:
        records: records in the order in which they were made.
        dropped: digests of schedules that were tried but no longer have a record, by family.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.dropped: dict[str, set[str]] = {}
        self._numbers: dict[Schedule, int] = {}

    def __len__(self) -> int:
        """Return the number of schedules that were tried."""
        return len(self.records) + sum(map(len, self.dropped.values()))

    def add(self, records: Iterable[Record], dropped: Dropped = ()) -> None:
        """Add the content of a log's line; of two records of a schedule the first is kept, unless the second was measured `again`."""
        before = len(self)
        recorded = {(family(record.schedule), digest(record.schedule)) for record in self.records} if dropped else ()
        for name, digests in dropped:
            self.dropped.setdefault(name, set()).update(code for code in digests if (name, code) not in recorded)
        for record in records:
            if record.schedule not in self._numbers:
                if self.dropped:
                    self.dropped.get(family(record.schedule), set()).discard(digest(record.schedule))
                self._numbers[record.schedule] = before + record.trial if record.trial else len(self) + 1
                self.records.append(record)
            elif record.again:
                self.records = [record if earlier.schedule == record.schedule else earlier for earlier in self.records]

    def has(self, schedule: Schedule) -> bool:
        """Return whether a schedule was tried."""
        if schedule in self._numbers:
            return True
        return bool(self.dropped) and digest(schedule) in self.dropped.get(family(schedule), ())

    def dropped_of(self, template: str, version: int) -> int:
        """Return the number of a template's schedules that were tried but no longer have a record."""
        return len(self.dropped.get(f"{template}@{version}", ()))

    def listed_dropped(self) -> Dropped:
        """Return `dropped` in the form that log lines have."""
        return _as_lines(self.dropped)

    def dropped_without(self, kept: Container[object]) -> Dropped:
        """Return what `dropped` would be if only the records of the schedules `kept` were kept."""
        dropped = {name: set(digests) for name, digests in self.dropped.items()}
        for record in self.records:
            if record.schedule not in kept:
                dropped.setdefault(family(record.schedule), set()).add(digest(record.schedule))
        return _as_lines(dropped)

    def number(self, record: Record) -> int:
        """Return a record's number among the kernel's trials, from 1."""
        return min(self._numbers[record.schedule], len(self))

    def course(self) -> list[tuple[int, float]]:
        """Return the search's progress as (number of trials, best latency in microseconds so far) at each improvement and at the end."""
        points: list[tuple[int, float]] = []
        for record in self.records:
            if record.latency_us is not None and (not points or record.latency_us < points[-1][1]):
                points.append((self.number(record), record.latency_us))
        return [*points, (len(self), points[-1][1])] if points and points[-1][0] < len(self) else points


def _as_lines(dropped: Mapping[str, Set[str]]) -> Dropped:
    return tuple((name, frozenset(digests)) for name, digests in dropped.items() if digests)
