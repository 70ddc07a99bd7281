"""The candidate kernels of a network: chains of its nodes, with the layouts of their inputs and outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tvmmobile.graph.layers import Layer
from tvmmobile.graph.layouts import Layout, blocked
from tvmmobile.graph.machine import BASELINE, Machine
from tvmmobile.graph.network import Float32Layer, Network, Node, Wiring
from tvmmobile.graph.tasks import Task
from tvmmobile.tuning.zeros import planes_of

#: Longest region considered; fused templates beyond this would need more registers and cache than the boards have.
MAX_REGION = 6
#: Sizes of channel blocks, the best first: 32 where it divides the channels.
USUAL_BLOCKS = (32, 48, 24, 40, 16, 20, 28, 36, 44)


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
class VariantTasks:
    """Candidate kernels of a variant.

    Attributes:
        nodes: number of nodes of its network.
        regions: candidate kernels, in the order of their nodes.
        sources: opaque tasks' TIR functions as JSON text.
        float32_layers: layers that stay in float32 although the others do not.
        macs: multiply-adds of opaque tasks.
        wiring: what passes between the nodes.
    """

    nodes: int
    regions: tuple[Region, ...]
    sources: Mapping[Task, str]
    float32_layers: tuple[Float32Layer, ...] = ()
    macs: Mapping[Task, int] = field(default_factory=dict)
    wiring: Wiring = field(default_factory=Wiring)


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
    """Return regions that may become one kernel, in order: single layers and chains that a template takes, with each layout at the ends.

    Args:
        accepts: returns whether some template takes a task of several layers, or with channels in blocks.
        task_of: returns the task of a region's layers, in the network's precision; nodes of another one are in regions of their own.
        layouts: returns the layouts worth trying between two layers.
    """

    def task_in(region: tuple[Layer, ...], dtype: str) -> Task:
        """Return the region's task in a node's precision."""
        task = task_of(region)
        return replace(task, dtype=dtype) if dtype else task

    edges = _Edges(network, lambda *region: accepts(task_in(*region)))
    edges.try_blocks(layouts, task_in)
    edges.try_planes()
    nodes, found = network.nodes, []
    for first, last in _spans(nodes):
        layers = tuple(node.layer for node in nodes[first : last + 1])
        for before, after, region in edges.around(first, last, layers):
            task = task_in(region, nodes[first].dtype)
            if task.region == layers == layers[:1] or accepts(task):
                found.append(Region(first, last, task, before, after))
    return found


def _spans(nodes: Sequence[Node]) -> Iterator[tuple[int, int]]:
    """Yield the first and last node of each chain that may be a region."""
    for first in range(len(nodes)):
        for last in range(first, min(first + MAX_REGION, len(nodes))):
            yield first, last
            if nodes[last].alone or nodes[min(last + 1, len(nodes) - 1)].dtype != nodes[first].dtype:
                break


class _Edges:
    """The layouts that are tried at each position between nodes: first NHWC alone.

    Attributes:
        layouts: layouts by position, the first of which is used if nothing is measured.
        bypassed: positions that an activation passes on its way to a later node.
        passing: nodes that an activation in NCHW passes on its way to where it is added: they do not change to or from it.
    """

    def __init__(self, network: Network, accepts: Callable[[tuple[Layer, ...], str], bool]) -> None:
        self.network, self.accepts, self.planes = network, accepts, planes_of(network)
        self.layouts: list[tuple[Layout, ...]] = [("NHWC",)] * (len(network.nodes) + 1)
        self.bypassed, self.passing = set[int](), set[int]()

    def try_blocks(
        self, layouts: Callable[[Layer, Layer, int, Machine], tuple[Layout, ...]], task_in: Callable[[tuple[Layer, ...], str], Task]
    ) -> None:
        """Add the layouts between a node and its readers that all of them take."""
        nodes = self.network.nodes
        for index, node in enumerate(nodes[:-1]):
            readers = () if index + 1 in self.bypassed else tuple(nodes[reader] for reader in _readers(self.network, index))
            if readers:
                tasks = [task_in((one.layer,), one.dtype) for one in (node, *readers)]
                lanes = max(task.lanes for task in tasks)  # of the longest vector
                tried = layouts(node.layer, readers[0].layer, lanes, tasks[0].machine)
                known = tuple(layout for layout in tried if self._all_accept(node, readers, layout)) or ("NHWC",)
                places = _places_behind(index, node)
                self.layouts[places.start : places.stop] = [known] * len(places)
                self.bypassed.update(places[1:])

    def try_planes(self) -> None:
        """Add NCHW between nodes that may have it on both sides."""
        nodes = self.network.nodes
        for index, node in enumerate(nodes[:-1]):
            together = {index, *_readers(self.network, index), *((index + 1, *node.adding) if node.adding else ())}
            if len(together) > 1 and together <= self.planes.keys() and index + 1 not in self.bypassed:
                for place in _places_behind(index, node):
                    self.layouts[place] = (*self.layouts[place], "NCHW")
                self.passing.update(range(index + 1, max(node.adding, default=index) + 1))

    def around(self, first: int, last: int, layers: tuple[Layer, ...]) -> Iterator[tuple[Layout, Layout, tuple[Layer, ...]]]:
        """Yield the layouts in front of and behind a region, and its layers as they read and write them."""
        passed = last + 1 in self.bypassed
        for before, after in itertools.product(self.layouts[first], self.layouts[last + 1]):
            turned = (before == "NCHW") != (after == "NCHW")
            if (passed and before != after) or (turned and not self.passing.isdisjoint(range(first, last + 1))):
                continue
            read, written = "NHWC" if passed and first in self.bypassed else before, "NHWC" if passed else after
            sparse = read == written == "NCHW" and last in self.planes
            yield before, after, _between((*layers[:-1], self.planes[last]) if sparse else layers, read, written)

    def _all_accept(self, node: Node, readers: tuple[Node, ...], layout: Layout) -> bool:
        """Return whether a layer and each of its readers can be kernels of their own with this layout between them, as plans may need."""
        regions = [(_between((node.layer,), "NHWC", layout), node.dtype)]
        regions += [(_between((reader.layer,), layout, "NHWC"), reader.dtype) for reader in readers]
        return layout == "NHWC" or all(itertools.starmap(self.accepts, regions))


def _places_behind(index: int, node: Node) -> range:
    """Return the positions that a node's output passes: the next one, or those up to the node that it is gated by."""
    return range(index + 1, (node.gated or index + 1) + 1)


def _readers(network: Network, index: int) -> tuple[int, ...]:
    """Return the nodes for which a node's output may lie in blocks; none if it must be NHWC."""
    node = network.nodes[index]
    if node.gated is not None:
        return index + 1, node.gated
    return () if node.alone else (index + 1,)


def _between(layers: tuple[Layer, ...], before: Layout, after: Layout) -> tuple[Layer, ...]:
    """Return the layers, the first reading `before` and the last writing `after`; NHWC stands for the layer's own layout."""
    ends = list(layers)
    ends[0] = ends[0].with_layouts(before, "NHWC")
    ends[-1] = ends[-1].with_layouts("NHWC", after)
    return tuple(ends)
