"""Translates a LiteRT network to ONNX, which the importer and the graph passes know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from tvmmobile.graph.precision import FLOAT32
from tvmmobile.networks.own.litert import blocks, elements, layers, moves
from tvmmobile.networks.own.litert.detection import POSTPROCESS, detections
from tvmmobile.networks.own.litert.elements import row
from tvmmobile.networks.own.litert.extents import settle
from tvmmobile.networks.own.litert.reader import LiteRtNetwork, LiteRtOperator
from tvmmobile.networks.own.litert.recurrent import sequence_lstm
from tvmmobile.networks.own.litert.translation import SIMPLER, Translation, Translator
from tvmmobile.system.errors import UserError

#: The version of ONNX's operators that are used.
OPSET = 17
#: Operators that may read or return complex numbers, except those of the network's own inputs and outputs, and constants.
_COMPLEX = {"CAST", "COMPLEX_ABS", "EXPAND_DIMS", "IMAG", "REAL", "RESHAPE", "RFFT2D", "SQUEEZE"}
#: By operator: the function that appends ONNX's nodes in its place.
OPERATORS: Mapping[str, Translator] = {
    **{onnx.upper(): row(onnx) for onnx in ("Abs", "Add", "Ceil", "Cos", "Div", "Elu", "Equal", "Exp", "Floor", "Greater", "Less", "Log")},
    **{onnx.upper(): row(onnx) for onnx in ("Mul", "Neg", "Pow", "PRelu", "Relu", "Round", "Sign", "Sin", "Sqrt", "Sub", "Tanh")},
    **dict.fromkeys(("ARG_MAX", "ARG_MIN"), row(elements.place_of_extreme, front=False, sources=1)),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), layers.pool),
    **dict.fromkeys(("BROADCAST_TO", "FILL", "TILE"), moves.repeated),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), layers.convolution),
    **dict.fromkeys(("DEQUANTIZE", "QUANTIZE"), row(lambda _into, _operator, data: data, is_exact=True)),
    **dict.fromkeys(("EXPAND_DIMS", "RESHAPE", "SQUEEZE"), moves.reshape),
    **dict.fromkeys(("FLOOR_DIV", "FLOOR_MOD"), row(elements.floor_division)),
    **dict.fromkeys(("IMAG", "REAL"), row(elements.conversion, front=False)),
    **dict.fromkeys(("MEAN", "REDUCE_ALL", "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM"), layers.reduction),
    **dict.fromkeys(("PAD", "PADV2"), moves.pad),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), moves.resize),
    **dict.fromkeys(("SPLIT", "SPLIT_V"), moves.split),
    "ADD_N": row("Sum"),
    "BATCH_MATMUL": row(elements.products, front=False),
    "BATCH_TO_SPACE_ND": blocks.batch_to_space,
    "CAST": row(elements.conversion),
    "COMPLEX_ABS": row(lambda into, _, data: into.emit("Sqrt", [into.emit("ReduceSumSquare", [data], axes=[-1], keepdims=0)]), front=False),
    "CONCATENATION": moves.concatenation,
    "CUMSUM": row("CumSum", front=False, exclusive="exclusive", reverse="reverse"),
    "DEPTH_TO_SPACE": row("DepthToSpace", front=True, is_exact=True, blocksize="blockSize"),
    "FULLY_CONNECTED": layers.fully_connected,
    "GATHER": row(elements.gather, front=False, is_exact=True),
    "GATHER_ND": row(lambda into, _, data, at: into.emit("GatherND", [data, into.cast(at, np.int64)]), front=False, is_exact=True),
    "GELU": row(elements.gelu),
    "GREATER_EQUAL": row("GreaterOrEqual"),
    "HARD_SWISH": row("HardSwish"),
    "L2_NORMALIZATION": row(elements.unit_length, front=False),
    "LEAKY_RELU": row("LeakyRelu", alpha="alpha"),
    "LESS_EQUAL": row("LessOrEqual"),
    "LOCAL_RESPONSE_NORMALIZATION": row(elements.local_response_norm, front=True),
    "LOGICAL_AND": row("And"),
    "LOGICAL_NOT": row("Not"),
    "LOGICAL_OR": row("Or"),
    "LOGISTIC": row("Sigmoid"),
    "LOG_SOFTMAX": row("LogSoftmax", front=False),
    "MAXIMUM": row("Max"),
    "MINIMUM": row("Min"),
    "MIRROR_PAD": moves.mirror_pad,
    "NOT_EQUAL": row(lambda into, _, *both: into.emit("Not", [into.emit("Equal", both)])),
    "ONE_HOT": row(elements.one_hot, front=False, sources=1),
    "PACK": moves.pack,
    "RANGE": row("Range", front=False),
    "RELU6": row("Clip", 0.0, 6.0),
    "RELU_0_TO_1": row("Clip", 0.0, 1.0),
    "RELU_N1_TO_1": row("Clip", -1.0, 1.0),
    "REVERSE_V2": row(elements.reverse, front=False, is_exact=True, sources=1),
    "RFFT2D": row(elements.real_transform, front=False, sources=1),
    "RSQRT": row(lambda into, _, data: into.emit("Reciprocal", [into.emit("Sqrt", [data])])),
    "SELECT": row(elements.select, front=False),
    "SELECT_V2": row("Where"),
    "SHAPE": row(elements.shape, front=False, sources=0),
    "SLICE": moves.slice_of,
    "SOFTMAX": row(elements.softmax, front=False),
    "SPACE_TO_BATCH_ND": blocks.space_to_batch,
    "SPACE_TO_DEPTH": row("SpaceToDepth", front=True, is_exact=True, blocksize="blockSize"),
    "SQUARE": row(lambda into, _, data: into.emit("Mul", [data, data])),
    "SQUARED_DIFFERENCE": row(elements.squared_difference),
    "STRIDED_SLICE": moves.strided_slice,
    POSTPROCESS: detections,
    "TOPK_V2": moves.top_k,
    "TRANSPOSE": row(
        lambda into, by, data: into.emit("Transpose", [data], perm=into.value(by.inputs[1]).tolist()), front=False, is_exact=True, sources=1
    ),
    "TRANSPOSE_CONV": layers.transposed_convolution,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": sequence_lstm,
    "UNPACK": moves.unpack,
    "ZEROS_LIKE": row(elements.zeros, front=False, sources=0),
}


def onnx_of(network: LiteRtNetwork) -> Any:
    """Return the network as an ONNX `ModelProto`; its inputs and outputs keep their types, and images their channels last.

    Raises:
        UserError: an operator or a type is not supported, or a shape is not constant.
    """
    network = blocks.with_dilations(_with_whole_constants(network))
    into = Translation(network)
    inputs = _named(network, network.inputs, network.names, "input")
    named = _named(network, network.outputs, network.output_names, "output")
    # In the file, an output may have the name of an input, such as one that is an input.
    outputs = {number: f"{name}/output" if name in inputs.values() else name for number, name in named.items()}
    ends = {*inputs, *outputs, *(number for number, tensor in enumerate(network.tensors) if tensor.value is not None)}
    for number, name in inputs.items():
        _enter(into, number, name)
    for operator in _read(network, into.is_open):
        translate = OPERATORS.get(operator.kind)
        if translate is None:
            raise UserError(f"the network has an operator that is not supported: {operator.kind}.", SIMPLER)
        for number in (*operator.inputs, *operator.outputs):
            dtype, inside = into.tensor(number).dtype, operator.kind in _COMPLEX and number not in ends
            if number >= 0 and (dtype is None or (dtype == np.complex64 and not inside)):
                raise UserError(f"the network has a tensor of a type that is not supported: {into.tensor(number).name}.", SIMPLER)
        begin = len(into.nodes)
        translate(into, operator)
        if into.is_open or operator.kind == "SHAPE" or all(into.is_constant(number) for number in operator.inputs):
            settle(into, operator, begin, OPSET)
    for number, name in outputs.items():
        _leave(into, number, name)

    def described(numbers: Mapping[int, str]) -> list[Any]:
        found = [(name, into.tensor(number)) for number, name in numbers.items()]
        kinds = {name: helper.np_dtype_to_tensor_dtype(tensor.dtype or FLOAT32.numpy) for name, tensor in found}
        return [helper.make_tensor_value_info(name, kinds[name], tensor.shape) for name, tensor in found]

    stored = [numpy_helper.from_array(array, name) for name, array in into.constants.items()]
    graph = helper.make_graph(into.nodes, network.name, described(inputs), described(outputs), stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _with_whole_constants(network: LiteRtNetwork) -> LiteRtNetwork:
    """Replace each operator that makes a constant (from float16, scaled integers, or sparse data) by that constant."""
    tensors, operators = list(network.tensors), []
    for operator in network.operators:
        value, source = None, tensors[operator.inputs[0]] if operator.inputs and operator.inputs[0] >= 0 else None
        if source is not None and source.value is not None:
            if operator.kind == "DEQUANTIZE" and (source.grid is not None or source.value.dtype.kind == "f"):
                value = source.real_numbers()
            elif operator.kind == "DENSIFY":  # the reader has put the zeros in
                value = source.value
        if value is None or operator.outputs[0] in network.outputs:
            operators.append(operator)
        else:
            (number,) = operator.outputs
            tensors[number] = replace(tensors[number], value=value)
    return replace(network, tensors=tensors, operators=operators)


def _read(network: LiteRtNetwork, is_open: bool) -> list[LiteRtOperator]:
    """Return the operators whose results are read; those that compute known shapes are not."""
    wanted, found = set(network.outputs), []
    for operator in reversed(network.operators):
        if not wanted.isdisjoint(operator.outputs):
            found.append(operator)
            wanted.update(operator.inputs[:1] if operator.kind == "RESHAPE" and not is_open else operator.inputs)
    return found[::-1]


def _named(network: LiteRtNetwork, numbers: Sequence[int], given: Mapping[int, str], kind: str) -> dict[int, str]:
    """Return the names of inputs or outputs: those of the signature, else the file's."""
    return {number: given.get(number) or network.tensors[number].name or f"{kind}{place}" for place, number in enumerate(numbers)}


def _enter(into: Translation, number: int, name: str) -> None:
    """Append an input; integers on a grid become real numbers, which the grid's rounding preserves."""
    tensor, grid = into.tensor(number), into.tensor(number).grid
    into.described[name] = helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(tensor.dtype or FLOAT32.numpy), tensor.shape)
    if grid is None:
        into.names[number] = name, False
        return
    scale, zero = into.steps(grid, np.float32)
    into.write(number, into.emit("Mul", [into.emit("Sub", [into.cast(name, np.float32), zero]), scale]), False)


def _leave(into: Translation, number: int, name: str) -> None:
    """Append an output, as integers where it is on a grid."""
    tensor, found = into.tensor(number), into.read(number, False)
    if tensor.grid is None:
        into.emit("Identity", [found], name)
        return
    scale, zero = into.steps(tensor.grid, np.float32)
    steps = into.emit("Add", [into.emit("Round", [into.emit("Div", [found, scale])]), zero])
    bounds = np.iinfo(tensor.dtype)
    bounded = into.emit("Min", [into.emit("Max", [steps, into.real(bounds.min)]), into.real(bounds.max)])
    into.cast(bounded, tensor.dtype, name)
