"""The cheapest cover of a network by kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvmmobile.network import Network
from tvmmobile.tasks import Task

#: Longest region considered; fused templates beyond this would need more registers and cache than the boards have.
MAX_REGION = 6


@dataclass(frozen=True)
class Price:
    """What is known of a task.

    Attributes:
        latency_us: of its best schedule; `None` where it was never measured.
        source: where that comes from, for the manifest, e.g. `best of 64 records`.
    """

    latency_us: float | None
    source: str


@dataclass(frozen=True)
class Step:
    """One kernel of the plan, for the nodes `first` to `last` (inclusive), and why it was chosen."""

    first: int
    last: int
    task: Task
    price: Price
    reason: str


@dataclass(frozen=True)
class Plan:
    """Steps in execution order, covering every node once."""

    steps: tuple[Step, ...]


def candidate_regions(network: Network, takes: Callable[[Task], bool], dtype: str, threads: int) -> list[tuple[int, int, Task]]:
    """Every region that may become one kernel: each single layer, and each chain of layers that a template takes.

    Args:
        takes: whether some template takes a task of several layers.

    Returns:
        (first node, last node, task), in order.
    """
    nodes = network.nodes
    found = []
    for first in range(len(nodes)):
        for last in range(first, min(first + MAX_REGION, len(nodes))):
            task = Task(tuple(node.layer for node in nodes[first : last + 1]), dtype, threads)
            if first == last or takes(task):
                found.append((first, last, task))
            if nodes[last].alone:
                break
    return found


def make_plan(network: Network, regions: list[tuple[int, int, Task]], price: Callable[[Task], Price]) -> Plan:
    """Choose regions such that the sum of their latencies is least.

    A region of several layers must have been measured to be chosen; a single layer without a measurement is taken where nothing else covers
    it, at no claimed cost.
    """
    count = len(network.nodes)
    by_first: dict[int, list[Step]] = {}
    for first, last, task in regions:
        cost = price(task)
        if first == last or cost.latency_us is not None:
            by_first.setdefault(first, []).append(Step(first, last, task, cost, ""))
    best: list[tuple[int, float, Step | None]] = [(0, 0.0, None)] * (count + 1)
    for first in range(count - 1, -1, -1):
        options = []
        for step in by_first[first]:
            unmeasured, rest, _ = best[step.last + 1]
            options.append((unmeasured + (step.price.latency_us is None), rest + (step.price.latency_us or 0.0), step))
        best[first] = min(options, key=lambda option: option[:2])
    steps, position = [], 0
    while position < count:
        chosen = best[position][2]
        assert chosen is not None
        steps.append(Step(chosen.first, chosen.last, chosen.task, chosen.price, _reason(chosen, by_first)))
        position = chosen.last + 1
    return Plan(tuple(steps))


def _described(price: Price) -> str:
    return "never measured" if price.latency_us is None else f"{price.latency_us:.1f} us"


def _reason(step: Step, by_first: dict[int, list[Step]]) -> str:
    """Why this region and not another one that begins at the same node."""
    rivals = [rival for rival in by_first[step.first] if rival.last != step.last]
    if step.price.latency_us is None:
        return "no measurement yet; " + step.price.source
    chosen = f"{step.price.latency_us:.1f} us, {step.price.source}"
    if not rivals:
        return f"the only kernel for this layer: {chosen}"
    described = ", ".join(f"nodes {rival.first} to {rival.last} {_described(rival.price)}" for rival in rivals)
    return f"cheapest cover: {chosen}; instead of {described}"
