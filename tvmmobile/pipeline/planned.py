"""The kernels that a network would have with the records of a database."""

from __future__ import annotations

from tvmmobile.graph.tasks import Task
from tvmmobile.results.report.fallback import UsedKernel
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.plan import Price, VariantTasks, make_plan


def planned_kernels(variant: VariantTasks, database: Database) -> list[UsedKernel]:
    """In execution order; those without a record have no latency."""

    def price(task: Task) -> Price:
        best = database.best(task)
        return Price(best.latency_us if best else None, "")

    tasks = [step.task for step in make_plan(variant.nodes, variant.regions, price).steps]
    return [UsedKernel(task.name, task in variant.sources, variant.macs.get(task, task.macs), price(task).latency_us) for task in tasks]
