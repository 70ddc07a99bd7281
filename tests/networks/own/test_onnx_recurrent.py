"""Recurrent layers of ONNX files agree with ONNX Runtime, in both directions and with states that come in and go out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from network_files import Graph, write_model
from onnx import TensorProto, helper, numpy_helper
from own_networks import TOLERANCE, load

from tvmmobile.graph.passes.recurrent_layers import recurrent_layers
from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks.frontend import Imported
from tvmmobile.system.errors import UserError

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def write_layer(path: Path, kind: str, seed: int, steps: int | None = None) -> Path:
    """Write a network of one recurrent layer: its extents, its options and whether states are given are random."""
    random = np.random.default_rng(seed)
    drawn, batch, inputs, units = (int(extent) for extent in random.integers(1, 6, 4))
    direction = str(random.choice(["forward", "reverse", "bidirectional"]))
    steps, directions, rows = steps or drawn, 1 + (direction == "bidirectional"), GATES[kind] * units
    shapes = {"w": (directions, rows, inputs), "r": (directions, rows, units), "b": (directions, 2 * rows), "p": (directions, 3 * units)}
    with_bias, with_state, with_peepholes = (bool(flag) for flag in random.integers(2, size=3))
    state, states = (directions, batch, units), ["h", "c"] if kind == "LSTM" else ["h"]
    given = ["x", "w", "r", "b" if with_bias else "", "", *(states if with_state else [""] * len(states))]
    if kind == "LSTM" and with_peepholes:
        given.append("p")
    options = {"LSTM": {}, "GRU": {"linear_before_reset": int(random.integers(2))}, "RNN": {}}[kind]
    options |= {"clip": 0.7} if random.integers(2) else {}
    ports = {"x": (steps, batch, inputs), **(dict.fromkeys(states, state) if with_state else {})}
    outputs = {"y": (steps, directions, batch, units), "yh": state, **({"yc": state} if kind == "LSTM" else {})}
    graph = helper.make_graph(
        [helper.make_node(kind, given, list(outputs), hidden_size=units, direction=direction, **options)],
        "recurrent",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(random.normal(0, 0.6, shapes[name]).astype(np.float32), name) for name in given if name in shapes],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), path)
    return path


def run(imported: Imported, given: list[Any]) -> list[Any]:
    """Return the outputs of the imported module without kernels of recurrent layers, compiled for this machine."""
    import tvm
    from tvm import relax

    module = recurrent_layers(lambda layer: False, {})(imported.module)
    machine = relax.VirtualMachine(tvm.compile(relax.transform.LegalizeOps()(module), target="llvm"), tvm.cpu())
    found = machine["main"](*map(tvm.runtime.tensor, given))
    return [found.numpy()] if hasattr(found, "numpy") else [one.numpy() for one in found]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", list(GATES))
def test_a_layer_agrees(tmp_path: Path, kind: str, seed: int) -> None:
    imported = load(write_layer(tmp_path / "net.onnx", kind, seed))
    random = np.random.default_rng(seed)
    given = [random.normal(0, 1, port.shape).astype(np.float32) for port in imported.spec.takes]
    wanted = imported.compute(given)
    assert imported.judge.startswith("ONNX Runtime")
    for one, other in zip(run(imported, given), wanted, strict=True):
        assert one.shape == other.shape and relative_error(one, other) <= TOLERANCE


def test_too_many_steps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"LSTM over 5,000 steps, which are compiled one by one"):
        load(write_layer(tmp_path / "net.onnx", "LSTM", 0, 5000))


def test_computed_weights_are_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Squeeze", ["x", "axis"], ["s"]),
        helper.make_node("Transpose", ["s"], ["t"], perm=[0, 2, 1]),
        helper.make_node("RNN", ["s", "t", "r"], ["", "y"], hidden_size=8),
    ]
    constants = {"axis": np.array([0]), "r": np.ones((1, 8, 8), np.float32)}
    with pytest.raises(UserError, match=r"weights that are computed are not supported"):
        load(write_model(tmp_path / "net.onnx", Graph(nodes, constants), (1, 1, 8, 8)))
