"""Explains a disagreement by roundings, or by the first value that differs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tvmmobile.pipeline.checking import MOST_CHECK_S
from tvmmobile.pipeline.diagnosis import Difference, explain
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.movement import note_rounding, rounding_of
from tvmmobile.pipeline.sentences import rounding_sentence
from tvmmobile.pipeline.stages.jobs import Progress, build_timeout_s
from tvmmobile.system.errors import Disagreement
from tvmmobile.system.workers import WorkerPool


def accept_roundings(error: Disagreement, workers: WorkerPool, jobs: Sequence[VariantJob], message: Progress) -> None:
    """Widen the tolerance of the library that made an error, because roundings move its outputs that far.

    Args:
        message: called with a sentence about it.

    Raises:
        Disagreement: roundings do not explain the error. It names where the values differ first, if one of `jobs` made the library.
    """
    blamed, timeout_s = [job for job in jobs if job.library.path.name == error.library][:1], build_timeout_s(jobs) + MOST_CHECK_S
    moves = 0.0
    for job, most in workers.run(rounding_of, blamed, timeout_s):
        moves = most if isinstance(most, float) else 0.0
        if note_rounding(job.library, moves):
            message(rounding_sentence(job.library.spec.variant, moves))
            return
    for _, first in workers.run(partial(explain, moves=moves), blamed, timeout_s):
        if isinstance(first, Difference):
            text = f"{error.as_typed[0].rstrip('.')}; {first.where}."
            raise Disagreement(text, first.remedy, error.library) from None
    raise error
