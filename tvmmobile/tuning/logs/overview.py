"""What a tuning log holds, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from tvmmobile.tuning.database import Identity, Record
from tvmmobile.tuning.logs.inspection import Log


@dataclass(frozen=True)
class Share:
    """The records of a log that are comparable, of one device, timing model and TVM version: how many there are, failed ones included,
    of how many kernels, and the lowest latency in microseconds, `None` where every record failed.
    """

    identity: Identity
    dtype: str
    threads: int
    kernels: int
    records: int
    failed: int
    best_us: float | None


def shares(log: Log) -> list[Share]:
    """A log's records by identity, in the order in which they first come; lines that do not belong there are left out."""
    by_identity: dict[Identity, list[Record]] = {}
    for line in log.lines:
        if line.identity is not None and line.record is not None and not line.fault:
            by_identity.setdefault(line.identity, []).append(line.record)
    return [_share(identity, records) for identity, records in by_identity.items()]


def _share(identity: Identity, records: list[Record]) -> Share:
    latencies = [record.latency_us for record in records if record.latency_us is not None]
    task = records[0].task
    return Share(
        identity=identity,
        dtype=task.dtype,
        threads=task.threads,
        kernels=len({record.task for record in records}),
        records=len(records),
        failed=len(records) - len(latencies),
        best_us=min(latencies, default=None),
    )
