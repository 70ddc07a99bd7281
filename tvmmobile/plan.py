"""The cheapest cover of a network by kernels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tvmmobile.layers import Conv2d, Layer, Layout, blocked
from tvmmobile.network import Network
from tvmmobile.tasks import Task

#: Longest region considered; fused templates beyond this would need more registers and cache than the boards have.
MAX_REGION = 6
#: Sizes of channel blocks, the best first: 32 where it divides the channels.
USUAL_BLOCKS = (32, 48, 24, 40, 16, 20, 28, 36, 44)
#: Channels below which blocks were never faster, and from which on they always were (MobileNet v1, virtual Pi 4).
FEWEST_BLOCKED, FEWEST_ONLY_BLOCKED = 64, 128
#: Input channels beyond which no product is fused with what follows it.
MOST_FUSED = 256


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


@dataclass(frozen=True)
class VariantTasks:
    """What of a variant may become one kernel.

    Attributes:
        nodes: of its network.
        regions: first node, last node and task, in order.
        sources: the opaque tasks' TIR functions as JSON text.
    """

    nodes: int
    regions: tuple[tuple[int, int, Task], ...]
    sources: Mapping[Task, str]


def edge_layouts(layer: Layer, following: Layer) -> tuple[Layout, ...]:
    """The layouts worth trying between two layers, the one to take where nothing is measured first.

    Pixels of many channels are a power of two apart in NHWC and displace each other in a first-level cache of two ways; in blocks of
    about 32 channels they lie together, and whatever a kernel reads of a block at a time is in one piece.
    """
    if not (isinstance(layer, Conv2d) and isinstance(following, Conv2d)):
        return ("NHWC",)
    channels = layer.out_channels
    blocks = [block for block in USUAL_BLOCKS if channels % block == 0 and channels > block]
    if channels < FEWEST_BLOCKED or not blocks:
        return ("NHWC",)
    # A product that is one kernel with the depthwise layer behind it reads pixel by pixel.
    fusable = layer.is_depthwise and following.is_pointwise and channels <= MOST_FUSED
    return (blocked(blocks[0]), "NHWC") if channels < FEWEST_ONLY_BLOCKED or fusable else (blocked(blocks[0]),)


def candidate_regions(
    network: Network,
    takes: Callable[[Task], bool],
    dtype: str,
    threads: int,
    layouts: Callable[[Layer, Layer], tuple[Layout, ...]] = edge_layouts,
) -> list[tuple[int, int, Task]]:
    """Every region that may become one kernel: each single layer and each chain that a template takes, with each layout at its ends.

    Args:
        takes: whether some template takes a task of several layers, or with channels in blocks.
        layouts: what to try between two layers.

    Returns:
        (first node, last node, task), in order.
    """
    nodes = network.nodes
    edges: list[tuple[Layout, ...]] = [("NHWC",)] * (len(nodes) + 1)
    for index in range(1, len(nodes)):
        if not nodes[index - 1].alone:
            pair = nodes[index - 1].layer, nodes[index].layer
            edges[index] = tuple(layout for layout in layouts(*pair) if _both_take(pair, layout, takes, dtype, threads)) or ("NHWC",)
    found = []
    for first in range(len(nodes)):
        for last in range(first, min(first + MAX_REGION, len(nodes))):
            layers = tuple(node.layer for node in nodes[first : last + 1])
            for before, after in itertools.product(edges[first], edges[last + 1]):
                task = Task(_between(layers, before, after), dtype, threads)
                if task.region == layers == layers[:1] or takes(task):
                    found.append((first, last, task))
            if nodes[last].alone:
                break
    return found


def _both_take(pair: tuple[Layer, Layer], layout: Layout, takes: Callable[[Task], bool], dtype: str, threads: int) -> bool:
    """Whether each of two layers can be a kernel of its own with this layout between them: a plan may have to take it so."""
    ends = (_between(pair[:1], "NHWC", layout), _between(pair[1:], layout, "NHWC"))
    return layout == "NHWC" or all(takes(Task(region, dtype, threads)) for region in ends)


def _between(layers: tuple[Layer, ...], before: Layout, after: Layout) -> tuple[Layer, ...]:
    """The layers, the first reading `before` and the last writing `after`; NHWC stands for what a layer has anyway."""
    ends = list(layers)
    if before != "NHWC" and isinstance(ends[0], Conv2d):
        ends[0] = replace(ends[0], in_layout=before)
    if after != "NHWC" and isinstance(ends[-1], Conv2d):
        ends[-1] = replace(ends[-1], out_layout=after)
    return tuple(ends)


def _ends(task: Task) -> tuple[Layout, Layout]:
    """The layouts at both ends of a task; what is not in blocks is called NHWC."""
    first, last = task.region[0], task.region[-1]
    before = first.in_layout if isinstance(first, Conv2d) and first.in_layout != "NCHW" else "NHWC"
    return before, last.out_layout if isinstance(last, Conv2d) else "NHWC"


def detours(
    count: int, regions: Sequence[tuple[int, int, Task]], latency_us: Callable[[Task], float | None]
) -> dict[tuple[int, int, Task], float]:
    """By how much the best plan that has a region is slower than the best plan of all, in microseconds; 0 where it is part of that.

    Args:
        count: nodes of the network.
        regions: as `candidate_regions` lists them; those never measured are left out.
        latency_us: of a task's best schedule, `None` where it was never measured.
    """
    known = [(first, last, task, latency) for first, last, task in regions if (latency := latency_us(task)) is not None]
    before: list[dict[Layout, float]] = [{} for _ in range(count + 1)]
    after: list[dict[Layout, float]] = [{} for _ in range(count + 1)]
    before[0] = after[count] = {"NHWC": 0.0}
    for first, last, task, latency in sorted(known, key=lambda region: region[1]):
        source, target = _ends(task)
        reached = before[first].get(source, math.inf) + latency
        before[last + 1][target] = min(before[last + 1].get(target, math.inf), reached)
    for first, last, task, latency in sorted(known, key=lambda region: -region[0]):
        source, target = _ends(task)
        left = after[last + 1].get(target, math.inf) + latency
        after[first][source] = min(after[first].get(source, math.inf), left)
    best = after[0].get("NHWC", math.inf)
    found = {}
    for first, last, task, latency in known:
        source, target = _ends(task)
        whole = before[first].get(source, math.inf) + latency + after[last + 1].get(target, math.inf)
        found[first, last, task] = whole - best if whole < math.inf else math.inf
    return found


def make_plan(network: Network, regions: list[tuple[int, int, Task]], price: Callable[[Task], Price]) -> Plan:
    """Choose regions and the layouts between them such that the sum of their latencies is least.

    A region of several layers must have been measured to be chosen; a single layer without a measurement is taken where nothing else covers
    it, at no claimed cost, and of its layouts the first that `edge_layouts` names.
    """
    count = len(network.nodes)
    by_first: dict[int, list[Step]] = {}
    for first, last, task in regions:
        cost = price(task)
        if first == last or cost.latency_us is not None:
            by_first.setdefault(first, []).append(Step(first, last, task, cost, ""))
    #: By node and the layout of its input: unmeasured kernels and latency from there on, and the first step.
    best: list[dict[Layout, tuple[int, float, Step | None]]] = [{} for _ in range(count)] + [{"NHWC": (0, 0.0, None)}]
    for first in range(count - 1, -1, -1):
        for step in by_first[first]:
            before, after = _ends(step.task)
            if after not in best[step.last + 1]:
                continue
            unmeasured, rest, _ = best[step.last + 1][after]
            option = (unmeasured + (step.price.latency_us is None), rest + (step.price.latency_us or 0.0), step)
            if before not in best[first] or option[:2] < best[first][before][:2]:
                best[first][before] = option
    steps: list[Step] = []
    position, layout = 0, "NHWC"
    while position < count:
        chosen = best[position][layout][2]
        assert chosen is not None
        steps.append(Step(chosen.first, chosen.last, chosen.task, chosen.price, _reason(chosen, by_first)))
        position, layout = chosen.last + 1, _ends(chosen.task)[1]
    return Plan(tuple(steps))


def _described(price: Price) -> str:
    return "never measured" if price.latency_us is None else f"{price.latency_us:.1f} us"


def _reason(step: Step, by_first: dict[int, list[Step]]) -> str:
    """Why this region and not another one that begins at the same node."""
    rivals: dict[tuple[int, tuple[Layout, Layout]], Step] = {}
    for rival in by_first[step.first]:
        if rival.task != step.task:
            rivals[rival.last, _ends(rival.task)] = rival
    if step.price.latency_us is None:
        return "no measurement yet; " + step.price.source
    chosen = f"{step.price.latency_us:.1f} us, {step.price.source}"
    if not rivals:
        return f"the only kernel for this layer: {chosen}"
    described = ", ".join(f"{_place(rival, step)} {_described(rival.price)}" for rival in rivals.values())
    return f"cheapest cover: {chosen}; instead of {described}"


def _place(rival: Step, step: Step) -> str:
    """What a rival covers, and its layouts where they are others."""
    place = f"nodes {rival.first} to {rival.last}"
    return place if _ends(rival.task) == _ends(step.task) else f"{place} from {' to '.join(_ends(rival.task))}"
