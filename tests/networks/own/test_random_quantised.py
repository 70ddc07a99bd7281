"""Random quantised networks: whatever a tool wrote compiles, in integers where kernels have them, and computes what ONNX Runtime does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantised import run
from quantised_files import in_integers, smallest_step
from random_quantised import TOOLS, Drawn, Tool, image_of, quantised_by, random_network

from tvmmobile.graph.layers import Conv2d
from tvmmobile.networks.own.onnx.runtime import start_onnx_runtime

pytestmark = pytest.mark.filterwarnings("ignore")
#: Share of the largest magnitude by which float32 may differ.
_FLOATS = 1e-4


def check(folder: Path, seed: int, tool: Tool, most: int = 4) -> None:
    """A library's kernels on the host are at most a step off, which behind one another may become two; and the integers of a simulation."""
    model, shape = random_network(seed, most)
    path = quantised_by(tool, model, shape, folder / "net.onnx")
    ready, image = in_integers(path), image_of(shape, 9)
    _, compute = start_onnx_runtime(onnx.load(path), ["x"])
    (expected,) = compute([image])
    output = run(ready.network, image).reshape(expected.shape)
    largest = np.abs(expected).max()
    if ready.integers is not None and most > 1:
        assert np.abs(ready.integers.outputs(image).reshape(expected.shape) - output).max() <= _FLOATS * largest
    # Numbers that are not rounded at the end have no step of their own: they carry those of the layers in front.
    step = smallest_step(expected) if tool.form in ("QDQ", "operators") else 0.02 * largest
    off = np.abs(output - expected)
    # Errors of float32's sums are a few percent of a step of 16 bits, so that numbers in one window are often rounded differently.
    most = 8.01 if tool.form == "QDQ" and "16" in tool.activations else 2.01
    assert off.max() <= most * step and np.median(off) <= _FLOATS * largest, f"{seed} {tool}: {off.max() / step} steps"
    if tool.form in ("QDQ", "operators") and "16" not in tool.activations:
        assert any(node.dtype == "int8" for node in ready.network.nodes if isinstance(node.layer, Conv2d))


@pytest.mark.parametrize("form", [form if form != "16 bits" else pytest.param(form, marks=pytest.mark.long) for form in TOOLS])
def test_a_random_network(tmp_path: Path, form: str) -> None:
    check(tmp_path, 1, TOOLS[form][-1], 1)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_operators_between_integers(tmp_path: Path, kind: str) -> None:
    """Integers are resized, padded by another integer than the zero point, cut, converted, and returned as they are."""
    net, low = Drawn(np.random.default_rng(5)), np.iinfo(kind).min
    grid = [net.constant(np.float32(0.05)), net.constant(np.array(low + 120, kind))]
    weight, scale = net.constant(net.draw.integers(-63, 64, (8, 3, 3, 3)).astype(np.int8)), net.constant(np.float32(0.01))
    data = net.node("QuantizeLinear", ["x", *grid])
    data = net.node("QLinearConv", [data, *grid, weight, scale, net.constant(np.int8(0)), *grid], pads=[1] * 4)
    for mode in ("linear", "nearest"):
        data = net.node("Resize", [data, "", net.constant(np.float32([1, 1, 1.5, 2]))], mode=mode)
    data = net.node("Pad", [data, net.constant([0, 0, 1, 0, 0, 0, 0, 2]), net.constant(np.array(low + 7, kind))])
    net.node("Split", [data, net.constant([3, 5])], axis=1)
    net.nodes[-1].output[:] = ["first", "second"]
    moved = net.node("MaxPool", ["second"], kernel_shape=[2, 2], strides=[2, 2])
    real = net.node("Sub", [net.node("Cast", [moved], to=TensorProto.FLOAT), net.constant(np.float32(low + 120))])
    rounded = net.node("QuantizeLinear", [net.node("Mul", [real, net.constant(np.float32(0.05))]), *grid])
    tensors = [numpy_helper.from_array(array, name) for name, array in net.constants.items()]
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    ends = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 16, 16)), helper.make_tensor_value_info(rounded, dtype, None)
    graph = helper.make_graph(net.nodes, "moving", ends[:1], ends[1:], tensors)
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    onnx.save(model, tmp_path / "net.onnx")
    ready, image = in_integers(tmp_path / "net.onnx"), image_of((1, 3, 16, 16), 9)
    _, compute = start_onnx_runtime(model, ["x"])
    (expected,) = compute([image])
    output = run(ready.network, image)
    assert output.dtype == expected.dtype == kind and np.ptp(expected.astype(int)) > 50
    off = np.abs(output.reshape(expected.shape).astype(int) - expected)
    assert off.max() <= 1 and (off > 0).mean() < 0.02


@pytest.mark.long
@pytest.mark.parametrize("form", TOOLS)
def test_many_random_networks(tmp_path: Path, form: str) -> None:
    for seed in range(100, 160):
        check(tmp_path, seed, TOOLS[form][seed % len(TOOLS[form])])
