"""Lists the candidate kernels of a job and picks the database whose records price them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvmmobile.graph.network import Network
from tvmmobile.graph.placed import placed_nodes
from tvmmobile.graph.tasks import Task
from tvmmobile.pipeline.job import VariantJob, template_accepts
from tvmmobile.running.formats import C
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.regions import Region, candidate_regions
from tvmmobile.tuning.search.twin import Reads, records_of_twin


def regions_of(job: VariantJob, network: Network, candidates: Callable[..., list[Region]] = candidate_regions) -> list[Region]:
    """Return the regions that may become kernels; C libraries lay out their memory and need none for placed nodes."""
    placed = placed_nodes(network.module) if job.options.format == C else ()
    return [region for region in candidates(network, template_accepts, job.task) if region.first not in placed]


def basis_of(job: VariantJob, database: Database, tasks: Sequence[Task], read: Reads = Database) -> Database:
    """Return the records that price kernels: the device's own, or its twin's if a real board has none for this network; never both, since
    modelled and measured latencies cannot be compared.
    """
    if job.twin is None or any(database.best(task) for task in tasks):
        return database
    return records_of_twin(job.twin, job.logs, read)
