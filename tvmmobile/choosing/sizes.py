"""Memory that a planned library needs, before any of it is compiled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvmmobile.graph.network import Wiring
from tvmmobile.native.memory import LiveBlock, aligned, lower_bound
from tvmmobile.tuning.plan import PlannedKernel


@dataclass(frozen=True)
class PlannedSizes:
    """Sizes of a library in bytes, as its plan knows them.

    Attributes:
        memory_bytes: activations between kernels that live at the same time, at most; kernels' own scratch memory is not in it.
        weight_bytes: weights and biases. The file has the kernels' code too, and weights as kernels read them.
    """

    memory_bytes: int
    weight_bytes: int


def planned_sizes(steps: Sequence[PlannedKernel], wiring: Wiring) -> PlannedSizes:
    """Return the sizes of a planned library; inputs and outputs are the caller's."""
    sources, last = wiring.sources, dict[int, int]()
    times = {node: time for time, step in enumerate(steps) for node in range(step.first, step.last + 1)}
    for node in reversed(range(len(sources))):
        # What has no kernel lies where its sources do, as long as it is read.
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
