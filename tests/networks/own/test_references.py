"""The program that computes a network's reference: ONNX Runtime and LiteRT's interpreter for their files, others where these cannot."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from litert_files import by_litert, quantised_network
from network_files import Graph, batch_norm, convolution, with_data_beside, write_model
from onnx import TensorProto, helper, numpy_helper
from own_networks import TOLERANCE, load, network_of
from quantised_files import noise, run_onnxruntime, write_quantised_onnx
from small_networks import kernels_of, run_lowered, seeded, unit
from torch import nn

from tvmmobile.graph.lowering import lower
from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks.frontend import Imported
from tvmmobile.networks.own.onnx.runtime import start_onnx_runtime
from tvmmobile.networks.own.references import HostReference
from tvmmobile.system.errors import UserError

node = helper.make_node


def agrees(imported: Imported, library: Path) -> None:
    """Check the library's output for noise against ONNX Runtime's."""
    network = network_of(imported)
    image = np.random.default_rng(3).normal(0.0, 1.0, imported.spec.input_shape).astype(np.float32)
    output = run_lowered(lower(network, kernels_of(network)), image, library)
    assert relative_error(output, imported.compute([image])[0]) <= TOLERANCE
    assert imported.reference_program == f"ONNX Runtime {version_of('onnxruntime')}"


def version_of(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def older(opset: int) -> Graph:
    """Return a batch norm, a max pool with other pads on each side, a softmax and a squeeze, as this version writes them."""
    norm, constants = batch_norm("x")
    squeezed: Any = node("Squeeze", ["s"], ["y"], axes=[0])
    if opset >= 13:
        constants["axes"] = np.array([-4])
        squeezed = node("Squeeze", ["s", "axes"], ["y"])
    weights = np.random.default_rng(8).normal(0, 0.4, (4, 3, 3, 3)).astype(np.float32)
    nodes = [
        norm,
        node("Conv", ["n", "w"], ["c"], pads=[1, 0, 0, 1]),
        node("MaxPool", ["c"], ["p"], kernel_shape=[3, 2], pads=[0, 1, 2, 0], strides=[2, 1]),
        node("Softmax", ["p"], ["s"], axis=2),
        squeezed,
    ]
    return Graph(nodes, constants | {"w": weights})


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_operators_of_older_versions(tmp_path: Path, opset: int) -> None:
    """The Python evaluator normalises such batches as in training, and mixes up pads."""
    agrees(load(write_model(tmp_path / "net.onnx", older(opset), opset=opset)), tmp_path / "net.so")


def test_operators_that_the_python_evaluator_lacks(tmp_path: Path) -> None:
    """`GridSample` at places between pixels, a `ConvTranspose` of groups, and a `Squeeze` of all dimensions of 1."""
    random = np.random.default_rng(9)
    weights = {"k": random.normal(0, 0.4, (4, 3, 3, 3)), "grid": random.uniform(-1.1, 1.1, (1, 9, 7, 2))}
    nodes = [
        node("ConvTranspose", ["c", "k"], ["t"], group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
        node("GridSample", ["t", "grid"], ["g"], mode="linear"),
        node("Squeeze", ["g"], ["y"]),
    ]
    graph = convolution(nodes)
    constants = {**graph.constants, **{name: array.astype(np.float32) for name, array in weights.items()}}
    agrees(load(write_model(tmp_path / "net.onnx", Graph(graph.nodes, constants), opset=20)), tmp_path / "net.so")


def test_quantised_files_are_computed_as_they_are_written(tmp_path: Path) -> None:
    """Rounding where the file does, whether it has QDQ or operators on integers: ONNX Runtime fuses what it may by default."""
    module, image = seeded(*unit(3, 8), *unit(8, 8, 3, groups=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)), noise(3)
    for operators in (False, True):
        path = write_quantised_onnx(module, tmp_path, operators=operators)
        imported = load(path)
        found, expected = imported.compute([image])[0], run_onnxruntime(path, image)
        assert np.abs(found - expected).max() <= 1.01 * np.diff(np.unique(expected)).min()
        assert imported.reference_program.startswith("ONNX Runtime ")


def test_a_litert_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its integers are LiteRT's to the bit; nothing is printed."""
    content = quantised_network("int8", 3, full=True)
    (tmp_path / "net.tflite").write_bytes(content)
    imported = load(tmp_path / "net.tflite")
    image = np.random.default_rng(1).integers(-128, 128, (1, 16, 16, 3)).astype(np.int8)
    found, judge = imported.compute([image])[0], imported.reference_program
    assert capfd.readouterr().err == ""
    assert np.array_equal(found, by_litert(content, [image])[0]) and judge == f"LiteRT {version_of('ai-edge-litert')}"


def test_an_operator_that_onnx_runtime_lacks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The Python evaluator computes the network, and the judge's name says why."""
    short, real = TensorProto.INT16, TensorProto.FLOAT
    nodes = [
        node("Cast", ["c"], ["i"], to=short),
        node("Max", ["i", "i"], ["m"]),
        node("Cast", ["m"], ["y"], to=real),
    ]
    path = write_model(tmp_path / "net.onnx", convolution(nodes))
    imported, image = load(path), np.ones((1, 3, 8, 8), np.float32)
    plain = load(write_model(tmp_path / "plain.onnx", convolution())).compute([image])[0]
    assert np.array_equal(imported.compute([image])[0], np.trunc(plain))
    assert imported.reference_program.startswith(
        f"onnx.reference {onnx.__version__} (ONNX Runtime: Could not find an implementation for Max(13) node"
    )
    assert capfd.readouterr().err == ""


def test_programs_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteRT's files are then computed after their translation."""
    path = write_model(tmp_path / "net.onnx", convolution())
    (tmp_path / "net.tflite").write_bytes(quantised_network("int8", 3))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    litert = load(tmp_path / "net.tflite")
    assert litert.reference_program == f"ONNX Runtime {version_of('onnxruntime')} (LiteRT: not installed)"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    imported, image = load(path), np.ones((1, 3, 8, 8), np.float32)
    assert imported.reference_program == f"onnx.reference {onnx.__version__} (ONNX Runtime: not installed)"
    np.testing.assert_allclose(imported.compute([image])[0], run_onnxruntime(path, image), rtol=1e-4, atol=1e-6)


def test_the_next_program_computes_where_one_fails() -> None:
    """When it starts, or later; at last one sentence says why each of them did not."""

    def broken(_inputs: Sequence[Any]) -> tuple[Any, ...]:
        raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : no such kernel.\nmore")

    def absent() -> Any:
        raise ImportError("no module")

    first: Any = [("A", absent), ("B", lambda: ("B 1.0", broken))]
    reference = HostReference("net.onnx", [*first, ("C", lambda: ("C 2.0", tuple))])
    assert reference.program() == "B 1.0 (A: not installed)"
    assert reference.compute([np.zeros(1)]) == (np.zeros(1),)
    assert reference.program() == "C 2.0 (A: not installed; B: no such kernel)"
    with pytest.raises(UserError, match=r"no program on this machine computes net\.onnx: A: not installed; B: no such kernel\n"):
        HostReference("net.onnx", first).compute([])


def test_a_program_starts_when_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "onnxruntime", None)
        imported = load(write_model(tmp_path / "net.onnx", convolution()))
    assert imported.reference_program.startswith("ONNX Runtime ")


def test_weights_of_a_branch_in_another_file(tmp_path: Path) -> None:
    """They are read like those of the graph; ONNX Runtime is never given a file's name."""
    path = with_data_beside(write_model(tmp_path / "net.onnx", convolution()))
    model = onnx.load(str(path), load_external_data=False)
    outside = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    branch = helper.make_graph([node("Identity", ["w"], ["v"])], "then", [], [onnx.ValueInfoProto(name="v")], [outside])
    model.graph.node.insert(0, node("If", ["yes"], ["k"], then_branch=branch, else_branch=branch))
    model.graph.node[1].input[1] = "k"
    model.graph.initializer.remove(outside)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    with pytest.raises(ValueError, match="weights are in other files"):
        start_onnx_runtime(model, ["x"])
    path.write_bytes(model.SerializeToString())
    whole = load(write_model(tmp_path / "whole.onnx", convolution()))
    image = noise(1, (1, 3, 8, 8))
    assert np.array_equal(load(path).compute([image])[0], whole.compute([image])[0])
