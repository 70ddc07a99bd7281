"""The graphs and constants of an ONNX network, wherever they are in its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.external_data_helper import uses_external_data

from tvmmobile.graph.layers import Array

#: Names of the domain of ONNX's own operators.
STANDARD = ("", "ai.onnx")
#: Bits of an element of the types of which several elements are in a byte.
PACKED_BITS = {**dict.fromkeys(("INT4", "UINT4", "FLOAT4E2M1"), 4), **dict.fromkeys(("INT2", "UINT2"), 2)}


def opset_of(model: Any) -> int:
    """Return the version of the standard operators."""
    return max((int(entry.version) for entry in model.opset_import if entry.domain in STANDARD), default=1)


def external_tensors(model: Any) -> Iterator[Any]:
    """Return the tensors of a `ModelProto` whose data is in other files: of the graph, and of those in branches, loops and functions."""
    return (tensor for graph in all_graphs(model) for tensor in tensors_of(graph) if uses_external_data(tensor))


def all_graphs(model: Any) -> Iterator[Any]:
    """Yield the graph and the functions of a `ModelProto`, and the graphs within their nodes."""
    for part in (model.graph, *model.functions):
        yield from graphs_of(part)


def graphs_of(graph: Any) -> Iterator[Any]:
    """Yield a graph or function, and the graphs within its nodes."""
    yield graph
    yield from (inner for inner, _ in graphs_within(graph.node))


def graphs_within(nodes: Any, depth: int = 1) -> Iterator[tuple[Any, int]]:
    """Yield graphs that nodes hold in attributes, such as branches, with their depth; each comes before those that it holds itself."""
    for node in nodes:
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield graph, depth
                yield from graphs_within(graph.node, depth + 1)


def read_by(node: Any) -> list[str]:
    """Return the names of what a node and the graphs within it read."""
    inner = [graph for graph, _ in graphs_within([node])]
    passed = (value.name for graph in inner for value in graph.output)
    return [*node.input, *(name for graph in inner for one in graph.node for name in one.input), *passed]


def rename(nodes: Sequence[Any], names: Mapping[str, str]) -> None:
    """Rename tensors in nodes and in the graphs within them."""
    inner = [graph for graph, _ in graphs_within(nodes)]
    for node in (*nodes, *(node for graph in inner for node in graph.node)):
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in tensors]
    for value in (value for graph in inner for value in graph.output):
        value.name = names.get(value.name, value.name)


def tensors_of(graph: Any) -> Iterator[Any]:
    """Yield the constants of a graph or function and its nodes' attributes; a sparse one yields values and places."""
    yield from getattr(graph, "initializer", ())
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (*([attribute.t] if attribute.HasField("t") else ()), *attribute.tensors)
    for sparse in sparse_tensors_of(graph):
        yield from (sparse.values, sparse.indices)


def sparse_tensors_of(graph: Any) -> Iterator[Any]:
    """Yield the constants of a graph or function, and of its nodes' attributes, that are stored without their zeros."""
    yield from getattr(graph, "sparse_initializer", ())
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else ()), *attribute.sparse_tensors)


def attribute(node: Any, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute."""
    return next((onnx.helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)


def static_shape(value: Any) -> list[int] | None:
    """Return the shape of a `ValueInfoProto`; `None` if a dimension has no number."""
    kind = value.type.tensor_type
    known = kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim)
    return [int(dim.dim_value) for dim in kind.shape.dim] if known else None


def named_node(node: Any, opset: int) -> str:
    """Return the type, name and version of a node for messages: `Slice (node 'crop', opset 9)`; a node without a name has its output's."""
    name = node.name or next(iter(node.output), "")
    return f"{node.op_type} (node {str(name)[:80]!r}, opset {opset})"


def model_of_one(node: Any, inputs: Sequence[Any], opset_imports: Any, stored: Sequence[Any] = ()) -> Any:
    """Return a `ModelProto` of a node alone, whose inputs are described or stored; its outputs have no types."""
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    return helper.make_model(helper.make_graph([node], "one", inputs, outputs, stored), opset_imports=opset_imports)


class Nodes:
    """New nodes and constants, made one after another.

    Attributes:
        nodes, constants: nodes and constants that were made so far.
        subject: the beginning of new names.
    """

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.subject = ""
        self._names = 0

    def emit(self, operator: str, inputs: Sequence[str], output: str = "", given: Sequence[Any] = (), **attributes: Any) -> str:
        """Append a standard operator's node with these attributes, some `given` in ONNX's form; return its output."""
        output = output or self._new_name(operator)
        node = helper.make_node(operator, list(inputs), [output], **attributes)
        node.attribute.extend(given)
        self.append(node)
        return output

    def append(self, node: Any) -> None:
        """Append a node."""
        self.nodes.append(node)

    def cast(self, name: str, dtype: Any, output: str = "") -> str:
        """Append a conversion to a NumPy type."""
        return self.emit("Cast", [name], output, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def constant(self, array: Array) -> str:
        """Return the name of a constant."""
        name = self._new_name("constant")
        self.constants[name] = array
        return name

    def real(self, number: Any) -> str:
        """Return the name of a constant without dimensions in float32."""
        return self.constant(np.array(number, np.float32))

    def integers(self, *numbers: int) -> str:
        """Return the name of a constant vector of 64-bit integers, as ONNX has shapes and axes."""
        return self.constant(np.array(numbers, np.int64))

    def _new_name(self, kind: str) -> str:
        self._names += 1
        return f"{self.subject}{kind}/{self._names}"
