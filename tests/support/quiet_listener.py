"""A tuning run's listener for tests."""

from __future__ import annotations

from tvmmobile.tuning.records import Record
from tvmmobile.tuning.search.tuner import SearchListener


class Quiet(SearchListener):
    """A listener that only keeps the records."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def trial_finished(self, record: Record, best: Record | None) -> None:
        """See `SearchListener`."""
        self.records.append(record)
