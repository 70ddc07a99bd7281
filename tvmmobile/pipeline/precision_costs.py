"""What a network's layers cost in int8 and in float32, from the tuning logs, for `--max-drop`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from tvmmobile.graph.layers import Layer, Opaque
from tvmmobile.graph.layouts import Layout
from tvmmobile.graph.network import Network, names_of, read_network
from tvmmobile.graph.passes.pipeline import Composed, finish_integers
from tvmmobile.graph.passes.rounded_outputs import rounded_output
from tvmmobile.graph.precision import FLOAT32, INT8, Precision, precision_named
from tvmmobile.graph.tasks import Task
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.regions import basis_of, regions_of
from tvmmobile.quantisation.assignment import Piece
from tvmmobile.quantisation.flow import Step
from tvmmobile.quantisation.integers import IntegerNetwork
from tvmmobile.quantisation.lowering import named_layers
from tvmmobile.quantisation.mixed import Costs
from tvmmobile.schedules.emit.matmul_cost import LINE_BYTES
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.plan import Region, candidate_regions, edge_layouts
from tvmmobile.tuning.search.nearest import nearest_record

#: How many multiply-adds of a vector take as long as its conversion from int8, in C libraries for the virtual Pi 5; and to int8, which
#: takes half as many instructions again.
_DEQUANTISE, _QUANTISE = 5.1, 7.7
#: What a line that a kernel writes costs within a network there, in `Machine.line_written`: by a conversion, which does little else, of a
#: tensor that the second level does not hold; and by a kernel in float32, as its record has it.
_CONVERTED, _STORED = 2.8, 1.6
#: Of a board whose clock is not known.
_CLOCK_HZ = 1.8e9
#: Multiply-adds and bytes in a microsecond of a kernel that nothing is like.
_MACS_A_US, _BYTES_A_US = 8000.0, 4000.0


def layer_costs(job: VariantJob, composed: Composed, wide: Network, accepts: Callable[[Layer], bool], network: IntegerNetwork) -> Costs:
    """Return what layers cost in both precisions: the records of kernels that cover them, in the network with all layers in int8 that may
    be, and in float32. A kernel without a record is estimated from the nearest that has one.

    Args:
        wide: the network in float32, whose nodes are the steps of `network`.
        accepts: whether some template takes an integer layer.
    """
    names, flow = names_of(wide), network.flow
    layers = named_layers(network, names)
    integers = read_network(*finish_integers(composed, layers.quantised, layers.floats, accepts))
    number_of = {name: number for number, name in enumerate(names) if name}
    numbers = [number_of.get(name) for name in names_of(integers)]
    nodes = (replace(node, layer=step.layer, parameters=step.parameters) for node, step in zip(wide.nodes, flow.steps, strict=True))
    candidates = partial(candidate_regions, layouts=_layouts)
    in_floats = regions_of(job, replace(wide, nodes=tuple(nodes)), candidates)
    in_integers = regions_of(job, integers, candidates)
    tasks = [region.task for region in (*in_integers, *in_floats)]
    prices = _Prices(job, basis_of(job, Database(job.identity, job.logs, None), tasks))
    pieces = []
    for region in in_integers:
        covered = [number for number in numbers[region.first : region.last + 1] if number in network.steps]
        whole = len(covered) == region.last - region.first + 1 and covered == list(range(covered[0], covered[-1] + 1))
        pieces += prices.piece(region, covered[0], covered[-1], True) if whole else []
    for region in in_floats:
        pieces += prices.piece(region, region.first, region.last, False)
    steps = [step for step in flow.steps if step.number not in network.steps or network.steps[step.number].written is not None]
    return Costs(
        tuple(pieces),
        {step.number: _conversion_us(job, step, _QUANTISE, INT8) for step in steps},
        {step.number: _conversion_us(job, step, _DEQUANTISE, FLOAT32) for step in steps},
        {step.number: _stored_us(job, step) for step in steps if _stores_integers(step, network, composed.accepts)},
    )


def _layouts(layer: Layer, following: Layer, lanes: int) -> tuple[Layout, ...]:
    """Return the layouts worth trying between two layers, and that in which precisions may differ."""
    return tuple(dict.fromkeys((*edge_layouts(layer, following, lanes), "NHWC")))


def _stores_integers(step: Step, network: IntegerNetwork, accepts: Callable[[Layer], bool]) -> bool:
    """Return whether a kernel in float32 can store what integer steps read of a step."""
    integers = network.steps.get(step.number)
    if step.parameters is None or integers is None or integers.written is None:
        return False
    found = rounded_output(step.layer, step.parameters, integers.written.per_step, integers.written.zero)
    return found is not None and accepts(found.layer)


@dataclass(frozen=True)
class _Prices:
    """Latencies of kernels by a device's records."""

    job: VariantJob
    database: Database

    def piece(self, region: Region, first: int, last: int, integer: bool) -> list[Piece]:
        """Return a region as a piece; none for one of several layers that was never measured, as in plans."""
        best = self.database.best(region.task)
        if best is None and len(region.task.region) > 1:
            return []
        known = None if best is None else best.latency_us
        latency_us = self.estimate_us(region.task) if known is None else known
        latency_us += self.written_back_us(region.task)
        return [Piece(first, last, integer, latency_us, region.before, region.after, known is None)]

    def estimate_us(self, task: Task) -> float:
        """Return the latency of the nearest task with a record, by multiply-adds or else bytes."""
        near = None if isinstance(task.layer, Opaque) else nearest_record(task, self.database)
        if near is None or near[1].latency_us is None or near[1].task.dtype != task.dtype or len(near[1].task.region) > 1:
            return task.macs * precision_named(task.dtype).bytes / _MACS_A_US + task.least_bytes / _BYTES_A_US
        other = near[1].task
        ratio = task.macs / other.macs if task.macs and other.macs else task.least_bytes / other.least_bytes
        return near[1].latency_us * ratio

    def written_back_us(self, task: Task) -> float:
        """Return the latency of writing back an output that no cache holds, which a kernel alone does not wait for."""
        written = math.prod(task.region[-1].output_shape) * precision_named(task.dtype).bytes
        return _lines_us(self.job, written) if written > self.job.machine.largest_cache_bytes else 0.0


def _conversion_us(job: VariantJob, step: Step, vectors: float, to: Precision) -> float:
    """Return the latency of converting a step's output, whose vectors each take as long as so many multiply-adds of theirs, and whose lines
    as long as `_CONVERTED` says. Records are no guide: they time such kernels with cold caches, at up to four times what a small tensor
    takes within a network.
    """
    numbers = math.prod(step.layer.output_shape)
    cold = numbers * (FLOAT32.bytes + INT8.bytes) > job.machine.l2_bytes
    return _multiplying_us(job, numbers * vectors) + cold * _CONVERTED * _lines_us(job, numbers * to.bytes)


def _stored_us(job: VariantJob, step: Step) -> float:
    """Return by how much a kernel in float32 is faster if it stores a step's output in int8."""
    return _STORED * _lines_us(job, math.prod(step.layer.output_shape) * (FLOAT32.bytes - INT8.bytes))


def _lines_us(job: VariantJob, written: int) -> float:
    """Return the latency of the lines that so many bytes fill, at `Machine.line_written`."""
    return _multiplying_us(job, written / LINE_BYTES * job.machine.line_written * job.machine.vector_bytes / FLOAT32.bytes)


def _multiplying_us(job: VariantJob, count: float) -> float:
    """Return the latency of multiply-adds as fast as a job's threads can do them."""
    limits = job.identity.limits
    clock_hz = _CLOCK_HZ if limits is None else limits.clock_hz
    return count / job.machine.fma_lanes_per_cycle / clock_hz / job.options.threads * 1e6
