"""The constants of an ONNX network, wherever they are in its file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: Names of the domain of ONNX's own operators.
STANDARD = ("", "ai.onnx")


def external_tensors(model: Any) -> Iterator[Any]:
    """Tensors of a `ModelProto` whose data is in other files: of the graph, and of those in branches, loops and functions."""
    from onnx.external_data_helper import uses_external_data

    found = (*_of_graph(model.graph), *(tensor for function in model.functions for tensor in _of_nodes(function.node)))
    return (tensor for tensor in found if uses_external_data(tensor))


def _of_graph(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Any) -> Iterator[Any]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (*([attribute.t] if attribute.HasField("t") else ()), *attribute.tensors)
        for sparse in (*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else ()), *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            yield from _of_graph(graph)
