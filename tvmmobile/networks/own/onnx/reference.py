"""ONNX's reference evaluator in Python, for single nodes and for networks that ONNX Runtime cannot compute, with its errors corrected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_max_pool import MaxPool as Theirs
from scipy import special

from tvmmobile.graph.layers import Array
from tvmmobile.networks.frontend import Compute
from tvmmobile.networks.own.onnx.tensors import attribute, opset_of

#: The versions from which `Softmax` is along one axis, and from which `BatchNormalization` says whether it is in training.
_ONE_AXIS, _SAYS_MODE = 13, 14


# What onnx 1.23 gets wrong.
class BatchNormalization(OpRun):  # type: ignore[misc]
    """BatchNormalization by the stored mean and variance; onnx's evaluator takes the image's own, as in training."""

    op_domain = ""

    def _run(self, x: Array, scale: Array, bias: Array, mean: Array, variance: Array, epsilon: Any = None, **_attributes: Any) -> Any:
        over_channels = [-1, *[1] * (x.ndim - 2)]
        factor = scale / np.sqrt(variance + np.float32(1e-5 if epsilon is None else epsilon))
        shift = bias - mean * factor
        return ((x * factor.reshape(over_channels) + shift.reshape(over_channels)).astype(x.dtype),)


class STFT(OpRun):  # type: ignore[misc]
    """STFT that takes real signals without a last dimension of 1; onnx's evaluator refuses them."""

    op_domain = ""

    def _run(self, x: Array, step: Array, window: Any = None, length: Any = None, onesided: int = 1) -> Any:
        count = int(length) if window is None else len(window)
        frames = np.lib.stride_tricks.sliding_window_view(x.reshape(len(x), -1).astype(np.float64), count, 1)[:, :: int(step.item())]
        found = (np.fft.rfft if onesided else np.fft.fft)(frames * (1.0 if window is None else window))
        return (np.stack([found.real, found.imag], -1).astype(x.dtype),)


class MaxPool(Theirs):  # type: ignore[misc]
    """MaxPool with asymmetric pads and `ceil_mode` as the specification has them; onnx's evaluator confuses them."""

    op_domain = ""

    def _run(self, x: Array, pads: Any = None, ceil_mode: Any = None, strides: Any = None, **attributes: Any) -> Any:
        if strides is None or max(strides) == 1:
            ceil_mode = 0  # no rounding is needed
        half = len(pads) // 2 if pads is not None else 0
        if half and list(pads[:half]) != list(pads[half:]) and x.dtype.kind == "f":
            x = np.pad(x, ((0, 0), (0, 0), *zip(pads[:half], pads[half:], strict=True)), constant_values=-np.inf)
            pads = [0] * len(pads)
        return super()._run(x, pads=pads, ceil_mode=ceil_mode, strides=strides, **attributes)


class Softmax(OpRun):  # type: ignore[misc]
    """Softmax before opset 13: over all axes from `axis` on; onnx's evaluator takes `axis` alone."""

    op_domain, compute = "", staticmethod(special.softmax)

    def _run(self, x: Array, axis: Any = None) -> Any:
        first = attribute(self.onnx_node, "axis", 1) % x.ndim  # the evaluator gives the default of newer versions
        return (self.compute(x.reshape(math.prod(x.shape[:first]), -1), 1).reshape(x.shape),)


class LogSoftmax(Softmax):
    """LogSoftmax before opset 13: over all axes from `axis` on."""

    compute = staticmethod(special.log_softmax)


def start_reference_evaluator(model: Any, inputs: Sequence[str]) -> tuple[str, Compute]:
    """Return the evaluator's name and version, and the function that computes a `ModelProto` with these inputs.

    Raises:
        Exception: of any kind, for a model that it cannot compute.
    """
    evaluator = reference_evaluator(model)

    def compute(given: Sequence[Array]) -> tuple[Array, ...]:
        return tuple(evaluator.run(None, dict(zip(inputs, given, strict=True))))

    return f"onnx.reference {onnx.__version__}", compute


def reference_evaluator(model: Any) -> Any:
    """Return an evaluator of a model; its `run` takes names of outputs and a dictionary of inputs.

    Raises:
        Exception: of any kind, for a model that it cannot compute.
    """
    opset = opset_of(model)
    older = [*([] if opset >= _ONE_AXIS else [Softmax, LogSoftmax]), *([] if opset >= _SAYS_MODE else [BatchNormalization])]
    return ReferenceEvaluator(model, new_ops=[MaxPool, STFT, *older])
