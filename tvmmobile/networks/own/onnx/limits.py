"""Checks an ONNX model's element types, extents, windows and functions before native code reads them.

ONNX's checker leaves all of these to whoever runs the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from onnx import TensorProto

from tvmmobile.networks.budget import check_constants, check_elements, check_operators, check_window
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.onnx.tensors import PACKED_BITS, graphs_within, sparse_tensors_of, tensors_of
from tvmmobile.system.errors import UserError, shown

_AGAIN = "Export it again."
#: Attributes that name an element type.
_TYPES = {"to", "dtype", "output_dtype"}
#: Attributes of windows, with the least number that each may have; a negative padding cuts an edge off.
_WINDOWS = {"kernel_shape": 1, "strides": 1, "dilations": 1, "output_padding": 0, "pads": None}
#: Numbers that only constants may be, which become real numbers.
_STORED = ("FLOAT8", *PACKED_BITS)
#: Graphs within graphs, and functions that call functions.
_MOST_NESTED = 100


def check_onnx(file: OwnFile, model: Any) -> None:
    """Raise `UserError` for inputs and outputs that are not tensors, element types that ONNX does not have, and extents, windows or
    functions that no network needs.
    """
    for value in (*model.graph.input, *model.graph.output):
        if (form := value.type.WhichOneof("value")) not in (None, "tensor_type"):
            raise UserError(f"{file}: {value.name!r} is a {form.removesuffix('_type')}, not a tensor.", "Have it take and return tensors.")
    functions = {(function.domain, function.name): function for function in model.functions}
    check_operators(str(file), _operators(file, model.graph.node, functions, {}, 0))
    parts = [graph for part in (model.graph, *model.functions) for graph in (part, *_graphs(file, part.node))]
    check_constants(str(file), sum(_check_graph(file, graph) for graph in parts))


def check_values(file: OwnFile, graph: Any) -> None:
    """Raise `UserError` for inferred shapes beyond the limits, and for inputs and results of types that no kernel has."""
    for value in (*graph.value_info, *graph.output):
        _check_value(file, value)
    operators = {name: node.op_type for node in graph.node for name in node.output}
    readers = {name: node.op_type for node in reversed(graph.node) for name in node.input}
    constants = {tensor.name for tensor in graph.initializer}
    operators |= {value.name: readers.get(value.name, "") for value in graph.input if value.name not in constants}
    for value in (*graph.input, *graph.value_info, *graph.output):
        number = value.type.tensor_type.elem_type
        kind = TensorProto.DataType.Name(number)
        if value.name not in operators or not kind.startswith((*_STORED, "STRING")):
            continue
        text = "Leave text out of the network: return numbers, and look up their names afterwards."
        remedy = text if number == TensorProto.STRING else "Quantise only the weights to it; activations to int8."
        computed = f" (of {operators[value.name]})" if operators[value.name] else ""
        raise UserError(f"{file}: the tensor {value.name!r}{computed} is {kind.lower()}, which no kernel has.", remedy)


def _check_graph(file: OwnFile, graph: Any) -> int:
    """Check values, nodes and constants of a graph or function; return how many numbers the constants hold, with zeros of sparse ones."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        if not isinstance(value, str):  # of a function, which has no types
            _check_value(file, value)
    for node in graph.node:
        _check_node(file, node)
    stored = sum(_check_tensor(file, tensor) for tensor in tensors_of(graph))
    sparse = ((f"{file}: the sparse constant {tensor.values.name!r}", tensor.dims) for tensor in sparse_tensors_of(graph))
    return stored + sum(_check_extents(what, extents) for what, extents in sparse)


def _check_value(file: OwnFile, value: Any) -> None:
    kind = value.type.tensor_type
    what = f"{file}: the tensor {value.name!r}"
    if kind.elem_type:
        _check_type(what, kind.elem_type)
    extents = [int(dim.dim_value) for dim in kind.shape.dim if dim.HasField("dim_value")]
    check_elements(what, [extent for extent in extents if extent != -1])  # some exporters write -1 for any number


def _check_tensor(file: OwnFile, tensor: Any) -> int:
    what = f"{file}: the constant {tensor.name!r}"
    _check_type(what, tensor.data_type)
    return _check_extents(what, tensor.dims)


def _check_extents(what: str, extents: Sequence[int]) -> int:
    check_elements(what, extents)
    return math.prod(extents)


def _check_type(what: str, number: int) -> None:
    if number not in TensorProto.DataType.values() or number == TensorProto.UNDEFINED:
        raise UserError(f"{what} has element type {shown(number)}, which ONNX does not have.", _AGAIN)


def _check_node(file: OwnFile, node: Any) -> None:
    what = f"{file}: {node.op_type} {node.name!r}" if node.name else f"{file}: {node.op_type}"
    for attribute in node.attribute:
        if attribute.name in _TYPES and attribute.type == attribute.INT:
            _check_type(what, attribute.i)
        if attribute.name in _WINDOWS and attribute.type == attribute.INTS:
            least = _WINDOWS[attribute.name]
            numbers = map(abs, attribute.ints) if least is None else attribute.ints
            check_window(what, attribute.name, numbers, least or 0)


def _graphs(file: OwnFile, nodes: Any) -> Iterator[Any]:
    """Yield the graphs that nodes hold in attributes, at any depth that is allowed."""
    for graph, depth in graphs_within(nodes):
        if depth > _MOST_NESTED:
            raise UserError(f"{file} has graphs within graphs, more than {_MOST_NESTED} deep.", _AGAIN)
        yield graph


def _nodes(file: OwnFile, nodes: Any) -> Iterator[Any]:
    """Yield nodes and those of the graphs that they hold."""
    yield from nodes
    for graph in _graphs(file, nodes):
        yield from graph.node


def _operators(file: OwnFile, nodes: Any, functions: Mapping[tuple[str, str], Any], known: dict[tuple[str, str], int], depth: int) -> int:
    """Count the operators of nodes with functions inlined; raise `UserError` for functions that call themselves."""
    if depth > _MOST_NESTED:
        raise UserError(f"{file} has functions that call one another, more than {_MOST_NESTED} deep.", _AGAIN)
    count = 0
    for node in _nodes(file, nodes):
        key = node.domain, node.op_type
        if key not in functions:
            count += 1
            continue
        if key not in known:
            known[key] = -1
            known[key] = _operators(file, functions[key].node, functions, known, depth + 1)
        if known[key] < 0:
            raise UserError(f"{file} has a function that calls itself, {node.op_type}.", _AGAIN)
        count += known[key]
    return count
