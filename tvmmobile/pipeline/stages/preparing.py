"""Prepares a run's networks in worker processes and collects their candidate kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.known_tasks import keep_tasks
from tvmmobile.pipeline.planning import variant_tasks
from tvmmobile.pipeline.stages.jobs import Progress, build_timeout_s, succeeded
from tvmmobile.system.workers import WorkerPool
from tvmmobile.tuning.regions import VariantTasks


def collect_variants(workers: WorkerPool, jobs: Sequence[VariantJob], progress: Progress) -> list[VariantTasks]:
    """Prepare every variant; return their candidate kernels in the order of `jobs`. Raises `UserError` where one cannot be imported."""
    found: dict[ModelSpec, VariantTasks] = {}
    # Logs need not travel, unless layers are chosen by their latency.
    preparing = [replace(job, logs=() if job.options.max_drop is None else job.logs, returns_prepared=True) for job in jobs]
    for job, tasks in workers.run(variant_tasks, preparing, build_timeout_s(jobs)):
        found[job.spec] = succeeded(tasks, f"importing {job.spec.variant}")
        progress(job.spec.variant)
    for job in jobs:
        keep_tasks(job, found[job.spec])
    return [found[job.spec] for job in jobs]
