"""Recurrent layers of ONNX files agree with ONNX Runtime, in both directions and with states that come in and go out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from host_kernels import HOST
from onnx import TensorProto, helper, numpy_helper
from own_networks import TOLERANCE, load, network_of
from small_networks import kernels_of

from tvmmobile.graph.layers import Recurrent
from tvmmobile.graph.lowering import lower
from tvmmobile.graph.passes.recurrent_layers import recurrent_layers
from tvmmobile.kernels.codegen import make_target, pass_context
from tvmmobile.kernels.lowering import PIPELINE
from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks.frontend import Imported
from tvmmobile.system.errors import UserError

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in (0, *range(2, 8)))]


def write_layer(path: Path, kind: str, seed: int, steps: int | None = None, plain: bool = False) -> Path:
    """Write a network of one recurrent layer: its extents, its options and whether states are given are random; a plain one is a cell that
    has a kernel, and some of its states are constants.
    """
    random = np.random.default_rng(seed)
    drawn, batch, inputs, units = (int(extent) for extent in random.integers(1, 6, 4))
    direction = str(random.choice(["forward", "reverse", "bidirectional"]))
    steps, directions, rows = steps or drawn, 1 + (direction == "bidirectional"), GATES[kind] * units
    shapes = {"w": (directions, rows, inputs), "r": (directions, rows, units), "b": (directions, 2 * rows), "p": (directions, 3 * units)}
    with_bias, with_state, with_peepholes = (bool(flag) for flag in random.integers(2, size=3))
    state, states = (directions, batch, units), ["h", "c"] if kind == "LSTM" else ["h"]
    given = ["x", "w", "r", "b" if with_bias else "", "", *(states if with_state else [""] * len(states))]
    if kind == "LSTM" and with_peepholes and not plain:
        given.append("p")
    options = {"LSTM": {}, "GRU": {"linear_before_reset": int(random.integers(2))}, "RNN": {}}[kind]
    options |= {"clip": 0.7} if (steps is not None or random.integers(2)) and not plain else {}
    options |= {"activations": ["Relu"] * directions} if kind == "RNN" and random.integers(2) else {}
    if plain and random.integers(2):
        shapes[states.pop()] = state  # a constant
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


def unrolled(imported: Imported) -> Any:
    """Return the imported module without kernels of recurrent layers, compiled for this machine."""
    import tvm
    from tvm import relax

    module = recurrent_layers(lambda layer: False, {})(imported.module)
    return tvm.compile(relax.transform.LegalizeOps()(module), target=make_target(HOST))


def with_kernels(imported: Imported) -> Any:
    """Return the network with a kernel for each recurrent layer, compiled for this machine."""
    from tvm import relax

    network = network_of(imported)
    assert sum(isinstance(node.layer, Recurrent) for node in network.nodes) == 1
    with pass_context():
        return relax.build(lower(network, kernels_of(network)), target=make_target(HOST), tir_pipeline=PIPELINE)


def check(imported: Imported, executable: Any, seed: int) -> None:
    """Check that it computes the same as ONNX Runtime."""
    import tvm
    from tvm import relax

    random = np.random.default_rng(seed)
    given = [random.normal(0, 1, port.shape).astype(np.float32) for port in imported.spec.takes]
    machine = relax.VirtualMachine(executable, tvm.cpu())
    found = machine["main"](*map(tvm.runtime.tensor, given))
    outputs = [found.numpy()] if hasattr(found, "numpy") else [one.numpy() for one in found]
    assert imported.reference_program.startswith("ONNX Runtime")
    for one, other in zip(outputs, imported.compute(given), strict=True):
        assert one.shape == other.shape and relative_error(one, other) <= TOLERANCE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", list(GATES))
def test_a_layer_without_a_kernel_agrees(tmp_path: Path, kind: str, seed: int) -> None:
    imported = load(write_layer(tmp_path / "net.onnx", kind, seed))
    check(imported, unrolled(imported), seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", list(GATES))
def test_a_layer_with_a_kernel_agrees(tmp_path: Path, kind: str, seed: int) -> None:
    imported = load(write_layer(tmp_path / "net.onnx", kind, seed, plain=True))
    check(imported, with_kernels(imported), seed)


def test_too_many_steps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"LSTM over 5,000 steps, which are compiled one by one"):
        load(write_layer(tmp_path / "net.onnx", "LSTM", 0, 5000))


@pytest.mark.parametrize(("kind", "known"), [("LSTM", "w"), ("GRU", "w"), ("RNN", "r")])
def test_a_layer_with_computed_weights_agrees(tmp_path: Path, kind: str, known: str) -> None:
    model = onnx.load(write_layer(tmp_path / "net.onnx", kind, 2))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    del model.graph.initializer[:]
    model.graph.initializer.append(weights.pop(known))
    model.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, tensor.dims) for name, tensor in weights.items())
    onnx.save(model, tmp_path / "net.onnx")
    imported = load(tmp_path / "net.onnx")
    check(imported, unrolled(imported), 2)
