"""Quantised LiteRT files beside LiteRT's own runtime: as integers on the host, imported, as libraries, and damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from litert_files import FILE, LiteRtFile, by_litert, quantised_network, schema, translated
from own_networks import load
from quantised_files import in_integers

import tvmmobile
from tvmmobile.graph.layers import Conv2d, Gating
from tvmmobile.networks.own.litert_reader import read_litert
from tvmmobile.networks.signature import CHANNELS_LAST
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
    assert [node.dtype for node in (first, *others) if isinstance(node.layer, Conv2d)] == ["int8"] * 3 and network.kept == ()


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
    assert [one.layer for one in ready.network.kept] == ["pool_6x6_8"]
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
    (theirs,) = by_litert(path.read_bytes(), [image])
    assert (np.abs(output - theirs.astype(float)) / (1 if full else np.float32(30 / 255))).max() < 1.01


def test_constants_behind_the_file() -> None:
    """As quantisers store them."""
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
