"""Converts ONNX operators that TVM's importer lacks, misreads, or writes as operators that no pass knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import onnx
from tvm import relax

from tvmmobile.graph.expressions import constant, numbers_of, shape_of
from tvmmobile.networks.reductions import reduced


def pairwise(operator: str, inputs: Sequence[Any], _attrs: dict[str, Any], _opset: int) -> Any:
    """Convert an operator on any number of tensors to calls of a binary one."""
    are_tensors = all(isinstance(value.ty, relax.TensorType) for value in inputs)
    return reduce(getattr(relax.op, operator), list(inputs)) if are_tensors else None


def mean(inputs: Sequence[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Convert `Mean` of several tensors to their sum, multiplied by a number."""
    total = pairwise("add", inputs, attrs, opset)
    if total is None or len(inputs) == 1:
        return total
    return relax.op.multiply(total, constant(np.asarray(1 / len(inputs), str(inputs[0].ty.dtype))))


def celu(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `Celu`, max(0, x) + min(0, α · (exp(x / α) − 1))."""
    (data,), op, alpha = inputs, relax.op, float(attrs.get("alpha", 1.0))
    zero, one, factor, inverse = (relax.const(number, "float32") for number in (0.0, 1.0, alpha, 1 / alpha))
    curve = op.multiply(op.subtract(op.exp(op.multiply(op.minimum(data, zero), inverse)), one), factor)
    return op.add(op.maximum(data, zero), curve)


def is_inf(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `IsInf` with the signs that it detects, which TVM's converter ignores."""
    (data,), op, kind = inputs, relax.op, str(inputs[0].ty.dtype)
    signs = [number for name, number in (("detect_positive", math.inf), ("detect_negative", -math.inf)) if attrs.get(name, 1)]
    if not signs:
        return constant(np.zeros(shape_of(data), np.bool_))
    found = [op.equal(data, relax.const(number, kind)) for number in signs]
    return reduce(op.logical_or, found)


def dropout(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `Dropout` at inference: the tensor itself, and a mask of ones if that is asked for."""
    training = inputs[2] if len(inputs) > 2 else None
    if training is not None and (numbers_of(training) is None or numbers_of(training).any()):
        raise ValueError("Dropout with training_mode is random")
    if attrs["tvm_custom"]["num_outputs"] == 1:
        return inputs[0]
    return relax.Tuple([inputs[0], constant(np.ones(shape_of(inputs[0]), np.bool_))])


def lp_normalization(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `LpNormalization`: each element divided by the norm along an axis; zeros stay zeros."""
    (data,), op, axis = inputs, relax.op, [int(attrs.get("axis", -1))]
    if int(attrs.get("p", 2)) == 1:
        norm = op.sum(op.abs(data), axis, keepdims=True)
    else:
        norm = op.sqrt(op.sum(op.multiply(data, data), axis, keepdims=True))
    smallest = relax.const(float(np.finfo(np.float32).tiny), "float32")
    return op.divide(data, op.maximum(norm, smallest))


def one_hot(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `OneHot`: a comparison of each index with all numbers below the depth, along a new axis; negative ones count from the end.

    Raises:
        ValueError: depth or values are computed.
    """
    indices, op, count, values = inputs[0], relax.op, numbers_of(inputs[1]), numbers_of(inputs[2])
    if count is None or values is None:
        raise ValueError("OneHot with a computed depth or computed values is not supported")
    depth, (off, on) = int(count.reshape(-1)[0]), values
    kind, rank = str(indices.ty.dtype), len(shape_of(indices)) + 1
    axis = int(attrs.get("axis", -1)) % rank
    numbers = np.arange(depth).reshape([depth if place == axis else 1 for place in range(rank)])
    given = op.expand_dims(indices, axis)
    found = op.logical_or(op.equal(given, constant(numbers.astype(kind))), op.equal(given, constant((numbers - depth).astype(kind))))
    return op.where(found, constant(np.asarray(on)), constant(np.asarray(off)))


def top_k(inputs: Sequence[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Convert `TopK` with its number as an input; TVM's converter looks for version 10's among the attributes.

    Raises:
        ValueError: the number is computed.
    """
    if opset < 10:
        return None
    data, count = inputs[0], numbers_of(inputs[1])
    if count is None:
        raise ValueError("TopK with a computed number is not supported")
    return relax.op.topk(data, int(count.item()), int(attrs.get("axis", -1)), "both", bool(attrs.get("largest", 1)), "int64")


def eye_like(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `EyeLike`, which depends on nothing but its input's shape and type."""
    rows, columns = shape_of(inputs[0])
    kind = onnx.helper.tensor_dtype_to_np_dtype(attrs["dtype"]) if "dtype" in attrs else np.dtype(str(inputs[0].ty.dtype))
    return constant(np.eye(rows, columns, int(attrs.get("k", 0)), kind))


def power(inputs: Sequence[Any], _attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `Pow` with different types of base and exponent, or with an integer base; the result has the base's type."""
    base, exponent = inputs
    kind, op = str(base.ty.dtype), relax.op
    whole = not kind.startswith("float")
    if not whole and str(exponent.ty.dtype) == kind:
        return None
    real = "float32" if whole else kind
    known = numbers_of(exponent)
    exponent = op.astype(exponent, real) if known is None else constant(known.astype(real))
    if not whole:
        return op.power(base, exponent)
    return op.astype(op.round(op.power(op.astype(base, real), exponent)), kind)


def modulo(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert real `Mod` with the divisor's sign, via C's `fmod`; TVM's returns NaN for an infinite divisor."""
    (number, divisor), op = inputs, relax.op
    if attrs.get("fmod", 0) or not str(number.ty.dtype).startswith("float"):
        return None
    rest, zero = relax.BlockBuilder.current().emit(op.mod(number, divisor)), relax.const(0.0, str(number.ty.dtype))
    differs = op.logical_and(op.not_equal(rest, zero), op.not_equal(op.less(rest, zero), op.less(divisor, zero)))
    return op.where(differs, op.add(rest, divisor), rest)


def over_no_axis(step: str, inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert a reduction over no axis at all, which still takes each number's magnitude, square or logarithm (`step`, an operator of
    Relax): TVM's converter forgets it.
    """
    axes = inputs[1] if len(inputs) > 1 else None
    some = attrs.get("axes") if axes is None else shape_of(axes) != [0]
    return getattr(relax.op, step)(inputs[0]) if attrs.get("noop_with_empty_axes", 0) and not some else None


def log_sum_exp(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `ReduceLogSumExp`; TVM's converter subtracts infinities from each other, which is NaN."""
    data, op, axes, kept = inputs[0], relax.op, _axes(inputs, attrs), bool(attrs.get("keepdims", 1))
    if axes == []:
        return data
    most = op.max(data, axes, keepdims=True)
    most = op.where(op.isfinite(most), most, relax.const(0.0, "float32"))
    found = op.add(op.log(op.sum(op.exp(op.subtract(data, most)), axes, keepdims=True)), most)
    return found if kept else op.squeeze(found, axes)


def extreme(step: str, inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `ReduceMax` or `ReduceMin` of booleans, of which TVM knows no greatest or least."""
    if str(inputs[0].ty.dtype) != "bool":
        return None
    axes = _axes(inputs, attrs)
    return inputs[0] if axes == [] else reduced(step, inputs[0], axes, bool(attrs.get("keepdims", 1)))


def _axes(inputs: Sequence[Any], attrs: dict[str, Any]) -> list[int] | None:
    """Return the axes of a reduction: `None` for all, none for `noop_with_empty_axes`.

    Raises:
        ValueError: they are computed.
    """
    given = inputs[1] if len(inputs) > 1 else None
    axes = attrs.get("axes", ()) if given is None else numbers_of(given)
    if axes is None:
        raise ValueError("a reduction along computed axes is not supported")
    return list(map(int, axes)) or ([] if attrs.get("noop_with_empty_axes", 0) else None)
