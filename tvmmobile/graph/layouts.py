"""Memory layouts of activations: their names, and the shapes of tensors in them."""

from __future__ import annotations

import math
import re

import numpy as np

from tvmmobile.graph.parameters import Array

#: Memory order of a 4-D activation, in TVM's notation: `NHWC`, `NCHW`, or `NCHW16c` for channels in blocks of 16, each block all pixels;
#: outputs may also be `shuffled`.
Layout = str
_SHUFFLED = re.compile(r"NCH([1-9][0-9]*)cW([1-9][0-9]*)c")


def blocked(channels: int) -> Layout:
    """Return the layout with channels in blocks of that size."""
    return f"NCHW{channels}c"


def shuffled(rows: int, block: int) -> Layout:
    """Return the layout in which a pixel's channels belong to several pixels of a larger image (pixel shuffle, arXiv 1609.05158): for each
    group of channels, a number of blocks of `block` adjacent channels, each block one row below the previous one.
    """
    return f"NCH{rows}cW{block}c"


def shuffle_of(layout: Layout) -> tuple[int, int] | None:
    """Return rows and adjacent channels of a `shuffled` layout; `None` for others."""
    found = _SHUFFLED.fullmatch(layout)
    return (int(found[1]), int(found[2])) if found else None


def channel_block(layout: Layout, channels: int) -> int:
    """Return a pixel's number of adjacent channels; raise `ValueError` for other layouts, or blocks that do not divide them."""
    if layout in ("NHWC", "NCHW"):
        return channels if layout == "NHWC" else 1
    if (shuffle := shuffle_of(layout)) and channels % math.prod(shuffle) == 0:
        return shuffle[1]
    found = re.fullmatch(r"NCHW([1-9][0-9]*)c", layout)
    if not found or channels % int(found[1]):
        raise ValueError(f"no layout {layout} of {channels} channels")
    return int(found[1])


def activation_shape(layout: Layout, height: int, width: int, channels: int) -> tuple[int, ...]:
    """Return the shape of the tensor that holds an activation, with the batch of 1."""
    if layout == "NHWC":
        return (1, height, width, channels)
    if layout == "NCHW":
        return (1, channels, height, width)
    block = channel_block(layout, channels)
    if shuffle := shuffle_of(layout):
        return (1, channels // math.prod(shuffle), height, shuffle[0], width, block)
    return (1, channels // block, height, width, block)


def short_name(layout: Layout) -> str:
    """Return a layout's short name: `32c` for `NCHW32c`, `nchw` for `NCHW` and its shuffled form."""
    if shuffle_of(layout) == (1, 1):
        return "nchw"
    return layout.removeprefix("NCHW") or layout.lower()


def to_nchw(data: Array, layout: Layout = "NHWC") -> Array:
    """Copy an image that is stored in a layout to NCHW."""
    if layout == "NCHW":
        return data
    if layout == "NHWC":
        return np.ascontiguousarray(data.transpose(0, 3, 1, 2))
    return np.ascontiguousarray(data.transpose(0, 1, 4, 2, 3)).reshape(1, -1, *data.shape[2:4])


def from_nhwc(data: Array, layout: Layout) -> Array:
    """Copy an image NHWC to a layout."""
    if layout == "NHWC":
        return np.ascontiguousarray(data)
    if layout == "NCHW":
        return to_nchw(data)
    _, height, width, channels = data.shape
    if shuffle := shuffle_of(layout):
        return np.ascontiguousarray(data.reshape(1, height, width, -1, *shuffle).transpose(0, 3, 1, 4, 2, 5))
    block = channel_block(layout, channels)
    return np.ascontiguousarray(data.reshape(1, height, width, -1, block).transpose(0, 3, 1, 2, 4))
