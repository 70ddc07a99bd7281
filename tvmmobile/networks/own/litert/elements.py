"""Translates LiteRT's operators that equal one of ONNX's or a formula of several."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tvmmobile.networks.own.litert.reader import LiteRtOperator
from tvmmobile.networks.own.litert.translation import SIMPLER, Translation, Translator
from tvmmobile.system.errors import UserError

#: Takes the translation, the operator and the names of its inputs; returns the name of its result.
Formula = Callable[..., str]


def row(
    onnx: str | Formula, *numbers: float, front: bool | None = None, is_exact: bool = False, sources: int | None = None, **options: str
) -> Translator:
    """Return the translator of an operator with one result and perhaps an activation after it.

    Args:
        onnx: ONNX's operator, or a function that appends several.
        numbers: operands behind those of the file.
        front: true if images are always read with channels first; otherwise they are only if all operands are images or constants.
        is_exact: true if the result consists of elements of the first operand, which need no rounding if both have the same grid.
        sources: operands to read, the first ones.
        options: ONNX's attributes, each from an option of the operator.
    """

    def translate(into: Translation, operator: LiteRtOperator) -> None:
        read, given = operator.inputs[:sources], operator.options
        in_front = _in_front(into, operator) if front is None else front
        names = [into.read(number, in_front) for number in read]
        if callable(onnx):
            result = onnx(into, operator, *names)
        else:
            attributes = {name: getattr(given, option) for name, option in options.items()}
            result = into.emit(onnx, [*names, *map(into.real, numbers)], **attributes)
        if not into.tensor(operator.outputs[0]).shape and any(map(into.gains_dimension, read)):
            result = into.emit("Reshape", [result, into.integers()])
        into.write(operator.outputs[0], into.activated(result, operator), in_front, read[0] if is_exact else None)

    return translate


def _in_front(into: Translation, operator: LiteRtOperator) -> bool:
    """Return whether element-wise operators read their operands with channels first: a single tensor is unchanged."""
    if len(operator.inputs) == 1:
        return into.as_it_is(operator.inputs[0])[1]
    tensors = [into.tensor(number) for number in operator.inputs]
    image = len(into.tensor(operator.outputs[0]).shape) == 4
    return image and all(len(tensor.shape) == 4 or tensor.value is not None for tensor in tensors)


def squared_difference(into: Translation, _operator: LiteRtOperator, *both: str) -> str:
    """Append the square of a difference."""
    difference = into.emit("Sub", both)
    return into.emit("Mul", [difference, difference])


def floor_division(into: Translation, operator: LiteRtOperator, first: str, second: str) -> str:
    """Append `FLOOR_DIV`, or `FLOOR_MOD`: the remainder, with the divisor's sign."""
    divides = operator.kind == "FLOOR_DIV"
    if into.tensor(operator.outputs[0]).dtype.kind == "f":  # type: ignore[union-attr]
        whole = into.emit("Floor", [into.emit("Div", [first, second])])
        return whole if divides else into.emit("Sub", [first, into.emit("Mul", [whole, second])])
    remainder = into.emit("Mod", [first, second])  # ONNX truncates quotients towards zero
    return into.emit("Div", [into.emit("Sub", [first, remainder]), second]) if divides else remainder


def gelu(into: Translation, operator: LiteRtOperator, data: str) -> str:
    """Append `GELU`: `x/2 · (1 + erf(x/√2))`, or by `tanh`."""

    def by(operation: str, one: str, other: float) -> str:
        return into.emit(operation, [one, into.real(other)])

    if operator.options is not None and operator.options.approximate:
        cube = into.emit("Mul", [data, into.emit("Mul", [data, data])])
        inner = by("Mul", into.emit("Add", [data, by("Mul", cube, 0.044715)]), math.sqrt(2 / math.pi))
        curve = into.emit("Tanh", [inner])
    else:
        curve = into.emit("Erf", [by("Mul", data, math.sqrt(0.5))])
    return into.emit("Mul", [by("Mul", data, 0.5), by("Add", curve, 1.0)])


def softmax(into: Translation, operator: LiteRtOperator, data: str) -> str:
    """Append `SOFTMAX` of a multiple, along the last dimension."""
    factor = float(operator.options.beta)
    return into.emit("Softmax", [data if factor == 1.0 else into.emit("Mul", [data, into.real(factor)])])


def unit_length(into: Translation, _operator: LiteRtOperator, data: str) -> str:
    """Append `L2_NORMALIZATION`: each pixel or row divided by its length, which counts as 1e-6 at least."""
    length = into.emit("ReduceL2", [data], axes=[-1], keepdims=1)
    return into.emit("Div", [data, into.emit("Max", [length, into.real(1e-6)])])


def local_response_norm(into: Translation, operator: LiteRtOperator, data: str) -> str:
    """Append `LOCAL_RESPONSE_NORMALIZATION`, whose factor is that of each square; ONNX's is that of their mean."""
    options, size = operator.options, 2 * operator.options.radius + 1
    return into.emit("LRN", [data], size=size, alpha=options.alpha * size, beta=options.beta, bias=options.bias)


def products(into: Translation, operator: LiteRtOperator, *matrices: str) -> str:
    """Append `BATCH_MATMUL` of the last two dimensions, transposed by `AdjX` or `AdjY`."""
    names, transposed = list(matrices), (operator.options.adjX, operator.options.adjY)
    for place, number in enumerate(operator.inputs):
        rank = len(into.tensor(number).shape)
        if transposed[place]:
            names[place] = into.emit("Transpose", [names[place]], perm=[*range(rank - 2), rank - 1, rank - 2])
    return into.emit("MatMul", names)


def gather(into: Translation, operator: LiteRtOperator, data: str, places: str) -> str:
    """Append `GATHER` along one axis."""
    if operator.options is not None and operator.options.batchDims:
        raise UserError("the network has GATHER with batch dimensions, which is not supported.", SIMPLER)
    return into.emit("Gather", [data, places], axis=0 if operator.options is None else int(operator.options.axis))


def conversion(into: Translation, operator: LiteRtOperator, data: str) -> str:
    """Append `CAST`, which takes the real parts of complex numbers, `REAL` or `IMAG`."""
    read, result = into.tensor(operator.inputs[0]), into.tensor(operator.outputs[0])
    if result.dtype == np.complex64:
        raise UserError("the network has CAST to complex numbers, which is not supported.", SIMPLER)
    if result.grid is not None:
        raise UserError("the network has CAST to quantised integers, which is not supported.", SIMPLER)
    if read.grid is not None:  # the integers themselves are cast
        scale, zero = into.steps(read.grid, np.float32)
        data = into.emit("Add", [into.emit("Round", [into.emit("Div", [data, scale])]), zero])
    if read.dtype == np.complex64:
        data = into.emit("Gather", [data, into.constant(np.array(int(operator.kind == "IMAG")))], axis=-1)
    return into.cast(data, result.dtype)


def real_transform(into: Translation, operator: LiteRtOperator, data: str) -> str:
    """Append `RFFT2D` as transforms along the last dimension and, where there is more than one row, along the one before."""
    height, width = into.value(operator.inputs[1]).tolist()
    shape = into.tensor(operator.inputs[0]).shape
    real, rank = into.emit("Reshape", [data, into.integers(*shape, 1)]), len(shape)
    transform = into.emit("DFT", [real, into.constant(np.array(width))], axis=rank - 1, onesided=1)
    return transform if shape[-2] == height == 1 else into.emit("DFT", [transform, into.constant(np.array(height))], axis=rank - 2)


def shape(into: Translation, operator: LiteRtOperator) -> str:
    """Return the constant of `SHAPE`: the file has the shapes of all tensors."""
    return into.constant(np.array(into.tensor(operator.inputs[0]).shape, into.tensor(operator.outputs[0]).dtype))


def zeros(into: Translation, operator: LiteRtOperator) -> str:
    """Return the constant of `ZEROS_LIKE`."""
    result = into.tensor(operator.outputs[0])
    return into.constant(np.zeros(result.shape, result.dtype))


def select(into: Translation, operator: LiteRtOperator, chosen: str, *others: str) -> str:
    """Append `SELECT`, where a vector chooses along the first dimension."""
    rank = len(into.tensor(operator.outputs[0]).shape)
    if len(into.tensor(operator.inputs[0]).shape) == 1 and rank > 1:
        chosen = into.emit("Reshape", [chosen, into.integers(-1, *[1] * (rank - 1))])
    return into.emit("Where", [chosen, *others])


def reverse(into: Translation, operator: LiteRtOperator, data: str) -> str:
    """Append `REVERSE_V2`."""
    shape = into.tensor(operator.inputs[0]).shape
    for axis in into.axes(operator.inputs[1], len(shape)):
        data = into.emit("Gather", [data, into.integers(*reversed(range(shape[axis])))], axis=axis)
    return data


def one_hot(into: Translation, operator: LiteRtOperator, places: str) -> str:
    """Append `ONE_HOT`."""
    depth, on, off = map(into.value, operator.inputs[1:])
    places, end = into.cast(places, np.int64), into.constant(np.array(int(depth)))
    places = into.emit("Where", [into.emit("Less", [places, into.constant(np.array(0))]), end, places])  # ONNX's count from the end
    inputs = [places, into.integers(int(depth)), into.constant(np.stack([np.ravel(off)[0], np.ravel(on)[0]]))]
    return into.emit("OneHot", inputs, axis=int(operator.options.axis))


def place_of_extreme(into: Translation, operator: LiteRtOperator, data: str) -> str:
    """Append `ARG_MAX` or `ARG_MIN`."""
    (axis,), dtype = into.axes(operator.inputs[1], len(into.tensor(operator.inputs[0]).shape)), into.tensor(operator.outputs[0]).dtype
    places = into.emit("ArgMax" if operator.kind == "ARG_MAX" else "ArgMin", [data], axis=axis, keepdims=0)
    return places if dtype == np.int64 else into.cast(places, dtype)
