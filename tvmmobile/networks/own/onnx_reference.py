"""ONNX's reference evaluator, with its errors corrected."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array

#: The version from which `Softmax` is along one axis.
_ONE_AXIS = 13


def reference_evaluator(model: Any) -> Any:
    """What computes a model's outputs; its `run` takes names of outputs and a dictionary of inputs.

    Raises:
        Exception: of any kind, for a model that it cannot compute.
    """
    from onnx.reference import ReferenceEvaluator

    opset = max((entry.version for entry in model.opset_import if not entry.domain), default=1)
    return ReferenceEvaluator(model, new_ops=[_conv(), _max_pool(), *([] if opset >= _ONE_AXIS else _softmaxes())])


@functools.cache
def _conv() -> type:
    """`Conv` that adds up one place of the kernel after the other. That of onnx 1.23 spells out every window, of a dilated kernel with its
    gaps, and eight bytes of indices for each element: DeepLab v3 took 23 GB.
    """
    from onnx.reference.ops.op_conv import Conv as Theirs

    class Conv(Theirs):  # type: ignore[misc]
        op_domain = ""

        def _run(
            self,
            x: Array,
            weight: Array,
            bias: Array | None = None,
            auto_pad: str | None = None,
            dilations: Sequence[int] | None = None,
            group: int | None = None,
            kernel_shape: Sequence[int] | None = None,
            pads: Sequence[int] | None = None,
            strides: Sequence[int] | None = None,
        ) -> Any:
            kernel, once, group = weight.shape[2:], [1] * (x.ndim - 2), group or 1
            strides, dilations = strides or once, dilations or once
            reach = [(taps - 1) * dilation + 1 for taps, dilation in zip(kernel, dilations, strict=True)]
            padding = _padding(x.shape[2:], reach, strides, pads, auto_pad)
            x = np.pad(x, ((0, 0), (0, 0), *padding))
            counts = [(extent - taps) // step + 1 for extent, taps, step in zip(x.shape[2:], reach, strides, strict=True)]
            batch, outputs, inputs = x.shape[0], weight.shape[0] // group, weight.shape[1]
            result = np.zeros((batch, group, outputs, math.prod(counts)), x.dtype)
            for place in np.ndindex(*kernel):
                starts = [offset * dilation for offset, dilation in zip(place, dilations, strict=True)]
                parts = zip(starts, counts, strides, strict=True)
                pixels = x[:, :, *(slice(start, start + (count - 1) * step + 1, step) for start, count, step in parts)]
                result += weight[:, :, *place].reshape(group, outputs, inputs) @ pixels.reshape(batch, group, inputs, -1)
            result = result.reshape(batch, -1, *counts)
            return (result if bias is None else (result + bias.reshape(-1, *once)).astype(x.dtype),)

    return Conv


def _padding(
    image: Sequence[int], reach: Sequence[int], strides: Sequence[int], pads: Sequence[int] | None, auto_pad: str | None
) -> list[tuple[int, int]]:
    """Zeros before and behind each extent of an image, under windows that reach so far."""
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        lacking = [
            max(0, (-(-extent // step) - 1) * step + taps - extent) for extent, taps, step in zip(image, reach, strides, strict=True)
        ]
        halves = [(amount // 2, amount - amount // 2) for amount in lacking]
        return halves if auto_pad == "SAME_UPPER" else [(behind, before) for before, behind in halves]
    if pads is None or auto_pad == "VALID":
        return [(0, 0)] * len(image)
    return list(zip(pads[: len(image)], pads[len(image) :], strict=True))


@functools.cache
def _max_pool() -> type:
    """`MaxPool` whose pads differ from side to side, or that rounds sizes up with a stride of 1: onnx 1.23 mixes up the one, and gives the
    other too many pixels.
    """
    from onnx.reference.ops.op_max_pool import MaxPool as Theirs

    class MaxPool(Theirs):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, pads: Any = None, ceil_mode: Any = None, strides: Any = None, **attributes: Any) -> Any:
            if strides is None or max(strides) == 1:
                ceil_mode = 0  # there is nothing to round
            half = len(pads) // 2 if pads is not None else 0
            if half and list(pads[:half]) != list(pads[half:]) and x.dtype.kind == "f":
                x = np.pad(x, ((0, 0), (0, 0), *zip(pads[:half], pads[half:], strict=True)), constant_values=-np.inf)
                pads = [0] * len(pads)
            return super()._run(x, pads=pads, ceil_mode=ceil_mode, strides=strides, **attributes)

    return MaxPool


@functools.cache
def _softmaxes() -> list[type]:
    """`Softmax` and `LogSoftmax` of older versions, along all axes from one on, of which onnx 1.23 takes the first alone."""
    from onnx.reference.op_run import OpRun

    class Softmax(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, axis: Any = None) -> Any:
            exponents = _below_largest(self, x)
            weights = np.exp(exponents)
            return ((weights / weights.sum(1, keepdims=True)).reshape(x.shape),)

    class LogSoftmax(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, axis: Any = None) -> Any:
            exponents = _below_largest(self, x)
            return ((exponents - np.log(np.exp(exponents).sum(1, keepdims=True))).reshape(x.shape),)

    return [Softmax, LogSoftmax]


def _below_largest(operator: Any, x: Array) -> Array:
    """Rows of all axes from one on, less their largest number. Without an attribute, the evaluator gives the default of newer versions."""
    first = next((int(one.i) for one in operator.onnx_node.attribute if one.name == "axis"), 1) % x.ndim
    rows = x.reshape(math.prod(x.shape[:first]), -1)
    return np.asarray(rows - rows.max(1, keepdims=True))
