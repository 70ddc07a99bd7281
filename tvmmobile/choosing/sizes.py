"""Memory that a planned library needs, before any of it is compiled."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvmmobile.graph.network import results_from, sources_of
from tvmmobile.native.memory import LiveBlock, aligned, lower_bound
from tvmmobile.pipeline.planning import PlannedVariant


@dataclass(frozen=True)
class PlannedSizes:
    """Sizes of a library in bytes, as its plan knows them.

    Attributes:
        memory_bytes: activations between kernels that live at the same time, at most; kernels' own scratch memory is not in it.
        weight_bytes: weights and biases. The file has the kernels' code too, and weights as kernels read them.
    """

    memory_bytes: int
    weight_bytes: int


def planned_sizes(plan: PlannedVariant) -> PlannedSizes:
    """Return the sizes of a planned library; inputs and outputs are the caller's."""
    module = plan.network.module
    sources, last = sources_of(module), dict[int, int]()
    times = {node: time for time, step in enumerate(plan.steps) for node in range(step.first, step.last + 1)}
    for node in reversed(range(len(sources))):
        # What has no kernel lies where its sources do, as long as it is read.
        time = times.get(node, last.get(node, 0))
        for source in sources[node]:
            if isinstance(source, int):
                last[source] = max(time, last.get(source, 0))
    returned = {result for result in results_from(module) if isinstance(result, int)}
    blocks = [
        LiveBlock(aligned(math.prod(step.task.region[-1].output_shape) * step.task.storage[1].bytes), time, last.get(step.last, time))
        for time, step in enumerate(plan.steps)
        if step.last not in returned
    ]
    weights = sum(layer.constants * step.task.precision.bytes for step in plan.steps for layer in step.task.region)
    return PlannedSizes(lower_bound(blocks), weights)
