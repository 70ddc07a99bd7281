"""Activations in flat buffers, and where their elements lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvmmobile.graph.layers import Conv2d, WindowPool
from tvmmobile.graph.layouts import channel_block, shuffle_of
from tvmmobile.schedules.emit.kernel import Buffer, Expr


@dataclass(frozen=True)
class Activation:
    """An activation in a flat buffer, with channels in blocks: block after block, each with all pixels.

    Attributes:
        buffer: the flat buffer that holds it.
        pixels, channels, block: its extents; NHWC is one block of all channels.
        origin: the element of the buffer that it begins at.
    """

    buffer: Buffer
    pixels: int
    channels: int
    block: int
    origin: Expr = 0

    def at(self, pixel: Expr, channel: Expr) -> Expr:
        """Return the index of an element."""
        if self.block == self.channels:
            index = pixel * self.channels + channel
        else:
            index = channel // self.block * (self.pixels * self.block) + pixel * self.block + channel % self.block
        return index if isinstance(self.origin, int) and self.origin == 0 else self.origin + index

    @property
    def in_line(self) -> bool:
        """True if pixels are `block` elements apart, so that `at` need not be called for each."""
        return True

    def holds_whole(self, lanes: int) -> bool:
        """Return whether a vector of channels lies together."""
        return self.block == self.channels or self.block % lanes == 0


@dataclass(frozen=True)
class ShuffledActivation(Activation):
    """An activation whose channels are those of several pixels of a larger image: see `layouts.shuffled`.

    Attributes:
        width: its columns.
        rows: those of the larger image for each of its own.
    """

    width: int = 1
    rows: int = 1

    @property
    def in_line(self) -> bool:
        """False: pixels are not in line at the end of a row."""
        return False

    def at(self, pixel: Expr, channel: Expr) -> Expr:
        """Return the index of an element."""
        line, column = pixel // self.width, pixel % self.width
        block, lane = channel // self.block, channel % self.block
        row = (block // self.rows * (self.pixels // self.width) + line) * self.rows + block % self.rows
        return self.origin + (row * self.width + column) * self.block + lane


@dataclass(frozen=True)
class Piece:
    """Consecutive channels of an activation.

    Attributes:
        activation: the activation, whose channels lie together.
        first, count: the first channel and the number of channels.
    """

    activation: Activation
    first: int
    count: int


def input_of(layer: Conv2d | WindowPool, buffers: Mapping[str, Buffer]) -> tuple[Activation, tuple[Piece, ...]]:
    """Return a layer's input and pieces, in the buffers `data`, `source1` and so on: none for one tensor, which `data` stands for."""
    pixels = layer.height * layer.width
    if not layer.pieces:
        return Activation(buffers["data"], pixels, layer.in_channels, channel_block(layer.in_layout, layer.in_channels)), ()
    names = ["data", *(f"source{number}" for number in range(1, len(layer.sources)))]
    sources = [Activation(buffers[name], pixels, channels, channels) for name, channels in zip(names, layer.sources, strict=True)]
    return sources[0], tuple(Piece(sources[source], first, count) for source, first, count in layer.pieces)


def output_of(layer: Conv2d, buffer: Buffer) -> Activation:
    """Return a layer's output, in its layout."""
    pixels, channels = layer.out_height * layer.out_width, layer.out_channels
    block, shuffle = channel_block(layer.out_layout, channels), shuffle_of(layer.out_layout)
    if shuffle is None:
        return Activation(buffer, pixels, channels, block)
    return ShuffledActivation(buffer, pixels, channels, block, width=layer.out_width, rows=shuffle[0])


def pieces_of_group(pieces: tuple[Piece, ...], group: int, depth: int) -> tuple[Piece, ...]:
    """Return the pieces of the input channels `group * depth` to `(group + 1) * depth`, cut at the group's ends."""
    found = []
    start = 0
    for piece in pieces:
        first, last = max(group * depth, start), min((group + 1) * depth, start + piece.count)
        if first < last:
            found.append(Piece(piece.activation, piece.first + first - start, last - first))
        start += piece.count
    return tuple(found)
