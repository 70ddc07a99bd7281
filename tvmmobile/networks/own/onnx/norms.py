"""Instance norms and layer norms of ONNX files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.expressions import constant, numbers_of, shape_of


def batch_norm(_inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> None:
    """Refuse `BatchNormalization` in training mode; TVM's converter takes the others."""
    if attrs.get("training_mode"):
        raise ValueError("BatchNormalization in training mode is not supported")


def instance_norm(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Return a group norm with a group for each channel; TVM's converter would spell it out."""
    data, weight, bias = inputs
    shape = shape_of(data)
    axes, epsilon = list(range(2, len(shape))), float(attrs.get("epsilon", 1e-5))
    return relax.op.nn.group_norm(data, weight, bias, num_groups=shape[1], channel_axis=1, axes=axes, epsilon=epsilon)


def layer_norm(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `LayerNormalization`: TVM's converter mistakes the factors' rank for the number of axes.

    Returns:
        The norm; in a tuple with means and inverse deviations if these are outputs.
    """
    op, data, shape = relax.op, inputs[0], shape_of(inputs[0])
    axes = list(range(int(attrs.get("axis", -1)) % len(shape), len(shape)))
    extents = [shape[axis] for axis in axes]
    bias = inputs[2] if len(inputs) > 2 and inputs[2] is not None else relax.const(np.zeros(extents, np.float32))
    factors, summands = (_broadcast(part, extents) for part in (inputs[1], bias))
    epsilon, known = float(attrs.get("epsilon", 1e-5)), all(numbers_of(part) is not None for part in (factors, summands))
    if len(shape) != 4 or axes[0] > 1 or (axes[0] == 1 and known):
        normed = op.nn.layer_norm(data, factors, summands, axes, epsilon)
    else:
        count = math.prod(extents)  # layout inference would move the axes of an image, but leave the factors as they are
        rows = op.reshape(data, [1, math.prod(shape) // count, count])
        factors, summands = (op.reshape(part, [count]) for part in (factors, summands))
        normed = op.reshape(op.nn.layer_norm(rows, factors, summands, [-1], epsilon), shape)
    if (outputs := attrs["tvm_custom"]["num_outputs"]) == 1:
        return normed
    mean, variance = op.mean(data, axes, keepdims=True), op.variance(data, axes, keepdims=True)
    return relax.Tuple([normed, mean, op.rsqrt(op.add(variance, relax.const(epsilon, "float32")))][:outputs])


def _broadcast(value: Any, extents: list[int]) -> Any:
    """Return a tensor with these extents; a constant stays one, as the graph passes need."""
    if shape_of(value) == extents:
        return value
    if (numbers := numbers_of(value)) is not None:
        return constant(np.ascontiguousarray(np.broadcast_to(numbers, extents)))
    return relax.op.broadcast_to(value, extents)
