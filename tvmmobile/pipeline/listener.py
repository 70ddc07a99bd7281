"""What wants to know how a run goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from tvmmobile.tuning.search.tuner import Assignment, SearchListener

if TYPE_CHECKING:
    from tvmmobile.pipeline.tune import TuningPlan


class Listener(SearchListener):
    """Hears how a run goes, and does nothing: derive from it what you need. Every call comes from the thread that started the run."""

    def stage(self, what: str, total: int) -> AbstractContextManager[Callable[[str], None]]:
        """A stage (`importing`, `compiling` or `verifying`) while the context lasts; call what it yields with each finished item's name."""
        return nullcontext(lambda _item: None)

    def planned(self, plan: TuningPlan) -> None:
        """Networks are imported, and it is known what the logs lack."""

    def searching(self, assignments: Sequence[Assignment], kind: str) -> AbstractContextManager[SearchListener]:
        """A search while the context lasts, with latencies of that kind, e.g. `modelled`; what it yields hears of kernels and trials."""
        return nullcontext(self)

    def said(self, remark: str) -> None:
        """A sentence about the run."""


#: For whoever does not want to know.
QUIET = Listener()
