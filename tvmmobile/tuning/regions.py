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

#: Most nodes per region; longer fused kernels would need more registers and cache than the boards have.
MAX_REGION = 6
#: Sizes of channel blocks, best first.
USUAL_BLOCKS = (32, 48, 24, 40, 16, 20, 28, 36, 44)


@dataclass(frozen=True)
class Region:
    """The nodes `first` to `last` (inclusive), which may become one kernel.

    Attributes:
        task: task of the kernel.
        before, after: layouts of the activations before `first` and after `last`; everything that is not blocked or NCHW is called NHWC.
            The kernel reads and writes them, except between the nodes of a squeeze-and-excite, which the block's input bypasses.
    """

    first: int
    last: int
    task: Task
    before: Layout = "NHWC"
    after: Layout = "NHWC"


@dataclass(frozen=True)
class VariantTasks:
    """The candidate kernels of a variant.

    Attributes:
        nodes: number of nodes of the variant's network.
        regions: candidate kernels, in the order of their nodes.
        sources: TIR functions of opaque tasks, as JSON text.
        float32_layers: layers that stay in float32 although the others do not.
        macs: multiply-adds of opaque tasks.
        wiring: tensors that pass between the nodes.
    """

    nodes: int
    regions: tuple[Region, ...]
    sources: Mapping[Task, str]
    float32_layers: tuple[Float32Layer, ...] = ()
    macs: Mapping[Task, int] = field(default_factory=dict)
    wiring: Wiring = field(default_factory=Wiring)


def distinct_tasks(variants: Sequence[VariantTasks]) -> dict[Task, str | None]:
    """Return every distinct task, in order of first use, with its TIR function as JSON text if it is opaque, else `None`."""
    sources: dict[Task, str | None] = {}
    for variant in variants:
        for region in variant.regions:
            sources.setdefault(region.task, variant.sources.get(region.task))
    return sources


def edge_layouts(layer: Layer, following: Layer, lanes: int = 4, machine: Machine = BASELINE) -> tuple[Layout, ...]:
    """Return the layouts worth trying between two layers, first the one to use if nothing is measured.

    In NHWC, pixels with many channels are often a power of two apart, and evict each other from a two-way L1; in blocks of about 32
    channels they are close together, and what a kernel reads from a block is contiguous. Blocks are whole vectors of `lanes`.
    """
    if not (layer.writes_blocks and following.reads_blocks):
        return ("NHWC",)
    channels = layer.output_shape[-1]
    blocks = [block for block in USUAL_BLOCKS if channels % block == 0 and channels > block and block % lanes == 0]
    if channels < machine.fewest_blocked or not blocks:
        return ("NHWC",)
    # A 1×1 convolution that may be fused with the depthwise layer before it reads pixel by pixel.
    fusable = layer.is_depthwise and following.is_pointwise and channels <= machine.most_fused
    either = channels < machine.fewest_only_blocked or fusable or following.reads_lines
    return (blocked(blocks[0]), "NHWC") if either else (blocked(blocks[0]),)


def candidate_regions(
    network: Network,
    accepts: Callable[[Task], bool],
    task_of: Callable[[tuple[Layer, ...]], Task],
    layouts: Callable[[Layer, Layer, int, Machine], tuple[Layout, ...]] = edge_layouts,
) -> list[Region]:
    """Return the regions that may become one kernel, in order: single layers, and chains that a template accepts, with all layouts at their
    ends.

    Args:
        accepts: returns whether some template accepts a task of several layers, or with blocked channels.
        task_of: returns the task of a region's layers in the network's precision; nodes in another precision form regions of their own.
        layouts: returns the layouts worth trying between two layers.
    """

    def task_in(region: tuple[Layer, ...], dtype: str) -> Task:
        """Return the region's task in a node's precision."""
        task = task_of(region)
        return replace(task, dtype=dtype) if dtype else task

    edges = _Edges(network, lambda *region: accepts(task_in(*region)))
    edges.try_blocks(layouts, task_in)
    edges.try_planes()
    nodes, regions = network.nodes, []
    for first, last in _spans(nodes):
        layers = tuple(node.layer for node in nodes[first : last + 1])
        for before, after, region in edges.around(first, last, layers):
            task = task_in(region, nodes[first].dtype)
            if task.region == layers == layers[:1] or accepts(task):
                regions.append(Region(first, last, task, before, after))
    return regions


def _spans(nodes: Sequence[Node]) -> Iterator[tuple[int, int]]:
    """Yield the first and last node of each chain that may be a region."""
    for first in range(len(nodes)):
        for last in range(first, min(first + MAX_REGION, len(nodes))):
            yield first, last
            if nodes[last].alone or nodes[min(last + 1, len(nodes) - 1)].dtype != nodes[first].dtype:
                break


class _Edges:
    """The layouts to try at each position between nodes; initially only NHWC.

    Attributes:
        layouts: layouts by position, first the one that is used if nothing is measured.
        bypassed: positions that an activation passes on its way to a later node.
        passing: nodes that an NCHW activation passes on its way to a residual addition; they must not change to or from NCHW.
    """

    def __init__(self, network: Network, accepts: Callable[[tuple[Layer, ...], str], bool]) -> None:
        self.network, self.accepts, self.planes = network, accepts, planes_of(network)
        self.layouts: list[tuple[Layout, ...]] = [("NHWC",)] * (len(network.nodes) + 1)
        self.bypassed, self.passing = set[int](), set[int]()

    def try_blocks(
        self, layouts: Callable[[Layer, Layer, int, Machine], tuple[Layout, ...]], task_in: Callable[[tuple[Layer, ...], str], Task]
    ) -> None:
        """Set the layouts between each node and its readers to those that all of them accept."""
        nodes = self.network.nodes
        for index, node in enumerate(nodes[:-1]):
            readers = () if index + 1 in self.bypassed else tuple(nodes[reader] for reader in _readers(self.network, index))
            if readers:
                tasks = [task_in((neighbour.layer,), neighbour.dtype) for neighbour in (node, *readers)]
                lanes = max(task.lanes for task in tasks)  # of the longest vector
                candidates = layouts(node.layer, readers[0].layer, lanes, tasks[0].machine)
                accepted = tuple(layout for layout in candidates if self._all_accept(node, readers, layout)) or ("NHWC",)
                places = _places_behind(index, node)
                self.layouts[places.start : places.stop] = [accepted] * len(places)
                self.bypassed.update(places[1:])

    def try_planes(self) -> None:
        """Add NCHW to the layouts between nodes that support it on both sides."""
        nodes = self.network.nodes
        for index, node in enumerate(nodes[:-1]):
            together = {index, *_readers(self.network, index), *((index + 1, *node.adding) if node.adding else ())}
            if len(together) > 1 and together <= self.planes.keys() and index + 1 not in self.bypassed:
                for place in _places_behind(index, node):
                    self.layouts[place] = (*self.layouts[place], "NCHW")
                self.passing.update(range(index + 1, max(node.adding, default=index) + 1))

    def around(self, first: int, last: int, layers: tuple[Layer, ...]) -> Iterator[tuple[Layout, Layout, tuple[Layer, ...]]]:
        """Yield (layout before, layout after, layers that read and write these layouts) for each combination that a region may have."""
        passed = last + 1 in self.bypassed
        for before, after in itertools.product(self.layouts[first], self.layouts[last + 1]):
            transposes = (before == "NCHW") != (after == "NCHW")
            if (passed and before != after) or (transposes and not self.passing.isdisjoint(range(first, last + 1))):
                continue
            read, written = "NHWC" if passed and first in self.bypassed else before, "NHWC" if passed else after
            sparse = read == written == "NCHW" and last in self.planes
            yield before, after, _between((*layers[:-1], self.planes[last]) if sparse else layers, read, written)

    def _all_accept(self, node: Node, readers: tuple[Node, ...], layout: Layout) -> bool:
        """Return whether a layer and each of its readers can be separate kernels with this layout between them, as a plan may need."""
        regions = [(_between((node.layer,), "NHWC", layout), node.dtype)]
        regions += [(_between((reader.layer,), layout, "NHWC"), reader.dtype) for reader in readers]
        return layout == "NHWC" or all(itertools.starmap(self.accepts, regions))


def _places_behind(index: int, node: Node) -> range:
    """Return the positions that a node's output passes: the next one, or those up to the node where it is gated."""
    return range(index + 1, (node.gated or index + 1) + 1)


def _readers(network: Network, index: int) -> tuple[int, ...]:
    """Return the nodes that read a node's output, if it may be blocked; none if it must be NHWC."""
    node = network.nodes[index]
    if node.gated is not None:
        return index + 1, node.gated
    return () if node.alone else (index + 1,)


def _between(layers: tuple[Layer, ...], before: Layout, after: Layout) -> tuple[Layer, ...]:
    """Return the layers with the first reading `before` and the last writing `after`; NHWC means the layer's own layout."""
    ends = list(layers)
    ends[0] = ends[0].with_layouts(before, "NHWC")
    ends[-1] = ends[-1].with_layouts("NHWC", after)
    return tuple(ends)
