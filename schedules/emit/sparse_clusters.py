"""Sparse weights in clusters: outputs whose patterns overlap are computed together, so that pixels two of them need are loaded once.

A cluster's input channels are sorted by which of its groups have weights for them. Those of one group and those of each two are lists of
their own, whose loops know what to multiply; a channel of three groups stands in two lists.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr
from tvmmobile.schedules.emit.sparse_entries import SparseLists
from tvmmobile.schedules.emit.sparse_nest import StripWork
from tvmmobile.schedules.space import Knobs, round_up

#: Elements that a kernel may load behind the last weight.
_BEHIND = 8
#: Registers of pixels that were loaded and not yet multiplied: several products need each.
_MOST_LOADED = 3


def registers_of(task: Task, layer: Conv2d, vectors: int, knobs: Knobs) -> int:
    """Return how many registers a cluster's kernel needs for strips of so many vectors."""
    together = layer.sparse[1]
    sums = vectors * together * knobs["cluster"] * (2 if task.precision.chain else 1)
    return sums + _MOST_LOADED + round_up(2 * together * knobs["unroll"], task.lanes) // task.lanes


def output_holds_sums(task: Task) -> bool:
    """Return whether an output has the type of the sums, so that partial ones can wait there."""
    return task.storage[1] == task.precision and task.precision.accumulator == task.precision.name


@dataclass(frozen=True)
class Clusters(SparseLists):
    """Lists of input channels, each for one or two groups of a cluster; clusters are units.

    Attributes:
        size: groups of a cluster.
        unroll: entries of a step; lists are filled up to whole steps with zeros.
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
        return [members for count in (1, 2) for members in itertools.combinations(range(self.size), count)]

    def pack(self, weight: Array, stride: int, in_blocks: bool) -> list[Array]:
        """Return the kernel's `weight`, `offsets`, `starts` (the first step of each list), `firsts` (the first weight of each segment),
        `order` (the groups, cluster after cluster) and `bounds` (each thread's first cluster).
        """
        groups, pattern = self.in_groups(weight)
        order = np.array(_clustered(pattern, self.size), np.int32)
        bounds = self.shares(pattern[:, order].reshape(len(weight), self.units, self.size).sum((0, 2)))
        values: list[Array] = []
        offsets: list[Array] = []
        starts, firsts = [0], []
        for low, high in itertools.pairwise(bounds):
            for (top, bottom), unit in itertools.product(self.blocks, range(low, high)):
                own = order[unit * self.size :][: self.size]
                firsts.append(sum(map(len, values)))
                for members, chosen in zip(self.lists, self._chosen(pattern[top:bottom, own]), strict=True):
                    inputs = top + np.flatnonzero(chosen)
                    values.append(groups[inputs[:, None], own[list(members)]].ravel())
                    places = (inputs - top * in_blocks) * stride
                    filled = -len(inputs) % self.unroll
                    values.append(np.zeros(filled * len(members) * self.together, weight.dtype))
                    offsets += [places, places[-1:].repeat(filled)]
                    starts.append(starts[-1] + (len(inputs) + filled) // self.unroll)
        weights, channels = np.zeros(self.shapes["weight"], weight.dtype), np.zeros(self.shapes["offsets"], np.int32)
        weights[: sum(map(len, values))] = np.concatenate(values)
        channels[: starts[-1] * self.unroll] = np.concatenate(offsets)
        return [weights, channels, *(np.array(one, np.int32) for one in (starts, firsts, order, bounds))]

    def _chosen(self, pattern: Array) -> list[Array]:
        """Return for each list which of some channels are in it: every group of a channel is in one list."""
        left = pattern.copy()
        found: list[Array] = []
        for members in map(list, reversed(self.lists)):
            chosen = np.asarray(left[:, members].all(1))
            left[:, members] &= ~chosen[:, None]
            found.append(chosen)
        return found[::-1]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what `pack` returns."""
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


def _clustered(pattern: Array, size: int) -> list[int]:
    """Return groups in an order in which each `size` share many input channels: the best two are joined first, then pairs alike."""
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
    """The work on a strip where units are clusters."""

    @cached_property
    def _next_offsets(self) -> Buffer:
        """The offsets of the next step, loaded a step ahead, across lists too."""
        return self.nest.kernel.places(self.nest.entries.unroll)

    def begin(self, segment: Expr) -> None:
        """Load the first offsets."""
        self._load_offsets(self.nest.buffers["starts"][segment * len(self.nest.entries.lists)])

    def _load_offsets(self, step: Expr) -> None:
        unroll, buffer = self.nest.entries.unroll, self.nest.buffers["offsets"]
        for entry in range(unroll):
            self.nest.kernel.T.buffer_store(self._next_offsets, buffer[step * unroll + entry], [entry])

    def channels(self, unit: Expr) -> Sequence[Expr]:
        """Return the outputs of the cluster's groups."""
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
        """Emit a few entries, whose `count` weights are `step * count` elements behind an origin."""
        kernel, unroll = self.nest.kernel, self.nest.entries.unroll
        offsets = [kernel.T.bind(self._next_offsets[entry]) for entry in range(unroll)]
        width = min(max(count, 2), kernel.lanes)
        corner = origin + step * count
        loaded = [kernel.T.bind(kernel.load(self.nest.buffers["weight"], corner + place, width)) for place in range(0, count, width)]
        self._load_offsets(step + 1)
        weights = [
            kernel.splat(kernel.T.Shuffle([loaded[number // width]], [number % width]), self.strips.lanes) for number in range(count)
        ]
        each = count // unroll
        for entry, offset in enumerate(offsets):
            self.multiply(sums, places, offset, weights[entry * each : (entry + 1) * each])
