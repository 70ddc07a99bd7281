"""Predicts a library's latency on a device from tuning logs alone, as the sum over the kernels of its plan of their records' latencies, or
of estimates from the nearest records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from tvmmobile.choosing.sizes import planned_sizes
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.planning import tasks_of
from tvmmobile.pipeline.regions import basis_of
from tvmmobile.pipeline.variant import import_model, prepare_variant
from tvmmobile.tuning.choice import plan_by_records
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.regions import VariantTasks
from tvmmobile.tuning.search.nearest import estimated_us


@dataclass(frozen=True)
class PlannedLatency:
    """A library's latency, predicted from records.

    Attributes:
        latency_us: sum of the latencies of its kernels' records, and of estimates from the nearest shapes for kernels without a record, in
            microseconds; `None` if a kernel can neither be found nor estimated.
        kernels: number of kernels in the plan.
        unmeasured: number of kernels without a record.
        memory_bytes, weight_bytes: see `PlannedSizes`.
        estimated_us: the estimated part of `latency_us`.
    """

    latency_us: float | None
    kernels: int
    unmeasured: int
    memory_bytes: int
    weight_bytes: int
    estimated_us: float = 0.0


def tasks_of_all(jobs: Sequence[VariantJob]) -> list[VariantTasks]:
    """Return the candidate kernels of several libraries of one network, importing it once; runs in a worker."""
    imported = import_model(jobs[0].model)
    return [tasks_of(job, prepare_variant(job, with_reference=False, imported=imported).network) for job in jobs]


class Prices:
    """Prices libraries from the tuning logs, reading each log once."""

    def __init__(self) -> None:
        self._read, self._estimated_us = cache(Database), cache(estimated_us)

    def latency(self, job: VariantJob, tasks: VariantTasks) -> PlannedLatency:
        """Plan a library with its candidate kernels, and predict its latency."""
        own = self._read(job.identity, job.logs, None)
        basis = basis_of(job, own, [region.task for region in tasks.regions], self._read)
        steps = plan_by_records(tasks.nodes, tasks.regions, basis).steps
        sizes = planned_sizes(steps, tasks.wiring)
        recorded = [step.price.latency_us for step in steps if step.price.latency_us is not None]
        unrecorded = [self._estimated_us(step.task, basis) for step in steps if step.price.latency_us is None]
        estimates = [estimate for estimate in unrecorded if estimate is not None]
        latency_us = math.fsum([*recorded, *estimates]) if len(estimates) == len(unrecorded) else None
        return PlannedLatency(
            latency_us, len(steps), len(unrecorded), sizes.memory_bytes, sizes.weight_bytes, math.fsum(estimates) if latency_us else 0.0
        )
