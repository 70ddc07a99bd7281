"""Translates LiteRT's convolutions, matrix products, pools and reductions to ONNX."""

from __future__ import annotations

import math

import numpy as np

from tvmmobile.networks.own.litert.reader import LiteRtOperator
from tvmmobile.networks.own.litert.translation import SIMPLER, TO_FRONT, TO_LAST, Translation, Translator
from tvmmobile.networks.own.onnx.pads import halved, same_pads
from tvmmobile.system.errors import UserError

#: `Padding` of windows that reach over the edges.
_SAME = 0


def convolution(into: Translation, operator: LiteRtOperator) -> None:
    """`CONV_2D` (weights O, height, width, I) and `DEPTHWISE_CONV_2D` (1, height, width, O)."""
    data, weight, *bias = operator.inputs
    options, (_, height, width, channels) = operator.options, into.tensor(data).shape
    data, pads = into.padded.get(data, (data, [0, 0, 0, 0]))
    shape = into.value(weight).shape
    strides = options.StrideH(), options.StrideW()
    dilations = max(options.DilationHFactor(), 1), max(options.DilationWFactor(), 1)
    if operator.kind == "CONV_2D":
        kernel, groups = into.weight(weight, TO_FRONT), channels // shape[3]
    else:
        kernel, groups = into.weight(weight, (3, 0, 1, 2)), channels
    inputs = [into.read(data, True), kernel, *_given(into, bias)]
    if options.Padding() == _SAME:
        pads = [one + other for one, other in zip(pads, same_pads((height, width), shape[1:3], strides, dilations), strict=True)]
    made = into.emit("Conv", inputs, strides=strides, dilations=dilations, group=groups, pads=pads, kernel_shape=shape[1:3])
    into.write(operator.outputs[0], into.activated(made, operator), True)


def transposed_convolution(into: Translation, operator: LiteRtOperator) -> None:
    """`TRANSPOSE_CONV`: weights O, height, width, I; the first input is the output's shape."""
    wanted, weight, data, *bias = operator.inputs
    shape, strides = into.value(weight).shape, (operator.options.StrideH(), operator.options.StrideW())
    inputs = [into.read(data, True), into.weight(weight, (3, 0, 1, 2)), *_given(into, bias)]
    extents = zip(into.tensor(data).shape[1:3], shape[1:3], strides, into.value(wanted).tolist()[1:3], strict=True)
    surplus = [(small - 1) * stride + size - extent for small, size, stride, extent in extents]
    pads, missing = halved([max(0, many) for many in surplus]), [max(0, -many) for many in surplus]
    made = into.emit("ConvTranspose", inputs, strides=strides, pads=pads, output_padding=missing, kernel_shape=shape[1:3])
    into.write(operator.outputs[0], into.activated(made, operator), True)


def fully_connected(into: Translation, operator: LiteRtOperator) -> None:
    """`FULLY_CONNECTED`: weights O, I."""
    data, weight, *bias = operator.inputs
    shape, out = into.value(weight).shape, into.tensor(operator.outputs[0]).shape
    if operator.options is not None and operator.options.WeightsFormat():
        raise UserError("the network has shuffled weights of FULLY_CONNECTED, which are not supported.", SIMPLER)
    source = into.in_order(data)
    if len(into.tensor(data).shape) != 2:
        source = into.emit("Reshape", [source, into.integers(-1, shape[1])])
    made = into.emit("Gemm", [source, into.weight(weight, (0, 1)), *_given(into, bias)], transB=1)
    if len(out) != 2:
        made = into.emit("Reshape", [made, into.integers(*out)])
    into.write(operator.outputs[0], into.activated(made, operator), False)


def _given(into: Translation, bias: list[int]) -> list[str]:
    """The bias, if there is one."""
    return [into.read(number, False) for number in bias if number >= 0]


def products(into: Translation, operator: LiteRtOperator) -> None:
    """`BATCH_MATMUL`: of the last two dimensions, turned if `AdjX` or `AdjY` says so."""
    names = []
    for number, turned in zip(operator.inputs, (operator.options.AdjX(), operator.options.AdjY()), strict=True):
        name, rank = into.read(number, False), len(into.tensor(number).shape)
        names.append(into.emit("Transpose", [name], perm=[*range(rank - 2), rank - 1, rank - 2]) if turned else name)
    into.write(operator.outputs[0], into.emit("MatMul", names), False)


def pool(onnx: str) -> Translator:
    """`AVERAGE_POOL_2D` and `MAX_POOL_2D`."""

    def translate(into: Translation, operator: LiteRtOperator) -> None:
        (data,), options = operator.inputs, operator.options
        kernel, strides = (options.FilterHeight(), options.FilterWidth()), (options.StrideH(), options.StrideW())
        pads = same_pads(into.tensor(data).shape[1:3], kernel, strides, (1, 1)) if options.Padding() == _SAME else [0, 0, 0, 0]
        made = into.emit(onnx, [into.read(data, True)], kernel_shape=kernel, strides=strides, pads=pads)
        into.write(operator.outputs[0], into.activated(made, operator), True, data if onnx == "MaxPool" else None)

    return translate


def reduction(onnx: str) -> Translator:
    """The mean, sum or extreme over some dimensions."""

    def translate(into: Translation, operator: LiteRtOperator) -> None:
        data, which = operator.inputs
        rank, keep = len(into.tensor(data).shape), bool(operator.options is not None and operator.options.KeepDims())
        axes = sorted(into.axes(which, rank))
        front = rank == 4 and (keep or axes in ([1, 2], [1, 2, 3]))
        places = sorted(TO_LAST[axis] for axis in axes) if front else axes
        name = into.read(data, front)
        if onnx == "ReduceSum":  # as a multiple of the mean, for which there is a kernel
            mean = into.emit("ReduceMean", [name], axes=places, keepdims=int(keep))
            count = math.prod(into.tensor(data).shape[axis] for axis in axes)
            made = into.emit("Mul", [mean, into.real(count)]) if count > 1 else mean
        else:
            made = into.emit(onnx, [name], axes=places, keepdims=int(keep))
        into.write(operator.outputs[0], made, front and keep, data if onnx in ("ReduceMax", "ReduceMin") else None)

    return translate


def index_of(onnx: str) -> Translator:
    """`ARG_MAX` and `ARG_MIN`."""

    def translate(into: Translation, operator: LiteRtOperator) -> None:
        data, which = operator.inputs
        (axis,) = into.axes(which, len(into.tensor(data).shape))
        made = into.emit(onnx, [into.read(data, False)], axis=axis, keepdims=0)
        dtype = into.tensor(operator.outputs[0]).dtype
        into.write(operator.outputs[0], made if dtype == np.int64 else into.cast(made, dtype), False)

    return translate


def softmax(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `SOFTMAX` of a multiple, or `LOG_SOFTMAX`, along the last dimension."""
    name = into.read(operator.inputs[0], False)
    factor = float(operator.options.Beta()) if operator.kind == "SOFTMAX" else 1.0
    if factor != 1.0:
        name = into.emit("Mul", [name, into.real(factor)])
    into.write(operator.outputs[0], into.emit("Softmax" if operator.kind == "SOFTMAX" else "LogSoftmax", [name], axis=-1), False)


def cumulative_sum(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `CUMSUM`."""
    data, which = operator.inputs
    (axis,), options = into.axes(which, len(into.tensor(data).shape)), operator.options
    inputs = [into.read(data, False), into.constant(np.array(axis, np.int64))]
    made = into.emit("CumSum", inputs, exclusive=int(options.Exclusive()), reverse=int(options.Reverse()))
    into.write(operator.outputs[0], made, False)


def unit_length(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `L2_NORMALIZATION`: each pixel or row divided by its length, which counts as 1e-6 at least."""
    name = into.read(operator.inputs[0], False)
    length = into.emit("Max", [into.emit("ReduceL2", [name], axes=[-1], keepdims=1), into.real(1e-6)])
    into.write(operator.outputs[0], into.activated(into.emit("Div", [name, length]), operator), False)


def local_response_norm(into: Translation, operator: LiteRtOperator) -> None:
    """Translate `LOCAL_RESPONSE_NORMALIZATION`, whose factor is that of each square; ONNX's is that of their mean."""
    options, name = operator.options, into.read(operator.inputs[0], True)
    size = 2 * options.Radius() + 1
    made = into.emit("LRN", [name], size=size, alpha=options.Alpha() * size, beta=options.Beta(), bias=options.Bias())
    into.write(operator.outputs[0], made, True)
