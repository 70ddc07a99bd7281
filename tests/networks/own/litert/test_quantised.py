"""Quantised LiteRT files beside LiteRT's own runtime: as integers on the host, imported, as libraries, and damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from litert_files import FILE, Array, LiteRtFile, agrees, by_litert, quantised_network, refused, schema, translated
from own_networks import load, network_of
from quantised import run, run_all
from quantised_files import in_integers

import tvmmobile
from tvmmobile.graph.layers import Conv2d, Gating, Opaque
from tvmmobile.kernels.reference import network_error
from tvmmobile.networks.own.litert.reader import read_litert
from tvmmobile.networks.signature import CHANNELS_LAST
from tvmmobile.running.emulation import run_here
from tvmmobile.running.library import Library
from tvmmobile.system.errors import UserError


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_quantised_networks(dtype: str) -> None:
    """Within a step of LiteRT's own integers, and mostly the same."""
    differ = []
    for seed in range(6):
        content, random = quantised_network(dtype, seed), np.random.default_rng(seed)
        inputs = [random.standard_normal((1, 16, 16, 3), np.float32)]
        (theirs,), (ours,) = by_litert(content, inputs), translated(content, inputs)
        differ.append(np.abs(theirs - ours) / np.float32(30 / 255))
    assert np.max(differ) < 1.01
    assert np.mean(np.concatenate(differ) > 0.5) < 0.2


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_integers_at_the_ends(dtype: str) -> None:
    content, random = quantised_network(dtype, 7, full=True), np.random.default_rng(7)
    bounds = np.iinfo(dtype)
    inputs = [random.integers(bounds.min, bounds.max + 1, (1, 16, 16, 3)).astype(dtype)]
    (theirs,), (ours,) = by_litert(content, inputs), translated(content, inputs)
    assert theirs.dtype == ours.dtype == dtype
    assert np.abs(theirs.astype(int) - ours).max() <= 1


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("full", [False, True])
def test_imported(tmp_path: Path, dtype: str, full: bool) -> None:
    """The image's channels last; its first convolution reads it, whatever it is stored in."""
    path = tmp_path / "net.tflite"
    path.write_bytes(quantised_network(dtype, 8, full))
    imported = load(path)
    assert imported.spec.name == "net" and imported.spec.takes[0].layout == CHANNELS_LAST
    assert imported.spec.takes[0].dtype == (dtype if full else "float32")
    assert imported.scales is not None and imported.parameters == 8 * 27 + 8 * 9 + 40 + 8 + 8 + 5
    network = in_integers(path).network
    first, *others = network.nodes
    assert isinstance(first.layer, Conv2d) and first.layer.reads == {"int8": "", "uint8": "uint8"}.get(
        imported.spec.takes[0].dtype, "float32"
    )
    assert [node.dtype for node in (first, *others) if isinstance(node.layer, Conv2d)] == ["int8"] * 3 and network.float32_layers == ()


def streaming(random: np.random.Generator, other: float, channels: int = 16) -> bytes:
    """A convolution of an image and the rows before it, which are an output, too, beside one of a network's int8 and uint8; `other` is the
    scale of those rows beside that of the image.
    """
    file = LiteRtFile()
    image, rows = (file.tensor((1, height, 4, 8), "int8", None, scale, -7) for height, scale in ((4, 0.05), (2, 0.05 * other)))
    same = rows if other == 1 else file.tensor((1, 2, 4, 8), "int8", None, 0.05, -7)
    joined, left = (file.tensor((1, height, 4, 8), "int8", None, 0.05, -7) for height in (6, 2))
    made, pooled = file.tensor((1, 4, 4, channels), "int8", None, 0.06, 3), file.tensor((1, channels), "int8", None, 0.06, 3)
    unsigned = file.tensor((1, channels), "uint8", None, 0.06, 131)
    scale = np.asarray(random.uniform(0.002, 0.02, channels), np.float32)
    weight = file.tensor((channels, 3, 1, 8), "int8", random.integers(-127, 128, (channels, 3, 1, 8)), scale)
    bias = file.tensor((channels,), "int32", random.integers(-500, 500, channels), np.float32(0.05) * scale)
    if other != 1:
        file.operator("QUANTIZE", [rows], [same], "QuantizeOptions")
    file.operator("CONCATENATION", [same, image], [joined], "ConcatenationOptions", axis=1)
    file.operator("CONV_2D", [joined, weight, bias], [made], "Conv2DOptions", padding=1, strideH=1, strideW=1)
    ends = file.int32(0, -2, 0, 0), file.int32(1, 6, 4, 8), file.int32(1, 1, 1, 1)
    file.operator("STRIDED_SLICE", [joined, *ends], [left], "StridedSliceOptions")
    file.operator("MEAN", [made, file.int32(1, 2)], [pooled], "ReducerOptions", keepDims=False)
    file.operator("QUANTIZE", [pooled], [unsigned], "QuantizeOptions")
    return file.ends([image, rows], [made, left, unsigned])


@pytest.mark.parametrize("other", [1.0, 0.7])
def test_several_inputs_and_outputs_of_integers(tmp_path: Path, other: float) -> None:
    """They are computed, joined and cut as integers; nothing is made real between where grids agree."""
    random, path = np.random.default_rng(21), tmp_path / "net.tflite"
    path.write_bytes(streaming(random, other))
    ready = in_integers(path)
    images = [random.integers(-128, 128, (1, height, 4, 8)).astype(np.int8) for height in (4, 2)]
    theirs, ours = by_litert(path.read_bytes(), images), run_all(ready.network, images)
    assert ready.integers is not None and not ready.network.float32_layers
    for their, our, exact in zip(theirs, ours, ready.integers.results(images), strict=True):
        assert their.dtype == our.dtype and np.abs(their.astype(int) - our).max() <= 1
        assert np.array_equal(our, exact)
    assert np.array_equal(theirs[1], ours[1])
    operators = [node.layer.operator for node in ready.network.nodes if isinstance(node.layer, Opaque)]
    assert [node.dtype for node in ready.network.nodes if isinstance(node.layer, Conv2d)] == ["int8"]
    assert operators[-2:] == ["strided_slice", "cast_add_cast"], operators
    assert (operators[:-2] == ["concatenate"]) == (other == 1), operators


def test_a_gate_of_real_numbers(tmp_path: Path) -> None:
    """Behind a convolution in integers it has no kernel of its own, and is a product of two tensors."""
    random, file = np.random.default_rng(12), LiteRtFile()
    data, real, mean, gate, out = (file.tensor((1, side, side, 8)) for side in (6, 6, 1, 1, 6))
    read, made = (file.tensor((1, 6, 6, 8), "int8", None, scale) for scale in (0.03, 0.05))
    scale = np.asarray(random.uniform(0.002, 0.02, 8), np.float32)
    weight = file.tensor((8, 1, 1, 8), "int8", random.integers(-127, 128, (8, 1, 1, 8)), scale, 0, 0)
    bias = file.tensor((8,), "int32", random.integers(-500, 500, 8), np.float32(0.03) * scale)
    file.operator("QUANTIZE", [data], [read], "QuantizeOptions")
    file.operator("CONV_2D", [read, weight, bias], [made], "Conv2DOptions", strideH=1, strideW=1)
    file.operator("DEQUANTIZE", [made], [real], "DequantizeOptions")
    file.operator("MEAN", [real, file.int32(1, 2)], [mean], "ReducerOptions", keepDims=True)
    file.operator("LOGISTIC", [mean], [gate])
    file.operator("MUL", [real, gate], [out], "MulOptions")
    path, image = tmp_path / "net.tflite", random.standard_normal((1, 6, 6, 8), np.float32)
    path.write_bytes(file.ends([data], [out]))
    ready = in_integers(path)
    assert [node.dtype for node in ready.network.nodes if isinstance(node.layer, Conv2d)] == ["int8"]
    assert not any(isinstance(node.layer, Gating) for node in ready.network.nodes)
    assert [layer.layer for layer in ready.network.float32_layers] == ["pool_6x6_8"]
    assert ready.integers is not None
    (theirs,) = by_litert(path.read_bytes(), [image])
    assert (np.abs(ready.integers.outputs(image) - theirs) > 0.051).mean() == 0


def test_a_window_of_many_channels(tmp_path: Path) -> None:
    """A convolution of 3×3 pixels with a stride."""
    random, file = np.random.default_rng(13), LiteRtFile()
    data, real = file.tensor((1, 7, 7, 8)), file.tensor((1, 4, 4, 6))
    read, made = file.tensor((1, 7, 7, 8), "int8", None, 0.03, 4), file.tensor((1, 4, 4, 6), "int8", None, 0.05, -3)
    scale = np.asarray(random.uniform(0.002, 0.02, 6), np.float32)
    weight = file.tensor((6, 3, 3, 8), "int8", random.integers(-127, 128, (6, 3, 3, 8)), scale, 0, 0)
    bias = file.tensor((6,), "int32", random.integers(-500, 500, 6), np.float32(0.03) * scale)
    file.operator("QUANTIZE", [data], [read], "QuantizeOptions")
    file.operator("CONV_2D", [read, weight, bias], [made], "Conv2DOptions", padding=0, strideH=2, strideW=2)
    file.operator("DEQUANTIZE", [made], [real], "DequantizeOptions")
    path, image = tmp_path / "net.tflite", random.standard_normal((1, 7, 7, 8), np.float32)
    path.write_bytes(file.ends([data], [real]))
    ready = in_integers(path)
    assert [node.dtype for node in ready.network.nodes if isinstance(node.layer, Conv2d)] == ["int8"] and ready.integers is not None
    (theirs,) = by_litert(path.read_bytes(), [image])
    assert np.abs(ready.integers.outputs(image) - theirs).max() < 0.051


def mixed_network(kind: str, seed: int) -> bytes:
    """Return a convolution, a depthwise one and a classifier with weights of int8 and activations of int16 or float32 between them."""
    random, file = np.random.default_rng(seed), LiteRtFile()
    image, inner, flat, steps = (1, 6, 6, 8), (1, 6, 6, 16), (1, 576), iter((3e-4, 5e-4, 5e-4, 5e-4, 5e-3))

    def activation(shape: tuple[int, ...]) -> int:
        return file.tensor(shape) if kind == "float32" else file.tensor(shape, kind, None, next(steps))

    scale = np.asarray(random.uniform(0.002, 0.02, 16), np.float32)

    def bias(read: float, scale: Array) -> int:
        if kind == "float32":
            return file.tensor(scale.shape, "float32", random.normal(0, 0.3, scale.shape))
        return file.tensor(scale.shape, "int64", random.integers(-500, 500, scale.shape), np.float32(read) * scale)

    data, one, two, row, out = map(activation, (image, inner, inner, flat, (1, 5)))
    weight = file.tensor((16, 3, 3, 8), "int8", random.integers(-127, 128, (16, 3, 3, 8)), scale)
    file.operator("CONV_2D", [data, weight, bias(3e-4, scale)], [one], "Conv2DOptions", strideH=1, strideW=1, fusedActivationFunction=1)
    weight = file.tensor((1, 3, 3, 16), "int8", random.integers(-127, 128, (1, 3, 3, 16)), scale, 0, 3)
    values = {"strideH": 1, "strideW": 1, "depthMultiplier": 1}
    file.operator("DEPTHWISE_CONV_2D", [one, weight, bias(5e-4, scale)], [two], "DepthwiseConv2DOptions", **values)
    file.operator("RESHAPE", [two, file.int32(*flat)], [row], "ReshapeOptions", newShape=list(flat))
    weight = file.tensor((5, 576), "int8", random.integers(-127, 128, (5, 576)), 0.01)
    file.operator("FULLY_CONNECTED", [row, weight, bias(5e-4, np.full(5, 0.01, np.float32))], [out], "FullyConnectedOptions")
    if kind == "float32":
        return file.ends([data], [out])
    given, real = file.tensor(image), file.tensor((1, 5))
    file.operator("QUANTIZE", [given], [data], "QuantizeOptions")
    file.operator("DEQUANTIZE", [out], [real], "DequantizeOptions")
    file.graph.operators.insert(0, file.graph.operators.pop(-2))
    return file.ends([given], [real])


@pytest.mark.parametrize(("kind", "most"), [("int16", 5.01e-3), ("float32", None)])
def test_activations_of_more_bits_than_weights_are_in_float32(tmp_path: Path, kind: str, most: float | None) -> None:
    """16-bit ones are rounded as in LiteRT; real ones are not, which its runtime rounds to eight bits by their own extremes."""
    path, image = tmp_path / "net.tflite", np.random.default_rng(3).standard_normal((1, 6, 6, 8), np.float32)
    path.write_bytes(mixed_network(kind, 5))
    ready, (theirs,) = in_integers(path), by_litert(path.read_bytes(), [image])
    assert ready.integers is None and [node.dtype for node in ready.network.nodes if node.dtype] == ["float32"] * 3
    off = np.abs(run(ready.network, image) - theirs).max()
    assert off <= (0.05 * np.abs(theirs).max() if most is None else most)
    (exact,) = translated(path.read_bytes(), [image]) if most is None else (theirs,)
    assert np.abs(run(ready.network, image) - exact).max() <= (1e-5 * np.abs(exact).max() if most is None else most)


def error_when_off(library: Library, steps: int) -> float:
    """Return the error that a check finds where each byte of the reference is some steps further from the library's."""
    with np.load(library.reference_path) as held:
        arrays = dict(held)
    right = arrays["integers"]
    np.savez(library.reference_path, **arrays | {"output": np.where(right > 0, right - steps, right + steps).astype(right.dtype)})
    of_agent = network_error(library.reference()[1], [right], library.facts.quantised)
    assert of_agent == run_here(library, 120).error
    return of_agent


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("dtype", "full", "board"),
    [("int8", False, "pi5"), ("int8", True, "pi5"), ("uint8", True, "pi5"), ("int8", True, "pi4"), ("uint8", True, "pi4")],
)
def test_a_library(tmp_path: Path, dtype: str, full: bool, board: str) -> None:
    """It returns what the integers on the host are, bit for bit, within a step of LiteRT's."""
    path = tmp_path / "net.tflite"
    path.write_bytes(quantised_network(dtype, 11, full))
    library = tvmmobile.compile(tvmmobile.load(path), board, dtype="int8", out=tmp_path / "out", logs=tmp_path)
    (image,), (expected,) = library.reference()
    output = library.run(image, board)
    assert output.dtype == expected.dtype and np.array_equal(output, expected)
    assert "float32_layers" not in library.manifest()
    if full:
        bounds = np.iinfo(dtype)
        image = np.random.default_rng(0).integers(bounds.min, bounds.max + 1, image.shape).astype(dtype)
        integers = in_integers(path, board).integers
        assert integers is not None
        output = library.run(image, board)
        assert np.array_equal(output, integers.outputs(image)) and output.std() > 10
        assert [error_when_off(library, steps) for steps in (0, 1, 2)] == [0.0, 0.0, 1.0]
    (theirs,) = by_litert(path.read_bytes(), [image])
    assert (np.abs(output - theirs.astype(float)) / (1 if full else np.float32(30 / 255))).max() < 1.01


def test_casts_of_quantised_integers() -> None:
    """Inputs keep their grid: the integers are cast, not the numbers that they represent."""
    file = LiteRtFile()
    data, out, back = file.tensor((1, 4), "int8", None, 0.3, 3), file.tensor((1, 4)), file.tensor((1, 4), "int8", None, 0.3, 3)
    file.operator("CAST", [data], [out], "CastOptions", inDataType=9, outDataType=0)
    content = file.ends([data], [out])
    agrees(content, [np.array([[-128, 1, 3, 127]], np.int8)])
    file.operator("CAST", [out], [back], "CastOptions", inDataType=0, outDataType=9)
    assert "CAST to quantised integers" in refused(file.ends([data], [back]))


def test_constants_behind_the_file() -> None:
    """Quantisers store such constants."""
    content, random = quantised_network("int8", 9), np.random.default_rng(9)
    model = schema().ModelT.InitFromPackedBuf(bytearray(content), 0)
    held = [(buffer, bytes(buffer.data)) for buffer in model.buffers if buffer.data is not None]

    def packed(begin: int) -> bytes:
        import flatbuffers

        for buffer, data in held:
            buffer.data, buffer.offset, buffer.size = None, begin, len(data)
            begin += -(-len(data) // 16) * 16
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    size = -(-len(packed(1 << 20)) // 16) * 16
    whole = packed(size).ljust(size, b"\0") + b"".join(data.ljust(-(-len(data) // 16) * 16, b"\0") for _, data in held)
    inputs = [random.standard_normal((1, 16, 16, 3), np.float32)]
    np.testing.assert_array_equal(translated(whole, inputs)[0], translated(content, inputs)[0])
    with pytest.raises(UserError, match="damaged or not a LiteRT file"):
        read_litert(FILE, whole[:-40])


def test_damaged_files_end_in_a_sentence() -> None:
    """Whichever bytes change, nothing but `UserError` is raised."""
    content, random, refusals = quantised_network("int8", 10), np.random.default_rng(10), 0
    for _ in range(300):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 4):
            damaged[place] = random.integers(256)
        try:
            read_litert(FILE, bytes(damaged))
        except UserError:
            refusals += 1
    assert refusals


@pytest.mark.parametrize("kind", ["CONV_2D", "FULLY_CONNECTED"])
def test_weights_of_four_bits(tmp_path: Path, kind: str) -> None:
    """Two are in each byte, the last byte of an odd number holds one; the runtime rounds activations, which are in float32 here."""
    random, file = np.random.default_rng(4), LiteRtFile()
    shape, image = ((7, 1, 1, 5), (1, 4, 4, 5)) if kind == "CONV_2D" else ((7, 5), (1, 5))
    weights, scales = random.integers(-8, 8, shape), random.uniform(0.05, 0.2, 7)
    data, out = file.tensor(image), file.tensor((*image[:-1], 7))
    weight = file.tensor(shape, "int8", weights, scales)
    options = ("Conv2DOptions", {"strideH": 1, "strideW": 1}) if kind == "CONV_2D" else ("FullyConnectedOptions", {})
    file.operator(kind, [data, weight, file.tensor((7,), value=np.zeros(7))], [out], options[0], **options[1])
    nibbles = np.append(weights.ravel() & 15, 0).astype(np.uint8)
    file.graph.tensors[weight].type = schema().TensorType.INT4
    file.model.buffers[-2].data = nibbles[::2] | nibbles[1::2] << 4
    path = tmp_path / "net.tflite"
    path.write_bytes(file.ends([data], [out]))
    given = random.standard_normal(image, np.float32)
    imported, exact = load(path), np.einsum("...i,oi->...o", given, weights.reshape(7, 5) * scales[:, None])
    for found in (run(network_of(imported), given), run(in_integers(path).network, given)):
        assert np.abs(found - exact).max() <= 1e-5 * np.abs(exact).max()
    assert np.abs(by_litert(path.read_bytes(), [given])[0] - exact).max() <= 0.02 * np.abs(exact).max()
