"""Translates LiteRT's convolutions, matrix products, pools and reductions to ONNX."""

from __future__ import annotations

import math

import numpy as np

from tvmmobile.networks.own.litert.reader import LiteRtOperator
from tvmmobile.networks.own.litert.translation import SIMPLER, TO_FRONT, TO_LAST, Translation
from tvmmobile.networks.own.onnx.pools import halved, same_pads
from tvmmobile.system.errors import UserError

#: `Padding` of windows that reach over the edges.
SAME = 0
#: ONNX's reductions; those of booleans are of 0 and 1.
_REDUCTIONS = {
    "MEAN": "ReduceMean",
    "SUM": "ReduceSum",
    "REDUCE_ALL": "ReduceMin",
    "REDUCE_ANY": "ReduceMax",
    **{f"REDUCE_{kind.upper()}": f"Reduce{kind}" for kind in ("Max", "Min", "Prod")},
}


def convolution(into: Translation, operator: LiteRtOperator) -> None:
    """Append `CONV_2D` (weights O, height, width, I) and `DEPTHWISE_CONV_2D` (1, height, width, O)."""
    data, weight, *bias = operator.inputs
    options, (_, height, width, channels) = operator.options, into.tensor(data).shape
    data, pads = into.padded.get(data, (data, [0, 0, 0, 0]))
    shape = into.value(weight).shape
    strides = options.strideH, options.strideW
    dilations = max(options.dilationHFactor, 1), max(options.dilationWFactor, 1)
    if operator.kind == "CONV_2D":
        kernel, groups = into.weight(weight, TO_FRONT), channels // shape[3]
    else:
        kernel, groups = into.weight(weight, (3, 0, 1, 2)), channels
    inputs = [into.read(data, True), kernel, *_given(into, bias)]
    if options.padding == SAME:
        pads = [one + other for one, other in zip(pads, same_pads((height, width), shape[1:3], strides, dilations), strict=True)]
    result = into.emit("Conv", inputs, strides=strides, dilations=dilations, group=groups, pads=pads, kernel_shape=shape[1:3])
    into.write(operator.outputs[0], into.activated(result, operator), True)


def transposed_convolution(into: Translation, operator: LiteRtOperator) -> None:
    """Append `TRANSPOSE_CONV`: weights O, height, width, I; the first input is the output's shape."""
    wanted, weight, data, *bias = operator.inputs
    shape, strides = into.value(weight).shape, (operator.options.strideH, operator.options.strideW)
    inputs = [into.read(data, True), into.weight(weight, (3, 0, 1, 2)), *_given(into, bias)]
    extents = zip(into.tensor(data).shape[1:3], shape[1:3], strides, into.value(wanted).tolist()[1:3], strict=True)
    surplus = [(small - 1) * stride + size - extent for small, size, stride, extent in extents]
    pads, missing = halved([max(0, many) for many in surplus]), [max(0, -many) for many in surplus]
    result = into.emit("ConvTranspose", inputs, strides=strides, pads=pads, output_padding=missing, kernel_shape=shape[1:3])
    into.write(operator.outputs[0], into.activated(result, operator), True)


def fully_connected(into: Translation, operator: LiteRtOperator) -> None:
    """Append `FULLY_CONNECTED`: weights O, I, which may be computed."""
    data, weight, *bias = operator.inputs
    given, shape, out = into.tensor(data).shape, into.tensor(weight).shape, into.tensor(operator.outputs[0]).shape
    if operator.options is not None and operator.options.weightsFormat:
        raise UserError("the network has shuffled weights of FULLY_CONNECTED, which are not supported.", SIMPLER)
    source = into.in_order(data)
    if given[1:] != shape[1:]:
        source = into.emit("Reshape", [source, into.integers(-1, shape[1])])
    matrix = into.weight(weight, (0, 1)) if into.is_constant(weight) else into.read(weight, False)
    result = into.emit("Gemm", [source, matrix, *_given(into, bias)], transB=1)
    if len(out) != 2:
        rows = given[:-1] if into.is_open and len(out) == len(given) else out[:-1]
        result = into.emit("Reshape", [result, into.integers(*rows, shape[0])])
    into.write(operator.outputs[0], into.activated(result, operator), False)


def _given(into: Translation, bias: list[int]) -> list[str]:
    return [into.read(number, False) for number in bias if number >= 0]


def pool(into: Translation, operator: LiteRtOperator) -> None:
    """Append `AVERAGE_POOL_2D` and `MAX_POOL_2D`."""
    onnx = "MaxPool" if operator.kind == "MAX_POOL_2D" else "AveragePool"
    (data,), options = operator.inputs, operator.options
    kernel, strides = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
    pads = same_pads(into.tensor(data).shape[1:3], kernel, strides, (1, 1)) if options.padding == SAME else [0, 0, 0, 0]
    result = into.emit(onnx, [into.read(data, True)], kernel_shape=kernel, strides=strides, pads=pads)
    into.write(operator.outputs[0], into.activated(result, operator), True, data if onnx == "MaxPool" else None)


def reduction(into: Translation, operator: LiteRtOperator) -> None:
    """Append the mean, sum or extreme over some dimensions, or whether any or all there are true."""
    onnx = _REDUCTIONS[operator.kind]
    data, which = operator.inputs
    rank, keep = len(into.tensor(data).shape), bool(operator.options is not None and operator.options.keepDims)
    axes = sorted(into.axes(which, rank))
    front = rank == 4 and (keep or axes in ([1, 2], [1, 2, 3]))
    places = sorted(TO_LAST[axis] for axis in axes) if front else axes
    name, dtype = into.read(data, front), into.tensor(data).dtype
    if dtype == np.bool_:
        result = into.cast(into.emit(onnx, [into.cast(name, np.int32)], axes=places, keepdims=int(keep)), dtype)
    elif onnx == "ReduceSum" and into.is_whole(data):
        result = into.emit(onnx, [name, into.integers(*places)], keepdims=int(keep))
    elif onnx == "ReduceSum":  # as a multiple of the mean, which has a kernel
        mean = into.emit("ReduceMean", [name], axes=places, keepdims=int(keep))
        count = math.prod(into.tensor(data).shape[axis] for axis in axes)
        result = into.emit("Mul", [mean, into.real(count)]) if count > 1 else mean
    else:
        result = into.emit(onnx, [name], axes=places, keepdims=int(keep))
    into.write(operator.outputs[0], result, front and keep, data if onnx in ("ReduceMax", "ReduceMin") else None)
