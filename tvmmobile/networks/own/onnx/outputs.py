"""Gives an ONNX model outputs that a library can return: booleans become bytes, and scalars get a dimension."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, shape_inference

from tvmmobile.networks.own.onnx.tensors import rename


def with_plain_outputs(model: Any) -> Any:
    """Return the model with boolean outputs as uint8, 0 or 1, and scalar outputs with one dimension; itself if it has neither."""
    computed, numbers = {name for node in model.graph.node for name in node.output}, _numbers(model)

    def forms(output: Any) -> tuple[bool, bool]:
        """Return whether it is computed as booleans, and whether as a number without dimensions."""
        is_computed = output.name in computed
        return is_computed and output.type.tensor_type.elem_type == TensorProto.BOOL, is_computed and output.name in numbers

    if not any(any(forms(output)) for output in model.graph.output):
        return model
    changed = copy.deepcopy(model)
    graph = changed.graph
    for output in graph.output:
        kind, name, inner = output.type.tensor_type, output.name, f"{output.name}/returned"
        is_boolean, is_number = forms(output)
        if not (is_boolean or is_number):
            continue
        rename(graph.node, {name: inner})
        if is_boolean:
            kind.elem_type = TensorProto.UINT8
            graph.node.append(helper.make_node("Cast", [inner], [f"{name}/bytes" if is_number else name], to=TensorProto.UINT8))
        if is_number:
            kind.shape.dim.add(dim_value=1)
            graph.initializer.append(numpy_helper.from_array(np.array([1]), f"{name}/shape"))
            graph.node.append(helper.make_node("Reshape", [f"{name}/bytes" if is_boolean else inner, f"{name}/shape"], [name]))
    return changed


def _numbers(model: Any) -> set[str]:
    """Find the outputs that have no dimensions whatever the file says: Paddle's exporter declares every one so."""
    if not any(_rank(output) == 0 for output in model.graph.output):
        return set()
    bare = copy.deepcopy(model)
    for output in bare.graph.output:
        output.type.tensor_type.ClearField("shape")
    return {output.name for output in shape_inference.infer_shapes(bare).graph.output if _rank(output) == 0}


def _rank(output: Any) -> int | None:
    kind = output.type.tensor_type
    return len(kind.shape.dim) if kind.HasField("shape") else None
