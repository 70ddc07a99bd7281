"""Products of sparse weights with strips of pixels, channels first: one weight meets a few vectors of neighbouring pixels.

A strip of all input channels is read again for every output channel, so it should stay in the first-level cache: it may be copied, so that
its lines hold nothing else, and input channels may be taken in blocks, whose partial sums wait in a scratch buffer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

from tvmmobile.graph.layers import Conv2d
from tvmmobile.schedules.emit.epilogue import Spot
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel, Span, share
from tvmmobile.schedules.emit.plane_epilogue import PlaneEpilogue, plane_spot
from tvmmobile.schedules.emit.sparse_entries import Entries, Steps
from tvmmobile.schedules.space import Knobs


@dataclass(frozen=True)
class Strips:
    """Equal strips of pixels, one after another.

    Attributes:
        first, count: which of all strips.
        start: first pixel.
        vectors: where each vector begins in a strip; the last one of all overlaps with another if pixels are no whole vectors.
    """

    first: int
    count: int
    start: int
    lanes: int
    vectors: tuple[int, ...]


def strips_of(pixels: int, lanes: int, most: int) -> list[Strips]:
    """Cut pixels into strips of at most so many vectors, all about equally long; fewer pixels than lanes are single ones."""
    lanes = lanes if pixels >= lanes else 1
    vectors = -(-pixels // lanes)
    number = -(-vectors // most)
    short, longer = divmod(vectors, number)
    sizes = [short + 1] * longer + [short] * (number - longer)
    found: list[Strips] = []
    start = 0
    for index, size in enumerate(sizes):
        places = tuple(min(place * lanes, pixels - lanes - start) for place in range(size))
        last = found[-1] if found else None
        if last and last.vectors == places:
            found[-1] = Strips(last.first, last.count + 1, last.start, lanes, places)
        else:
            found.append(Strips(index, 1, start, lanes, places))
        start += size * lanes
    return found


@dataclass(frozen=True)
class SparseNest:
    """Loops over strips, pieces of outputs, blocks of inputs, and groups of outputs; their entries innermost."""

    kernel: Kernel
    layer: Conv2d
    entries: Entries
    knobs: Knobs
    threads: int
    buffers: Mapping[str, Buffer]
    epilogue: PlaneEpilogue

    @property
    def pixels(self) -> int:
        """Pixels of the image."""
        return self.layer.height * self.layer.width

    @cached_property
    def strips(self) -> list[Strips]:
        """All strips."""
        return strips_of(self.pixels, self.kernel.lanes, self.knobs["vectors"])

    @property
    def width(self) -> int:
        """Elements of the longest strip."""
        return max(len(strips.vectors) * strips.lanes for strips in self.strips)

    @property
    def stride(self) -> int:
        """Elements from one input channel to the next, where strips are read."""
        return self.width if self.knobs["copy"] else self.pixels

    def emit(self) -> None:
        """Emit the whole nest."""
        kernel, entries = self.kernel, self.entries
        with kernel.team(self.threads) as thread:
            copied = kernel.scratch(entries.blocks[0][1] * self.width) if self.knobs["copy"] else None
            partial = kernel.scratch(self.layer.out_channels * self.width) if len(entries.blocks) > 1 else None
            by_groups = entries.threads > 1
            total = self.strips[-1].first + self.strips[-1].count
            low, high = (0, total) if by_groups else share(thread, self.threads, total)
            bounds = self.buffers["bounds"]
            groups = (bounds[thread], bounds[thread + 1]) if by_groups else (0, entries.groups)
            for strips in self.strips:
                with self._own(strips, low, high) as index:
                    start = strips.start + index * (len(strips.vectors) * strips.lanes)
                    _Strip(self, strips, start, copied, partial).emit(groups)

    def _own(self, strips: Strips, low: Expr, high: Expr) -> AbstractContextManager[Expr]:
        """Return a loop over a thread's share of some strips, which yields the number of each among them."""
        if isinstance(low, int):
            return self.kernel.loop(strips.count)
        T = self.kernel.T  # noqa: N806
        first, end = T.max(low - strips.first, 0), T.min(high - strips.first, strips.count)
        return self.kernel.span(first, T.max(first, end))


@dataclass(frozen=True)
class _Strip:
    """The work on a strip.

    Attributes:
        start: its first pixel.
        copied, partial: buffers for a copy and for partial sums, `None` without.
    """

    nest: SparseNest
    strips: Strips
    start: Expr
    copied: Buffer | None
    partial: Buffer | None

    def emit(self, groups: Span) -> None:
        """Emit the outputs of some groups, block by block; the blocks between the first and the last are a loop."""
        nest, (low, high), number = self.nest, groups, len(self.nest.entries.blocks)
        steps = Steps(nest.kernel, nest.entries, nest.buffers, self.strips.lanes)
        steps.begin(nest.buffers["starts"][low * number])
        for first, end in dict.fromkeys(((0, 1), (1, number - 1), (number - 1, number))):
            if first < end:
                with nest.kernel.loop(end - first) as block:
                    top, bottom = nest.entries.blocks[first]
                    self._copy(top + block * (bottom - top), bottom - top)
                    with nest.kernel.loop(high - low) as index:
                        segment = low * number + (first + block) * (high - low) + index
                        self._group(steps, low + index, index, segment, first == 0, end == number)

    def _copy(self, first: Expr, count: int) -> None:
        """Copy the channels of a block, if kernels read copies."""
        if self.copied is None:
            return
        kernel, lanes, layer = self.nest.kernel, self.strips.lanes, self.nest.layer
        with kernel.loop(count) as number:
            channel = first + number
            gate = kernel.T.bind(kernel.splat(kernel.load(self.nest.buffers["gate"], channel, 1), lanes)) if layer.scaled else None
            for vector, place in enumerate(self.strips.vectors):
                value = kernel.load(self.nest.buffers["data"], channel * self.nest.pixels + self.start + place, lanes)
                value = value if gate is None else value * gate
                kernel.store(self.copied, value, number * self.nest.width + vector * lanes, lanes)

    def _group(self, steps: Steps, group: Expr, index: Expr, segment: Expr, first: bool, last: bool) -> None:
        """Emit one group's entries of a block."""
        kernel, nest, lanes = self.nest.kernel, self.nest, self.strips.lanes
        together, vectors, partial = nest.entries.together, len(self.strips.vectors), self.partial
        spots = list(self._spots(group))
        waiting = index * (together * vectors * lanes)
        starts = nest.buffers["starts"]
        sums = kernel.accumulators(len(spots) * lanes)
        for number, spot in enumerate(spots):
            value = nest.epilogue.begin(spot) if first else kernel.load(partial, waiting + number * lanes, lanes)
            kernel.store(sums, value, number * lanes, lanes)
        # With 32 bits LLVM would extend the number of a step in every step.
        begin, end = (kernel.T.bind(kernel.T.Cast("int64", starts[segment + place])) for place in (0, 1))
        chain = kernel.chain // nest.entries.unroll
        if not chain:
            with kernel.span(begin, end) as step:
                self._step(sums, steps, step)
        else:
            with kernel.loop((end - begin + chain - 1) // chain) as link:
                own = kernel.accumulators(len(spots) * lanes)
                kernel.fill(own, kernel.number(0.0), len(spots), lanes)
                with kernel.loop(kernel.T.min(end - begin - link * chain, chain)) as step:
                    self._step(own, steps, begin + link * chain + step)
                for place in range(0, len(spots) * lanes, lanes):
                    kernel.store(sums, kernel.load(sums, place, lanes) + kernel.load(own, place, lanes), place, lanes)
        if last:
            nest.epilogue.drain(sums, spots, nest.buffers["output"])
            return
        for place in range(0, len(spots) * lanes, lanes):
            kernel.store(partial, kernel.load(sums, place, lanes), waiting + place, lanes)

    def _step(self, sums: Buffer, steps: Steps, step: Expr) -> None:
        """Emit a few entries."""
        kernel, nest, lanes = self.nest.kernel, self.nest, self.strips.lanes
        unroll, together, vectors = nest.entries.unroll, nest.entries.together, self.strips.vectors
        source, corner = (nest.buffers["data"], self.start) if self.copied is None else (self.copied, 0)
        offsets, weight_of = steps.read(step)
        for entry in range(unroll):
            line = kernel.T.bind(corner + offsets[entry])
            for number, place in enumerate(vectors):
                pixels = kernel.load(source, line + (place if self.copied is None else number * lanes), lanes)
                for member in range(together):
                    at = (member * len(vectors) + number) * lanes
                    value = kernel.load(sums, at, lanes) + weight_of(entry * together + member) * pixels
                    kernel.store(sums, value, at, lanes)

    def _spots(self, group: Expr) -> Iterator[Spot]:
        """Yield the outputs of a group, one channel after another."""
        nest, lanes = self.nest, self.strips.lanes
        for member, place in itertools.product(range(nest.entries.together), self.strips.vectors):
            channel = group * nest.entries.together + member
            target = channel * nest.pixels + self.start + place
            yield plane_spot(channel, target, lanes)
