"""Tests of the parts of an ONNX network that do not depend on its input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from network_files import Graph, write_model
from onnx import TensorProto, helper, numpy_helper, shape_inference

from tvmmobile.networks.own.onnx.constants import fold_constants


def folded(tmp_path: Any, nodes: list[Any], **constants: Any) -> Any:
    """Return a graph from `x` (1×3×8×8) to `y`, folded."""
    import onnx

    arrays = {name: np.asarray(value) for name, value in constants.items()}
    return fold_constants(onnx.load(write_model(tmp_path / "net.onnx", Graph(nodes, arrays))))


def shape_of(model: Any) -> list[int]:
    (output,) = shape_inference.infer_shapes(model).graph.output
    return [dim.dim_value for dim in output.type.tensor_type.shape.dim]


def test_shapes_computed_from_the_input(tmp_path: Any) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "place"], ["channels"]),
        helper.make_node("Concat", ["one", "channels", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    model = folded(tmp_path, nodes, place=np.array([1]), one=np.array([1]), rest=np.array([-1]))
    assert [node.op_type for node in model.graph.node] == ["Reshape"] and shape_of(model) == [1, 3, 64]


@pytest.mark.parametrize("condition", [True, False])
def test_the_taken_branch_remains(tmp_path: Any, condition: bool) -> None:
    out = [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)]
    half = numpy_helper.from_array(np.float32(0.5), "half")
    branches = {
        "then_branch": helper.make_graph([helper.make_node("Mul", ["x", "half"], ["inner"])], "then", [], out, [half]),
        "else_branch": helper.make_graph([helper.make_node("Relu", ["x"], ["inner"])], "else", [], out),
    }
    model = folded(tmp_path, [helper.make_node("If", ["condition"], ["y"], **branches)], condition=np.array(condition))
    assert [node.op_type for node in model.graph.node] == ["Mul" if condition else "Relu"]
    assert list(model.graph.node[0].output) == ["y"] and shape_of(model) == [1, 3, 8, 8]


def test_nothing_huge_is_computed(tmp_path: Any) -> None:
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["huge"]), helper.make_node("Add", ["x", "huge"], ["y"])]
    model = folded(tmp_path, nodes, size=np.array([1 << 20, 1 << 20, 1, 1]))
    assert [node.op_type for node in model.graph.node] == ["ConstantOfShape", "Add"]
