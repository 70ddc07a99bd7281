"""Predicts the memory that a planned library needs before it is compiled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvmmobile.graph.network import Wiring
from tvmmobile.native.memory import LiveBlock, aligned, lower_bound
from tvmmobile.tuning.plan import PlannedKernel


@dataclass(frozen=True)
class PlannedSizes:
    """Sizes of a library in bytes, according to its plan.

    Attributes:
        memory_bytes: peak size of the activations between kernels, without kernels' scratch memory.
        weight_bytes: size of weights and biases, before packing and without the kernels' code.
    """

    memory_bytes: int
    weight_bytes: int


def planned_sizes(steps: Sequence[PlannedKernel], wiring: Wiring) -> PlannedSizes:
    """Return the sizes of a planned library; inputs and outputs belong to the caller, and do not count."""
    sources, last = wiring.sources, dict[int, int]()
    times = {node: time for time, step in enumerate(steps) for node in range(step.first, step.last + 1)}
    for node in reversed(range(len(sources))):
        # The output of a node without a kernel shares its sources' memory, which lives until its last reader.
        time = times.get(node, last.get(node, 0))
        for source in sources[node]:
            last[source] = max(time, last.get(source, 0))
    blocks = [
        LiveBlock(aligned(math.prod(step.task.region[-1].output_shape) * step.task.storage[1].bytes), time, last.get(step.last, time))
        for time, step in enumerate(steps)
        if step.last not in wiring.results
    ]
    weights = sum(layer.constants * step.task.precision.bytes for step in steps for layer in step.task.region)
    return PlannedSizes(lower_bound(blocks), weights)
