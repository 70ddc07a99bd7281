"""Sparse weights in clusters: groups of outputs whose nonzero patterns overlap are computed together, so that they share loads of pixels.

Within a cluster, input channels are sorted by the groups that have weights for them. There is one list for each group and one for each pair
of groups, so each list's loop multiplies a fixed set of groups; a channel that three groups use is in two lists.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr
from tvmmobile.schedules.emit.sparse_entries import SparseLists
from tvmmobile.schedules.emit.sparse_nest import StripWork
from tvmmobile.schedules.space import Knobs, round_up

#: Elements that a kernel may load past the last weight.
_BEHIND = 8
#: Registers for loaded pixels, each of which several products read.
_MOST_LOADED = 3


def registers_of(task: Task, layer: Conv2d, vectors: int, knobs: Knobs) -> int:
    """Return the number of registers that a cluster's kernel needs for strips of `vectors` vectors."""
    together = layer.sparse[1]
    sums = vectors * together * knobs["cluster"] * (2 if task.precision.chain else 1)
    return sums + _MOST_LOADED + round_up(2 * together * knobs["unroll"], task.lanes) // task.lanes


def output_holds_sums(task: Task) -> bool:
    """Return whether the output has the accumulators' type, so that it can hold partial sums."""
    return task.storage[1] == task.precision and task.precision.accumulator == task.precision.name


@dataclass(frozen=True)
class Clusters(SparseLists):
    """Lists of input channels, each for one or two groups of a cluster; each cluster is a unit.

    Attributes:
        size: groups per cluster.
        unroll: entries per step; lists are zero-padded to whole steps.
    """

    size: int
    unroll: int

    @classmethod
    def of(cls, task: Task, layer: Conv2d, knobs: Knobs) -> Clusters:
        """Return the clusters of a kernel."""
        return cls(layer, knobs["k_block"], task.threads if knobs["axis"] else 1, knobs["cluster"], knobs["unroll"])

    @property
    def units(self) -> int:
        """Number of units; each cluster is one."""
        return self.groups // self.size

    @property
    def lists(self) -> list[tuple[int, ...]]:
        """Groups of each list of a segment, counted within their cluster."""
        return _lists(self.size)

    def pack(self, weight: Array, stride: int, in_blocks: bool) -> list[Array]:
        """Return the kernel's `weight`, `offsets`, `starts` (first step of each list), `firsts` (first weight of each segment), `order`
        (groups, cluster by cluster) and `bounds` (first cluster of each thread).
        """
        groups, pattern = self.in_groups(weight)
        order = np.array(_clustered(pattern, self.size), np.int32)
        bounds = self.shares(pattern[:, order].reshape(len(weight), self.units, self.size).sum((0, 2)))
        values: list[Array] = []
        offsets: list[Array] = []
        starts, firsts = [0], []
        for low, high in itertools.pairwise(bounds):
            for (top, bottom), unit in itertools.product(self.blocks, range(low, high)):
                cluster = order[unit * self.size :][: self.size]
                firsts.append(sum(map(len, values)))
                for members, chosen in zip(self.lists, self._chosen(pattern[top:bottom, cluster]), strict=True):
                    inputs = top + np.flatnonzero(chosen)
                    values.append(groups[inputs[:, None], cluster[list(members)]].ravel())
                    places = (inputs - top * in_blocks) * stride
                    padding = -len(inputs) % self.unroll
                    values.append(np.zeros(padding * len(members) * self.together, weight.dtype))
                    offsets += [places, places[-1:].repeat(padding)]
                    starts.append(starts[-1] + (len(inputs) + padding) // self.unroll)
        weights, channels = np.zeros(self.shapes["weight"], weight.dtype), np.zeros(self.shapes["offsets"], np.int32)
        weights[: sum(map(len, values))] = np.concatenate(values)
        channels[: starts[-1] * self.unroll] = np.concatenate(offsets)
        return [weights, channels, *(np.array(numbers, np.int32) for numbers in (starts, firsts, order, bounds))]

    def _chosen(self, pattern: Array) -> list[Array]:
        """Return a mask of the channels of each list, given their `pattern` [channel, group]; every nonzero is in exactly one list."""
        remaining = pattern.copy()
        masks: dict[tuple[int, ...], Array] = {}
        for members in reversed(self.lists):
            masks[members] = np.asarray(remaining[:, members].all(1))
            remaining[:, members] &= ~masks[members][:, None]
        if self.unroll == 2:
            for pair in _split_pairs(self.size, self.together, tuple(bool(masks[members].sum() % 2) for members in self.lists)):
                channel = np.flatnonzero(masks[pair])[0]
                masks[pair][channel] = False
                for group in pair:
                    masks[(group,)][channel] = True
        return [masks[members] for members in self.lists]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the arrays that `pack` returns, by name."""
        count, lists, filled = self.layer.sparse[0], self.segments * len(self.lists), self.segments * (self.unroll - 1)
        extents = {
            "weight": (count + filled * sum(map(len, self.lists))) * self.together + _BEHIND,
            "offsets": count + filled * len(self.lists) + self.unroll,
            "starts": lists + 1,
            "firsts": self.segments,
            "order": self.groups,
            "bounds": self.threads + 1,
        }
        return {name: (extent,) for name, extent in extents.items()}


def _lists(size: int) -> list[tuple[int, ...]]:
    """Return the groups of each list of a cluster: one list for each group, and one for each pair of groups."""
    return [members for count in (1, 2) for members in itertools.combinations(range(size), count)]


@cache
def _split_pairs(size: int, together: int, odd: tuple[bool, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the pairs of groups whose lists should each give a channel to both groups' own lists, which costs a load, so that fewer lists
    are padded with an entry: as cheap as possible, counting loads and products.

    Args:
        odd: true for each list with an odd number of channels.
    """
    odd_lists = frozenset(members for members, is_odd in zip(_lists(size), odd, strict=True) if is_odd)
    pairs = [members for members in sorted(odd_lists) if len(members) == 2]

    def work(split: tuple[tuple[int, ...], ...]) -> int:
        padded = odd_lists.symmetric_difference(split)
        for group in itertools.chain.from_iterable(split):
            padded = padded.symmetric_difference({(group,)})
        return len(split) + sum(1 + len(members) * together for members in padded)

    return min((split for count in range(len(pairs) + 1) for split in itertools.combinations(pairs, count)), key=work)


def _clustered(pattern: Array, size: int) -> list[int]:
    """Order groups so that each `size` consecutive ones share many input channels, by greedily pairing groups, then pairs, and so on.

    Args:
        pattern: true for nonzeros, [input channel, group].
        size: groups per cluster, a power of two that divides their number.
    """
    clusters = [[group] for group in range(pattern.shape[1])]
    while len(clusters[0]) < size:
        joined = np.stack([pattern[:, cluster].any(1) for cluster in clusters], 1).astype(np.float32)
        common = np.triu(joined.T @ joined + 1, 1)
        free = np.ones(len(clusters), bool)
        pairs = []
        for place in np.argsort(-common, axis=None, kind="stable"):
            first, second = divmod(int(place), len(clusters))
            if free[first] and free[second]:
                free[[first, second]] = False
                pairs.append(clusters[first] + clusters[second])
                if len(pairs) * 2 == len(clusters):
                    break
        clusters = pairs
    return list(itertools.chain.from_iterable(clusters))


class ClusterStrip(StripWork[Clusters]):
    """The work on a strip whose units are clusters."""

    @cached_property
    def _next_offsets(self) -> Buffer:
        """Offsets of the next step, which are loaded one step ahead, even across lists."""
        return self.nest.kernel.places(self.nest.entries.unroll)

    def begin(self, segment: Expr) -> None:
        """Load the segment's first offsets."""
        self._load_offsets(self.nest.buffers["starts"][segment * len(self.nest.entries.lists)])

    def _load_offsets(self, step: Expr) -> None:
        unroll, buffer = self.nest.entries.unroll, self.nest.buffers["offsets"]
        for entry in range(unroll):
            self.nest.kernel.T.buffer_store(self._next_offsets, buffer[step * unroll + entry], [entry])

    def channels(self, unit: Expr) -> Sequence[Expr]:
        """Return the output channels of the cluster's groups."""
        kernel, entries, order = self.nest.kernel, self.nest.entries, self.nest.buffers["order"]
        groups = [kernel.T.bind(order[unit * entries.size + number]) for number in range(entries.size)]
        return [group * entries.together + member for group in groups for member in range(entries.together)]

    def add(self, sums: Buffer, segment: Expr) -> None:
        """Emit a loop over the steps of each list."""
        kernel, entries, starts = self.nest.kernel, self.nest.entries, self.nest.buffers["starts"]
        strip = entries.together * len(self.strips.vectors)
        first = kernel.T.bind(kernel.T.Cast("int64", self.nest.buffers["firsts"][segment]))
        begin = kernel.T.bind(kernel.T.Cast("int64", starts[segment * len(entries.lists)]))
        for number, members in enumerate(entries.lists):
            end = kernel.T.bind(kernel.T.Cast("int64", starts[segment * len(entries.lists) + (number + 1)]))
            places = [(member * strip + vector) * self.strips.lanes for member in members for vector in range(strip)]
            weights = len(members) * entries.together * entries.unroll
            self.loop(sums, places, (begin, end), entries.unroll, partial(self._step, first - begin * weights, weights))
            first, begin = kernel.T.bind(first + (end - begin) * weights), end

    def _step(self, origin: Expr, count: int, sums: Buffer, places: Sequence[int], step: Expr) -> None:
        """Emit the entries of one step, whose `count` weights begin at `origin + step * count`."""
        kernel, unroll = self.nest.kernel, self.nest.entries.unroll
        offsets = [kernel.T.bind(self._next_offsets[entry]) for entry in range(unroll)]
        width = min(max(count, 2), kernel.lanes)
        corner = origin + step * count
        loaded = [kernel.T.bind(kernel.load(self.nest.buffers["weight"], corner + place, width)) for place in range(0, count, width)]
        self._load_offsets(step + 1)
        weights = [
            kernel.splat(kernel.T.Shuffle([loaded[number // width]], [number % width]), self.strips.lanes) for number in range(count)
        ]
        per_entry = count // unroll
        for entry, offset in enumerate(offsets):
            self.multiply(sums, places, offset, weights[entry * per_entry : (entry + 1) * per_entry])
