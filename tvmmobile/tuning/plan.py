"""The cheapest cover of a network by kernels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tvmmobile.graph.layers import Layer
from tvmmobile.graph.layouts import Layout, blocked
from tvmmobile.graph.machine import BASELINE, Machine
from tvmmobile.graph.network import Float32Layer, Network, Node
from tvmmobile.graph.tasks import Task
from tvmmobile.tuning.zeros import is_sparse, planes_of

#: Longest region considered; fused templates beyond this would need more registers and cache than the boards have.
MAX_REGION = 6
#: Sizes of channel blocks, the best first: 32 where it divides the channels.
USUAL_BLOCKS = (32, 48, 24, 40, 16, 20, 28, 36, 44)


@dataclass(frozen=True)
class Price:
    """The price of a task: its best latency (`None` if never measured) and its origin, e.g. `best of 64 records`."""

    latency_us: float | None
    source: str


@dataclass(frozen=True)
class Region:
    """The nodes `first` to `last` (inclusive), which may become one kernel.

    Attributes:
        task: the kernel's task.
        before, after: layout of the activation that passes in front of `first` and behind `last`; anything not in blocks is called
            NHWC. It is what the kernel reads and writes, except between a squeeze-and-excite's nodes, past which its input is kept.
    """

    first: int
    last: int
    task: Task
    before: Layout = "NHWC"
    after: Layout = "NHWC"


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
    """Steps in execution order, covering every node once but those without a kernel."""

    steps: tuple[PlannedKernel, ...]

    @property
    def latency_us(self) -> float | None:
        """The sum of the kernels' best latencies, in microseconds; `None` if one was never measured."""
        known = [step.price.latency_us for step in self.steps if step.price.latency_us is not None]
        return math.fsum(known) if len(known) == len(self.steps) else None


@dataclass(frozen=True)
class VariantTasks:
    """Candidate kernels of a variant.

    Attributes:
        nodes: number of nodes of its network.
        regions: candidate kernels, in the order of their nodes.
        sources: opaque tasks' TIR functions as JSON text.
        float32_layers: layers that stay in float32 although the others do not.
        macs: multiply-adds of opaque tasks.
    """

    nodes: int
    regions: tuple[Region, ...]
    sources: Mapping[Task, str]
    float32_layers: tuple[Float32Layer, ...] = ()
    macs: Mapping[Task, int] = field(default_factory=dict)


def distinct_tasks(variants: Sequence[VariantTasks]) -> dict[Task, str | None]:
    """Return every distinct task, in order of first use, with an opaque one's TIR function as JSON text."""
    sources: dict[Task, str | None] = {}
    for variant in variants:
        for region in variant.regions:
            sources.setdefault(region.task, variant.sources.get(region.task))
    return sources


def edge_layouts(layer: Layer, following: Layer, lanes: int = 4, machine: Machine = BASELINE) -> tuple[Layout, ...]:
    """Return the layouts worth trying between two layers, beginning with the one to use if nothing is measured.

    Pixels with many channels are a power of two apart in NHWC and evict each other from a two-way first-level cache; in blocks of
    about 32 channels they lie together, and whatever a kernel reads from a block at a time is contiguous. Blocks are
    whole vectors of `lanes`.
    """
    if not (layer.writes_blocks and following.reads_blocks):
        return ("NHWC",)
    channels = layer.output_shape[-1]
    blocks = [block for block in USUAL_BLOCKS if channels % block == 0 and channels > block and block % lanes == 0]
    if channels < machine.fewest_blocked or not blocks:
        return ("NHWC",)
    # A product that is one kernel with the depthwise layer behind it reads pixel by pixel.
    fusable = layer.is_depthwise and following.is_pointwise and channels <= machine.most_fused
    either = channels < machine.fewest_only_blocked or fusable or following.reads_lines
    return (blocked(blocks[0]), "NHWC") if either else (blocked(blocks[0]),)


def candidate_regions(
    network: Network,
    accepts: Callable[[Task], bool],
    task_of: Callable[[tuple[Layer, ...]], Task],
    layouts: Callable[[Layer, Layer, int, Machine], tuple[Layout, ...]] = edge_layouts,
) -> list[Region]:
    """Return every region that may become one kernel: each single layer and each chain that a template takes, with each layout at its ends.

    Args:
        accepts: returns whether some template takes a task of several layers, or with channels in blocks.
        task_of: returns the task of a region's layers, in the network's precision; nodes that have another one are regions with their like.
        layouts: returns the layouts worth trying between two layers.

    Returns the regions in order.
    """
    nodes, planes = network.nodes, planes_of(network)

    def task_in(region: tuple[Layer, ...], dtype: str) -> Task:
        """Return the region's task in a node's precision."""
        task = task_of(region)
        return replace(task, dtype=dtype) if dtype else task

    edges: list[tuple[Layout, ...]] = [("NHWC",)] * (len(nodes) + 1)
    #: Positions between nodes that an activation passes on its way to a later node.
    bypassed: set[int] = set()
    for index, node in enumerate(nodes[:-1]):
        readers = () if index + 1 in bypassed else tuple(nodes[reader] for reader in _readers(network, index))
        if readers:
            tried = layouts(node.layer, readers[0].layer, _lanes(task_in, (node, *readers)), task_of((node.layer,)).machine)
            known = tuple(layout for layout in tried if _all_accept(node, readers, layout, lambda *region: accepts(task_in(*region))))
            known = known or ("NHWC",)
            places = range(index + 1, (node.gated or index + 1) + 1)
            edges[places.start : places.stop] = [known] * len(places)
            bypassed.update(places[1:])
    #: Nodes that an activation in NCHW passes on its way to where it is added: they do not change to or from it.
    passing: set[int] = set()
    for index, node in enumerate(nodes[:-1]):
        together = {index, *_readers(network, index), *((index + 1, *node.adding) if node.adding else ())}
        if len(together) > 1 and together <= planes.keys() and index + 1 not in bypassed:
            for place in range(index + 1, (node.gated or index + 1) + 1):
                edges[place] = (*edges[place], "NCHW")
            passing.update(range(index + 1, max(node.adding, default=index) + 1))
    found = []
    for first in range(len(nodes)):
        for last in range(first, min(first + MAX_REGION, len(nodes))):
            layers = tuple(node.layer for node in nodes[first : last + 1])
            passed = last + 1 in bypassed
            for before, after in itertools.product(edges[first], edges[last + 1]):
                if passed and before != after:
                    continue
                if (before == "NCHW") != (after == "NCHW") and not passing.isdisjoint(range(first, last + 1)):
                    continue
                read, written = "NHWC" if passed and first in bypassed else before, "NHWC" if passed else after
                sparse = read == written == "NCHW" and last in planes
                region = (*layers[:-1], planes[last]) if sparse else layers
                task = task_in(_between(region, read, written), nodes[first].dtype)
                if task.region == layers == layers[:1] or accepts(task):
                    found.append(Region(first, last, task, before, after))
            if nodes[last].alone or nodes[min(last + 1, len(nodes) - 1)].dtype != nodes[first].dtype:
                break
    return found


def _readers(network: Network, index: int) -> tuple[int, ...]:
    """Return the nodes for which a node's output may lie in blocks; none if it must be NHWC."""
    node = network.nodes[index]
    if node.gated is not None:
        return index + 1, node.gated
    return () if node.alone else (index + 1,)


def _lanes(task_in: Callable[[tuple[Layer, ...], str], Task], nodes: Iterable[Node]) -> int:
    """Return the number of elements of the longest vector that kernels of these nodes compute with."""
    return max(task_in((node.layer,), node.dtype).lanes for node in nodes)


def _all_accept(node: Node, readers: tuple[Node, ...], layout: Layout, accepts: Callable[[tuple[Layer, ...], str], bool]) -> bool:
    """Return whether a layer and those that read it can be kernels of their own with this layout between them: a plan may have to take it
    so.
    """
    regions = [(_between((node.layer,), "NHWC", layout), node.dtype)]
    regions += [(_between((reader.layer,), layout, "NHWC"), reader.dtype) for reader in readers]
    return layout == "NHWC" or all(itertools.starmap(accepts, regions))


def _between(layers: tuple[Layer, ...], before: Layout, after: Layout) -> tuple[Layer, ...]:
    """Return the layers, the first reading `before` and the last writing `after`; NHWC stands for the layer's own layout."""
    ends = list(layers)
    ends[0] = ends[0].with_layouts(before, "NHWC")
    ends[-1] = ends[-1].with_layouts("NHWC", after)
    return tuple(ends)


def detours(count: int, regions: Sequence[Region], latency_us: Callable[[Task], float | None]) -> dict[Region, float]:
    """Return by how many microseconds the best plan with a region is slower than the best of all, infinite where no plan has it; regions
    whose latency is `None` are left out, and in no plan.
    """
    known = [(region, latency) for region in regions if (latency := latency_us(region.task)) is not None]
    before: list[dict[Layout, float]] = _places(count, regions)
    after: list[dict[Layout, float]] = _places(count, regions)
    before[0]["NHWC"] = after[count]["NHWC"] = 0.0
    for region, latency in sorted(known, key=lambda one: one[0].last):
        reached = before[region.first].get(region.before, math.inf) + latency
        before[region.last + 1][region.after] = min(before[region.last + 1].get(region.after, math.inf), reached)
    for region, latency in sorted(known, key=lambda one: -one[0].first):
        left = after[region.last + 1].get(region.after, math.inf) + latency
        after[region.first][region.before] = min(after[region.first].get(region.before, math.inf), left)
    best = after[0].get("NHWC", math.inf)
    found = {}
    for region, latency in known:
        whole = before[region.first].get(region.before, math.inf) + latency + after[region.last + 1].get(region.after, math.inf)
        found[region] = whole - best if whole < math.inf else math.inf
    return found


def _places(count: int, regions: Sequence[Region]) -> list[dict[Layout, Any]]:
    """Return an empty table for each place between nodes; those around a node where no region begins, which costs nothing, are one."""
    begun, places = {region.first for region in regions}, [dict[Layout, Any]()]
    for node in range(count):
        places.append({} if node in begun else places[-1])
    return places


def make_plan(nodes: int, regions: Sequence[Region], price: Callable[[Task], Price]) -> Plan:
    """Choose regions and the layouts between a network's nodes so that the sum of their latencies is least.

    A region of several layers must have been measured; a single layer that nothing else covers is taken unmeasured, at no claimed cost and
    in the first layout that `edge_layouts` names. Nodes where no region begins have no kernel.
    """
    prices = {region.task: price(region.task) for region in regions}
    by_first: dict[int, list[Region]] = {}
    for region in regions:
        if region.first == region.last or prices[region.task].latency_us is not None:
            by_first.setdefault(region.first, []).append(region)
    #: Unmeasured kernels and latency from a node on, and the first region, by node and the layout of its input.
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
    """Return the latency of the best plan without sparse kernels, in microseconds; `None` if it is not known or `plan` has none of them."""
    if not any(is_sparse(step.task) for step in plan.steps):
        return None
    return make_plan(nodes, [region for region in regions if not is_sparse(region.task)], price).latency_us


def _described(price: Price) -> str:
    return "never measured" if price.latency_us is None else f"{price.latency_us:.1f} us"


def _reason(region: Region, regions: Sequence[Region], prices: Mapping[Task, Price]) -> str:
    """Return the reason for this region instead of another that begins at the same node."""
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
    """Return the part that a rival covers, and its layouts if they differ."""
    place = f"nodes {rival.first} to {rival.last}"
    alike = (rival.before, rival.after) == (region.before, region.after)
    return place if alike else f"{place} from {rival.before} to {rival.after}"
