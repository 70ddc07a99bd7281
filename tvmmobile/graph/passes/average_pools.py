"""Rewrites average pools as layers with templates: a depthwise convolution with equal weights, the mean over all pixels, or a pool that
does not count padding. Adaptive pools with equal windows become one of these, or disappear. Large windows always become pools.

Relax's own legalisation counts every window's pixels at run time, with scalar divisions: ShuffleNet v1's three pools took 86 ms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.expressions import is_float32, operator_of, shape_of
from tvmmobile.graph.passes.rewriting import replace_values

#: Pixels of a window that half precision may add up one after another, as depthwise convolutions do: with 1024, 3 % were lost.
_MOST_TAPS = 64


def average_pools(module: Any) -> Any:
    """Rewrite every `avg_pool2d` whose windows all count the same number of pixels, and every mean and sum over all pixels; NCHW.

    Rounding up makes no difference where the windows fill the image. An adaptive pool has equal windows where its output's extents divide
    its input's: VGG-16 and AlexNet pool 7×7 and 6×6 pixels to the same size.
    """
    for replacement in (_in_equal_windows, _as_layer, _as_mean, _keeping_dimensions):
        module = replace_values(module, replacement)
    return module


def _in_equal_windows(value: Any, _: Mapping[Any, Any]) -> Any:
    """Return the ordinary form of an adaptive pool, or the image that it leaves unchanged; `None` for other values."""
    if operator_of(value) != "relax.nn.adaptive_avg_pool2d" or value.attrs.layout != "NCHW":
        return None
    data = value.args[0]
    inputs, outputs = shape_of(data)[2:], shape_of(value)[2:]
    if any(extent % count for extent, count in zip(inputs, outputs, strict=True)):
        return None
    if inputs == outputs:
        return data
    window = [extent // count for extent, count in zip(inputs, outputs, strict=True)]
    return relax.op.nn.avg_pool2d(data, window, window)


def _as_mean(call: Any, _: Mapping[Any, Any]) -> Any:
    """Return a sum over one image's rows and columns, channels first or last, as a multiple of their mean (as in arXiv 2301.00808).

    Relax truncates means of integers.
    """
    if operator_of(call) != "relax.sum" or not is_float32(call):
        return None
    data = call.args[0]
    shape, axes = shape_of(data), sorted(int(axis) for axis in call.attrs.axis or ())
    if len(shape) != 4 or shape[0] != 1 or axes not in ([1, 2], [2, 3]) or not call.attrs.keepdims:
        return None
    mean = relax.op.mean(data, axes, keepdims=True)
    return relax.op.multiply(mean, relax.const(float(shape[axes[0]] * shape[axes[1]]), str(call.ty.dtype)))


def _keeping_dimensions(call: Any, _: Mapping[Any, Any]) -> Any:
    """Return a mean over all pixels, with the dimensions that it leaves out as a view."""
    if operator_of(call) != "relax.mean" or call.attrs.keepdims or len(shape_of(call.args[0])) != 4:
        return None
    if sorted(int(axis) % 4 for axis in call.attrs.axis or ()) != [2, 3]:
        return None
    return relax.op.reshape(relax.op.mean(call.args[0], [2, 3], keepdims=True), shape_of(call))


def _as_layer(call: Any, _: Mapping[Any, Any]) -> Any:
    """Return a pool whose windows all count the same number of pixels, as a mean or convolution; `None` for other values."""
    if operator_of(call) != "relax.nn.avg_pool2d":
        return None
    data, attrs = call.args[0], call.attrs
    padding = [int(amount) for amount in attrs.padding]
    dilated = any(int(step) != 1 for step in attrs.dilation)
    if attrs.layout != "NCHW" or dilated or (any(padding) and not attrs.count_include_pad):
        return None
    window = tuple(int(extent) for extent in attrs.pool_size)
    channels, height, width = shape_of(data)[1:]
    if attrs.ceil_mode and _reaches_over(call, data):
        return None
    if window == (height, width) and not any(padding):
        return relax.op.mean(data, [2, 3], keepdims=True)
    if math.prod(window) > _MOST_TAPS:
        if not any(padding):
            return None
        top, left, bottom, right = padding
        padded = relax.op.nn.pad(data, [0, 0, 0, 0, top, bottom, left, right])
        return relax.op.nn.avg_pool2d(padded, window, attrs.strides)
    weight = np.full((channels, 1, *window), 1 / (window[0] * window[1]), str(data.ty.dtype))
    return relax.op.nn.conv2d(data, relax.const(weight), attrs.strides, padding, 1, channels)


def _reaches_over(call: Any, data: Any) -> bool:
    """Return whether a pool that rounds up has windows beyond the image and its padding."""
    attrs, inputs, outputs = call.attrs, shape_of(data)[2:], shape_of(call)[2:]
    padding = [int(amount) for amount in attrs.padding]
    for axis, (extent, count) in enumerate(zip(inputs, outputs, strict=True)):
        whole = extent + padding[axis] + padding[axis + 2]
        if (count - 1) * int(attrs.strides[axis]) + int(attrs.pool_size[axis]) > whole:
            return True
    return False
