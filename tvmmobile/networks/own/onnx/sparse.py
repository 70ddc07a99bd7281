"""Reads constants that ONNX files store without zeros, as for pruned networks: values and their indices."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tvmmobile.graph.layers import Array
from tvmmobile.networks.budget import MOST_OPERATORS, check_zeros
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.own.onnx.tensors import STANDARD, all_graphs, sparse_tensors_of
from tvmmobile.system.errors import UserError, shown


def fill_zeros(file: OwnFile, model: Any) -> None:
    """Replace sparse initializers and the sparse values of `Constant` nodes by dense ones, in branches, loops and functions too.

    Args:
        model: a `ModelProto` within the limits that `check_onnx` checks, with its weights inside; it is changed.

    Raises:
        UserError: there are too many zeros, or values and indices contradict each other or the shape.
        Exception: of any kind, where a tensor holds less than its shape says.
    """
    graphs = list(all_graphs(model))
    for number, graph in enumerate(graphs):
        _check_zeros(file, graph, copies=MOST_OPERATORS if number else 1)
    for graph in graphs:
        if sparse := getattr(graph, "sparse_initializer", None):
            graph.initializer.extend(_dense(file, tensor, tensor.values.name) for tensor in sparse)
            del graph.sparse_initializer[:]
        for node in graph.node:
            if node.op_type == "Constant" and node.domain in STANDARD:
                for attribute in node.attribute:
                    if attribute.name == "sparse_value" and attribute.HasField("sparse_tensor"):
                        dense = _dense(file, attribute.sparse_tensor, next(iter(node.output), ""))
                        attribute.CopyFrom(helper.make_attribute("value", dense))


def _check_zeros(file: OwnFile, graph: Any, copies: int) -> None:
    tensors = list(sparse_tensors_of(graph))
    stored = sum(min(math.prod(tensor.values.dims), tensor.values.ByteSize()) for tensor in tensors)  # it may say more than it holds
    check_zeros(str(file), sum(math.prod(tensor.dims) for tensor in tensors), stored, copies)


def _dense(file: OwnFile, sparse: Any, name: str) -> Any:
    """Return a `TensorProto` with all elements of a `SparseTensorProto`."""

    def refuse(wrong: str) -> NoReturn:
        raise UserError(
            f"{file}: the sparse constant {shown(name)} has {wrong}.", "Export it again, or store this constant with its zeros."
        )

    shape, values, indices = list(map(int, sparse.dims)), numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    if sparse.values.data_type == TensorProto.STRING or sparse.indices.data_type != TensorProto.INT64:
        refuse("values that are no numbers, or indices that are no 64-bit integers")
    if not shape or values.ndim != 1:
        refuse(f"{len(shape)} dimensions, and its values have {values.ndim}")
    if indices.shape not in ((values.size,), (values.size, len(shape))):
        refuse(f"{values.size} values and indices of shape {shown(indices.shape)}")
    extents: Array = np.array(shape if indices.ndim == 2 else [math.prod(shape)], np.int64)
    by_dimension = indices.reshape(values.size, len(extents))
    if (by_dimension < 0).any() or (by_dimension >= extents).any():
        refuse("an index outside its shape")
    steps = [math.prod(extents[dimension + 1 :]) for dimension in range(len(extents))]
    places = by_dimension @ np.array(steps, np.int64)
    if (np.diff(places) <= 0).any():
        refuse("indices that do not ascend")
    dense = np.zeros(math.prod(shape), values.dtype)
    dense[places] = values
    return numpy_helper.from_array(dense.reshape(shape), name)
