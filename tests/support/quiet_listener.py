"""A tuning run's listener for tests."""

from __future__ import annotations

from tvmmobile.tuning.records import Record
from tvmmobile.tuning.search.tuner import TrialBudget


class Quiet:
    """A listener that only keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def kernel_started(self, assignment: TrialBudget) -> None:
        """See `SearchListener`."""

    def trial_finished(self, record: Record, best: Record | None) -> None:
        """See `SearchListener`."""
        self.records.append(record)

    def kernel_finished(self, assignment: TrialBudget, best: Record | None) -> None:
        """See `SearchListener`."""
