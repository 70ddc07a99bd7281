"""A disagreement → the same, with the first value that differs."""

from __future__ import annotations

from collections.abc import Sequence

from tvmmobile.pipeline.checking import MOST_CHECK_S
from tvmmobile.pipeline.diagnosis import explain
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.stages.jobs import build_timeout_s
from tvmmobile.system.errors import Disagreement
from tvmmobile.system.workers import WorkerPool


def explained(error: Disagreement, workers: WorkerPool, jobs: Sequence[VariantJob]) -> Disagreement:
    """Return the same error, which also names where the library's values differ first, if one of `jobs` made it."""
    blamed = [job for job in jobs if error.message.startswith(f"{job.library.path.name} disagrees ")]
    for _, first in workers.run(explain, blamed[:1], build_timeout_s(jobs) + MOST_CHECK_S):
        if isinstance(first, str) and first:
            return Disagreement(f"{error.as_typed[0].rstrip('.')}; {first}.", "Please report this with the network.")
    return error
