"""Converts ONNX models with float16, bfloat16 or float64 tensors to float32.

Precision is an option of the compiler here: `--dtype` says what kernels compute in, whatever the file was converted to. Constants in 16
bits keep their values, and conversions between types of real numbers are left out, so results are more precise than the file's own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.inliner import inline_local_functions

from tvmmobile.networks.own.onnx.tensors import all_graphs, attribute, graphs_of, tensors_of

#: Types of real numbers as ONNX numbers them.
FLOAT32, HALVES, DOUBLES = 1, frozenset({10, 16}), frozenset({11})
#: Attributes that name the type of a result, and one that names the type of sums inside an operator.
_TYPES = {"to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision"}


def in_float32(model: Any, kinds: frozenset[int]) -> Any:
    """Return a model with float32 in place of these types, also in inputs, outputs and constants; itself if it has none.

    Raises:
        Exception: of any kind, from ONNX's shape inference.
    """
    if not any(_has(graph, kinds) for graph in all_graphs(model)):
        return model
    changed = copy.deepcopy(inline_local_functions(model, True) if model.functions else model)
    for graph in list(graphs_of(changed.graph)):
        _convert(graph, kinds)
    inferred = onnx.shape_inference.infer_shapes(changed)
    for graph, typed in zip(graphs_of(changed.graph), graphs_of(inferred.graph), strict=True):
        _without_conversions(graph, typed)
    return changed


def _types(graph: Any) -> Iterator[Any]:
    yield from (one for node in graph.node for one in node.attribute if one.name in _TYPES)


def _has(graph: Any, kinds: frozenset[int]) -> bool:
    """Return whether a graph has a tensor of one of these types, or a node that makes one."""
    ports = (value.type.tensor_type.elem_type for value in (*graph.input, *graph.output) if not isinstance(value, str))
    stored = (tensor.data_type for tensor in tensors_of(graph))
    return any(kind in kinds for kind in (*ports, *stored, *(one.i for one in _types(graph))))


def _convert(graph: Any, kinds: frozenset[int]) -> None:
    """Change the types of everything in a graph itself."""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in kinds:
            value.type.tensor_type.elem_type = FLOAT32
    for tensor in tensors_of(graph):
        if tensor.data_type in kinds:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for one in _types(graph):
        if one.i in kinds:
            one.i = FLOAT32


def _without_conversions(graph: Any, typed: Any) -> None:
    """Remove conversions from float32 to float32."""
    values = (*typed.input, *typed.value_info)
    real = {value.name for value in values if value.type.tensor_type.elem_type == FLOAT32}
    real |= {tensor.name for tensor in graph.initializer if tensor.data_type == FLOAT32}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in real and attribute(node, "to") == FLOAT32:
            node.op_type = "Identity"
            del node.attribute[:]
