"""ONNX Runtime as the judge of networks: sigmoids that are outputs are exact, and the model stays what it was."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tvmmobile.networks.own.onnx.runtime import start_onnx_runtime


def test_sigmoids_that_are_outputs_are_exact() -> None:
    shape, node = [1, 64], helper.make_node
    nodes = [
        node("Mul", ["x", "x"], ["square"]),
        node("Neg", ["square"], ["logits"]),
        node("Sigmoid", ["logits"], ["found"]),
        node("Sigmoid", ["x"], ["plain"]),
        node("Sigmoid", ["logits"], ["again"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "found", "square", "plain", "again")]
    for outputs in ([1, 2, 3], [1, 4]):
        graph = helper.make_graph(nodes, "net", values[:1], [values[place] for place in outputs])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        before, x = model.SerializeToString(), np.linspace(3, 6, 64, dtype=np.float32)[None]
        _, compute = start_onnx_runtime(model, ["x"])
        found, *others = compute([x])
        assert model.SerializeToString() == before
        exact = 1 / (1 + np.exp(np.square(x).astype(np.float64)))
        assert found.dtype == np.float32
        if outputs == [1, 2, 3]:
            np.testing.assert_allclose(found, exact, rtol=1e-6)
            np.testing.assert_allclose(others[0], np.square(x), rtol=1e-6)
            np.testing.assert_allclose(others[1], 1 / (1 + np.exp(-x.astype(np.float64))), rtol=1e-6)
        else:
            np.testing.assert_allclose(found, others[0], atol=1e-6)
