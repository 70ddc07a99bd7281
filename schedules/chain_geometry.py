"""Which outputs every layer of a chain computes in a piece of an axis, and which of them the next layer's buffer holds.

Rows come in steps, columns in parts; both are cut alike. A layer has after piece n computed all that the next one reads up to its own
piece n, and nothing twice: what two pieces of the next layer share is kept, along rows in a ring of rows, along columns in a copy of the
last columns. So a layer is a few outputs ahead of the next one, which is its offset.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reader:
    """How a layer reads along one axis, and how many outputs it has; `padding` is what lies before the first input."""

    size: int
    kernel: int
    stride: int
    padding: int


@dataclass(frozen=True)
class ChainAxis:
    """One layer's outputs along rows or columns.

    Attributes:
        size: how many there are.
        pieces: how many pieces they come in.
        step: outputs per piece.
        offset: outputs that the first piece has beyond `step`, or lacks; the last piece has what remains.
        kernel, stride, padding: how the next layer reads them; 1, 1 and 0 behind the last layer.
        next: the next layer's axis.
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
        """Outputs that a piece of the next layer shares with the one before."""
        return self.kernel - self.stride

    @property
    def lead(self) -> int:
        """Pieces before the first one in which this layer has to work already, so that all halos behind it are there."""
        return (self.next.lead if self.next else 0) + -(-self.halo // self.step)

    @property
    def lengths(self) -> list[int]:
        """Outputs of every piece; one at the end may have none."""
        return [self.end(piece) - self.begin(piece) for piece in range(self.pieces)]

    @property
    def pitch(self) -> int:
        """Outputs, with padding, that the next layer's buffer has to hold in a piece."""
        longest = 0
        for piece in range(self.pieces):
            kept = (piece + 1) * self.step + self.offset if piece + 1 < self.pieces else 0
            longest = max(longest, max(self.end(piece), self.needed(piece), kept) - self.base(piece))
        return longest

    def begin(self, piece: int) -> int:
        """First output of a piece."""
        return max(0, min(self.size, piece * self.step + self.offset)) if piece > 0 else 0

    def end(self, piece: int) -> int:
        """End of a piece's outputs."""
        return max(0, min(self.size, (piece + 1) * self.step + self.offset)) if piece + 1 < self.pieces else self.size

    def base(self, piece: int) -> int:
        """First output, or padding, that the next layer's buffer holds in a piece."""
        return piece * self.step + self.offset - self.halo if piece > 0 else -self.padding

    def needed(self, piece: int) -> int:
        """End of what the next layer reads in a piece, with padding; 0 where it reads nothing."""
        if self.next is None or self.next.begin(piece) >= self.next.end(piece):
            return 0
        return (self.next.end(piece) - 1) * self.stride - self.padding + self.kernel


def axes(readers: Sequence[Reader], step: int, aligned: int | None = None) -> list[ChainAxis]:
    """One axis per layer, in order; `step` outputs of the last layer per piece.

    Args:
        aligned: the layer whose pieces begin at multiples of their length, as far as strides allow, so that tiles divide them.
    """
    found = _axes(readers, step, 0)
    if aligned is None or found[aligned].offset == 0:
        return found
    scale = math.prod(reader.stride for reader in readers[aligned + 1 :])
    shifted = _axes(readers, step, -(found[aligned].offset // scale))
    # The first piece has to have what the second one reads of it.
    return shifted if all(axis.step + axis.offset - axis.halo >= -axis.padding for axis in shifted) else found


def _axes(readers: Sequence[Reader], step: int, offset: int) -> list[ChainAxis]:
    pieces = -(-readers[-1].size // step)
    found = [ChainAxis(readers[-1].size, pieces, step, offset)]
    for layer, reader in zip(reversed(readers[:-1]), reversed(readers[1:]), strict=True):
        behind = found[0]
        ahead = behind.offset * reader.stride + reader.kernel - reader.stride - reader.padding
        found.insert(
            0, ChainAxis(layer.size, pieces, behind.step * reader.stride, ahead, reader.kernel, reader.stride, reader.padding, behind)
        )
    return found


def tile_for(axis: ChainAxis, wanted: int, *, borders: bool = False) -> int:
    """The longest tile up to `wanted` that fits every piece.

    Args:
        borders: whether the first and the last tile are of another kind: a piece must then be one tile or at least two.
    """
    lengths = [length for length in axis.lengths if length]
    for tile in range(min(wanted, *lengths), 1, -1):
        if not borders or all(length == tile or length >= 2 * tile for length in lengths):
            return tile
    return 1


def taps_of(reader: Reader, inputs: int) -> list[tuple[int, int]]:
    """For each output its taps [low, high) that fall inside the input."""
    origins = [output * reader.stride - reader.padding for output in range(reader.size)]
    return [(min(max(0, -origin), reader.kernel), max(0, min(reader.kernel, inputs - origin))) for origin in origins]
