"""Prices each layer in int8 and in float32 from the tuning logs, for `--max-drop`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from tvmmobile.graph.curves import SCALED
from tvmmobile.graph.layers import Gating, Layer, SumLayer
from tvmmobile.graph.layouts import Layout
from tvmmobile.graph.machine import Machine
from tvmmobile.graph.network import Network
from tvmmobile.graph.passes.pipeline import ComposedNetwork
from tvmmobile.graph.passes.rounded_outputs import rounded_output
from tvmmobile.graph.precision import FLOAT32, INT8, Precision, precision_named
from tvmmobile.graph.tasks import Task
from tvmmobile.pipeline.job import VariantJob, template_accepts
from tvmmobile.pipeline.regions import basis_of, regions_of
from tvmmobile.quantisation.assignment import SHARED, KernelSpan
from tvmmobile.quantisation.flow import FlowStep
from tvmmobile.quantisation.integers import IntegerNetwork
from tvmmobile.quantisation.lowering import lower_quantised
from tvmmobile.quantisation.programme import Costs
from tvmmobile.schedules.emit.matmul_cost import LINE_BYTES
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.regions import Region, candidate_regions, edge_layouts
from tvmmobile.tuning.search.nearest import estimated_us, nearest_alike

#: Multiply-adds of a vector that take as long as its conversion from int8, in C libraries for the virtual Pi 5; and to int8, which
#: takes half as many instructions again. In a kernel that has the numbers in registers, rounding and narrowing take fewer, and a scale that
#: is not in its weights takes more.
_DEQUANTISE, _QUANTISE = 5.1, 7.7
_NARROWED, _SCALED = 5.5, 1.4
#: Multiply-adds of a vector that take as long as a gate in float32, which loads, multiplies and stores.
_PRODUCT = 2.0
#: Cost within a network, in `Machine.line_written`, of a line that a conversion writes and no cache holds: a conversion does little else.
_CONVERTED = 2.8
#: Clock assumed for a board that does not report one.
_CLOCK_HZ = 1.8e9
#: Multiply-adds and bytes in a microsecond of a kernel that nothing is like.
_MACS_A_US, _BYTES_A_US = 8000.0, 4000.0


def layer_costs(
    job: VariantJob, composed: ComposedNetwork, wide: Network, accepts: Callable[[Layer], bool], network: IntegerNetwork
) -> Costs:
    """Return layers' costs in int8, with all possible layers in it, and in float32, from the records of kernels that cover them. A kernel
    without a record is estimated from the nearest one with a record.

    Args:
        wide: the network in float32, whose nodes are the steps of `network`.
        accepts: returns whether some template takes an integer layer.
    """
    flow, lowered = network.flow, lower_quantised(network, composed, wide, accepts)
    numbers = {node: number for number, node in lowered.nodes.items() if number in network.steps}
    nodes = (replace(node, layer=step.layer, parameters=step.parameters) for node, step in zip(wide.nodes, flow.steps, strict=True))
    candidates = partial(candidate_regions, layouts=_layouts)
    in_floats = regions_of(job, replace(wide, nodes=tuple(nodes)), candidates)
    in_integers = regions_of(job, lowered.network, candidates)
    tasks = [region.task for region in (*in_integers, *in_floats)]
    prices = _Prices(job, basis_of(job, Database(job.identity, job.logs, None), tasks))
    pieces = []
    for region in in_integers:
        covered = [numbers[node] for node in range(region.first, region.last + 1) if node in numbers]
        whole = len(covered) == region.last - region.first + 1 and covered == list(range(covered[0], covered[-1] + 1))
        pieces += prices.piece(region, covered[0], covered[-1], True) if whole else []
    for region in in_floats:
        pieces += prices.piece(region, region.first, region.last, False)
        stored = _stored(region, flow.steps[region.last], network, composed.accepts)
        pieces += [] if stored is None else prices.storing(region, stored)
    for step in flow.steps:
        if isinstance(step.layer, Gating):
            product_us = _multiplying_us(job, math.prod(step.layer.output_shape) * _PRODUCT)
            pieces.append(KernelSpan(step.number, step.number, False, product_us, estimated=True))
    steps = [step for step in flow.steps if step.number not in network.steps or network.steps[step.number].written is not None]
    return Costs(
        tuple(pieces),
        {step.number: _conversion_us(job, step, _QUANTISE, INT8) for step in steps},
        {step.number: _conversion_us(job, step, _DEQUANTISE, FLOAT32) for step in steps},
    )


def _layouts(layer: Layer, following: Layer, lanes: int, machine: Machine) -> tuple[Layout, ...]:
    """Return the layouts worth trying between two layers, and that in which precisions may differ."""
    return tuple(dict.fromkeys((*edge_layouts(layer, following, lanes, machine), SHARED)))


def _stored(region: Region, step: FlowStep, network: IntegerNetwork, accepts: Callable[[Layer], bool]) -> Layer | None:
    """Return a float32 region's last layer in the form that stores integers; `None` if it cannot, and for other layouts."""
    integers, layer = network.steps.get(step.number), region.task.region[-1]
    if step.parameters is None or integers is None or integers.written is None or region.after != SHARED:
        return None
    found = rounded_output(layer, step.parameters, integers.written.per_step, integers.written.zero)
    return None if found is None or not accepts(found.layer) else found.layer


@dataclass(frozen=True)
class _Prices:
    """Prices kernels by a device's records."""

    job: VariantJob
    database: Database

    def piece(self, region: Region, first: int, last: int, integer: bool) -> list[KernelSpan]:
        """Return a region as a piece; none for a region of several layers without a record, as in plans."""
        best = self.database.best(region.task)
        if best is None and len(region.task.region) > 1:
            return []
        known = None if best is None else best.latency_us
        latency_us = self.latency_us(region.task) + self.written_back_us(region.task)
        return [KernelSpan(first, last, integer, latency_us, region.before, region.after, known is None)]

    def storing(self, region: Region, last: Layer) -> list[KernelSpan]:
        """Return a float32 region, with `last` as its last layer, as a piece that stores int8; none if it has no record and several
        layers, which become a kernel each.
        """
        task = replace(region.task, region=(*region.task.region[:-1], last))
        best, single = self.database.best(task), len(task.region) == 1
        if not template_accepts(task) or (best is None and not single):
            return []
        known = None if best is None else best.latency_us
        latency_us = self.rounding_us(region.task, task) if known is None else known
        latency_us += self.written_back_us(task)
        return [KernelSpan(region.first, region.last, False, latency_us, region.before, region.after, known is None, stores=True)]

    def rounding_us(self, task: Task, storing: Task) -> float:
        """Estimate the latency of a float32 layer that stores int8: it writes a quarter of the lines, for which no core waits. It waits for
        its weights, as in its record.
        """
        core_us, weight_bytes = self.core_us(task), task.layer.constants * task.precision.bytes
        waiting_us = max(0.0, self.latency_us(task) - core_us) * weight_bytes / task.least_bytes
        layer, scaled = task.layer, isinstance(storing.layer, SumLayer) and storing.layer.then[-1:] == (SCALED,)
        vectors = math.prod(layer.output_shape) * (_NARROWED + _SCALED * scaled)
        return core_us + waiting_us + _multiplying_us(self.job, vectors)

    def core_us(self, task: Task) -> float:
        """Return the latency of a task or the nearest one, without misses if its record is modelled."""
        best = self.database.best(task)
        near = (best, 1.0) if best is not None else nearest_alike(task, self.database)
        if near is None or near[0].cycles is None:
            return self.latency_us(task)
        return near[0].cycles / _clock_hz(self.job) * 1e6 * near[1]

    def latency_us(self, task: Task) -> float:
        """Return the latency of a task's record, or an estimate."""
        best = self.database.best(task)
        return self.estimate_us(task) if best is None or best.latency_us is None else best.latency_us

    def estimate_us(self, task: Task) -> float:
        """Return the latency of the nearest task with a record, by multiply-adds or else bytes."""
        found = estimated_us(task, self.database)
        return task.macs * precision_named(task.dtype).bytes / _MACS_A_US + task.least_bytes / _BYTES_A_US if found is None else found

    def written_back_us(self, task: Task) -> float:
        """Return the latency of writing back an output that exceeds the caches, for which a single kernel does not wait."""
        written = math.prod(task.region[-1].output_shape) * task.storage[1].bytes
        return _lines_us(self.job, written) if written > self.job.profile.machine.largest_cache_bytes else 0.0


def _conversion_us(job: VariantJob, step: FlowStep, vectors: float, to: Precision) -> float:
    """Return the latency of converting a step's output: the cost of each vector is counted in multiply-adds and, if the caches cannot hold
    input and output, the cost of each line is `_CONVERTED`. Records do not help: with cold caches, such a kernel takes up to four times as
    long as it does on a small tensor within a network.
    """
    numbers = math.prod(step.layer.output_shape)
    moved, written = numbers * (FLOAT32.bytes + INT8.bytes), numbers * to.bytes
    missed = written if moved > job.profile.machine.largest_cache_bytes else min(written, max(0, moved - job.profile.machine.cached_bytes))
    return _multiplying_us(job, numbers * vectors) + _CONVERTED * _lines_us(job, missed)


def _lines_us(job: VariantJob, written: int) -> float:
    """Return the latency of writing the lines that this many bytes fill, at `Machine.line_written` each."""
    return _multiplying_us(job, written / LINE_BYTES * job.profile.machine.line_written * job.profile.machine.vector_bytes / FLOAT32.bytes)


def _multiplying_us(job: VariantJob, count: float) -> float:
    """Return the latency of multiply-adds at the peak rate of a job's threads."""
    return count / job.profile.machine.fma_lanes_per_cycle / _clock_hz(job) / job.options.threads * 1e6


def _clock_hz(job: VariantJob) -> float:
    limits = job.identity.limits
    return _CLOCK_HZ if limits is None else limits.clock_hz
