"""Measures kernels again by themselves if their time in the network contradicts their record, and corrects the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tvmmobile.graph.tasks import Task
from tvmmobile.results.file import Results
from tvmmobile.results.report.kernel_rows import far_off, is_far
from tvmmobile.running.bench import Bench
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Record
from tvmmobile.tuning.search.tuner import TrialAssignment, measured, record_of


def doubted(results: Results, database: Database, tasks: Mapping[Task, str | None]) -> dict[Task, Record]:
    """Return the records that a run contradicts, by task (`tasks` has all of them), except those already measured again."""
    by_name = {task.name: task for task in tasks}
    found = {}
    for kernel in (kernel for variant in results.variants for kernel in far_off(variant)):
        task = by_name.get(kernel.name)
        record = None if task is None else database.best(task)
        if task is not None and record is not None and not record.again and str(record.schedule) == kernel.schedule:
            found[task] = record
    return found


def measure_again(
    records: Mapping[Task, Record], database: Database, tasks: Mapping[Task, str | None], bench: Bench, message: Callable[[str], None]
) -> bool:
    """Measure records' schedules once more and log the results; return whether any record was false, that is, far from its new latency.

    `tasks` has opaque tasks' TIR functions as JSON text. Raises `DeviceUnavailable` if the device disconnected and did not return.
    """
    false = False
    for task, old in records.items():
        ((job, outcome),) = measured([(TrialAssignment(task, tasks[task], (), 0, 1), old.schedule)], bench)
        new = replace(record_of(job, outcome), again=True)
        database.append([new])
        assert old.latency_us is not None
        wrong = new.latency_us is None or is_far(old.latency_us, new.latency_us)
        now = f"{new.latency_us:.1f} us {bench.profile.origin.kind}" if new.latency_us is not None else f"failed, {new.error}"
        verdict = "the record was false and no longer counts" if wrong else "the record stands, and the network is what differs"
        message(f"{task.name}: timed again, {now}; its record says {old.latency_us:.1f} us: {verdict}.")
        false |= wrong
    return false
