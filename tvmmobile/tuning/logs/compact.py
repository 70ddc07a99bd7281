"""Compacts logs: keeps, for each kernel, the records that a later search or plan can use, and digests of the other schedules tried."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tvmmobile.graph.tasks import Task
from tvmmobile.system.arguments import one_or_several
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.compacted import Dropped
from tvmmobile.tuning.logs.directories import own_logs, present_identity
from tvmmobile.tuning.logs.files import append_whole, content_of, locked, replace_log
from tvmmobile.tuning.logs.inspection import Log, files_of, inspect
from tvmmobile.tuning.logs.verify import cut_file, joined_lines
from tvmmobile.tuning.records import Identity, KnownTasks, Record, encoded, encoded_kernel, usable
from tvmmobile.tuning.trials import Trials, family

#: Number of a kernel's fastest records that are kept, and their largest latency as a multiple of the fastest: under a changed timing model,
#: none of the others would become the fastest.
KEPT, SLOWEST = 8, 1.1


@dataclass(frozen=True)
class CompactedLog:
    """The outcome of compacting a log.

    Attributes:
        found: the log before.
        records, dropped, size: number of records, number of schedules without a record, and bytes; each before and after.
        kernels: number of kernels.
        backup: path of the old log; `None` if nothing was written because the content is the same, or in a dry run.
    """

    found: Log
    records: tuple[int, int]
    dropped: tuple[int, int]
    size: tuple[int, int]
    kernels: int
    backup: Path | None


@dataclass(frozen=True)
class _Compacted:
    """The new content of a log, with its numbers of records, of schedules without a record, and of kernels."""

    content: bytes
    records: int
    dropped: int
    kernels: int


def compact_logs(paths: str | Path | Sequence[str | Path] = (), *, keep: int = KEPT, dry_run: bool = False) -> list[CompactedLog]:
    """Compact tuning logs.

    Of each kernel and timing model the `keep` fastest records stay that are within 10 % of the fastest, the fastest of each template, and
    each that was the fastest when it was made: the search's progress. Of all others, only the fact that they were tried is kept. Bad lines
    are cut, as `verify_logs` does with `repair`. Each log is written whole or not at all.

    Args:
        paths: one or several: log files, folders of devices, or directories of such folders; without any, the user's own logs.
        keep: most of the fastest records to keep of each kernel and timing model.
        dry_run: true to report what would change, and write nothing.

    Returns:
        Each log's numbers of records and bytes, before and after.

    Raises:
        UserError: there are no logs, or one cannot be read or written; the others are compacted up to there.
    """
    check_keep(keep)
    places = [Path(path) for path in one_or_several(paths)] or [own_logs()]
    return [compact(path, present_identity(path.parent.name), keep, dry_run) for path in files_of(places)]


def check_keep(keep: int) -> None:
    """Raise `UserError` if `keep` is less than 1."""
    if keep < 1:
        raise UserError(f"{keep} records cannot be kept of a kernel.", "Give --keep 1 or more.")


def compact(path: Path, present: Identity | None, keep: int, dry_run: bool = False) -> CompactedLog:
    """Compact one log; see `compact_logs`. `present` is its device's current identity, if known."""
    content = content_of(path)
    found = inspect(path, present, content) if dry_run else inspect(path, present)
    new = _compacted(found, keep)
    if found.foreign or dry_run or (new.content == content and not found.faults):
        return _outcome(found, new, len(content), None)
    with locked(path, f"{path} cannot be compacted", "The log is as it was; give yourself access, or free some disk space."):
        content = content_of(path)
        found = inspect(path, present, content)  # read again under the lock
        new = _compacted(found, keep)
        # Cut lines are saved first: after a crash in between, a line is in both files rather than in neither.
        if found.faults:
            append_whole(cut_file(path), joined_lines([line.text for line in found.faults]))
        return _outcome(found, new, len(content), replace_log(path, new.content))


def _outcome(found: Log, new: _Compacted, size: int, backup: Path | None) -> CompactedLog:
    held = [line.counted for line in found.lines if line.counted is not None]
    records, dropped = sum(len(line.records) for line in held), sum(len(digests) for line in held for _, digests in line.dropped)
    return CompactedLog(found, (records, new.records), (dropped, new.dropped), (size, len(new.content)), new.kernels, backup)


def _compacted(log: Log, keep: int) -> _Compacted:
    """Return the compacted log, with one line per kernel and identity, in order of first occurrence; lines of a later version are last."""
    kernels: dict[tuple[Identity, Task], Trials] = {}
    times: dict[tuple[Identity, Task], str] = {}
    for held in (line.counted for line in log.lines if line.counted is not None):
        key = held.identity, held.task
        kernels.setdefault(key, Trials()).add(held.records, held.dropped)
        times[key] = max(times.get(key, ""), held.when)
    text, records, dropped, known = [], 0, 0, KnownTasks()
    for (identity, task), trials in kernels.items():
        kept, others, again = _sorted_out(trials, keep, known)
        if kept or others:
            text.append(encoded_kernel(identity, task, kept, others, times[identity, task]))
        text += [encoded(identity, record) for record in again]
        records += len(kept) + len(again)
        dropped += sum(len(digests) for _, digests in others)
    later = joined_lines([line.text for line in log.lines if line.is_later])
    return _Compacted("".join(text).encode() + later, records, dropped, len({task for _, task in kernels}))


def _sorted_out(trials: Trials, keep: int, known: KnownTasks) -> tuple[list[Record], Dropped, list[Record]]:
    """Return the kept records with their trial numbers, the digests of the others, and the records that were measured again."""
    again = [record for record in trials.records if record.again]
    others = [record for record in trials.records if not record.again]
    can_be_built = {record.schedule for record in others if usable(record, known)}
    wanted = set[object]()
    for built in (True, False):  # fast schedules of another version say nothing about this version's
        wanted |= _wanted([record for record in others if (record.schedule in can_be_built) == built], keep)
    kept = [record for record in others if record.schedule in wanted]
    dropped = trials.dropped_without(wanted | {record.schedule for record in again})
    repeated = list(map(trials.number, again))
    numbers = [number - sum(repetition < number for repetition in repeated) for number in map(trials.number, kept)]
    numbers = _distinct(numbers, len(kept) + sum(len(digests) for _, digests in dropped))
    kept = [replace(record, trial=number) for record, number in zip(kept, numbers, strict=True)]
    return kept, dropped, again


def _distinct(numbers: list[int], most: int) -> list[int]:
    """Adjust trial numbers to be strictly increasing and at most `most`: overlapping logs count trials twice."""
    for place, number in enumerate(numbers):
        numbers[place] = max(number, numbers[place - 1] + 1 if place else 1)
    for place in reversed(range(len(numbers))):
        numbers[place] = min(numbers[place], most)
        most = numbers[place] - 1
    return numbers


def _wanted(records: Sequence[Record], keep: int) -> set[object]:
    """Return the schedules whose records are kept."""
    good = [(record.latency_us, str(record.schedule), record) for record in records if record.latency_us is not None]
    ranked = [record for _, _, record in sorted(good, key=lambda entry: entry[:2])]
    wanted = {record.schedule for record in ranked[:keep] if (record.latency_us or 0.0) <= SLOWEST * (ranked[0].latency_us or 0.0)}
    first: dict[str, Record] = {}
    for record in ranked:
        first.setdefault(family(record.schedule), record)
    return wanted | {record.schedule for record in (*first.values(), *_improvements(records))}


def _improvements(records: Iterable[Record]) -> list[Record]:
    """Return the records that were the fastest when they were made."""
    fastest: list[Record] = []
    for record in records:
        if record.latency_us is not None and (not fastest or record.latency_us < (fastest[-1].latency_us or 0.0)):
            fastest.append(record)
    return fastest
