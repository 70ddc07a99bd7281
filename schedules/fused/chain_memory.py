"""The outputs that each layer of a chain computes in each piece of an axis, and those that the buffer before the next layer holds.

Rows are cut into steps and columns into parts, by the same rules. After piece n, a layer has computed all that the next layer reads up to
its own piece n, and nothing twice: outputs that two pieces of the next layer share are kept, rows in a ring buffer and columns in a copy of
the last columns. So a layer is a few outputs ahead of the next one, by its offset.

One scratch buffer holds everything between the layers: rows, columns kept from part to part, and weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.matmul_cost import LINE_BYTES
from tvmmobile.schedules.space import Knobs, round_up


@dataclass(frozen=True)
class Reader:
    """A layer along one axis.

    Attributes:
        size: number of outputs.
        kernel, stride: kernel size and stride.
        padding: padding before the first input.
    """

    size: int
    kernel: int
    stride: int
    padding: int


@dataclass(frozen=True)
class ChainAxis:
    """One layer's outputs along rows or columns.

    Attributes:
        size: number of outputs.
        pieces: number of pieces.
        step: outputs per piece.
        offset: outputs of the first piece minus `step`; the last piece has the remaining outputs.
        kernel, stride, padding: kernel size, stride and padding of the next layer; 1, 1 and 0 after the last layer.
        next: axis of the next layer; `None` after the last layer.
    """

    size: int
    pieces: int
    step: int
    offset: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    next: ChainAxis | None = None

    @property
    def halo(self) -> int:
        """Number of outputs that two neighbouring pieces of the next layer both read."""
        return self.kernel - self.stride

    @property
    def lead(self) -> int:
        """Number of pieces before the first one in which this layer must already compute, so that all later halos exist."""
        return (self.next.lead if self.next else 0) + -(-self.halo // self.step)

    @property
    def lengths(self) -> list[int]:
        """Number of outputs of each piece; pieces at the end may have none."""
        return [self.end(piece) - self.begin(piece) for piece in range(self.pieces)]

    @property
    def pitch(self) -> int:
        """Most outputs, with padding, that the buffer before the next layer holds in a piece."""
        longest = 0
        for piece in range(self.pieces):
            kept = (piece + 1) * self.step + self.offset if piece + 1 < self.pieces else 0
            longest = max(longest, max(self.end(piece), self.needed(piece), kept) - self.base(piece))
        return longest

    def begin(self, piece: int) -> int:
        """Return the first output of a piece."""
        return max(0, min(self.size, piece * self.step + self.offset)) if piece > 0 else 0

    def end(self, piece: int) -> int:
        """Return the end (exclusive) of a piece's outputs."""
        return max(0, min(self.size, (piece + 1) * self.step + self.offset)) if piece + 1 < self.pieces else self.size

    def base(self, piece: int) -> int:
        """Return the first output that the buffer before the next layer holds in a piece; negative for padding."""
        return piece * self.step + self.offset - self.halo if piece > 0 else -self.padding

    def needed(self, piece: int) -> int:
        """Return the end (exclusive) of the next layer's reads in a piece, with padding; 0 if it reads nothing."""
        if self.next is None or self.next.begin(piece) >= self.next.end(piece):
            return 0
        return (self.next.end(piece) - 1) * self.stride - self.padding + self.kernel


def axes(readers: Sequence[Reader], step: int, aligned: int | None = None) -> list[ChainAxis]:
    """Return one axis per layer.

    Args:
        step: outputs of the last layer per piece.
        aligned: index of a layer whose pieces begin at multiples of their length, as far as strides allow, so that tiles divide them.
    """
    unaligned = _axes(readers, step, 0)
    if aligned is None or unaligned[aligned].offset == 0:
        return unaligned
    scale = math.prod(reader.stride for reader in readers[aligned + 1 :])
    shifted = _axes(readers, step, -(unaligned[aligned].offset // scale))
    # The first piece must contain everything that the second piece reads of it.
    return shifted if all(axis.step + axis.offset - axis.halo >= -axis.padding for axis in shifted) else unaligned


def _axes(readers: Sequence[Reader], step: int, offset: int) -> list[ChainAxis]:
    pieces = -(-readers[-1].size // step)
    chain = [ChainAxis(readers[-1].size, pieces, step, offset)]
    for layer, reader in zip(reversed(readers[:-1]), reversed(readers[1:]), strict=True):
        following = chain[0]
        ahead = following.offset * reader.stride + reader.kernel - reader.stride - reader.padding
        chain.insert(
            0, ChainAxis(layer.size, pieces, following.step * reader.stride, ahead, reader.kernel, reader.stride, reader.padding, following)
        )
    return chain


def tile_for(axis: ChainAxis, wanted: int, *, borders: bool = False) -> int:
    """Return the longest tile up to `wanted` that fits every piece. With `borders`, which need tiles of their own, each piece must have
    room for exactly one tile or for two.
    """
    lengths = [length for length in axis.lengths if length]
    for tile in range(min(wanted, *lengths), 1, -1):
        if not borders or all(length == tile or length >= 2 * tile for length in lengths):
            return tile
    return 1


def readers_along(layers: Sequence[Conv2d], axis: int) -> list[Reader]:
    """Return a reader per layer along rows (axis 0) or columns (axis 1)."""
    sizes = [(layer.out_height, layer.out_width)[axis] for layer in layers]
    return [Reader(size, layer.kernel[axis], layer.stride[axis], layer.padding[axis]) for layer, size in zip(layers, sizes, strict=True)]


@dataclass(frozen=True)
class ChainStage:
    """One layer of a chain, and the buffer that it writes.

    Attributes:
        rows, columns: outputs of the layer, in steps of rows and parts of columns.
        channels: output channels per block.
        buffer: index of the buffer in the scratch memory.
        kept: index of the copies of each row's last columns, 0 if there are none.
        kept_block: elements of these copies per block of channels.
        weights: index of the copy of the layer's weights; `None` if they are read from their argument.
    """

    layer: Conv2d
    rows: ChainAxis
    columns: ChainAxis
    channels: int
    buffer: int = 0
    kept: int = 0
    kept_block: int = 0
    weights: int | None = None

    @property
    def ring(self) -> int:
        """Number of rows in the ring buffer."""
        return self.rows.step + self.rows.halo

    @property
    def padded(self) -> bool:
        """True if the next layer reads padding and rows of earlier steps, as a depthwise convolution does."""
        return self.rows.kernel > 1 or self.columns.kernel > 1

    @property
    def row(self) -> int:
        """Elements per row of the buffer."""
        return self.columns.pitch * self.channels

    @property
    def kept_row(self) -> int:
        """Elements per row that are kept because the next part reads them."""
        return self.columns.halo * self.channels

    @property
    def weight_elements(self) -> int:
        """Number of weights per block of channels."""
        return math.prod(self.layer.weight_shape) // self.layer.out_channels * self.channels


@dataclass(frozen=True)
class ChainMemory:
    """The stages of a chain, and the number of elements in one thread's scratch memory."""

    stages: tuple[ChainStage, ...]
    elements: int

    @property
    def resident(self) -> int:
        """Number of elements that every step reuses, and that should therefore stay in L1."""
        return sum(stage.ring * stage.row for stage in self.stages[:-1]) + sum(stage.weight_elements for stage in self.stages)


def arrange(layers: Sequence[Conv2d], knobs: Knobs, task: Task) -> ChainMemory:
    """Cut the layers' outputs as the knobs say, and lay out the buffers between layers contiguously, to avoid cache conflicts."""
    blocks, line = knobs["blocks"], LINE_BYTES // task.precision.bytes
    width = -(-layers[-1].out_width // knobs["parts"])
    dearest = max(range(len(layers)), key=lambda index: layers[index].macs)
    cut = zip(layers, axes(readers_along(layers, 0), knobs["strip"]), axes(readers_along(layers, 1), width, dearest), strict=True)
    stages = [ChainStage(layer, rows, columns, layer.out_channels // blocks) for layer, rows, columns in cut]
    end = 0
    for index, stage in enumerate(stages[:-1]):
        stages[index] = replace(stage, buffer=end)
        end += round_up(stage.ring * stage.row, line)
    if knobs["gather"]:
        for index, stage in enumerate(stages):
            stages[index] = replace(stage, weights=end)
            end += round_up(stage.weight_elements, line)
    for index, stage in enumerate(stages[:-1]):
        if stage.columns.pieces > 1 and stage.kept_row:
            rows = (-(-stage.rows.pieces // task.threads) + stages[0].rows.lead) * stage.rows.step
            block = round_up(rows * stage.kept_row, line)
            stages[index] = replace(stage, kept=end, kept_block=block)
            end += blocks * block
    return ChainMemory(tuple(stages), end)
