"""Transforms of real numbers to complex ones, and files that leave extents open, beside LiteRT's own runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from litert_files import LiteRtFile, agrees, network_in, refused, schema

from tvmmobile.networks.own.litert.operators import onnx_of


@pytest.mark.parametrize(("lengths", "shape"), [((1, 8), (2, 1, 8)), ((1, 16), (1, 3, 1, 16)), ((4, 8), (2, 4, 8)), ((4, 4), (1, 2, 6))])
@pytest.mark.parametrize("kind", ["REAL", "IMAG", "COMPLEX_ABS", "CAST"])
def test_transforms(kind: str, lengths: tuple[int, int], shape: tuple[int, ...]) -> None:
    file, bins = LiteRtFile(), (*shape[:-2], lengths[0], lengths[1] // 2 + 1)
    data, spectrum, out = file.tensor(shape), file.tensor(bins, "complex64"), file.tensor(bins)
    file.operator("RFFT2D", [data, file.int32(*lengths)], [spectrum], "Rfft2dOptions")
    file.operator(kind, [spectrum], [out])
    agrees(file.ends([data], [out]), [np.random.default_rng(0).standard_normal(shape, np.float32)])


def spectrogram(samples: int) -> bytes:
    """Return a convolution of frames' spectra, 16 samples every 6, whose number the file computes and does not say, and that number."""
    random, file = np.random.default_rng(1), LiteRtFile()

    def tensor(*shape: int, dtype: str = "float32") -> int:
        """Return a tensor whose extents of -1 the file leaves open."""
        number = file.tensor([max(extent, 1) for extent in shape], dtype)
        file.graph.tensors[number].shapeSignature = list(shape)
        return number

    def emit(kind: str, inputs: list[int], *shape: int, dtype: str = "float32", options: str = "", **values: Any) -> int:
        out = tensor(*shape, dtype=dtype)
        file.operator(kind, inputs, [out], options or f"{kind.title().replace('_', '')}Options", **values)
        return out

    def whole(kind: str, inputs: list[int], *shape: int, **values: Any) -> int:
        return emit(kind, inputs, *shape, dtype="int32", **values)

    def number(value: int) -> int:
        return file.tensor((), "int32", np.array(value))

    def pack(*numbers: int) -> int:
        return whole("PACK", list(numbers), len(numbers), valuesCount=len(numbers))

    data = tensor(-1, samples)
    extents = whole("SHAPE", [data], 2, outType=schema().TensorType.INT32)
    count = whole("STRIDED_SLICE", [extents, *(file.int32(place) for place in (1, 2, 1))], shrinkAxisMask=1)
    rows = whole("FLOOR_DIV", [count, number(2)])
    pairs = emit("RESHAPE", [data, pack(number(1), rows, number(2))], -1, -1, 2)
    frames = whole("ADD", [whole("FLOOR_DIV", [whole("SUB", [count, number(16)]), number(6)]), number(1)])
    starts = whole("MUL", [whole("RANGE", [number(0), frames, number(1)], -1), number(3)], -1)
    column = whole("RESHAPE", [starts, pack(frames, number(1))], -1, 1)
    places = whole("ADD", [column, file.int32(list(range(8)))], -1, 8)
    framed = emit("RESHAPE", [emit("GATHER", [pairs, places], -1, -1, 8, 2, axis=1), pack(number(1), frames, number(16))], -1, -1, 16)
    windowed = emit("MUL", [framed, file.tensor((16,), value=np.hanning(16))], -1, -1, 16)
    rowed = emit("EXPAND_DIMS", [windowed, number(-2)], -1, -1, 1, 16)
    spectrum = emit("RFFT2D", [rowed, file.int32(1, 16)], -1, -1, 1, 9, dtype="complex64", options="Rfft2dOptions")
    real = emit("CAST", [emit("SQUEEZE", [spectrum], -1, -1, 9, dtype="complex64", squeezeDims=[-2])], -1, -1, 9)
    image = emit("EXPAND_DIMS", [real, number(-1)], -1, -1, 9, 1)
    around = emit("PAD", [image, file.int32([0, 0], [1, 2], [0, 1], [0, 0])], -1, -1, 10, 1)
    weight, bias = (file.tensor(shape, value=random.standard_normal(shape)) for shape in ((4, 3, 3, 1), (4,)))
    out = emit("CONV_2D", [around, weight, bias], -1, -1, 5, 4, options="Conv2DOptions", strideH=2, strideW=2)
    return file.ends([data], [out, frames])


@pytest.mark.parametrize("samples", [60, 62, 64])
def test_a_number_of_frames_that_the_file_does_not_say(samples: int) -> None:
    content = spectrogram(samples)
    agrees(content, [np.random.default_rng(2).standard_normal((1, samples), np.float32)])
    described = [[extent.dim_value for extent in output.type.tensor_type.shape.dim] for output in onnx_of(network_in(content)).graph.output]
    frames = (samples - 16) // 6 + 1
    assert described == [[1, (frames + 4) // 2, 5, 4], []]


def test_complex_numbers_stay_inside() -> None:
    def chain(*kinds: str) -> str:
        """Refuse operators one after another, from real to complex numbers."""
        file = LiteRtFile()
        tensors = [file.tensor((1, 8)), *(file.tensor((1, 8), "complex64") for _ in kinds)]
        for place, kind in enumerate(kinds):
            file.operator(kind, [tensors[place]] * (1 + (kind == "MUL")), [tensors[place + 1]])
        return refused(file.ends(tensors[:1], tensors[-1:]))

    assert "tensor of a type that is not supported: tensor1" in chain("CAST")
    assert "has CAST to complex numbers, which is not supported" in chain("CAST", "RESHAPE")
    assert "tensor of a type that is not supported: tensor1" in chain("MUL", "RESHAPE")
