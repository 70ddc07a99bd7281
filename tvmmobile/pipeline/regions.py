"""Lists the candidate kernels of a job and picks the database whose records price them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tvmmobile.graph.network import Network
from tvmmobile.graph.placed import placed_concatenations
from tvmmobile.graph.tasks import Task
from tvmmobile.pipeline.job import VariantJob, template_accepts
from tvmmobile.running.formats import C
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity
from tvmmobile.tuning.regions import Region, candidate_regions


def regions_of(job: VariantJob, network: Network, candidates: Callable[..., list[Region]] = candidate_regions) -> list[Region]:
    """Return the regions that may become kernels; C libraries lay out their memory and need none for placed concatenations."""
    placed = placed_concatenations(network.module) if job.options.format == C else ()
    return [region for region in candidates(network, template_accepts, job.task) if region.first not in placed]


#: Makes a database; `Database` itself, or one that keeps those that it made.
Reads = Callable[[Identity, tuple[Path, ...], None], Database]


def basis_of(job: VariantJob, database: Database, tasks: Sequence[Task], read: Reads = Database) -> Database:
    """Return the records that price kernels: the device's own, or its twin's if a real board has none for this network; never both, since
    modelled and measured latencies cannot be compared.
    """
    if job.twin is None or any(database.best(task) for task in tasks):
        return database
    return twin_database(job, read)


def twin_database(job: VariantJob, read: Reads = Database) -> Database:
    """Return the records of a real board's twin."""
    assert job.twin is not None
    return read(job.twin, (SHIPPED_LOGS, *job.logs), None)
