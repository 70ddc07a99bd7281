"""Instance norms of ONNX files, and group norms, which PyTorch exports as instance norms between two reshapes, with factors behind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvmmobile.graph.expressions import constant, numbers_of, shape_of
from tvmmobile.graph.passes.rewriting import rewrite_main


def instance_norm(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """A group norm with a group for each channel; TVM's converter would spell it out."""
    from tvm import relax

    data, weight, bias = inputs
    shape = shape_of(data)
    axes, epsilon = list(range(2, len(shape))), float(attrs.get("epsilon", 1e-5))
    return relax.op.nn.group_norm(data, weight, bias, num_groups=shape[1], channel_axis=1, axes=axes, epsilon=epsilon)


def layer_norm(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `LayerNormalization`: TVM's converter takes the rank of the factors for the number of axes.

    Returns:
        The norm; in a tuple with means and inverse deviations if these are outputs.
    """
    from tvm import relax

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
    """A tensor with these extents; a constant stays one, as the graph passes want it."""
    from tvm import relax

    if shape_of(value) == extents:
        return value
    if (numbers := numbers_of(value)) is not None:
        return constant(np.ascontiguousarray(np.broadcast_to(numbers, extents)))
    return relax.op.broadcast_to(value, extents)


def whole_group_norms(module: Any) -> Any:
    """Rewrite `add(multiply(reshape(group_norm(reshape(x))), factors), summands)` in `main` as a group norm of `x`."""
    from tvm import relax
    from tvm.relax.dpl import is_const, is_op, wildcard

    data, own = wildcard(), (is_const(), is_const())
    rows = is_op("relax.reshape")(data, wildcard())
    normed = is_op("relax.nn.group_norm")(rows, *own)
    factors, summands = is_const(), is_const()
    scaled = is_op("relax.multiply")(is_op("relax.reshape")(normed, wildcard()), factors)

    def rewrite(call: Any, matched: Any) -> Any:
        shape, attrs = shape_of(call), matched[normed].attrs
        groups = int(attrs.num_groups)
        if shape_of(matched[data]) != shape or len(shape) < 3 or shape_of(matched[rows])[:2] != [shape[0], groups]:
            return call
        constants = [matched[part].value.numpy() for part in (factors, summands)]
        if shape[1] % groups or not all(_along_channels(array, shape) for array in constants):
            return call
        factor, summand = (array.reshape(-1) for array in constants)
        weight, bias = (np.repeat(matched[part].value.numpy(), shape[1] // groups) for part in own)
        numbers = {"num_groups": groups, "channel_axis": 1, "axes": list(range(2, len(shape))), "epsilon": float(attrs.epsilon)}
        return relax.op.nn.group_norm(matched[data], relax.const(weight * factor), relax.const(bias * factor + summand), **numbers)

    return rewrite_main(module, is_op("relax.add")(scaled, summands), rewrite)


def _along_channels(array: Any, shape: list[int]) -> bool:
    """Return whether a constant has one number per channel of images with channels in front, and no others."""
    return bool(array.size == shape[1] and array.ndim >= len(shape) - 1 and array.shape[1 - len(shape)] == shape[1])
