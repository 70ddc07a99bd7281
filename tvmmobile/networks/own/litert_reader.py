"""LiteRT files (formerly TensorFlow Lite's), read into plain objects. Nothing in a file is executed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.litert_sparse import with_zeros
from tvmmobile.system.errors import UserError

#: NumPy's types by LiteRT's names; others, such as strings and four-bit numbers, are not supported.
_TYPES = {
    name: np.dtype(name.lower())
    for name in ("FLOAT32", "FLOAT16", "FLOAT64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "BOOL")
}
#: The first bytes behind the root's offset.
_MAGIC = b"TFL3"
_AGAIN = "Export it again."


@dataclass(frozen=True)
class Grid:
    """The integers of a tensor: one scale and zero point, or those of each place along an axis."""

    scales: Array
    zeros: Array
    axis: int


@dataclass(frozen=True)
class LiteRtTensor:
    """A tensor of a file.

    Attributes:
        name: as the file has it.
        shape: dynamic dimensions have the size with which the file was converted, usually 1.
        open: a dimension is dynamic.
        dtype: `None` for a type that is not supported.
        value: of a constant.
        grid: of quantised tensors.
    """

    name: str
    shape: tuple[int, ...]
    open: bool
    dtype: np.dtype[Any] | None
    value: Array | None = None
    grid: Grid | None = None


@dataclass(frozen=True)
class LiteRtOperator:
    """An operator: `kind` is its name in LiteRT; tensors are given by number, -1 for an omitted one."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any = None


@dataclass(frozen=True)
class LiteRtNetwork:
    """A network of a file.

    Attributes:
        names: of inputs and outputs in the file's signature, by tensor.
        same: tensors that stand for others of the file, see `litert_states`.
    """

    name: str
    tensors: Sequence[LiteRtTensor]
    operators: Sequence[LiteRtOperator]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    names: dict[int, str] = field(default_factory=dict)
    same: dict[int, int] = field(default_factory=dict)


def read_litert(file: OwnFile, content: bytes) -> list[LiteRtNetwork]:
    """The networks in a file's content: the file's own first, then those that it calls.

    Raises:
        UserError: it is damaged or of another kind.
    """
    damaged = UserError(f"{file} is damaged or not a LiteRT file.", _AGAIN)
    if content[4:8] != _MAGIC:
        raise damaged
    import tflite

    try:
        model = tflite.Model.GetRootAsModel(content, 0)
        graphs = [model.Subgraphs(number) for number in range(model.SubgraphsLength())]
        if not graphs:
            raise damaged
        return [_network(content, model, graph) for graph in graphs]
    except UserError:
        raise
    except Exception as error:  # offsets that lead outside raise errors of many kinds
        raise damaged from error


def _network(content: bytes, model: Any, graph: Any) -> LiteRtNetwork:
    tensors = [_tensor(content, model, graph.Tensors(number)) for number in range(graph.TensorsLength())]
    operators = [_operator(model, graph.Operators(number)) for number in range(graph.OperatorsLength())]
    inputs, outputs = (_numbers(found) for found in (graph.InputsAsNumpy(), graph.OutputsAsNumpy()))
    if not all(0 <= number < len(tensors) for number in (*inputs, *outputs)):
        raise ValueError("no such tensor")
    for operator in operators:
        if not all(-1 <= number < len(tensors) for number in operator.inputs) or not all(0 <= n < len(tensors) for n in operator.outputs):
            raise ValueError("no such tensor")
    name = (graph.Name() or b"").decode(errors="replace")
    return LiteRtNetwork(name, tensors, operators, inputs, outputs, _names(model))


def _names(model: Any) -> dict[int, str]:
    """Of inputs and outputs, by the file's only signature."""
    if model.SignatureDefsLength() != 1:
        return {}
    signature = model.SignatureDefs(0)
    maps = [signature.Inputs(number) for number in range(signature.InputsLength())]
    maps += [signature.Outputs(number) for number in range(signature.OutputsLength())]
    return {int(entry.TensorIndex()): (entry.Name() or b"").decode(errors="replace") for entry in maps}


def _numbers(found: Any) -> tuple[int, ...]:
    """A vector of a file; it is 0 where there is none."""
    return tuple(int(number) for number in found) if isinstance(found, np.ndarray) else ()


def _tensor(content: bytes, model: Any, tensor: Any) -> LiteRtTensor:
    shape = _numbers(tensor.ShapeAsNumpy())
    dtype = _TYPES.get(_type_names().get(tensor.Type(), ""))
    data = _data(content, model.Buffers(tensor.Buffer()))
    value, sparsity = None, tensor.Sparsity()
    if dtype is not None and data:
        value = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False)
        value = value.reshape(shape) if sparsity is None else with_zeros(value, shape, sparsity)
    name = (tensor.Name() or b"").decode(errors="replace")
    is_open = any(extent < 0 for extent in _numbers(tensor.ShapeSignatureAsNumpy()))
    return LiteRtTensor(name, shape, is_open, dtype, value, _grid(tensor.Quantization()))


def _data(content: bytes, buffer: Any) -> bytes:
    """Of a constant; in large files and those that were quantised afterwards it lies behind everything else."""
    if buffer is None:
        return b""
    begin, size = int(buffer.Offset()), int(buffer.Size())
    if begin > 1:
        if begin + size > len(content):
            raise ValueError("a constant that ends beyond the file")
        return content[begin : begin + size]
    data = buffer.DataAsNumpy()
    return data.tobytes() if isinstance(data, np.ndarray) else b""


def _grid(quantised: Any) -> Grid | None:
    if quantised is None or not quantised.ScaleLength():
        return None
    scales = np.asarray(quantised.ScaleAsNumpy(), np.float32)
    zeros = np.asarray(quantised.ZeroPointAsNumpy(), np.int64) if quantised.ZeroPointLength() else np.zeros(scales.shape, np.int64)
    if zeros.size != scales.size:
        raise ValueError("different numbers of scales and zero points")
    return Grid(scales, zeros, int(quantised.QuantizedDimension()))


def _operator(model: Any, operator: Any) -> LiteRtOperator:
    import tflite

    code = model.OperatorCodes(operator.OpcodeIndex())
    number = _code(code)
    kind = _operator_names().get(number, f"operator {number}")
    if kind == "CUSTOM":
        kind = (code.CustomCode() or b"CUSTOM").decode(errors="replace")
    union, options = operator.BuiltinOptions(), None
    made = getattr(tflite, _option_names().get(operator.BuiltinOptionsType(), ""), None)
    if union is not None and made is not None:
        options = made()
        options.Init(union.Bytes, union.Pos)
    return LiteRtOperator(kind, _numbers(operator.InputsAsNumpy()), _numbers(operator.OutputsAsNumpy()), options)


def _code(code: Any) -> int:
    """An operator's number. It is in one of two fields; the older one holds a byte, and `tflite` reads the other only above 127."""
    import flatbuffers.number_types as types

    place = code._tab.Offset(10)
    newer = code._tab.Get(types.Int32Flags, place + code._tab.Pos) if place else 0
    return max(int(newer), int(code.DeprecatedBuiltinCode()))


@functools.cache
def _operator_names() -> dict[int, str]:
    import tflite

    return _by_number(tflite.BuiltinOperator)


@functools.cache
def _option_names() -> dict[int, str]:
    import tflite

    return _by_number(tflite.BuiltinOptions)


@functools.cache
def _type_names() -> dict[int, str]:
    import tflite

    return _by_number(tflite.TensorType)


def _by_number(enumeration: type) -> dict[int, str]:
    return {number: name for name, number in vars(enumeration).items() if isinstance(number, int)}
