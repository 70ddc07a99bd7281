"""Sparse weights as lists of entries: their packing, and the loads of a kernel."""

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
    """Sparse weights in the order in which a kernel reads them: a segment for each [thread][block of inputs][unit of outputs].

    Attributes:
        layer: layer with `sparse`.
        k_block: input channels per block; 0 for all of them.
        threads: threads that share the units; 1 if threads share pixels instead.
    """

    layer: Conv2d
    k_block: int
    threads: int

    @property
    def together(self) -> int:
        """Outputs per group, which all have zeros for the same input channels."""
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
        """Input channels [first, end) of each block."""
        depth, size = self.layer.in_channels, self.k_block or self.layer.in_channels
        return [(first, min(first + size, depth)) for first in range(0, depth, size)]

    @property
    def segments(self) -> int:
        """Number of segments: one for each unit and block of inputs."""
        return self.units * len(self.blocks)

    @abstractmethod
    def pack(self, weight: Array, stride: int, in_blocks: bool) -> list[Array]:
        """Pack weights [input, output]; offsets are input channels times `stride`, relative to their block if `in_blocks`."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what `pack` returns, by name."""

    def in_groups(self, weight: Array) -> tuple[Array, Array]:
        """Return weights as [input, group, member], and a mask [input, group] of groups that are not all zero.

        Raises:
            ValueError: if there are more entries than the layer's `sparse` says.
        """
        groups = weight.reshape(len(weight), self.groups, self.together)
        pattern = (groups != 0).any(2)
        if pattern.sum() > self.layer.sparse[0]:
            raise ValueError(f"{self.layer.name} has {pattern.sum()} entries")
        return groups, pattern

    def shares(self, work: Array) -> list[int]:
        """Return the first unit of each thread, then the number of units, so that threads have about equal `work`."""
        if self.threads == 1:
            return [0, self.units]
        done = np.cumsum(work + 1.0)
        return [0, *(int(np.searchsorted(done, done[-1] * part / self.threads)) for part in range(1, self.threads)), self.units]


@dataclass(frozen=True)
class Entries(SparseLists):
    """Lists of entries, each an input channel with a weight for every output of a group; each group is a unit.

    Attributes:
        unroll: entries per step; lists are zero-padded to whole steps.
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
        """Upper bound on the number of steps, plus one because each step loads the next."""
        return (self.layer.sparse[0] + self.segments * (self.unroll - 1)) // self.unroll + 1

    def pack(self, weight: Array, stride: int, in_blocks: bool) -> list[Array]:
        """Return the kernel's `weight`, `offsets`, `starts` (first step of each list) and `bounds` (first group of each thread)."""
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
        """Shapes of the arrays that `pack` returns, by name."""
        count = self.steps * self.unroll
        extents = {"weight": count * self.together, "offsets": count, "starts": self.segments + 1, "bounds": self.threads + 1}
        return {name: (extent,) for name, extent in extents.items()}


class Steps:
    """The offsets and weights of consecutive lists. Each step loads those of the next one, even across lists, so that loads of pixels do
    not wait for their addresses.

    Args:
        lanes: lanes of the vectors of pixels.
    """

    def __init__(self, kernel: Kernel, entries: Entries, buffers: Mapping[str, Buffer], lanes: int) -> None:
        self.kernel, self.buffers, self.lanes, self.unroll = kernel, buffers, lanes, entries.unroll
        self.count = entries.unroll * entries.together
        #: Weights per load.
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
        """Return a step's offsets, and a function that maps a weight's index to the weight broadcast to all lanes."""
        bind = self.kernel.T.bind
        offsets = [bind(self.next_offsets[entry]) for entry in range(self.unroll)]
        weights = [bind(self.next_weights[self.kernel.at(first, self.width)]) for first in range(0, self.count, self.width)]
        self.begin(step + 1)

        def weight_of(number: int) -> Expr:
            vector = weights[number // self.width]
            value = self.kernel.T.Shuffle([vector], [number % self.width]) if self.width > 1 else vector
            return self.kernel.splat(value, self.lanes)

        return offsets, weight_of
