"""Finds a variant's tasks, and plans it from the tuning logs alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tvmmobile.graph.layers import Conv2d, LayerParameters
from tvmmobile.graph.lowering import Lowered, lower
from tvmmobile.graph.network import Network, wiring_of
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import make_target, pass_context
from tvmmobile.kernels.function import kernel_function, packed_constants
from tvmmobile.kernels.lowering import PIPELINE
from tvmmobile.kernels.serial import TraceSchedule
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.prepared_variant import PreparedVariant
from tvmmobile.pipeline.regions import basis_of, regions_of
from tvmmobile.pipeline.variant import prepare_variant
from tvmmobile.schedules import KnobSchedule, template_named
from tvmmobile.schedules.emit.expansion import Expansion, digest_of
from tvmmobile.tuning.choice import Choice, choose, plan_by_records
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.plan import Plan, PlannedKernel, Price, dense_us, make_plan
from tvmmobile.tuning.regions import Region, VariantTasks, candidate_regions
from tvmmobile.tuning.zeros import is_sparse, left_out


def variant_tasks(job: VariantJob) -> VariantTasks:
    """Return the tasks of a variant."""
    return tasks_of(job, prepare_variant(job).network)


def tasks_of(job: VariantJob, network: Network) -> VariantTasks:
    """Return the tasks of a job's network."""
    import tvm

    regions = regions_of(job, network)
    nodes = {region.task: network.nodes[region.first] for region in regions if region.first == region.last}
    opaque = {task: node for task, node in nodes.items() if node.function is not None}
    sources = {task: tvm.ir.save_json(node.function) for task, node in opaque.items()}
    macs = {task: node.macs for task, node in opaque.items()}
    return VariantTasks(len(network.nodes), tuple(regions), sources, network.float32_layers, macs, wiring_of(network.module))


@dataclass(frozen=True)
class PlannedVariant:
    """A network with the schedules that the logs give its kernels.

    Attributes:
        steps: the plan's.
        database: the device's records.
        basis: database whose records decided, see `basis_of`.
        left_out: TVM's passes that do not run when the network is built.
        dense_us: the sum of the records of the best plan without sparse kernels, in microseconds; `None` if it is not known or none is
            sparse.
    """

    prepared: PreparedVariant
    steps: tuple[PlannedKernel, ...]
    choices: Mapping[Task, Choice]
    database: Database
    basis: Database
    left_out: tuple[str, ...] = ()
    dense_us: float | None = None

    @property
    def network(self) -> Network:
        """The network that the steps cover."""
        return self.prepared.network

    def lowered(self) -> tuple[Any, dict[bytes, Expansion]]:
        """Return the network's Relax module, with every distinct kernel once, and how `init` makes constants, by their digests."""
        with pass_context(self.left_out):
            kernels = _kernels(self.network, self.steps, self.choices)
            by_digest = {digest_of(one.constants[0]): self._expansions[one.first] for one in kernels if one.first in self._expansions}
            return lower(self.network, kernels), by_digest

    def compiled(self, target: Mapping[str, Any], observed: bool = False) -> Any:
        """Return the network built for TVM's virtual machine; `observed`, it also returns each kernel's output, in order."""
        from tvm import relax

        with pass_context(self.left_out):
            lowered = lower(self.network, _kernels(self.network, self.steps, self.choices), observed)
            return relax.build(lowered, target=make_target(target), tir_pipeline=PIPELINE)

    def shortcuts(self) -> dict[int, dict[str, float]]:
        """Return the shortcuts that kernels of integers take, by node; see `Template.shortcuts`."""
        found: dict[int, dict[str, float]] = {}
        for step in self.steps:
            schedule = self.choices[step.task].schedule
            opaque = self.network.nodes[step.first].function is not None
            if step.task.precision.is_integer and not opaque:
                assert not isinstance(schedule, TraceSchedule)
                template = template_named(schedule.template, schedule.version)
                assert template is not None
                shares = template.shortcuts(step.task, schedule.values, parameters_of(self.network, step))
                found |= dict(zip(range(step.first, step.last + 1), shares, strict=False))
        return found

    def weights_not_stored(self) -> list[int]:
        """Return the sizes of weights that were rounded to fewer bits, but lie in a kernel that neither widens nor expands them."""
        kept = [node.parameters for place, node in enumerate(self.network.nodes) if place not in self._expansions and node.parameters]
        return [parameters.weight.size for parameters in kept if parameters.stored]

    @functools.cached_property
    def _expansions(self) -> dict[int, Expansion]:
        """By node, how `init` makes the first constant of a kernel."""
        found = {}
        for step in self.steps:
            schedule, node = self.choices[step.task].schedule, self.network.nodes[step.first]
            if step.first == step.last and node.parameters is not None and node.parameters.stored and isinstance(schedule, KnobSchedule):
                template = template_named(schedule.template, schedule.version)
                assert template is not None
                found[step.first] = template.expansion(step.task, schedule.values, (node.parameters,))
        return {node: expansion for node, expansion in found.items() if expansion is not None}

    def zeros(self, step: PlannedKernel) -> float | None:
        """Return the share of its weights that a step's kernel leaves out because they are zero; `None` if it is not sparse."""
        if not is_sparse(step.task):
            return None
        layer, parameters = step.task.region[-1], parameters_of(self.network, step)[-1]
        assert isinstance(layer, Conv2d)
        return left_out(parameters.weight, layer.sparse[1])

    @property
    def separate(self) -> frozenset[str]:
        """Symbols of kernels whose parallel loops write different outputs, as in all templates' kernels but those of opaque layers."""
        return frozenset(step.task.symbol for step in self.steps if self.network.nodes[step.first].function is None)


def plan_variant(
    job: VariantJob,
    database: Database | None = None,
    candidates: Callable[..., list[Region]] = candidate_regions,
) -> PlannedVariant:
    """Plan a job's network; compiles only what the fallback needs.

    Args:
        job: the library to make.
        database: the device's records; those in the job's logs if `None`.
        candidates: a function like `candidate_regions`, of whose regions it may leave some out.
    """
    ready = prepare_variant(job)
    network = ready.network
    if database is None:
        database = Database(job.identity, job.logs, None)
    choices: dict[Task, Choice] = {}
    regions = regions_of(job, network, candidates)
    basis = basis_of(job, database, [region.task for region in regions])
    for region in regions:
        task = region.task
        if task not in choices and (region.first == region.last or basis.best(task)):
            choices[task] = choose(task, network.nodes[region.first].function, basis, job.profile.target)
    regions = [region for region in regions if region.task in choices]

    def price(task: Task) -> Price:
        return choices[task].price

    plan = make_plan(len(network.nodes), regions, price)
    dense = dense_us(plan, len(network.nodes), regions, price)
    return PlannedVariant(ready, plan.steps, choices, database, basis, dense_us=dense)


def fastest_threads(job: VariantJob, planned: PlannedVariant) -> int:
    """Return the thread count, at most the job's, with which the network is fastest by the records of kernels tuned for each.

    Numbers for which a kernel has no record do not count; where that is the job's own, it is taken for the fastest.
    """
    most, latency_us = job.options.threads, Plan(planned.steps).latency_us
    if latency_us is None:
        return most
    by_count = {count: found for count in range(1, most) if (found := _recorded_us(job, planned, count)) is not None}
    return min({**by_count, most: latency_us}.items(), key=lambda each: each[1])[0]


def _recorded_us(job: VariantJob, planned: PlannedVariant, threads: int) -> float | None:
    """Return the sum of the records of the best plan for another number of threads, in microseconds; `None` where one is missing."""
    network, other = planned.network, replace(job, options=replace(job.options, threads=threads))
    if not any(planned.basis.records(other.task((node.layer,))) for node in network.nodes):
        return None  # at once: nobody tuned for that number
    regions = regions_of(other, network)
    return plan_by_records(len(network.nodes), regions, planned.basis).latency_us


def _kernels(network: Network, steps: tuple[PlannedKernel, ...], choices: Mapping[Task, Choice]) -> tuple[Lowered, ...]:
    """Return the kernels of a network by its plan; equal ones share a function."""
    functions: dict[Task, Any] = {}
    kernels = []
    for step in steps:
        schedule = choices[step.task].schedule
        node = network.nodes[step.first]
        if step.task not in functions:
            functions[step.task] = kernel_function(step.task, schedule, node.function)
        constants = () if node.function is not None else packed_constants(step.task, schedule, parameters_of(network, step))
        kernels.append(Lowered(step.first, step.last, step.task, functions[step.task], tuple(constants)))
    return tuple(kernels)


def parameters_of(network: Network, step: PlannedKernel) -> tuple[LayerParameters, ...]:
    """Return the constants of the layers that a step covers."""
    found = []
    for node in network.nodes[step.first : step.last + 1]:
        assert node.parameters is not None
        found.append(node.parameters)
    return tuple(found)
