"""Turns an ONNX graph's `Constant` nodes, in which Paddle's exporter keeps weights, into initializers; counts parameters in both."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from tvmmobile.networks.own.onnx.tensors import STANDARD, graphs_of

#: The types of real numbers, as ONNX numbers them: float32, float16, float64, bfloat16.
_REAL = {1, 10, 11, 16}
#: Operators whose constants are sizes and factors of images.
_SIZES = {"Resize", "Upsample"}


def with_initializers(model: Any) -> Any:
    """Return a model with an initializer for each `Constant` node; a copy, if it has any."""
    tensors = {node.output[0]: tensor for node in model.graph.node if (tensor := _tensor_of(node)) is not None}
    tensors = {name: tensor for name, tensor in tensors.items() if all(name != output.name for output in model.graph.output)}
    if not tensors:
        return model
    changed = copy.deepcopy(model)
    graph = changed.graph
    del graph.node[:]
    graph.node.extend(node for node in model.graph.node if not (node.op_type == "Constant" and node.output[0] in tensors))
    graph.initializer.extend(tensors.values())
    return changed


def count_parameters(model: Any) -> int:
    """Count the numbers in weights, biases, and the γ and β of batch norms that the export did not fold into weights.

    Those in branches, loops and functions count once. Single numbers in `Constant` nodes are parts of formulas.
    """
    return sum(_parameters(graph) for part in (model.graph, *model.functions) for graph in graphs_of(part))


def _parameters(graph: Any) -> int:
    statistics = {name for node in graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]}
    sizes = {name for node in graph.node if node.op_type in _SIZES for name in node.input[1:]}
    stored: int = sum(
        math.prod(tensor.dims)
        for tensor in getattr(graph, "initializer", ())
        if tensor.data_type in _REAL and tensor.name not in statistics
    )
    return stored + sum(count for name, count in _in_nodes(graph) if count > 1 and name not in statistics | sizes)


def _in_nodes(graph: Any) -> Iterator[tuple[str, int]]:
    """Yield the names of real numbers in `Constant` nodes, and how many there are."""
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in STANDARD:
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.t.data_type in _REAL:
                    yield node.output[0], math.prod(attribute.t.dims)
                elif attribute.name == "value_floats":
                    yield node.output[0], len(attribute.floats)


def _tensor_of(node: Any) -> Any:
    """Return the tensor of a `Constant` node; `None` for other nodes and for text."""
    if node.op_type != "Constant" or node.domain not in STANDARD or len(node.attribute) != 1:
        return None
    kind, name, value = node.attribute[0].name, node.output[0], helper.get_attribute_value(node.attribute[0])
    if kind == "value":
        tensor = copy.deepcopy(value)
        tensor.name = name
        return tensor
    types = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    return numpy_helper.from_array(np.array(value, types[kind]), name) if kind in types else None
