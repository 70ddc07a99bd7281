"""The cheapest cover of a network by kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvmmobile.graph.layouts import Layout
from tvmmobile.graph.tasks import Task
from tvmmobile.tuning.regions import Region
from tvmmobile.tuning.zeros import is_sparse


@dataclass(frozen=True)
class Price:
    """The price of a task: its best latency in microseconds (`None` if never measured) and its source, e.g. `best of 64 records`."""

    latency_us: float | None
    source: str


@dataclass(frozen=True)
class PlannedKernel:
    """One kernel of the plan, for the nodes `first` to `last` (inclusive), and why it was chosen."""

    first: int
    last: int
    task: Task
    price: Price
    reason: str


@dataclass(frozen=True)
class Plan:
    """The kernels of a network in execution order; they cover each node that needs a kernel once."""

    steps: tuple[PlannedKernel, ...]

    @property
    def latency_us(self) -> float | None:
        """Sum of the kernels' latencies in microseconds; `None` if any was never measured."""
        latencies = [step.price.latency_us for step in self.steps if step.price.latency_us is not None]
        return math.fsum(latencies) if len(latencies) == len(self.steps) else None


def detours(count: int, regions: Sequence[Region], latency_us: Callable[[Task], float | None]) -> dict[Region, float]:
    """Return, for each region, by how many microseconds the best plan with it is slower than the best of all; infinity if no plan has it.

    Regions whose latency is `None` are omitted, and are part of no plan.

    Args:
        count: number of nodes.
    """
    measured = [(region, latency) for region in regions if (latency := latency_us(region.task)) is not None]
    before: list[dict[Layout, float]] = _places(count, regions)
    after: list[dict[Layout, float]] = _places(count, regions)
    before[0]["NHWC"] = after[count]["NHWC"] = 0.0
    for region, latency in sorted(measured, key=lambda pair: pair[0].last):
        until_end = before[region.first].get(region.before, math.inf) + latency
        before[region.last + 1][region.after] = min(before[region.last + 1].get(region.after, math.inf), until_end)
    for region, latency in sorted(measured, key=lambda pair: -pair[0].first):
        from_start = after[region.last + 1].get(region.after, math.inf) + latency
        after[region.first][region.before] = min(after[region.first].get(region.before, math.inf), from_start)
    best = after[0].get("NHWC", math.inf)
    slower_by = {}
    for region, latency in measured:
        whole = before[region.first].get(region.before, math.inf) + latency + after[region.last + 1].get(region.after, math.inf)
        slower_by[region] = whole - best if whole < math.inf else math.inf
    return slower_by


def _places(count: int, regions: Sequence[Region]) -> list[dict[Layout, Any]]:
    """Return an empty table for each position between nodes; positions around a node without a kernel share one, as it costs nothing."""
    starts, places = {region.first for region in regions}, [dict[Layout, Any]()]
    for node in range(count):
        places.append({} if node in starts else places[-1])
    return places


def make_plan(nodes: int, regions: Sequence[Region], price: Callable[[Task], Price]) -> Plan:
    """Choose regions, and layouts between a network's nodes, that minimise the sum of latencies.

    Regions of several layers must have been measured. A layer that no measured region covers is used unmeasured, at no cost and in the
    first layout of `edge_layouts`; plans with the fewest such layers are preferred. Nodes where no region begins have no kernel.

    Args:
        nodes: number of nodes.
    """
    prices = {region.task: price(region.task) for region in regions}
    by_first: dict[int, list[Region]] = {}
    for region in regions:
        if region.first == region.last or prices[region.task].latency_us is not None:
            by_first.setdefault(region.first, []).append(region)
    #: By node and layout of its input: the number of unmeasured kernels and the latency from there on, and the first region.
    best: list[dict[Layout, tuple[int, float, Region | None]]] = _places(nodes, regions)
    best[nodes]["NHWC"] = (0, 0.0, None)
    for first in sorted(by_first, reverse=True):
        for region in by_first[first]:
            if region.after not in best[region.last + 1]:
                continue
            unmeasured, rest, _ = best[region.last + 1][region.after]
            latency_us = prices[region.task].latency_us
            option = (unmeasured + (latency_us is None), rest + (latency_us or 0.0), region)
            if region.before not in best[first] or option[:2] < best[first][region.before][:2]:
                best[first][region.before] = option
    steps: list[PlannedKernel] = []
    position, layout = 0, "NHWC"
    while (chosen := best[position][layout][2]) is not None:
        reason = _reason(chosen, by_first[chosen.first], prices)
        steps.append(PlannedKernel(chosen.first, chosen.last, chosen.task, prices[chosen.task], reason))
        position, layout = chosen.last + 1, chosen.after
    return Plan(tuple(steps))


def dense_us(plan: Plan, nodes: int, regions: Sequence[Region], price: Callable[[Task], Price]) -> float | None:
    """Return the latency in microseconds of the best plan without sparse kernels; `None` if `plan` has none, or if it is not measured."""
    if not any(is_sparse(step.task) for step in plan.steps):
        return None
    return make_plan(nodes, [region for region in regions if not is_sparse(region.task)], price).latency_us


def _described(price: Price) -> str:
    return "never measured" if price.latency_us is None else f"{price.latency_us:.1f} us"


def _reason(region: Region, regions: Sequence[Region], prices: Mapping[Task, Price]) -> str:
    """Return why this region was chosen rather than others that begin at the same node."""
    price = prices[region.task]
    if price.latency_us is None:
        return "no measurement yet; " + price.source
    chosen = f"{price.latency_us:.1f} us, {price.source}"
    rivals = [rival for rival in regions if rival.task != region.task]
    if not rivals:
        return f"the only kernel for this layer: {chosen}"
    described = ", ".join(f"{_place(rival, region)} {_described(prices[rival.task])}" for rival in rivals)
    return f"cheapest cover: {chosen}; instead of {described}"


def _place(rival: Region, region: Region) -> str:
    """Return a text that names the nodes that a rival covers, and its layouts if they differ from the region's."""
    place = f"nodes {rival.first} to {rival.last}"
    alike = (rival.before, rival.after) == (region.before, region.after)
    return place if alike else f"{place} from {rival.before} to {rival.after}"
