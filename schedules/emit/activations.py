"""Activations in flat buffers, and the index of each element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvmmobile.graph.layers import Conv2d, WindowPool
from tvmmobile.graph.layouts import channel_block, shuffle_of
from tvmmobile.schedules.emit.kernel import Buffer, Expr


@dataclass(frozen=True)
class Activation:
    """An activation in a flat buffer, laid out as [channel block][pixel][channel of the block].

    Attributes:
        buffer: flat buffer that holds the activation.
        pixels, channels, block: number of pixels, of channels, and of channels per block; NHWC is one block of all channels.
        origin: index in the buffer of the activation's first element.
    """

    buffer: Buffer
    pixels: int
    channels: int
    block: int
    origin: Expr = 0

    def at(self, pixel: Expr, channel: Expr) -> Expr:
        """Return the buffer index of an element."""
        if self.block == self.channels:
            index = pixel * self.channels + channel
        else:
            index = channel // self.block * (self.pixels * self.block) + pixel * self.block + channel % self.block
        return index if isinstance(self.origin, int) and self.origin == 0 else self.origin + index

    @property
    def in_line(self) -> bool:
        """True if consecutive pixels are always `block` elements apart, so that `at` need not be called for each."""
        return True

    def holds_whole(self, lanes: int) -> bool:
        """Return whether each vector of `lanes` channels is contiguous."""
        return self.block == self.channels or self.block % lanes == 0


@dataclass(frozen=True)
class ShuffledActivation(Activation):
    """An activation before a pixel shuffle: its channels belong to several pixels of a larger image, see `layouts.shuffled`.

    Attributes:
        width: number of columns of the activation.
        rows: rows of the larger image per row of the activation.
    """

    width: int = 1
    rows: int = 1

    @property
    def in_line(self) -> bool:
        """False: the distance between pixels differs at the end of a row."""
        return False

    def at(self, pixel: Expr, channel: Expr) -> Expr:
        """Return the buffer index of an element."""
        line, column = pixel // self.width, pixel % self.width
        block, lane = channel // self.block, channel % self.block
        row = (block // self.rows * (self.pixels // self.width) + line) * self.rows + block % self.rows
        return self.origin + (row * self.width + column) * self.block + lane


@dataclass(frozen=True)
class Piece:
    """A slice of an activation's channels.

    Attributes:
        activation: the sliced activation, in NHWC.
        first, count: first channel and number of channels of the slice.
    """

    activation: Activation
    first: int
    count: int


def input_of(layer: Conv2d | WindowPool, buffers: Mapping[str, Buffer]) -> tuple[Activation, tuple[Piece, ...]]:
    """Return a layer's input and its pieces in the buffers `data`, `source1` and so on; a layer with one input tensor has no pieces."""
    pixels = layer.height * layer.width
    if not layer.pieces:
        return Activation(buffers["data"], pixels, layer.in_channels, channel_block(layer.in_layout, layer.in_channels)), ()
    names = ["data", *(f"source{number}" for number in range(1, len(layer.sources)))]
    sources = [Activation(buffers[name], pixels, channels, channels) for name, channels in zip(names, layer.sources, strict=True)]
    return sources[0], tuple(Piece(sources[source], first, count) for source, first, count in layer.pieces)


def output_of(layer: Conv2d, buffer: Buffer) -> Activation:
    """Return a layer's output as an activation in the layer's output layout."""
    pixels, channels = layer.out_height * layer.out_width, layer.out_channels
    block, shuffle = channel_block(layer.out_layout, channels), shuffle_of(layer.out_layout)
    if shuffle is None:
        return Activation(buffer, pixels, channels, block)
    return ShuffledActivation(buffer, pixels, channels, block, width=layer.out_width, rows=shuffle[0])


def pieces_of_group(pieces: tuple[Piece, ...], group: int, depth: int) -> tuple[Piece, ...]:
    """Return the pieces that hold a group's input channels, `group * depth` to `(group + 1) * depth`, clipped to the group."""
    clipped = []
    start = 0
    for piece in pieces:
        first, last = max(group * depth, start), min((group + 1) * depth, start + piece.count)
        if first < last:
            clipped.append(Piece(piece.activation, piece.first + first - start, last - first))
        start += piece.count
    return tuple(clipped)
