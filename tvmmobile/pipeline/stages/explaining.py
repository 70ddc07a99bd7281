"""A disagreement → the same, with the first value that differs, unless roundings explain it."""

from __future__ import annotations

from collections.abc import Sequence

from tvmmobile.pipeline.checking import MOST_CHECK_S
from tvmmobile.pipeline.diagnosis import explain
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.movement import note_rounding, rounding_of, rounding_sentence
from tvmmobile.pipeline.stages.jobs import Progress, build_timeout_s
from tvmmobile.system.errors import Disagreement
from tvmmobile.system.workers import WorkerPool


def explained(error: Disagreement, workers: WorkerPool, jobs: Sequence[VariantJob]) -> Disagreement:
    """Return the same error, which also names where the library's values differ first, if one of `jobs` made it."""
    for _, first in workers.run(explain, _blamed(error, jobs), build_timeout_s(jobs) + MOST_CHECK_S):
        if isinstance(first, str) and first:
            return Disagreement(f"{error.as_typed[0].rstrip('.')}; {first}.", "Please report this with the network.", error.library)
    return error


def rounded(error: Disagreement, workers: WorkerPool, jobs: Sequence[VariantJob], said: Progress) -> bool:
    """Return whether the library that made an error has a wider tolerance now, because roundings move its outputs; `said` hears of it."""
    for job, most in workers.run(rounding_of, _blamed(error, jobs), build_timeout_s(jobs) + MOST_CHECK_S):
        if isinstance(most, float) and note_rounding(job.library, most):
            said(rounding_sentence(job.library.spec.variant, most))
            return True
    return False


def _blamed(error: Disagreement, jobs: Sequence[VariantJob]) -> list[VariantJob]:
    """Return the job whose library made an error, if one did."""
    return [job for job in jobs if job.library.path.name == error.library][:1]
