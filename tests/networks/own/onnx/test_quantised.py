"""Quantised ONNX networks: in integers they compute what ONNX Runtime does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from network_files import Graph, write_model
from onnx import helper
from own_networks import load, network_of
from quantised import run
from quantised_files import (
    SHAPE,
    in_integers,
    layer_by_layer,
    noise,
    of_integers,
    onnx_integers,
    residual_network,
    run_onnxruntime,
    smallest_step,
    steps_off,
    window_network,
    write_quantised_onnx,
)
from small_networks import seeded, unit
from torch import nn

import tvmmobile
from tvmmobile.graph.layers import Array, Conv2d, Opaque
from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.own.onnx.quantised import without_integers
from tvmmobile.networks.own.onnx.runtime import start_onnx_runtime
from tvmmobile.pipeline.prepared import Prepared
from tvmmobile.system.errors import UserError

KINDS = [(False, False), (False, True), (True, False), (True, True)]
NAMES = ["QDQ, signed", "QDQ, unsigned", "operators, signed", "operators, unsigned"]
pytestmark = pytest.mark.filterwarnings("ignore")


def convolutions(ready: Prepared) -> list[str]:
    """Precisions of all convolutions and sums."""
    return [node.dtype for node in ready.network.nodes if isinstance(node.layer, Conv2d)]


@pytest.mark.parametrize(("operators", "unsigned"), KINDS, ids=NAMES)
def test_a_network_that_onnx_runtime_has_quantised(tmp_path: Path, operators: bool, unsigned: bool) -> None:
    path = write_quantised_onnx(residual_network(), tmp_path, operators=operators, unsigned=unsigned)
    ready = in_integers(path)
    assert convolutions(ready) == ["int8"] * 6 and ready.network.float32_layers == ()
    opaque = [node.layer.operator for node in ready.network.nodes if isinstance(node.layer, Opaque)]
    assert opaque == ["cast_subtract_multiply"]  # the output in float32
    outputs, expected = [], []
    for seed in (7, 8, 9):
        assert ready.integers is not None
        outputs.append(ready.integers.outputs(noise(seed)))
        expected.append(run_onnxruntime(path, noise(seed)))
    step = smallest_step(np.concatenate(expected))
    off = steps_off(np.concatenate(outputs), np.concatenate(expected), step)
    assert off.max() < 1.01 and (off > 0.5).mean() < 0.05
    assert steps_off(load(path).compute((noise(7),))[0], expected[0], step).max() < 1.01
    layers = ready.details["quantisation"]["layers"]
    assert len(layers) == 8 and layers[0]["reads"]["scale"] > 0


@pytest.mark.parametrize("unsigned", [False, True], ids=["signed", "unsigned"])
def test_padding_in_front_of_convolutions_is_theirs(tmp_path: Path, unsigned: bool) -> None:
    """Below and on the right, as TensorFlow pads; it is rounded once more, between itself and the convolution."""
    padded = nn.ZeroPad2d((0, 1, 0, 1)), *unit(8, 8, 3, 2, groups=8), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 12, 3, 2)
    padded[1].padding = (0, 0)
    path = write_quantised_onnx(seeded(*unit(3, 8), *padded, nn.AdaptiveAvgPool2d(1), nn.Flatten(1)), tmp_path, unsigned=unsigned)
    ready = in_integers(path)
    assert convolutions(ready) == ["int8"] * 3 and not any("pad" in node.layer.name for node in ready.network.nodes)
    assert ready.integers is not None
    output, expected = ready.integers.outputs(noise(7)), run_onnxruntime(path, noise(7))
    assert steps_off(output, expected, smallest_step(expected)).max() < 1.01


@pytest.mark.parametrize(("operators", "unsigned"), KINDS, ids=NAMES)
def test_pools_and_repeated_pixels_stay_integers(tmp_path: Path, operators: bool, unsigned: bool) -> None:
    """As operators on integers they have no rounding behind them; the convolutions that read them are in integers, too."""
    layers = *unit(3, 16, 3), nn.MaxPool2d(3, 2, 1), *unit(16, 16, 3), nn.Upsample(scale_factor=2), *unit(16, 8, 3), nn.MaxPool2d(2)
    path = write_quantised_onnx(seeded(*layers, nn.Conv2d(8, 8, 1)), tmp_path, operators=operators, unsigned=unsigned)
    ready = in_integers(path)
    assert convolutions(ready) == ["int8"] * 4 and ready.network.float32_layers == () and ready.integers is not None
    opaque = [node.layer.operator for node in ready.network.nodes if isinstance(node.layer, Opaque)]
    assert [name for name in opaque if "cast" in name] == ["cast_subtract_multiply"]  # the output in float32
    assert sum("max_pool" in name for name in opaque) == 2 and sum("resize" in name for name in opaque) == 1
    output, expected = ready.integers.outputs(noise(7)), run_onnxruntime(path, noise(7))
    assert steps_off(output, expected, smallest_step(expected)).max() < 1.01


class CrossStage(nn.Module):
    """Joins both halves of an activation, one of which a convolution changes, as YOLO's stages do: each has a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(16, 32, 1), nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(48, 16, 1)

    def forward(self, image: Any) -> Any:
        one, other = nn.functional.silu(self.first(image)).chunk(2, 1)
        joined = torch.cat([one, other, nn.functional.hardswish(self.inner(other)) * 3], 1)
        return self.last(joined)


@pytest.mark.parametrize(("operators", "unsigned"), KINDS, ids=NAMES)
def test_joined_numbers_of_several_scales_stay_integers(tmp_path: Path, operators: bool, unsigned: bool) -> None:
    path = write_quantised_onnx(seeded(*unit(3, 16, 3), CrossStage()), tmp_path, operators=operators, unsigned=unsigned)
    ready = in_integers(path)
    layers = [node.layer for node in ready.network.nodes]
    assert [layer.looks_up for layer in layers if isinstance(layer, Conv2d)] == [False, True, True, False]
    joined = [layer.operator for layer in layers if isinstance(layer, Opaque) and "concatenate" in layer.operator]
    assert len(joined) == 1 and joined[0].endswith(("cast_concatenate", "lookup_concatenate"))  # nothing is real behind it
    output, expected = run(ready.network, noise(7)), run_onnxruntime(path, noise(7))
    assert steps_off(output, expected, smallest_step(expected)).max() < 1.01


@pytest.mark.virtual
@pytest.mark.parametrize(("board", "unsigned"), [("pi4", True), ("pi5", False)])
def test_windows_that_onnx_runtime_has_quantised(tmp_path: Path, board: str, unsigned: bool) -> None:
    """Convolutions of 3×3 pixels and many channels: a library returns what the integers on the host are, and ONNX Runtime computes."""
    path = write_quantised_onnx(window_network(), tmp_path, unsigned=unsigned)
    library = tvmmobile.compile(tvmmobile.load(path), board, dtype="int8", out=tmp_path / "out", logs=tmp_path)
    (image,), _ = library.reference()
    output, expected = library.run(image, board), run_onnxruntime(path, image)
    assert np.array_equal(output, np.load(library.reference_path)["integers"])
    assert steps_off(output, expected, smallest_step(expected)).max() < 1.01
    assert "float32_layers" not in library.manifest()


@pytest.mark.parametrize("unsigned", [pytest.param(False, marks=pytest.mark.long, id="signed"), pytest.param(True, id="unsigned")])
@pytest.mark.parametrize(
    ("family", "alpha", "side"),
    [
        pytest.param("mobilenet_v1", 0.25, 64, marks=pytest.mark.long),
        ("mobilenet_v2", 0.25, 64),
        pytest.param("mobilenet_v2", 1.0, 224, marks=pytest.mark.long),
    ],
)
def test_a_mobilenet_that_onnx_runtime_has_quantised(tmp_path: Path, family: str, alpha: float, side: int, unsigned: bool) -> None:
    """Every convolution and sum is in integers. Layer by layer, since generated weights amplify the one step by which a value beside a tie
    may be off: ONNX Runtime's own outputs differ as much with what it fuses."""
    module, shape = build_torch_model(ModelSpec(family, alpha, side)).module, (1, 3, side, side)
    path, image = write_quantised_onnx(module, tmp_path, shape, unsigned=unsigned), noise(7, shape)
    ready = in_integers(path)
    assert set(convolutions(ready)) == {"int8"} and ready.network.float32_layers == ()
    off = layer_by_layer(ready, image, onnx_integers(path, image))
    assert off.max() <= 1 and (off == 0).mean() >= 0.9999


@pytest.mark.long
@pytest.mark.parametrize("unsigned", [False, True], ids=["signed", "unsigned"])
@pytest.mark.parametrize("family", ["mobilenet_v1", "mobilenet_v2"])
def test_a_mobilenet_of_operators_on_integers(tmp_path: Path, family: str, unsigned: bool) -> None:
    """It computes what the same network computes with QDQ."""
    module, shape, outputs = build_torch_model(ModelSpec(family, 0.25, 64)).module, (1, 3, 64, 64), []
    for operators in (False, True):
        ready = in_integers(write_quantised_onnx(module, tmp_path, shape, operators=operators, unsigned=unsigned))
        assert set(convolutions(ready)) == {"int8"} and ready.network.float32_layers == () and ready.integers is not None
        outputs.append(ready.integers.outputs(noise(7, shape)))
    assert np.array_equal(*outputs)


@pytest.mark.virtual
@pytest.mark.parametrize("board", [pytest.param("pi4", marks=pytest.mark.long), "pi5"])
def test_a_library_of_a_quantised_network(tmp_path: Path, board: str) -> None:
    """It returns what the integers on the host are, bit for bit, and what ONNX Runtime computes."""
    path = write_quantised_onnx(residual_network(), tmp_path)
    library = tvmmobile.compile(tvmmobile.load(path), board, dtype="int8", out=tmp_path / "out", logs=tmp_path)
    (image,), _ = library.reference()
    output = library.run(image, board)
    assert np.array_equal(output, np.load(library.reference_path)["integers"])
    expected = run_onnxruntime(path, image)
    assert steps_off(output, expected, smallest_step(expected)).max() < 1.01
    manifest = library.manifest()
    assert manifest["quantisation"]["calibration"] is None and "float32_layers" not in manifest


@pytest.mark.parametrize(("operators", "unsigned"), KINDS, ids=NAMES)
def test_an_input_of_integers(tmp_path: Path, operators: bool, unsigned: bool) -> None:
    """The first convolution reads them as they are."""
    path = of_integers(write_quantised_onnx(residual_network(), tmp_path, operators=operators, unsigned=unsigned))
    ready = in_integers(path)
    assert convolutions(ready) == ["int8"] * 6 and ready.network.float32_layers == () and ready.integers is not None
    first = ready.network.nodes[0].layer
    assert isinstance(first, Conv2d) and (first.reads, first.in_layout) == ("uint8" if unsigned else "", "NCHW")
    image = integers(3, unsigned)
    expected, output = run_onnxruntime(path, image), ready.integers.outputs(image)
    assert steps_off(output, expected, smallest_step(expected)).max() < 1.01 and (output != expected).mean() < 0.1
    kept = in_integers(path, keep=("1",))
    assert convolutions(kept) == ["float32", *["int8"] * 5] and kept.integers is not None
    assert steps_off(kept.integers.outputs(image), expected, smallest_step(expected)).max() < 2.01


def integers(seed: int, unsigned: bool) -> Array:
    """Return an input of bytes."""
    found: Array = np.random.default_rng(seed).integers(0, 256, SHAPE).astype(np.uint8).view(np.uint8 if unsigned else np.int8)
    return found


@pytest.mark.virtual
@pytest.mark.parametrize("keep", [(), ("1",)], ids=["integers", "float32"])
def test_a_library_that_takes_integers(tmp_path: Path, keep: tuple[str, ...]) -> None:
    """Channels in front, without sign; its first convolution in integers, or in float32 behind a conversion."""
    path, image = of_integers(write_quantised_onnx(residual_network(), tmp_path, unsigned=True)), integers(4, True)
    library = tvmmobile.compile(tvmmobile.load(path), "pi5", dtype="int8", keep=keep, out=tmp_path / "out", logs=tmp_path)
    ready = in_integers(path, keep=keep)
    assert ready.integers is not None
    assert relative_error(library.run(image, "pi5"), ready.integers.outputs(image)) < (1e-6 if not keep else 0.02)


def test_layers_that_are_kept_or_not_quantised_stay_in_float32(tmp_path: Path) -> None:
    path = write_quantised_onnx(residual_network(), tmp_path)
    ready = in_integers(path, keep=("dw_12x12_24*", "dense*"))
    assert [layer.why for layer in ready.network.float32_layers] == ["--keep dw_12x12_24*", "--keep dense*"]
    whole = in_integers(path)
    assert ready.integers is not None and whole.integers is not None
    expected = whole.integers.outputs(noise(7))
    assert steps_off(ready.integers.outputs(noise(7)), expected, smallest_step(expected)).max() < 1.01


def test_scales_in_the_file_leave_nothing_to_calibrate(tmp_path: Path) -> None:
    path = write_quantised_onnx(residual_network(), tmp_path)
    np.save(tmp_path / "images.npy", noise(0, (2, *SHAPE[1:])))
    model = tvmmobile.load(path)
    for options, named in (({"calibrate": tmp_path / "images.npy"}, "`calibrate`"), ({"max_drop": "1%"}, "`max_drop`")):
        with pytest.raises(UserError, match=f"quantised.onnx is quantised already, so {named} does not apply"):
            tvmmobile.compile(model, "pi5", dtype="int8", out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_the_passes_over_roundings_are_among_those_whose_modules_are_written(tmp_path: Path) -> None:
    in_integers(write_quantised_onnx(residual_network(), tmp_path), dump_dir=tmp_path / "passes")
    names = [path.stem.partition("_")[2] for path in sorted((tmp_path / "passes").iterdir())]
    composed = names.index("compose_layers")
    assert names[0] == "simpler_roundings" and names[composed + 1 : composed + 4] == [
        "compose_roundings",
        "steps_apart",
        "sliced_permutations",
    ]


def quantised_convolution(kind: str = "int8", scale: float = 0.05, weights: Any = np.int8, after: str = "", **changes: Array) -> Graph:
    """QDQ around a convolution of 8 to 8 channels; `changes` are constants by name."""
    generator = np.random.default_rng(0)
    bounds = np.iinfo(weights)
    constants: dict[str, Array] = {
        "w": generator.integers(*((-63, 64) if bounds.min else (1, 256)), (8, 8, 1, 1)).astype(weights),
        "ws": np.full(8, 0.01, np.float32),
        "wz": np.full(8, 0 if bounds.min else 100, weights),
        "s": np.array(scale, np.float32),
        "z": np.array(1, kind),
        **changes,
    }

    def node(operator: str, inputs: str, output: str, **attributes: Any) -> Any:
        return helper.make_node(operator, inputs.split(), [output], **attributes)

    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"), node("DequantizeLinear", "w ws wz", "r", axis=0)]
    nodes += [node("Conv", "d r", "c"), node("QuantizeLinear", "c s z", "p")]
    nodes += [node(after, "p", "a")] if after else []
    return Graph([*nodes, node("DequantizeLinear", "a s z" if after else "p s z", "y")], constants)


@pytest.mark.parametrize(
    ("graph", "complaint"),
    [
        (quantised_convolution(scale=0.0), "a scale that is not a positive number: s is 0"),
        (quantised_convolution(after="Abs"), r"an operator on integers that is not supported: Abs \(a\)"),
        (quantised_convolution(ws=np.full(8, np.nan, np.float32)), "weights with a scale that is negative or not finite"),
        (
            quantised_convolution(ws=np.full((4, 2), 0.01, np.float32)),
            r"weights \[8, 8, 1, 1\] with scales \[4, 2\]",
        ),
        (
            quantised_convolution(ws=np.full((1, 8, 1, 1), 0.01, np.float32)),
            r"weights \[8, 8, 1, 1\] with scales \[1, 8, 1, 1\]",
        ),
    ],
    ids=["no scale", "operator", "NaN", "blocks", "blocks of a whole axis"],
)
def test_a_quantised_network_that_will_not_do(tmp_path: Path, graph: Graph, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        in_integers(write_model(tmp_path / "net.onnx", graph, (1, 8, 8, 8)))
    assert "\n" not in caught.value.message and caught.value.remedy


@pytest.mark.parametrize(
    ("name", "why", "step"),
    [
        ("int16", "reads a tensor that is not quantised", 3e-4),
        ("resize", "no int8 kernel", 0.1),
        ("u8w", "its output is not quantised", 1e-4),
    ],
)
def test_a_network_without_a_layer_in_integers_is_in_float32(name: str, why: str, step: float) -> None:
    path = Path(__file__).parents[1] / "cases" / f"qdq_{name}.onnx"
    ready, imported = in_integers(path), load(path)
    image = noise(1, imported.spec.input_shape)
    assert ready.integers is None and {layer.why for layer in ready.network.float32_layers} == {why}
    assert steps_off(run(ready.network, image), imported.compute([image])[0], step).max() < 1.01


@pytest.mark.parametrize(("board", "dtype", "why"), [("pi5", "int8", []), ("pi4", "float32", ["weights beyond -127 to 127 steps"])])
def test_the_least_integer_as_a_weight(tmp_path: Path, board: str, dtype: str, why: list[str]) -> None:
    """PyTorch's observers make it of weights that are as far below 0 as the largest are above it."""
    weights = np.array(quantised_convolution().constants["w"])
    weights[::2, 0], weights[1::2, 3] = -128, 127
    path = write_model(tmp_path / "net.onnx", quantised_convolution(w=weights), (1, 8, 8, 8))
    ready, image = in_integers(path, board), 3 * noise(1, (1, 8, 8, 8))
    assert convolutions(ready) == [dtype] and [layer.why for layer in ready.network.float32_layers] == why
    assert steps_off(run(ready.network, image), load(path).compute([image])[0], 0.05).max() < 1.01


def test_a_batch_norm_behind_a_convolution_of_integers(tmp_path: Path) -> None:
    """Training in integers leaves such a norm: each filter has the file's scale times a factor of its own, which may be negative."""
    draw, graph = (
        np.random.default_rng(6),
        quantised_convolution(w=np.random.default_rng(5).integers(-127, 128, (8, 8, 3, 3)).astype(np.int8)),
    )
    norm = {
        "gamma": draw.normal(0, 1, 8),
        "beta": draw.normal(0, 1, 8),
        "mean": draw.normal(0, 1, 8),
        "variance": draw.uniform(1, 9, 8),
    }
    graph.nodes.insert(4, helper.make_node("BatchNormalization", ["c", *norm], ["n"]))
    graph.nodes[5].input[0] = "n"
    constants = graph.constants | {name: array.astype(np.float32) for name, array in norm.items()}
    path = write_model(tmp_path / "net.onnx", Graph(graph.nodes, constants), (1, 8, 8, 8))
    ready, image = in_integers(path), 0.3 * noise(1, (1, 8, 8, 8))
    assert convolutions(ready) == ["int8"] and ready.network.float32_layers == () and ready.integers is not None
    expected = run_onnxruntime(path, image)
    off = steps_off(ready.integers.outputs(image), expected, 0.05)
    assert off.max() < 1.01 and (off > 0.5).mean() < 0.02 and np.ptp(expected) > 3


@pytest.mark.parametrize("operator", ["Add", "Concat", "MatMul", "Mul"])
@pytest.mark.parametrize(("operands", "kind"), [("q p", "uint8"), ("q k", "int8"), ("k q", "uint8")])
def test_operators_between_integers_of_different_scales(tmp_path: Path, operator: str, operands: str, kind: str) -> None:
    """Between two activations, or one and a constant in either place, they become what ONNX Runtime computes in integers."""
    low, constants = np.iinfo(kind).min, dict[str, Array]()
    for name, scale, zero in (("q", 0.05, 118), ("p", 0.07, 131), ("k", 0.03, 125), ("r", 0.2, 122)):
        constants |= {f"{name}s": np.array(scale, np.float32), f"{name}z": np.array(low + zero, kind)}
    constants["k"] = (low + np.random.default_rng(3).integers(64, 192, (1, 4, 8, 8))).astype(kind)
    read, result = [f"{name}{part}" for name in operands.split() for part in ("", "s", "z")], ["rs", "rz"]
    behind = {"axis": 1, "domain": "com.microsoft"} if operator == "Concat" else {"domain": "" if operator == "MatMul" else "com.microsoft"}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "qs", "qz"], ["q"]),
        helper.make_node("QuantizeLinear", ["x", "ps", "pz"], ["straight"]),
        helper.make_node("Transpose", ["straight"], ["p"], perm=[0, 1, 3, 2]),
        helper.make_node(f"QLinear{operator}", [*result, *read] if operator == "Concat" else [*read, *result], ["r"], **behind),
        helper.make_node("DequantizeLinear", ["r", *result], ["y"]),
    ]
    path, image = (
        write_model(tmp_path / "net.onnx", Graph(nodes, constants), (1, 4, 8, 8), domains=["com.microsoft"]),
        noise(1, (1, 4, 8, 8)),
    )
    expected, (output,) = run_onnxruntime(path, image), start_onnx_runtime(without_integers(onnx.load(path))[0], ["x"])[1]([image])
    off = steps_off(output, expected, 0.2)
    assert off.max() < 1.01 and (off > 0.5).mean() < 0.02 and np.ptp(expected) > 2


INTEGER_OPERATORS = {
    "Clip": ("Clip", "q low high", "q", {}),
    "Clip without a bound": ("Clip", "q  high", "q", {}),
    "ReduceMax": ("ReduceMax", "q", "q", {"axes": [2, 3]}),
    "Where": ("Where", "chosen q k", "q", {}),
    "Where of others": ("QLinearWhere", "chosen q qs qz k ks kz rs rz", "r", {"domain": "com.microsoft"}),
    "another scale": ("Identity", "q", "r", {}),
}


@pytest.mark.parametrize("name", INTEGER_OPERATORS)
@pytest.mark.parametrize(("kind", "opset"), [("uint8", 17), ("int8", 17), ("uint8", 21)])
def test_operators_on_integers(tmp_path: Path, name: str, kind: str, opset: int) -> None:
    """They become what ONNX Runtime computes in integers."""
    low, draw = np.iinfo(kind).min, np.random.default_rng(3)
    constants: dict[str, Array] = {"low": np.array(low + 100, kind), "high": np.array(low + 150, kind)}
    for scale, zero, which in ((0.05, 118, "q"), (0.03, 125, "k"), (0.02, 122, "r")):
        constants |= {f"{which}s": np.array(scale, np.float32), f"{which}z": np.array(low + zero, kind)}
    constants["k"] = (low + draw.integers(64, 192, (1, 4, 8, 8))).astype(kind)
    constants["chosen"] = draw.integers(0, 2, (1, 4, 8, 8)).astype(bool)
    operator, read, scaled, behind = INTEGER_OPERATORS[name]
    if operator == "ReduceMax" and opset > 17:
        constants["axes"], read, behind = np.array([2, 3]), "q axes", {}
    constants["w"] = draw.normal(0, 0.5, (4, 4, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "qs", "qz"], ["q"]),
        helper.make_node(operator, read.split(" "), ["a"], **behind),
        helper.make_node("DequantizeLinear", ["a", f"{scaled}s", f"{scaled}z"], ["y"]),
    ]
    image = noise(1, (1, 4, 8, 8))
    path = write_model(tmp_path / "net.onnx", Graph(nodes, constants), image.shape, opset=opset, domains=["com.microsoft"])
    expected, (output,) = run_onnxruntime(path, image), start_onnx_runtime(without_integers(onnx.load(path))[0], ["x"])[1]([image])
    step = float(constants[f"{scaled}s"])
    off = steps_off(output, expected, step)
    assert output.shape == expected.shape and off.max() < 1.01 and (off > 0.5).mean() < 0.02 and np.ptp(expected) > 10 * step
    assert load(path).spec.outputs[0].shape == expected.shape


def test_places_of_integers(tmp_path: Path) -> None:
    graph = quantised_convolution()
    graph.nodes[-1].CopyFrom(helper.make_node("ArgMax", ["p"], ["y"], axis=1))
    path, image = write_model(tmp_path / "net.onnx", graph, (1, 8, 8, 8)), noise(1, (1, 8, 8, 8))
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    onnx.save(model, path)
    output, expected = run(in_integers(path).network, image), run_onnxruntime(path, image)
    assert output.dtype == np.int64 and (output != expected).mean() < 0.02


def test_constants_that_integers_are_joined_with(tmp_path: Path) -> None:
    """They are not rounded as the integers are, beyond which they may lie."""
    weights = np.random.default_rng(0).integers(-63, 64, (4, 4, 1, 1)).astype(np.int8)
    first = quantised_convolution(w=weights, ws=np.full(4, 0.01, np.float32), wz=np.zeros(4, np.int8))
    for node in first.nodes:
        for names in (node.input, node.output):
            names[:] = [name if name == "x" else f"{name}0" for name in names]
    second = quantised_convolution(js=np.array(0.2, np.float32), ps=np.array(1.0, np.float32))
    constants = {"k": np.linspace(-20, 20, 256, dtype=np.float32).reshape(1, 4, 8, 8)}
    second.nodes[0].input[0], second.nodes[3].input[0] = "y0", "jd"
    for node in second.nodes[4:]:
        node.input[1] = "ps"
    joined = [
        helper.make_node("Concat", ["d", "k"], ["j"], axis=1),
        helper.make_node("QuantizeLinear", ["j", "js", "z"], ["jq"]),
        helper.make_node("DequantizeLinear", ["jq", "js", "z"], ["jd"]),
    ]
    constants |= second.constants | {f"{name}0": array for name, array in first.constants.items()}
    graph = Graph([*first.nodes, *second.nodes[:2], *joined, *second.nodes[2:]], constants)
    path, image = write_model(tmp_path / "net.onnx", graph, (1, 4, 8, 8)), noise(1, (1, 4, 8, 8))
    ready, expected = in_integers(path), run_onnxruntime(path, image)
    assert convolutions(ready)[-1] == "int8" and np.ptp(expected) > 20
    assert steps_off(run(ready.network, image), expected, 1.0).max() < 1.01


@pytest.mark.parametrize(("opset", "axis"), [(17, {"axis": -1}), (17, {"axis": 1}), (12, {}), (12, {"axis": 2})])
def test_softmax_of_integers(tmp_path: Path, opset: int, axis: dict[str, int]) -> None:
    """ONNX Runtime's quantizer adds an attribute that `Softmax` does not have, the version of the file's operators."""
    constants = {"qs": np.float32(0.05), "qz": np.uint8(100), "rs": np.float32(1 / 256), "rz": np.uint8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "qs", "qz"], ["q"]),
        helper.make_node("QLinearSoftmax", ["q", "qs", "qz", "rs", "rz"], ["r"], domain="com.microsoft", opset=opset, **axis),
        helper.make_node("DequantizeLinear", ["r", "rs", "rz"], ["y"]),
    ]
    graph = Graph(nodes, {name: np.asarray(value) for name, value in constants.items()})
    path, image = tmp_path / "net.onnx", 3 * noise(1, (1, 4, 8, 8))
    write_model(path, graph, image.shape, opset=opset, domains=["com.microsoft"])
    expected, (output,) = run_onnxruntime(path, image), start_onnx_runtime(without_integers(onnx.load(path))[0], ["x"])[1]([image])
    off = steps_off(output, expected, 1 / 256)
    assert off.max() < 1.01 and (off > 0.5).mean() < 0.05 and np.ptp(expected) > 0.1


def after(operators: list[str]) -> Graph:
    """Return a convolution of integers with operators behind it that read real numbers; `Add` adds the input."""
    graph, data = quantised_convolution(), "c"
    nodes = graph.nodes[:4]
    for place, operator in enumerate(operators):
        read = {"Add": [data, "x"], "Mul": [data, f"{place - 1}"]}.get(operator, [data])
        nodes.append(helper.make_node(operator, read, ["y" if place == len(operators) - 1 else f"{place}"]))
        data = data if operators[place + 1 : place + 2] == ["Mul"] else f"{place}"
    return Graph(nodes, graph.constants)


@pytest.mark.parametrize("operators", [["Relu"], ["Sigmoid", "Mul"], ["HardSwish"], ["LeakyRelu"], ["Add", "Relu"]], ids="-".join)
def test_an_output_that_is_not_rounded(tmp_path: Path, operators: list[str]) -> None:
    """The sums are integers; the steps behind them are a kernel in float32."""
    path = write_model(tmp_path / "net.onnx", after(operators), (1, 8, 8, 8))
    ready, image = in_integers(path), noise(1, (1, 8, 8, 8))
    assert convolutions(ready) == ["int8", "float32"] and len(ready.network.float32_layers) == 1
    assert relative_error(run(ready.network, image), load(path).compute([image])[0]) < 1e-5


def test_an_output_that_is_also_rounded_for_another(tmp_path: Path) -> None:
    """The sums are returned as they are; the rounding behind them is a kernel of its own."""
    graph = quantised_convolution(w=np.random.default_rng(2).integers(-63, 64, (8, 8)).astype(np.int8))
    graph.nodes[3].CopyFrom(helper.make_node("Gemm", ["d", "r"], ["c"], transB=1))
    path = write_model(tmp_path / "net.onnx", graph, (1, 8), outputs=["c"])
    model = onnx.load(str(path))
    for value in model.graph.output:
        del value.type.tensor_type.shape.dim[2:]
    onnx.save(model, str(path))
    ready, image = in_integers(path), noise(1, (1, 8))
    assert ready.integers is not None
    for found, expected in zip(ready.integers.results([image]), load(path).compute([image]), strict=True):
        assert relative_error(found, expected) < 1e-5


def test_operators_on_integers_of_a_version_without_round(tmp_path: Path) -> None:
    """ONNX Runtime computes them all the same."""
    graph = quantised_convolution(ws=np.array(0.01, np.float32), wz=np.array(0, np.int8))
    convolved = helper.make_node("QLinearConv", ["q", "s", "z", "w", "ws", "wz", "s", "z"], ["p"])
    graph.nodes[1:5] = [convolved]
    path, image = write_model(tmp_path / "net.onnx", graph, (1, 8, 8, 8), opset=10), noise(1, (1, 8, 8, 8))
    imported, expected = load(path), run_onnxruntime(path, image)
    assert imported.reference_program.startswith("ONNX Runtime")
    off = steps_off(imported.compute([image])[0], expected, 0.05)
    assert off.max() < 1.01 and (off > 0.5).mean() < 0.02


def test_a_filter_of_zeros_has_any_scale(tmp_path: Path) -> None:
    """Some tools give it 0."""
    integers, scales = (np.array(quantised_convolution().constants[name]) for name in ("w", "ws"))
    integers[3], scales[3] = 0, 0
    path = write_model(tmp_path / "net.onnx", quantised_convolution(w=integers, ws=scales), (1, 8, 8, 8))
    ready, image = in_integers(path), noise(1, (1, 8, 8, 8))
    assert ready.integers is not None and len(ready.integers.steps) == 1
    assert steps_off(ready.integers.outputs(image), run_onnxruntime(path, image), 0.05).max() < 1.01


def test_zero_points_and_saturation(tmp_path: Path) -> None:
    """Numbers beyond the integers become the nearest bound, and 0 is exact."""
    path = write_model(tmp_path / "net.onnx", quantised_convolution(scale=0.02), (1, 8, 8, 8))
    image = 2 * noise(1, (1, 8, 8, 8))
    expected = run_onnxruntime(path, image)
    ready = in_integers(path)
    assert ready.integers is not None
    assert steps_off(ready.integers.outputs(image), expected, 0.02).max() < 1.01
    assert expected.min() == pytest.approx(-129 * 0.02) and expected.max() == pytest.approx(126 * 0.02)


@pytest.mark.parametrize(
    ("kernel", "pads", "scales"), [(2, [0] * 4, None), (3, [0] * 4, None), (3, [0] * 4, [0.01, 0.02, 0.04, 0.03]), (4, [1] * 4, None)]
)
def test_a_transposed_convolution_with_scales_per_channel(tmp_path: Path, kernel: int, pads: list[int], scales: list[float] | None) -> None:
    """Its filters are cut into those of each pixel that a place makes, whose scales are the file's, also where one is twice another."""
    draw = np.random.default_rng(kernel)
    constants = {
        "w": draw.integers(-127, 128, (16, 8, kernel, kernel)).astype(np.int8),
        "ws": np.float32(np.repeat(scales, 2) if scales else draw.uniform(0.005, 0.03, 8)),
        "wz": np.zeros(8, np.int8),
        "s": np.float32(0.03),
        "so": np.float32(0.3),
        "z": np.int8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["real"], axis=1),
        helper.make_node("ConvTranspose", ["d", "real"], ["c"], strides=[2, 2], pads=pads),
        helper.make_node("QuantizeLinear", ["c", "so", "z"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "so", "z"], ["y"]),
    ]
    path = write_model(tmp_path / "net.onnx", Graph(nodes, {name: np.asarray(value) for name, value in constants.items()}), (1, 16, 8, 8))
    ready, image = in_integers(path), noise(1, (1, 16, 8, 8))
    assert ready.integers is not None and convolutions(ready) == ["int8"]
    expected = run_onnxruntime(path, image)
    output, (rows, columns) = ready.integers.outputs(image), expected.shape[2:]
    side = math.isqrt(output.size // 8)  # of the image before its last pixels are cut off
    output = output.reshape(1, 8, side, side)[:, :, :rows, :columns]
    assert steps_off(output, expected, 0.3).max() < 1.01 and (output != expected).mean() < 0.02


@pytest.mark.parametrize("operator", ["ConvInteger", "MatMulInteger"])
@pytest.mark.parametrize("zeros", [[], ["z"], ["other"], ["", "wz"], ["z", "wz"]], ids=" ".join)
def test_products_of_integers_whose_zero_points_are_others(tmp_path: Path, operator: str, zeros: list[str]) -> None:
    """One that is omitted is 0, whatever rounded the tensor has."""
    shape = (1, 8, 8, 8) if operator == "ConvInteger" else (1, 8)
    constants = {
        "s": np.float32(0.05),
        "z": np.uint8(118),
        "other": np.uint8(90),
        "w": np.random.default_rng(0).integers(-63, 64, (8, 8, *[1] * (len(shape) - 2))).astype(np.int8),
        "wz": np.int8(3),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node(operator, ["q", "w", *zeros], ["sums"]),
        helper.make_node("Cast", ["sums"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    path, image = tmp_path / "net.onnx", noise(1, shape)
    write_model(path, Graph(nodes, {name: np.asarray(value) for name, value in constants.items()}), shape)
    model = onnx.load(str(path))
    del model.graph.output[0].type.tensor_type.shape.dim[len(shape) :]
    onnx.save(model, str(path))
    expected, imported = run_onnxruntime(path, image), load(path)
    assert np.array_equal(imported.compute([image])[0], expected)
    assert relative_error(run(network_of(imported), image), expected) < 1e-6


def weights_with_scales(data_type: int, w: list[float], shape: tuple[int, ...], scales: Array, path: Path, **attributes: int) -> Path:
    """Return a matrix product of weights that become real numbers by scales."""
    node = helper.make_node("DequantizeLinear", ["w", "ws"], ["r"], **attributes)
    graph = Graph([node, helper.make_node("MatMul", ["x", "r"], ["y"])], {"ws": scales})
    write_model(path, graph, (1, shape[0]), opset=21, ir_version=10)
    model = onnx.load(str(path))
    model.graph.initializer.append(helper.make_tensor("w", data_type, shape, w))
    del model.graph.output[0].type.tensor_type.shape.dim[2:]
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("kind", ["FLOAT8E4M3FN", "FLOAT8E5M2"])
@pytest.mark.parametrize("scale", [np.float32(0.5), np.float32([0.5, 0.25, 2])])
def test_weights_of_eight_bits_in_floating_point(tmp_path: Path, kind: str, scale: Array) -> None:
    """They have fractions, and stay in float32 beside int8."""
    weights = np.random.default_rng(2).normal(0, 1, 48).tolist()
    path = weights_with_scales(getattr(onnx.TensorProto, kind), weights, (16, 3), scale, tmp_path / "net.onnx", axis=1)
    imported, image = load(path), noise(1, (1, 16))
    expected = run_onnxruntime(path, image)
    assert np.ptp(expected) > 0.5 and imported.parameters == 48
    assert relative_error(run(network_of(imported), image), expected) < 1e-6
    assert relative_error(run(in_integers(path).network, image), expected) < 1e-6


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_with_a_scale_for_each_block(tmp_path: Path, axis: int) -> None:
    """The last block may be smaller."""
    extents, weights = [[3, 8], [20, 1]][axis], np.random.default_rng(2).integers(-8, 8, 160).tolist()
    scales = np.random.default_rng(3).uniform(0.1, 1, extents).astype(np.float32)
    path = weights_with_scales(onnx.TensorProto.INT4, weights, (20, 8), scales, tmp_path / "net.onnx", axis=axis, block_size=8)
    imported, image = load(path), noise(1, (1, 20))
    assert imported.parameters == 160
    (expected,) = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"x": image})
    assert relative_error(run(network_of(imported), image), expected) < 1e-6
    assert relative_error(run(in_integers(path).network, image), expected) < 1e-6
    other = weights_with_scales(onnx.TensorProto.INT4, weights, (20, 8), scales[:1, :1], path, axis=axis, block_size=8)
    with pytest.raises(UserError, match=rf"weights \[20, 8\] with scales \[1, 1\], not one for each 8 places of axis {axis}"):
        load(other)


@pytest.mark.parametrize("operator", ["Cast", "QuantizeLinear"])
def test_activations_of_eight_bits_in_floating_point_are_refused(tmp_path: Path, operator: str) -> None:
    kind = onnx.TensorProto.FLOAT8E4M3FN
    rounded = (
        [helper.make_node("Cast", ["x"], ["q"], to=kind), helper.make_node("Cast", ["q"], ["d"], to=onnx.TensorProto.FLOAT)]
        if operator == "Cast"
        else [
            helper.make_node("QuantizeLinear", ["x", "s"], ["q"], output_dtype=kind),
            helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        ]
    )
    graph = Graph([*rounded, helper.make_node("MatMul", ["d", "w"], ["y"])], {"w": np.eye(8, dtype=np.float32), "s": np.float32([1])})
    path = write_model(tmp_path / "net.onnx", graph, (1, 1, 8, 8), opset=21, ir_version=10)
    with pytest.raises(UserError, match=rf"the tensor 'q' \(of {operator}\) is float8e4m3fn, which no kernel has") as caught:
        load(path)
    assert caught.value.remedy


@pytest.mark.parametrize("read", ["activations", "weights", "integers"])
def test_what_is_quantised_outside_of_a_branch(tmp_path: Path, read: str) -> None:
    """A branch reads the real numbers; integers would have lost their scale on the way."""
    made = quantised_convolution()
    steps, convolve, rest = made.nodes[:3], made.nodes[3], made.nodes[4:]
    inside = [helper.make_node("Relu", ["d"], ["inner"])]
    if read == "weights":
        inside = [convolve]
    elif read == "integers":
        inside = [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["inner"])]
    kind = onnx.TensorProto.FLOAT
    output = helper.make_tensor_value_info(inside[0].output[0], kind, None)
    branch = helper.make_graph(inside, "branch", [], [output])
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["other"])], "other", [], [helper.make_tensor_value_info("other", kind, None)]
    )
    chosen = helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=other)
    nodes = [*steps, chosen, *([convolve] if read != "weights" else []), *rest]
    (rest[0] if read == "weights" else convolve).input[0] = "chosen"
    path = write_model(tmp_path / "net.onnx", Graph(nodes, {**made.constants, "yes": np.array(True)}), (1, 8, 8, 8))
    if read == "integers":
        with pytest.raises(UserError, match=r"a graph within If \(chosen\) reads the integers q"):
            load(path)
        return
    image = noise(1, (1, 8, 8, 8))
    assert steps_off(run(network_of(load(path)), image), run_onnxruntime(path, image), 0.05).max() < 1.01
