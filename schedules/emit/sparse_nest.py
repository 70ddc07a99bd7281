"""Products of sparse weights with strips of NCHW pixels: each weight is multiplied with a few vectors of neighbouring pixels.

A strip of all input channels is read again for every output channel, so it should stay in L1. So it may be packed into a contiguous buffer,
and input channels may be processed in blocks, whose partial sums are kept in a scratch buffer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from tvmmobile.graph.layers import Conv2d
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel, Span, share
from tvmmobile.schedules.emit.plane_epilogue import PlaneEpilogue, plane_spot
from tvmmobile.schedules.emit.planes import PlaneNest
from tvmmobile.schedules.emit.sparse_entries import Entries, SparseLists, Steps
from tvmmobile.schedules.space import Knobs

Lists = TypeVar("Lists", bound=SparseLists)


@dataclass(frozen=True)
class Strips:
    """Consecutive strips of equal length.

    Attributes:
        first, count: index of the first strip, and number of strips.
        start: first pixel of the first strip.
        vectors: first pixel of each vector, relative to the strip; the image's last vector overlaps with the one before it if the lanes do
            not divide the pixels.
    """

    first: int
    count: int
    start: int
    lanes: int
    vectors: tuple[int, ...]


def strips_of(pixels: int, lanes: int, most: int, equal: bool = True) -> list[Strips]:
    """Cut pixels into strips of at most `most` vectors: about equally long if `equal`, else all of `most` vectors but the last.

    Fewer pixels than lanes become vectors of one lane.
    """
    lanes = lanes if pixels >= lanes else 1
    vectors = -(-pixels // lanes)
    number = -(-vectors // most)
    short, longer = divmod(vectors, number)
    sizes = [short + 1] * longer + [short] * (number - longer) if equal else [most] * (number - 1) + [vectors - most * (number - 1)]
    strips: list[Strips] = []
    start = 0
    for index, size in enumerate(sizes):
        places = tuple(min(place * lanes, pixels - lanes - start) for place in range(size))
        last = strips[-1] if strips else None
        if last and last.vectors == places:
            strips[-1] = Strips(last.first, last.count + 1, last.start, lanes, places)
        else:
            strips.append(Strips(index, 1, start, lanes, places))
        start += size * lanes
    return strips


@dataclass(frozen=True)
class _ChannelRows(PlaneNest):
    """The nest of one channel's rows, which stores them to the copy of a strip.

    Attributes:
        copied, corner: buffer of the copy, and index there of the channel's first pixel.
    """

    copied: Buffer
    corner: Expr

    @property
    def destination(self) -> Buffer:
        """Buffer of the copy."""
        return self.copied

    def place(self, channel: Expr, row: Expr, line: Expr, column: Expr) -> Expr:
        """Return the index of an output in the copy."""
        return self.corner + line * self.layer.out_width + column


@dataclass(frozen=True)
class DepthwiseRows(PlaneNest):
    """A depthwise convolution that is computed into the copy of each strip; a strip is one band of its rows."""

    def fill(self, lines: Buffer, copied: Buffer, start: Expr, first: Expr, count: int) -> None:
        """Emit channels `first` to `first + count` of the strip that begins at pixel `start`."""
        row, pixels = start // self.layer.out_width, self.padded.band * self.layer.out_width
        with self.kernel.loop(count) as number:
            nest_fields = self.kernel, self.layer, 1, self.knobs, 1, self.buffers, self.epilogue
            nest = _ChannelRows(*nest_fields, copied, number * pixels)
            nest.copy(lines, first + number, row)
            nest.compute(lines, first + number, row)


@dataclass(frozen=True)
class SparseNest(Generic[Lists]):
    """The loop nest over strips, blocks of inputs, units of outputs and, innermost, their entries.

    Attributes:
        strips: all strips of the image.
        waits_in_output: true if partial sums are kept in the output, whose cache lines are written anyway.
        work: class that emits the work on one strip.
        rows: depthwise convolution that computes the strips' copies, each of whole rows; `None` if strips are copied from the input.
    """

    kernel: Kernel
    layer: Conv2d
    entries: Lists
    knobs: Knobs
    threads: int
    buffers: Mapping[str, Buffer]
    epilogue: PlaneEpilogue
    strips: Sequence[Strips]
    waits_in_output: bool
    work: type[StripWork[Lists]]
    rows: DepthwiseRows | None = None

    @property
    def pixels(self) -> int:
        """Number of pixels of the image."""
        return self.layer.height * self.layer.width

    @property
    def width(self) -> int:
        """Elements of the longest strip."""
        return max(len(strips.vectors) * strips.lanes for strips in self.strips)

    @property
    def stride(self) -> int:
        """Distance in elements between input channels where strips are read: in the copy, or in the input."""
        return self.width if self.knobs["copy"] else self.pixels

    def emit(self) -> None:
        """Emit the whole nest."""
        kernel, entries = self.kernel, self.entries
        with kernel.team(self.threads) as thread:
            copied = kernel.scratch(entries.blocks[0][1] * self.width) if self.knobs["copy"] else None
            waits_apart = len(entries.blocks) > 1 and not self.waits_in_output
            partial = kernel.scratch(self.layer.out_channels * self.width) if waits_apart else None
            lines = self.rows.blank_lines() if self.rows else None
            by_units = entries.threads > 1
            total = self.strips[-1].first + self.strips[-1].count
            low, high = (0, total) if by_units else share(thread, self.threads, total)
            bounds = self.buffers["bounds"]
            units = (bounds[thread], bounds[thread + 1]) if by_units else (0, entries.units)
            for strips in self.strips:
                with self._own(strips, low, high) as index:
                    start = strips.start + index * (len(strips.vectors) * strips.lanes)
                    self.work(self, strips, start, copied, partial, lines).emit(units)

    def _own(self, strips: Strips, low: Expr, high: Expr) -> AbstractContextManager[Expr]:
        """Return a loop over the strips of this run that lie in a thread's share [low, high); it gives their index in the run."""
        if isinstance(low, int):
            return self.kernel.loop(strips.count)
        T = self.kernel.T  # noqa: N806
        first, end = T.max(low - strips.first, 0), T.min(high - strips.first, strips.count)
        return self.kernel.span(first, T.max(first, end))


@dataclass(frozen=True)
class StripWork(ABC, Generic[Lists]):
    """Emits the work on one strip.

    Attributes:
        start: first pixel of the strip.
        copied: buffer for a copy of the strip; `None` to read the input.
        partial: buffer for partial sums; `None` if there are none or the output holds them.
        lines: padded buffer of the nest's `rows`.
    """

    nest: SparseNest[Lists]
    strips: Strips
    start: Expr
    copied: Buffer | None
    partial: Buffer | None
    lines: Buffer | None

    @abstractmethod
    def begin(self, segment: Expr) -> None:
        """Emit the code before the first segment, such as loads of its first step."""

    @abstractmethod
    def channels(self, unit: Expr) -> Sequence[Expr]:
        """Return the output channels of a unit."""

    @abstractmethod
    def add(self, sums: Buffer, segment: Expr) -> None:
        """Emit the products of a segment, added to its unit's sums [output channel][vector of the strip]."""

    def emit(self, units: Span) -> None:
        """Emit the units [low, high), block by block of inputs; the blocks between the first and the last share a loop."""
        nest, (low, high), number = self.nest, units, len(self.nest.entries.blocks)
        self.begin(low * number)
        for first, end in dict.fromkeys(((0, 1), (1, number - 1), (number - 1, number))):
            if first < end:
                with nest.kernel.loop(end - first) as block:
                    top, bottom = nest.entries.blocks[first]
                    self._copy(top + block * (bottom - top), bottom - top)
                    with nest.kernel.loop(high - low) as index:
                        segment = low * number + (first + block) * (high - low) + index
                        self._unit(low + index, index, segment, first == 0, end == number)

    def _copy(self, first: Expr, count: int) -> None:
        """Emit the copy of a block's input channels, times the gate if there is one; nothing if the kernel reads the input itself."""
        if self.copied is None:
            return
        if self.nest.rows:
            self.nest.rows.fill(self.lines, self.copied, self.start, first, count)
            return
        kernel, lanes, layer = self.nest.kernel, self.strips.lanes, self.nest.layer
        with kernel.loop(count) as number:
            channel = first + number
            gate = kernel.T.bind(kernel.splat(kernel.load(self.nest.buffers["gate"], channel, 1), lanes)) if layer.scaled else None
            for vector, place in enumerate(self.strips.vectors):
                value = kernel.load(self.nest.buffers["data"], channel * self.nest.pixels + self.start + place, lanes)
                value = value if gate is None else value * gate
                kernel.store(self.copied, value, number * self.nest.width + vector * lanes, lanes)

    def _unit(self, unit: Expr, index: Expr, segment: Expr, first: bool, last: bool) -> None:
        """Emit one unit's sums over one block of inputs."""
        kernel, nest, lanes, partial = self.nest.kernel, self.nest, self.strips.lanes, self.partial
        spots = [
            plane_spot(channel, channel * nest.pixels + self.start + place, lanes)
            for channel in self.channels(unit)
            for place in self.strips.vectors
        ]
        first_place = index * (len(spots) * lanes)
        places = [first_place + number * lanes for number in range(len(spots))] if partial is not None else [spot.target for spot in spots]
        waiting = nest.buffers["output"] if partial is None else partial
        sums = kernel.accumulators(len(spots) * lanes)
        for number, (spot, place) in enumerate(zip(spots, places, strict=True)):
            value = nest.epilogue.begin(spot) if first else kernel.load(waiting, place, lanes)
            kernel.store(sums, value, number * lanes, lanes)
        self.add(sums, segment)
        if last:
            nest.epilogue.drain(sums, spots, nest.buffers["output"])
            return
        for number, place in enumerate(places):
            kernel.store(waiting, kernel.load(sums, number * lanes, lanes), place, lanes)

    def loop(
        self, sums: Buffer, places: Sequence[int], span: Span, terms: int, step: Callable[[Buffer, Sequence[int], Expr], None]
    ) -> None:
        """Emit a loop of steps, split into chains if the precision limits the terms of a sum (`Precision.chain`).

        Args:
            places: index of each vector of `sums` that a step adds to.
            span: range of steps.
            terms: number of terms that a step adds to each sum.
            step: emits one step, given the sums, the index of each vector there, and the step's number.
        """
        kernel, lanes, (begin, end) = self.nest.kernel, self.strips.lanes, span
        chain = kernel.chain // terms
        if not chain:
            with kernel.span(begin, end) as number:
                step(sums, places, number)
            return
        with kernel.loop((end - begin + chain - 1) // chain) as link:
            chained, chained_places = kernel.accumulators(len(places) * lanes), range(0, len(places) * lanes, lanes)
            kernel.fill(chained, kernel.number(0.0), len(places), lanes)
            with kernel.loop(kernel.T.min(end - begin - link * chain, chain)) as number:
                step(chained, chained_places, begin + link * chain + number)
            for place, chained_place in zip(places, chained_places, strict=True):
                kernel.store(sums, kernel.load(sums, place, lanes) + kernel.load(chained, chained_place, lanes), place, lanes)

    def multiply(self, sums: Buffer, places: Sequence[int], offset: Expr, weights: Sequence[Expr]) -> None:
        """Emit the products of an input channel's pixels with each of `weights`, added to that weight's strip of sums.

        Args:
            places: index in `sums` of each weight's vectors, as [weight][vector].
            offset: index of the input channel's first element.
        """
        kernel, lanes, vectors = self.nest.kernel, self.strips.lanes, self.strips.vectors
        source, corner = (self.nest.buffers["data"], self.start) if self.copied is None else (self.copied, 0)
        line = kernel.T.bind(corner + offset)
        for number, place in enumerate(vectors):
            pixels = kernel.load(source, line + (place if self.copied is None else number * lanes), lanes)
            for member, weight in enumerate(weights):
                at = places[member * len(vectors) + number]
                kernel.store(sums, kernel.load(sums, at, lanes) + weight * pixels, at, lanes)


class EntryStrip(StripWork[Entries]):
    """The work on a strip whose units are groups of outputs with the same zeros."""

    @cached_property
    def _steps(self) -> Steps:
        return Steps(self.nest.kernel, self.nest.entries, self.nest.buffers, self.strips.lanes)

    def begin(self, segment: Expr) -> None:
        """Load the first step."""
        self._steps.begin(self.nest.buffers["starts"][segment])

    def channels(self, unit: Expr) -> Sequence[Expr]:
        """Return the group's output channels."""
        together = self.nest.entries.together
        return [unit * together + member for member in range(together)]

    def add(self, sums: Buffer, segment: Expr) -> None:
        """Emit a loop over steps of a few entries."""
        kernel, entries, lanes = self.nest.kernel, self.nest.entries, self.strips.lanes
        starts = self.nest.buffers["starts"]
        # With a 32-bit induction variable, LLVM would sign-extend it in every step.
        span = (kernel.T.bind(kernel.T.Cast("int64", starts[segment])), kernel.T.bind(kernel.T.Cast("int64", starts[segment + 1])))
        places = range(0, entries.together * len(self.strips.vectors) * lanes, lanes)
        self.loop(sums, places, span, entries.unroll, self._step)

    def _step(self, sums: Buffer, places: Sequence[int], step: Expr) -> None:
        """Emit the entries of one step."""
        entries = self.nest.entries
        offsets, weight_of = self._steps.read(step)
        for entry, offset in enumerate(offsets):
            first = entry * entries.together
            self.multiply(sums, places, offset, [weight_of(first + member) for member in range(entries.together)])
