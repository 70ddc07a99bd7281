"""Merges padding into the convolution or pool after it: TensorFlow's networks pad below and on the right before a stride."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.rewriting import replace_values
from tvmmobile.graph.precision import FLOAT32

#: Padding of a max pool at most this large counts as -∞.
_LEAST = -1e30


def pads_of_layers(module: Any) -> Any:
    """Rewrite every convolution and pool of `main` that reads a padded tensor and gives the same results with the padding as its own.

    Channels come first. That holds for zeros in front of convolutions and average pools, and in front of max pools for -∞, or zeros around
    numbers none of which is negative. Zeros that remain around images are those of depthwise 1×1 convolutions with factors of one. Padding
    of no width, as in Swin, is left out.
    """
    for rewritten in (_without_width, _padding_itself, _as_convolution):
        module = replace_values(module, rewritten)
    return module


def _without_width(value: Any, _: Mapping[Any, Any]) -> Any:
    """Return the tensor behind a pad of no width; `None` for other values."""
    widths = value.attrs.pad_width if operator_of(value) == "relax.nn.pad" else [1]
    return None if any(int(width) for width in widths) else value.args[0]


def _padding_itself(value: Any, values: Mapping[Any, Any]) -> Any:
    """Return the layer's call with the preceding padding merged; `None` without padding, or for another kind."""
    of_most, of_mean = (has(value, kind) for kind in (Trait.MAX_POOL, Trait.AVERAGE_POOL))
    if not (of_most or of_mean or has(value, Trait.CONVOLUTION)):
        return None
    pad: Any = values.get(value.args[0])
    widths = _widths(pad)
    if widths is None:
        return None
    number = float(pad.attrs.pad_value)
    if number and not (of_most and number <= _LEAST):
        return None
    own = [int(width) for width in value.attrs.padding]
    padding = [one + width for one, width in zip(own, widths[4::2] + widths[5::2], strict=True)]  # tops and lefts first
    if has(value, Trait.CONVOLUTION):
        return _convolution(value, pad.args[0], padding)
    if value.attrs.ceil_mode and not _is_whole(value):
        return None
    if of_mean and any(own) and not value.attrs.count_include_pad:
        return None  # it counts some of the zeros
    if of_most and not number:
        reached = all(width < int(taps) for width, taps in zip(padding, [*value.attrs.pool_size] * 2, strict=True))
        if not reached or not _is_positive(values.get(pad.args[0])):
            return None  # the largest may be a zero
    return _pool(value, pad.args[0], padding)


def _as_convolution(value: Any, _: Mapping[Any, Any]) -> Any:
    """Return zeros around an image; `None` for other values."""
    widths = _widths(value)
    if widths is None or float(value.attrs.pad_value) or len(widths) != 8 or str(value.ty.dtype) != FLOAT32.name:
        return None
    channels = shape_of(value)[1]
    ones = relax.const(np.ones((channels, 1, 1, 1), np.float32))
    return relax.op.nn.conv2d(value.args[0], ones, padding=widths[4::2] + widths[5::2], groups=channels)


def _widths(pad: Any) -> list[int] | None:
    """Return a constant pad's widths before and after each dimension; `None` for other values, or if it cuts or pads channels."""
    if operator_of(pad) != "relax.nn.pad" or pad.attrs.pad_mode != "constant":
        return None
    widths = [int(width) for width in pad.attrs.pad_width]
    return None if min(widths) < 0 or any(widths[:4]) else widths


def _is_whole(pool: Any) -> bool:
    """Return whether a pool's windows end where its input does, so that rounding their number up changes nothing."""
    extents, padding = shape_of(pool.args[0])[2:], [int(width) for width in pool.attrs.padding]
    return all(
        (extent + padding[axis] + padding[axis + len(extents)] - int(pool.attrs.pool_size[axis])) % int(pool.attrs.strides[axis]) == 0
        for axis, extent in enumerate(extents)
    )


def _is_positive(value: Any) -> bool:
    """Return whether no element can be negative."""
    if operator_of(value) == "relax.clip":
        return float(getattr(value.args[1].value, "value", value.args[1].value)) >= 0
    return has(value, Trait.NON_NEGATIVE)


def _convolution(call: Any, data: Any, padding: list[int]) -> Any:
    """Return the call on other data with other padding."""
    attrs = call.attrs
    return _operator(call)(data, call.args[1], attrs.strides, padding, attrs.dilation, int(attrs.groups))


def _pool(call: Any, data: Any, padding: list[int]) -> Any:
    """Return the pool on other data with other padding, which counts."""
    attrs = call.attrs
    return _operator(call)(data, attrs.pool_size, attrs.strides, padding, attrs.dilation, False, has(call, Trait.AVERAGE_POOL))


def _operator(call: Any) -> Any:
    return getattr(relax.op.nn, operator_of(call).rpartition(".")[2])
