"""What a layer reads, as activations in flat buffers."""

from __future__ import annotations

from collections.abc import Mapping

from tvmmobile.graph.layers import Conv2d, MaxPool, channel_block
from tvmmobile.schedules.emit import Activation, Buffer, Piece


def input_of(layer: Conv2d | MaxPool, buffers: Mapping[str, Buffer]) -> tuple[Activation, tuple[Piece, ...]]:
    """A layer's input, and what it is put together from: no pieces where it is one tensor, else the first source stands for it.

    Args:
        buffers: by the kernel's argument: `data`, and `source1` and so on.
    """
    pixels = layer.height * layer.width
    if not layer.pieces:
        return Activation(buffers["data"], pixels, layer.in_channels, channel_block(layer.in_layout, layer.in_channels)), ()
    names = ["data", *(f"source{number}" for number in range(1, len(layer.sources)))]
    sources = [Activation(buffers[name], pixels, channels, channels) for name, channels in zip(names, layer.sources, strict=True)]
    return sources[0], tuple(Piece(sources[source], first, count) for source, first, count in layer.pieces)


def pieces_of_group(pieces: tuple[Piece, ...], group: int, depth: int) -> tuple[Piece, ...]:
    """Those of the input channels `group * depth` to `(group + 1) * depth`, cut where they reach over these."""
    found = []
    start = 0
    for piece in pieces:
        first, last = max(group * depth, start), min((group + 1) * depth, start + piece.count)
        if first < last:
            found.append(Piece(piece.activation, piece.first + first - start, last - first))
        start += piece.count
    return tuple(found)
