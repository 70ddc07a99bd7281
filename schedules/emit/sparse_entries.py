"""Sparse weights as lists of entries: how they are packed, and how a kernel reads them."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.space import Knobs


@dataclass(frozen=True)
class SparseLists(ABC):
    """Sparse weights as a kernel reads them: for each thread's outputs, for a block of inputs, for a unit of outputs, a segment.

    Attributes:
        layer: layer with `sparse`.
        k_block: input channels of a block; 0 for all of them.
        threads: threads that share the units; 1 if they share pixels.
    """

    layer: Conv2d
    k_block: int
    threads: int

    @property
    def together(self) -> int:
        """Outputs of a group, which has its zeros in the same places."""
        return self.layer.sparse[1]

    @property
    def groups(self) -> int:
        """Number of groups of output channels."""
        return self.layer.out_channels // self.together

    @property
    @abstractmethod
    def units(self) -> int:
        """Number of units; each is one group of output channels or several."""

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """First input channel of every block, and the one after its last."""
        depth, size = self.layer.in_channels, self.k_block or self.layer.in_channels
        return [(first, min(first + size, depth)) for first in range(0, depth, size)]

    @property
    def segments(self) -> int:
        """Number of segments: one for each unit and block of inputs."""
        return self.units * len(self.blocks)

    @abstractmethod
    def pack(self, weight: Array, stride: int, in_blocks: bool) -> list[Array]:
        """Pack weights [input, output]; offsets are input channels times a stride, perhaps counted from the first one of their block."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what `pack` returns, by name."""

    def in_groups(self, weight: Array) -> tuple[Array, Array]:
        """Return weights [input, group, member], and where any of a group is not zero; `ValueError` if they are too many."""
        groups = weight.reshape(len(weight), self.groups, self.together)
        pattern = (groups != 0).any(2)
        if pattern.sum() > self.layer.sparse[0]:
            raise ValueError(f"{self.layer.name} has {pattern.sum()} entries")
        return groups, pattern

    def shares(self, work: Array) -> list[int]:
        """Return each thread's first unit, and their number, so that threads have about equal shares of the units' work."""
        if self.threads == 1:
            return [0, self.units]
        done = np.cumsum(work + 1.0)
        return [0, *(int(np.searchsorted(done, done[-1] * part / self.threads)) for part in range(1, self.threads)), self.units]


@dataclass(frozen=True)
class Entries(SparseLists):
    """Lists of entries: an input channel with a weight for every output of a group; groups are units.

    Attributes:
        unroll: entries of a step; the last step of a list is filled up with zeros.
    """

    unroll: int

    @classmethod
    def of(cls, task: Task, layer: Conv2d, knobs: Knobs) -> Entries:
        """Return the entries of a kernel."""
        return cls(layer, knobs["k_block"], task.threads if knobs["axis"] else 1, knobs["unroll"])

    @property
    def units(self) -> int:
        """Number of units; each group is one."""
        return self.groups

    @property
    def steps(self) -> int:
        """Most steps of the layer's entries, and one more, because steps are loaded ahead."""
        return (self.layer.sparse[0] + self.segments * (self.unroll - 1)) // self.unroll + 1

    def pack(self, weight: Array, stride: int, in_blocks: bool) -> list[Array]:
        """Return the kernel's `weight`, `offsets`, `starts` (the first step of each list) and `bounds` (each thread's first group)."""
        groups, pattern = self.in_groups(weight)
        bounds = self.shares(pattern.sum(0))
        values = np.zeros((self.steps * self.unroll, self.together), weight.dtype)
        offsets = np.zeros(self.steps * self.unroll, np.int32)
        starts, step = [0], 0
        for low, high in itertools.pairwise(bounds):
            for (top, bottom), group in itertools.product(self.blocks, range(low, high)):
                inputs = top + np.flatnonzero(pattern[top:bottom, group])
                steps, start = -(-len(inputs) // self.unroll), step * self.unroll
                if steps:
                    values[start : start + len(inputs)] = groups[inputs, group]
                    places = (inputs - top * in_blocks) * stride
                    offsets[start : start + steps * self.unroll] = places[-1]
                    offsets[start : start + len(inputs)] = places
                step += steps
                starts.append(step)
        return [values.ravel(), offsets, np.array(starts, np.int32), np.array(bounds, np.int32)]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what `pack` returns."""
        count = self.steps * self.unroll
        extents = {"weight": count * self.together, "offsets": count, "starts": self.segments + 1, "bounds": self.threads + 1}
        return {name: (extent,) for name, extent in extents.items()}


class Steps:
    """The offsets and weights of consecutive lists, step by step. Those of a step are loaded during the one before it, across lists too, so
    that loads of pixels do not wait for where they are.

    Args:
        lanes: lanes of the vectors that weights are multiplied with.
    """

    def __init__(self, kernel: Kernel, entries: Entries, buffers: Mapping[str, Buffer], lanes: int) -> None:
        self.kernel, self.buffers, self.lanes, self.unroll = kernel, buffers, lanes, entries.unroll
        self.count = entries.unroll * entries.together
        #: Weights are loaded in vectors of so many.
        self.width = max(size for size in (1, 2, 4, 8) if size <= kernel.lanes and self.count % size == 0)
        self.next_offsets, self.next_weights = kernel.places(self.unroll), kernel.accumulators(self.count)

    def begin(self, step: Expr) -> None:
        """Load the first step."""
        first = step * self.count
        for entry in range(self.unroll):
            self.kernel.T.buffer_store(self.next_offsets, self.buffers["offsets"][step * self.unroll + entry], [entry])
        for place in range(0, self.count, self.width):
            vector = self.buffers["weight"][self.kernel.at(first + place, self.width)]
            self.kernel.T.buffer_store(self.next_weights, vector, [self.kernel.at(place, self.width)])

    def read(self, step: Expr) -> tuple[list[Expr], Callable[[int], Expr]]:
        """Return a step's offsets, and what gives a weight in all lanes by its number."""
        bind = self.kernel.T.bind
        offsets = [bind(self.next_offsets[entry]) for entry in range(self.unroll)]
        weights = [bind(self.next_weights[self.kernel.at(first, self.width)]) for first in range(0, self.count, self.width)]
        self.begin(step + 1)

        def one(number: int) -> Expr:
            vector = weights[number // self.width]
            value = self.kernel.T.Shuffle([vector], [number % self.width]) if self.width > 1 else vector
            return self.kernel.splat(value, self.lanes)

        return offsets, one
