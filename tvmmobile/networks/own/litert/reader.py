"""LiteRT files (formerly TensorFlow Lite's), read into plain objects. Nothing in a file is executed."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tvmmobile.graph.layers import Array
from tvmmobile.networks.budget import check_operators, check_unpacked
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.litert.sparse import SparseConstants
from tvmmobile.system.errors import UserError

#: A type whose constants have two numbers to a byte.
_PACKED = "INT4"
#: NumPy's types by LiteRT's names; others, such as strings and computed four-bit numbers, are not supported.
_TYPES = {
    name: np.dtype(name.lower())
    for name in ("FLOAT32", "FLOAT16", "FLOAT64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "BOOL", "COMPLEX64")
}
#: The first bytes behind the root's offset.
_MAGIC = b"TFL3"
_AGAIN = "Export it again."
#: Operators that call a graph of the file; the depth to which graphs may call graphs.
_CALLS, _MOST_NESTED = {"STABLEHLO_COMPOSITE"}, 20


@dataclass(frozen=True)
class QuantisationParameters:
    """The integers of a tensor: one scale and zero point, or those of each place along an axis."""

    scales: Array
    zeros: Array
    axis: int


@dataclass(frozen=True)
class LiteRtTensor:
    """A tensor of a file.

    Attributes:
        name: the tensor's name in the file.
        shape: dynamic dimensions have the size with which the file was converted, usually 1.
        open: a dimension behind the first is dynamic.
        dtype: `None` for a type that is not supported.
        value: value of a constant.
        grid: grid of a quantised tensor.
    """

    name: str
    shape: tuple[int, ...]
    open: bool
    dtype: np.dtype[Any] | None
    value: Array | None = None
    grid: QuantisationParameters | None = None

    def real_numbers(self) -> Array:
        """Return a constant's values in float32; integers that are on no grid count as they are."""
        assert self.value is not None
        if self.grid is None:
            return self.value.astype(np.float32)
        along = [-1 if axis == self.grid.axis else 1 for axis in range(self.value.ndim)]
        scales, zeros = (array.reshape(along if array.size > 1 else ()) for array in (self.grid.scales, self.grid.zeros))
        return np.asarray((self.value.astype(np.float64) - zeros) * scales.astype(np.float64)).astype(np.float32)


@dataclass(frozen=True)
class LiteRtOperator:
    """An operator: `kind` is its name in LiteRT; tensors are given by number, -1 for an omitted one; a custom one's options are bytes."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any = None


@dataclass(frozen=True)
class LiteRtNetwork:
    """A network of a file.

    Attributes:
        names, output_names: names of inputs and of outputs in the file's signature, by tensor.
        first: operators that run once, before the network.
        same: tensors that are aliases of other tensors in the file, see `litert/states.py`.
        stateful: true if the file keeps variables, which are inputs and outputs here.
    """

    name: str
    tensors: Sequence[LiteRtTensor]
    operators: Sequence[LiteRtOperator]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    names: dict[int, str] = field(default_factory=dict)
    output_names: dict[int, str] = field(default_factory=dict)
    first: tuple[LiteRtNetwork, ...] = ()
    same: dict[int, int] = field(default_factory=dict)
    stateful: bool = False


def read_litert(file: OwnFile, content: bytes) -> LiteRtNetwork:
    """Return the network in a file's content.

    Raises:
        UserError: it is damaged or of another kind, or it has several networks.
    """
    damaged = UserError(f"{file} is damaged or not a LiteRT file.", _AGAIN)
    if content[4:8] != _MAGIC:
        raise damaged
    try:
        model = schema.Model.GetRootAs(content, 0)
        if model.SubgraphsLength() < 1:
            raise damaged
        networks = {signature.SubgraphIndex() for signature in _signatures(model)}
        if len(networks) > 1:
            raise UserError(f"{file} has {len(networks)} networks, not one.", "Convert one with a single signature.")
        sparse = SparseConstants(file, len(content))
        network = _GraphReader(file, content, model, sparse).network(0)
        once = [operator.options.initSubgraphIndex for operator in network.operators if operator.kind == "CALL_ONCE"]
        return replace(network, first=tuple(_GraphReader(file, content, model, sparse).network(number) for number in dict.fromkeys(once)))
    except UserError:
        raise
    except Exception as error:  # offsets outside the file raise errors of many kinds
        raise damaged from error


@dataclass
class _GraphReader:
    """A network that is being read, with the graphs that its operators call in their place.

    Attributes:
        file, content, model: the network's file, its content and the model in it.
        sparse: reads constants that are stored without their zeros.
        tensors, operators: tensors and operators that were read so far; operators have the numbers of these tensors.
        repeated_bytes: bytes of constants in graphs that are called, for each call.
    """

    file: OwnFile
    content: bytes
    model: Any
    sparse: SparseConstants
    tensors: list[LiteRtTensor] = field(default_factory=list)
    operators: list[LiteRtOperator] = field(default_factory=list)
    repeated_bytes: int = 0

    def network(self, number: int) -> LiteRtNetwork:
        """Return a graph of the file with those that it calls in place of the calls."""
        graph = self.model.Subgraphs(number)
        inputs, outputs = _ends(graph)
        self._append(graph, {}, 0)
        name = (graph.Name() or b"").decode(errors="replace")
        return LiteRtNetwork(name, self.tensors, self.operators, inputs, outputs, *_names(self.model))

    def _append(self, graph: Any, places: dict[int, int], depth: int) -> None:
        """Append a graph's tensors and operators; `places` has the numbers of those tensors that its caller has."""
        if depth > _MOST_NESTED:
            raise UserError(f"{self.file} has graphs that call one another, more than {_MOST_NESTED} deep.", _AGAIN)
        count, places = graph.TensorsLength(), {-1: -1, **places}
        for number in range(count):
            if number not in places:
                places[number] = len(self.tensors)
                self.tensors.append(_tensor(self.content, self.model, self.sparse, graph.Tensors(number)))
                value = self.tensors[-1].value
                self.repeated_bytes += value.nbytes if depth and value is not None else 0
                check_unpacked(str(self.file), len(self.content), self.repeated_bytes)
        for number in range(graph.OperatorsLength()):
            operator = _operator(self.model, graph.Operators(number))
            if not all(-1 <= input_ < count for input_ in operator.inputs) or not all(0 <= output < count for output in operator.outputs):
                raise ValueError("no such tensor")
            inputs, outputs = (tuple(places[one] for one in numbers) for numbers in (operator.inputs, operator.outputs))
            if operator.kind in _CALLS and operator.options is not None:
                self._call(self.model.Subgraphs(operator.options.decompositionSubgraphIndex), inputs, outputs, depth)
            else:
                self.operators.append(replace(operator, inputs=inputs, outputs=outputs))
                check_operators(str(self.file), len(self.operators))

    def _call(self, graph: Any, given: Sequence[int], wanted: Sequence[int], depth: int) -> None:
        inputs, outputs = _ends(graph)
        places = dict(zip(inputs, given, strict=True))
        passed = [(number, place) for number, place in zip(outputs, wanted, strict=True) if number in places]
        places |= {number: place for number, place in zip(outputs, wanted, strict=True) if number not in places}
        self._append(graph, places, depth + 1)
        self.operators += [LiteRtOperator("RESHAPE", (places[number],), (place,)) for number, place in passed]


def _ends(graph: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tensors that a graph takes, and those that it returns."""
    inputs, outputs = _numbers(graph.InputsAsNumpy()), _numbers(graph.OutputsAsNumpy())
    if not all(0 <= number < graph.TensorsLength() for number in (*inputs, *outputs)):
        raise ValueError("no such tensor")
    return inputs, outputs


def _signatures(model: Any) -> list[Any]:
    return [model.SignatureDefs(number) for number in range(model.SignatureDefsLength())]


def _names(model: Any) -> tuple[dict[int, str], dict[int, str]]:
    """Return the names of inputs and of outputs, by tensor, in the first of the file's signatures that names them."""
    inputs, outputs = dict[int, str](), dict[int, str]()
    for signature in reversed(_signatures(model)):
        inputs |= _named(signature.Inputs(number) for number in range(signature.InputsLength()))
        outputs |= _named(signature.Outputs(number) for number in range(signature.OutputsLength()))
    return inputs, outputs


def _named(entries: Iterable[Any]) -> dict[int, str]:
    return {int(entry.TensorIndex()): (entry.Name() or b"").decode(errors="replace") for entry in entries}


def _numbers(found: Any) -> tuple[int, ...]:
    """Return a vector of a file; it is 0 or `None` where there is none."""
    return tuple(map(int, found)) if isinstance(found, np.ndarray) else ()


def _tensor(content: bytes, model: Any, sparse: SparseConstants, given: Any) -> LiteRtTensor:
    tensor = schema.TensorT.InitFromObj(given)
    kind = _names_of("TensorType").get(tensor.type, "")
    shape, value, dtype = _numbers(tensor.shape), None, _TYPES.get(kind)
    data, name = _data(content, model.Buffers(tensor.buffer)), (tensor.name or b"").decode(errors="replace")
    if kind == _PACKED and data and tensor.sparsity is None:
        data, dtype = _unpacked(data, math.prod(shape)), np.dtype("int8")
    if dtype is not None and (data or tensor.sparsity is not None):  # all of a sparse constant's numbers may be zeros
        value = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False)
        value = value.reshape(shape) if tensor.sparsity is None else sparse.with_zeros(name, value, shape, tensor.sparsity)
    is_open = any(extent < 0 for extent in _numbers(tensor.shapeSignature)[1:])
    grid = _grid(tensor.quantization) if dtype is not None and dtype.kind in "iu" else None  # LiteRT ignores scales of real numbers
    return LiteRtTensor(name, shape, is_open, dtype, value, grid)


def _unpacked(data: bytes, count: int) -> bytes:
    """Return four-bit integers, of which the first of a byte is in its lower half, in a byte each."""
    both = np.frombuffer(data, np.uint8)
    return np.stack([np.left_shift(both, 4).view(np.int8) >> 4, both.view(np.int8) >> 4], -1).reshape(-1)[:count].tobytes()


def _data(content: bytes, buffer: Any) -> bytes:
    """Return the bytes of a constant; in large files and those quantised afterwards, they follow everything else."""
    if buffer is None:
        return b""
    begin, size = int(buffer.Offset()), int(buffer.Size())
    if begin > 1:
        if begin + size > len(content):
            raise ValueError("a constant that ends beyond the file")
        return content[begin : begin + size]
    data = buffer.DataAsNumpy()
    return data.tobytes() if isinstance(data, np.ndarray) else b""


def _grid(quantised: Any) -> QuantisationParameters | None:
    if quantised is None or not _numbers(quantised.scale):
        return None
    scales = np.asarray(quantised.scale, np.float32)
    zeros = np.zeros(scales.shape, np.int64) if quantised.zeroPoint is None else np.asarray(quantised.zeroPoint, np.int64)
    if zeros.size != scales.size:
        raise ValueError("different numbers of scales and zero points")
    return QuantisationParameters(scales, zeros, int(quantised.quantizedDimension))


def _operator(model: Any, given: Any) -> LiteRtOperator:
    operator = schema.OperatorT.InitFromObj(given)
    code = model.OperatorCodes(operator.opcodeIndex)
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # the older one holds a byte
    kind = _names_of("BuiltinOperator").get(number, f"operator {number}")
    options = operator.builtinOptions2 if kind in _CALLS else operator.builtinOptions
    if kind == "CUSTOM":
        kind, options = (code.CustomCode() or b"CUSTOM").decode(errors="replace"), bytes(_numbers(operator.customOptions))
    return LiteRtOperator(kind, _numbers(operator.inputs), _numbers(operator.outputs), options)


@functools.cache
def _names_of(enumeration: str) -> dict[int, str]:
    """Return the names in one of the enumerations of LiteRT's format, by number."""
    return {number: name for name, number in vars(getattr(schema, enumeration)).items() if isinstance(number, int)}
