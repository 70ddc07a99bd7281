"""Rewrites first convolutions after space-to-depth as convolutions of the images themselves.

Pixel unshuffles, and the slices at every other pixel that YOLOv5's Focus concatenates, only move elements. A convolution of the result is
one of the image, with a larger kernel and stride and as many multiplications. Tensors of more channels are copied: kernels of another kind,
such as matrix products, are worth it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmmobile.graph.access import moved_by
from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.rewriting import value_pass

#: Channels of an image, at most.
_MOST_CHANNELS = 4
_CONCAT = "relax.concat"


@value_pass
def space_to_depth(conv: Any, values: Mapping[Any, Any]) -> Any:
    """Rewrite every such `conv2d` of one group (NCHW) in `main`."""
    if operator_of(conv) != "relax.nn.conv2d" or not isinstance(conv.args[1], tvm.ir.GenericConst):
        return None
    attrs, moved = conv.attrs, conv.args[0]
    plain = (attrs.data_layout, attrs.kernel_layout, int(attrs.groups)) == ("NCHW", "OIHW", 1)
    if not plain or any(int(step) != 1 for step in attrs.dilation):
        return None
    for source in _sources(moved, values):
        numbers = _numbers(moved, source, values)
        places = _places(numbers, shape_of(source)) if numbers is not None else None
        if places is None:
            continue
        (down, right), of_channel = places
        weight = conv.args[1].value.numpy()
        outputs, _, rows, columns = weight.shape
        spread = np.zeros((outputs, shape_of(source)[1], rows, down, columns, right), weight.dtype)
        for channel, (of, y, x) in enumerate(of_channel):
            spread[:, of, :, y, :, x] = weight[:, channel]
        return relax.op.nn.conv2d(
            source,
            relax.const(spread.reshape(outputs, -1, rows * down, columns * right)),
            strides=[int(step) * factor for step, factor in zip(attrs.strides, (down, right), strict=True)],
            padding=[int(extent) * factor for extent, factor in zip(attrs.padding, (down, right) * 2, strict=True)],
        )
    return None


def _sources(variable: Any, values: Mapping[Any, Any]) -> Iterator[Any]:
    """Yield images that a variable may show, the nearest first."""
    while True:
        value: Any = values.get(variable)
        name = operator_of(value)
        if name == _CONCAT:
            variable = value.args[0].fields[0]
        elif has(value, Trait.MOVE):
            variable = value.args[0]
        else:
            return
        shape = shape_of(variable)
        if len(shape) == 4 and shape[0] == 1 and shape[1] <= _MOST_CHANNELS:
            yield variable


def _numbers(variable: Any, source: Any, values: Mapping[Any, Any]) -> Array | None:
    """Return the source's elements that a variable holds; `None` if it holds others."""
    if variable.same_as(source):
        return np.arange(np.prod(shape_of(source))).reshape(shape_of(source))
    value: Any = values.get(variable)
    name = operator_of(value)
    if name == _CONCAT:
        parts = [_numbers(part, source, values) for part in value.args[0].fields]
        known = [part for part in parts if part is not None]
        return np.concatenate(known, int(value.attrs.axis)) if len(known) == len(parts) else None
    numbers = _numbers(value.args[0], source, values) if has(value, Trait.MOVE) else None
    return None if numbers is None else moved_by(value, numbers)


def _places(numbers: Array, image: list[int]) -> tuple[tuple[int, int], list[tuple[int, int, int]]] | None:
    """Return rows and columns of the image that a pixel has, and for each of its channels the image's, row and column there."""
    _, channels, height, width = image
    if numbers.ndim != 4 or numbers.shape[0] != 1 or height % numbers.shape[2] or width % numbers.shape[3]:
        return None
    down, right = height // numbers.shape[2], width // numbers.shape[3]
    first = numbers[0, :, 0, 0]
    pixels = (np.arange(numbers.shape[2])[:, None] * down * width + np.arange(numbers.shape[3]) * right)[None]
    of, y, x = np.unravel_index(first, (channels, height, width))
    wanted = {(c, row, column) for c in range(channels) for row in range(down) for column in range(right)}
    found = [(int(c), int(row), int(column)) for c, row, column in zip(of, y, x, strict=True)]
    same = (numbers[0] == first[:, None, None] + pixels).all()
    return ((down, right), found) if same and set(found) == wanted and len(found) == len(wanted) else None
