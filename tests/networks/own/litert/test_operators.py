"""LiteRT's operators beside LiteRT's own runtime, and files that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from litert_files import IMAGE, LiteRtFile, agrees, by_litert, network_in, one, refused, schema, translated
from own_networks import TOLERANCE, error_of, load

from tvmmobile.networks.own.litert.operators import OPERATORS, onnx_of


def window(random: np.random.Generator) -> dict[str, Any]:
    """Padding and strides of a window, SAME or VALID."""
    stride = int(random.integers(1, 3))
    return {"padding": int(random.integers(2)), "strideH": stride, "strideW": stride}


def extent(values: dict[str, Any], size: int, kernel: int, dilation: int = 1) -> int:
    """Return the extent of a window's results for an image."""
    reach = dilation * (kernel - 1) + 1
    return -(-(size if values["padding"] == 0 else size - reach + 1) // values["strideH"])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolutions(seed: int, depthwise: bool) -> None:
    random, file = np.random.default_rng(seed), LiteRtFile()
    height, width, channels, kernel = (int(n) for n in random.integers((6, 6, 1, 1), (12, 12, 6, 4)))
    values = window(random)
    dilation = 1 if values["strideH"] > 1 else int(random.integers(1, 3))
    values |= {"dilationHFactor": dilation, "dilationWFactor": dilation, "fusedActivationFunction": int(random.choice([0, 1, 3]))}
    many = channels * int(random.integers(1, 3)) if depthwise else int(random.integers(1, 9))
    shape = (1, kernel, kernel, many) if depthwise else (many, kernel, kernel, channels)
    data = file.tensor((1, height, width, channels))
    around = file.tensor((1, height + 2, width + 1, channels))
    file.operator("PAD", [data, file.tensor((4, 2), "int32", np.array([[0, 0], [1, 1], [0, 1], [0, 0]]))], [around], "PadOptions")
    weight, bias = file.tensor(shape, value=random.standard_normal(shape)), file.tensor((many,), value=random.standard_normal(many))
    out = file.tensor((1, extent(values, height + 2, kernel, dilation), extent(values, width + 1, kernel, dilation), many))
    if depthwise:
        values["depthMultiplier"] = many // channels
    name = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    options = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
    file.operator(name, [around, weight, bias], [out], options, **values)
    content = file.ends([data], [out])
    agrees(content, [random.standard_normal((1, height, width, channels), np.float32)])
    assert "Pad" not in {node.op_type for node in onnx_of(network_in(content)).graph.node}


@pytest.mark.parametrize("seed", range(4))
def test_transposed_convolutions(seed: int) -> None:
    random, file = np.random.default_rng(seed), LiteRtFile()
    height, width, channels, many, kernel = (int(n) for n in random.integers((3, 3, 1, 1, 2), (7, 7, 5, 5, 5)))
    values = {"padding": int(random.integers(2)), "strideH": 2, "strideW": 2}
    extents = [size * 2 if values["padding"] == 0 else (size - 1) * 2 + kernel for size in (height, width)]
    shape, out = (many, kernel, kernel, channels), file.tensor((1, *extents, many))
    data = file.tensor((1, height, width, channels))
    wanted = file.tensor((4,), "int32", np.array((1, *extents, many)))
    file.operator(
        "TRANSPOSE_CONV", [wanted, file.tensor(shape, value=random.standard_normal(shape)), data], [out], "TransposeConvOptions", **values
    )
    agrees(file.ends([data], [out]), [random.standard_normal((1, height, width, channels), np.float32)])


@pytest.mark.parametrize(
    ("kind", "options", "values"),
    [
        *((kind, "", {}) for kind in ("ABS", "ELU", "LOGISTIC", "RELU", "RELU6", "RELU_N1_TO_1", "RSQRT", "SQRT", "TANH", "LOG")),
        ("EXP", "ExpOptions", {}),
        ("NEG", "NegOptions", {}),
        ("HARD_SWISH", "HardSwishOptions", {}),
        ("LEAKY_RELU", "LeakyReluOptions", {"alpha": 0.125}),
        ("GELU", "GeluOptions", {"approximate": False}),
        ("GELU", "GeluOptions", {"approximate": True}),
        ("SOFTMAX", "SoftmaxOptions", {"beta": 1.5}),
    ],
)
def test_each_element(kind: str, options: str, values: dict[str, Any]) -> None:
    agrees(*one(kind, options, **values), most=2e-6 if kind != "GELU" else 1e-5)


@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "PRELU", "POW"])
@pytest.mark.parametrize("other", [IMAGE, (3,), (1, 1, 1, 3), ()])
def test_pairs(kind: str, other: tuple[int, ...]) -> None:
    if kind == "PRELU" and other != (1, 1, 1, 3):
        other = (1, 1, 3)
    random, file = np.random.default_rng(2), LiteRtFile()
    data, out, more = file.tensor(IMAGE), file.tensor(IMAGE), np.asarray(random.uniform(0.5, 2, other), np.float32)
    options = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions"}.get(kind, "")
    constant = other != IMAGE
    second = file.tensor(other, value=more) if constant else file.tensor(other)
    file.operator(kind, [data, second], [out], options, **({"fusedActivationFunction": 1} if options else {}))
    image = random.standard_normal(IMAGE, np.float32)
    inputs = [np.abs(image) if kind == "POW" else image, *([] if constant else [more])]
    agrees(file.ends([data] if constant else [data, second], [out]), inputs)


@pytest.mark.parametrize("kind", ["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"])
@pytest.mark.parametrize(("axes", "keep"), [((1, 2), False), ((1, 2), True), ((-1,), True), ((3,), False), ((1,), False)])
def test_reductions(kind: str, axes: tuple[int, ...], keep: bool) -> None:
    file = LiteRtFile()
    places = [axis % 4 for axis in axes]
    shape = [1 if place in places else size for place, size in enumerate(IMAGE) if keep or place not in places]
    data, out = file.tensor(IMAGE), file.tensor(shape)
    file.operator(kind, [data, file.tensor((len(axes),), "int32", np.array(axes))], [out], "ReducerOptions", keepDims=keep)
    agrees(file.ends([data], [out]), [np.random.default_rng(3).standard_normal(IMAGE, np.float32)])


@pytest.mark.parametrize("kind", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize("seed", range(4))
def test_pools(kind: str, seed: int) -> None:
    random, file = np.random.default_rng(seed), LiteRtFile()
    height, width, kernel = (int(n) for n in random.integers((5, 5, 1), (12, 12, 4)))
    values = window(random)
    data, out = file.tensor((1, height, width, 3)), file.tensor((1, extent(values, height, kernel), extent(values, width, kernel), 3))
    file.operator(kind, [data], [out], "Pool2DOptions", filterHeight=kernel, filterWidth=kernel, **values)
    agrees(file.ends([data], [out]), [random.standard_normal((1, height, width, 3), np.float32)])


#: From the image and what it makes to the operator, with the shape of what it makes.
MOVES: dict[str, tuple[tuple[int, ...], Callable[[LiteRtFile, int, int], None]]] = {
    "reshape": ((1, 24, 3), lambda f, d, o: f.operator("RESHAPE", [d, f.int32(1, 24, 3)], [o], "ReshapeOptions")),
    "transpose": ((1, 3, 4, 6), lambda f, d, o: f.operator("TRANSPOSE", [d, f.int32(0, 3, 2, 1)], [o], "TransposeOptions")),
    "expand": ((1, 1, 6, 4, 3), lambda f, d, o: f.operator("EXPAND_DIMS", [d, f.int32(0)], [o], "ExpandDimsOptions")),
    "slice": ((1, 3, 4, 2), lambda f, d, o: f.operator("SLICE", [d, f.int32(0, 2, 0, 1), f.int32(1, 3, -1, 2)], [o], "SliceOptions")),
    "strided": (
        (1, 3, 4, 3),
        lambda f, d, o: f.operator(
            "STRIDED_SLICE",
            [d, f.int32(0, 1, 0, 0), f.int32(1, 6, 2, 0), f.int32(1, 2, 1, 1)],
            [o],
            "StridedSliceOptions",
            endMask=0b1101,
        ),
    ),
    "lengths": (
        (1, 2, 3, 3),
        lambda f, d, o: f.operator(
            "STRIDED_SLICE",
            [d, f.int32(0, -3, 1, 0), f.int32(1, 2, 3, 3), f.int32(1, 1, 1, 1)],
            [o],
            "StridedSliceOptions",
            offset=True,
        ),
    ),
    "shrunk": (
        (1, 4, 3),
        lambda f, d, o: f.operator(
            "STRIDED_SLICE",
            [d, f.int32(0, 2, 0, 0), f.int32(1, 3, 4, 3), f.int32(1, 1, 1, 1)],
            [o],
            "StridedSliceOptions",
            shrinkAxisMask=0b10,
        ),
    ),
    "shrunk of few": (
        (1, 4, 3),
        lambda f, d, o: f.operator(
            "STRIDED_SLICE", [d, f.int32(0, 2), f.int32(1, 3), f.int32(1, 1)], [o], "StridedSliceOptions", shrinkAxisMask=2
        ),
    ),
    "both shrunk": (
        (4, 3),
        lambda f, d, o: f.operator(
            "STRIDED_SLICE", [d, f.int32(0, 2), f.int32(1, 3), f.int32(1, 1)], [o], "StridedSliceOptions", shrinkAxisMask=3
        ),
    ),
    "few": (
        (1, 2, 4, 3),
        lambda f, d, o: f.operator("STRIDED_SLICE", [d, f.int32(0, 2), f.int32(1, 6), f.int32(1, 2)], [o], "StridedSliceOptions"),
    ),
    "backwards": (
        IMAGE,
        lambda f, d, o: f.operator(
            "STRIDED_SLICE",
            [d, f.int32(0, 0, 0, 0), f.int32(0, 0, 0, 0), f.int32(1, 1, 1, -1)],
            [o],
            "StridedSliceOptions",
            beginMask=15,
            endMask=15,
        ),
    ),
    "every other backwards": (
        (1, 2, 4, 2),
        lambda f, d, o: f.operator(
            "STRIDED_SLICE",
            [d, f.int32(0, -2, 3, 1), f.int32(1, 0, -5, 9), f.int32(1, -2, -1, 1)],
            [o],
            "StridedSliceOptions",
        ),
    ),
    "mirrored": (
        (1, 8, 5, 3),
        lambda f, d, o: f.operator("MIRROR_PAD", [d, f.int32([0, 0], [1, 1], [0, 1], [0, 0])], [o], "MirrorPadOptions", mode=0),
    ),
    "mirrored with the border": (
        (1, 12, 5, 3),
        lambda f, d, o: f.operator("MIRROR_PAD", [d, f.int32([0, 0], [6, 0], [0, 1], [0, 0])], [o], "MirrorPadOptions", mode=1),
    ),
    "padded": (
        (1, 8, 5, 4),
        lambda f, d, o: f.operator(
            "PADV2", [d, f.int32([0, 0], [1, 1], [0, 1], [1, 0]), f.tensor((), value=np.array(-2.0))], [o], "PadV2Options"
        ),
    ),
    "together": ((1, 6, 4, 6), lambda f, d, o: f.operator("CONCATENATION", [d, d], [o], "ConcatenationOptions", axis=3)),
    "below": ((1, 12, 4, 3), lambda f, d, o: f.operator("CONCATENATION", [d, d], [o], "ConcatenationOptions", axis=-3)),
    "fewer": ((1, 3, 2, 12), lambda f, d, o: f.operator("SPACE_TO_DEPTH", [d], [o], "SpaceToDepthOptions", blockSize=2)),
    "bilinear": (
        (1, 11, 9, 3),
        lambda f, d, o: f.operator("RESIZE_BILINEAR", [d, f.int32(11, 9)], [o], "ResizeBilinearOptions", halfPixelCenters=True),
    ),
    "corners": (
        (1, 11, 9, 3),
        lambda f, d, o: f.operator("RESIZE_BILINEAR", [d, f.int32(11, 9)], [o], "ResizeBilinearOptions", alignCorners=True),
    ),
    "nearest": (
        (1, 12, 9, 3),
        lambda f, d, o: f.operator("RESIZE_NEAREST_NEIGHBOR", [d, f.int32(12, 9)], [o], "ResizeNearestNeighborOptions"),
    ),
    "nearest centres": (
        (1, 12, 9, 3),
        lambda f, d, o: f.operator(
            "RESIZE_NEAREST_NEIGHBOR", [d, f.int32(12, 9)], [o], "ResizeNearestNeighborOptions", halfPixelCenters=True
        ),
    ),
    "greatest": ((1, 6, 4), lambda f, d, o: f.operator("ARG_MAX", [d, f.int32(3)], [o], "ArgMaxOptions", outputType=4)),
    "least": ((1, 6, 3), lambda f, d, o: f.operator("ARG_MIN", [d, f.int32(-2)], [o], "ArgMinOptions", outputType=4)),
}


@pytest.mark.parametrize("kind", ["REDUCE_ALL", "REDUCE_ANY"])
@pytest.mark.parametrize(("axes", "shape"), [((1, 2), (1, 3)), ((3,), (1, 6, 4))])
def test_reductions_of_booleans(kind: str, axes: tuple[int, ...], shape: tuple[int, ...]) -> None:
    file = LiteRtFile()
    data, positive, out = file.tensor(IMAGE), file.tensor(IMAGE, "bool"), file.tensor(shape, "bool")
    file.operator("GREATER", [data, file.tensor((1,), value=np.zeros(1))], [positive], "GreaterOptions")
    file.operator(kind, [positive, file.int32(*axes)], [out], "ReducerOptions")
    image = np.random.default_rng(3).standard_normal(IMAGE, np.float32)
    image[..., 0], image[0, 1] = np.abs(image[..., 0]), np.abs(image[0, 1])
    agrees(file.ends([data], [out]), [image])


@pytest.mark.parametrize("shape", [(1, 6, 4, 3), (2, 6, 3)])
def test_blocks(shape: tuple[int, ...]) -> None:
    """A border that makes whole blocks is cut off again, and more."""
    file, block = LiteRtFile(), (4, 3)[: len(shape) - 2]
    around, cut = [(1, 1), (0, 2)][: len(block)], [(1, 2), (0, 1)][: len(block)]
    parts, whole = [shape[0] * int(np.prod(block))], [shape[0]]
    for extent, step, border, lost in zip(shape[1:], block, around, cut, strict=False):
        parts.append((extent + sum(border)) // step)
        whole.append(extent + sum(border) - sum(lost))
    data, batch, out = file.tensor(shape), file.tensor([*parts, 3]), file.tensor([*whole, 3])
    file.operator("SPACE_TO_BATCH_ND", [data, file.int32(*block), file.int32(*around)], [batch], "SpaceToBatchNDOptions")
    file.operator("BATCH_TO_SPACE_ND", [batch, file.int32(*block), file.int32(*cut)], [out], "BatchToSpaceNDOptions")
    agrees(file.ends([data], [batch, out]), [np.random.default_rng(3).standard_normal(shape, np.float32)])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("depthwise", [False, True])
def test_a_convolution_of_blocks(depthwise: bool, dtype: str, tmp_path: Path) -> None:
    """Converters write dilated convolutions this way; the network compiles."""
    file, random = LiteRtFile(), np.random.default_rng(3)
    shape, block, around = (1, 7, 8, 4), file.int32(2, 2), file.int32((2, 3), (2, 2))
    grid = {} if dtype == "float32" else {"dtype": dtype, "scale": 0.05}
    data, batch, found, out = (file.tensor(some, **grid) for some in (shape, (4, 6, 6, 4), (4, 4, 4, 4), shape))
    kernel = (1, 3, 3, 4) if depthwise else (4, 3, 3, 4)
    weight = random.standard_normal(kernel) if dtype == "float32" else random.integers(-127, 128, kernel)
    weights = file.tensor(kernel, value=weight, **({"dtype": dtype, "scale": 0.01} if grid else {}))
    bias = file.tensor((4,), "int32", np.arange(4), 0.0005) if grid else file.tensor((4,), value=np.arange(4))
    file.operator("SPACE_TO_BATCH_ND", [data, block, around], [batch], "SpaceToBatchNDOptions")
    values = {"padding": 1, "strideH": 1, "strideW": 1, "fusedActivationFunction": 1}
    if depthwise:
        file.operator("DEPTHWISE_CONV_2D", [batch, weights, bias], [found], "DepthwiseConv2DOptions", depthMultiplier=1, **values)
    else:
        file.operator("CONV_2D", [batch, weights, bias], [found], "Conv2DOptions", **values)
    file.operator("BATCH_TO_SPACE_ND", [found, block, file.int32((0, 1), (0, 0))], [out], "BatchToSpaceNDOptions")
    content, path = file.ends([data], [out]), tmp_path / "net.tflite"
    path.write_bytes(content)
    assert {node.op_type for node in onnx_of(network_in(content)).graph.node}.isdisjoint({"Pad", "Reshape", "Slice"})
    image = random.standard_normal(shape, np.float32)
    if dtype == "float32":
        agrees(content, [image])
        imported = load(path)
        assert error_of(imported, tmp_path / "net.so") < TOLERANCE
    else:
        integers = np.clip(np.rint(20 * image), -128, 127).astype(np.int8)
        theirs, ours = by_litert(content, [integers]), translated(content, [integers])
        assert np.abs(theirs[0].astype(int) - ours[0]).max() <= 1


@pytest.mark.parametrize("name", MOVES)
def test_moves(name: str) -> None:
    """Also behind a convolution, whose channels are in front in ONNX."""
    shape, append = MOVES[name]
    random, file = np.random.default_rng(4), LiteRtFile()
    data, image, out = file.tensor(IMAGE), file.tensor(IMAGE), file.tensor(shape, "int64" if name in ("greatest", "least") else "float32")
    weight = file.tensor((3, 1, 1, 3), value=random.standard_normal((3, 1, 1, 3)))
    file.operator("CONV_2D", [data, weight, file.tensor((3,), value=np.ones(3))], [image], "Conv2DOptions", strideH=1, strideW=1)
    append(file, image, out)
    agrees(file.ends([data], [out]), [random.standard_normal(IMAGE, np.float32)])


@pytest.mark.parametrize("values", [{}, {"halfPixelCenters": True}, {"alignCorners": True}], ids=str)
def test_nearest_pixels(values: dict[str, bool]) -> None:
    """Also where rounding decides which of two is nearest: for ONNX Runtime, since ONNX's evaluator rounds otherwise."""
    file, random = LiteRtFile(), np.random.default_rng(5)
    inputs, outputs, images = [], [], []
    for _ in range(40):
        rows, columns, height, width = (int(extent) for extent in random.integers(1, 40, 4))
        inputs.append(file.tensor((1, rows, columns, 1)))
        outputs.append(file.tensor((1, height, width, 1)))
        images.append(random.standard_normal((1, rows, columns, 1), np.float32))
        operands = [inputs[-1], file.int32(height, width)]
        file.operator("RESIZE_NEAREST_NEIGHBOR", operands, outputs[-1:], "ResizeNearestNeighborOptions", **values)
    content = file.ends(inputs, outputs)
    model = onnx_of(network_in(content))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ours = session.run(None, {value.name: image for value, image in zip(model.graph.input, images, strict=True)})
    assert all(map(np.array_equal, ours, by_litert(content, images)))


def test_squeezed() -> None:
    file = LiteRtFile()
    data, mean, out = file.tensor(IMAGE), file.tensor((1, 1, 1, 3)), file.tensor((1, 3))
    file.operator("MEAN", [data, file.int32(1, 2)], [mean], "ReducerOptions", keepDims=True)
    file.operator("SQUEEZE", [mean], [out], "SqueezeOptions", squeezeDims=[1, 2])
    agrees(file.ends([data], [out]), [np.random.default_rng(3).standard_normal(IMAGE, np.float32)])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_casts(dtype: str) -> None:
    """Numbers are cut off towards zero."""
    file = LiteRtFile()
    data, whole, out = file.tensor(IMAGE), file.tensor(IMAGE, dtype), file.tensor(IMAGE)
    names = {"float32": 0, "int32": 2, "int64": 4}
    file.operator("CAST", [data], [whole], "CastOptions", inDataType=names["float32"], outDataType=names[dtype])
    file.operator("CAST", [whole], [out], "CastOptions", inDataType=names[dtype], outDataType=names["float32"])
    agrees(file.ends([data], [out, whole]), [9 * np.random.default_rng(3).standard_normal(IMAGE, np.float32)])


def test_unequal_splits() -> None:
    file = LiteRtFile()
    data, first, second = file.tensor(IMAGE), file.tensor((1, 1, 4, 3)), file.tensor((1, 5, 4, 3))
    file.operator("SPLIT_V", [data, file.int32(1, 5), file.int32(1)], [first, second], "SplitVOptions", numSplits=2)
    agrees(file.ends([data], [second, first]), [np.random.default_rng(3).standard_normal(IMAGE, np.float32)])


def test_depth_to_space_and_split() -> None:
    random, file = np.random.default_rng(5), LiteRtFile()
    data, first, second, out = file.tensor((1, 2, 3, 16)), file.tensor((1, 2, 3, 8)), file.tensor((1, 2, 3, 8)), file.tensor((1, 4, 6, 2))
    file.operator("SPLIT", [file.int32(3), data], [first, second], "SplitOptions", numSplits=2)
    file.operator("DEPTH_TO_SPACE", [second], [out], "DepthToSpaceOptions", blockSize=2)
    agrees(file.ends([data], [out, first]), [random.standard_normal((1, 2, 3, 16), np.float32)])


def test_products() -> None:
    random, file = np.random.default_rng(6), LiteRtFile()
    first, second, out = file.tensor((2, 3, 4)), file.tensor((2, 5, 4)), file.tensor((2, 3, 5))
    file.operator("BATCH_MATMUL", [first, second], [out], "BatchMatMulOptions", adjY=True)
    agrees(file.ends([first, second], [out]), [random.standard_normal((2, n, 4), np.float32) for n in (3, 5)])


@pytest.mark.parametrize("axis", [0, 1, 3, -1])
@pytest.mark.parametrize("shape", [(2, 3, 4), IMAGE])
def test_packed_and_unpacked(shape: tuple[int, ...], axis: int) -> None:
    random, file = np.random.default_rng(axis % 5), LiteRtFile()
    one, other, place = file.tensor(shape), file.tensor(shape), axis % (len(shape) + 1)
    packed = file.tensor((*shape[:place], 2, *shape[place:]))
    file.operator("PACK", [one, other], [packed], "PackOptions", axis=axis, valuesCount=2)
    along = axis % len(shape)
    parts = [file.tensor(shape[:along] + shape[along + 1 :]) for _ in range(shape[along])]
    file.operator("UNPACK", [other], parts, "UnpackOptions", axis=axis if axis < len(shape) else along, num=len(parts))
    agrees(file.ends([one, other], [packed, *parts]), [random.standard_normal(shape, np.float32) for _ in range(2)])


def test_a_shape_that_is_computed_from_the_input() -> None:
    file = LiteRtFile()
    data, extents, batch, target, out = (
        file.tensor(s, d) for s, d in ((IMAGE, "float32"), ((4,), "int32"), ((), "int32"), ((2,), "int32"), ((1, 72), "float32"))
    )
    file.operator("SHAPE", [data], [extents], "ShapeOptions", outType=schema().TensorType.INT32)
    file.operator(
        "STRIDED_SLICE", [extents, *(file.int32(number) for number in (0, 1, 1))], [batch], "StridedSliceOptions", shrinkAxisMask=1
    )
    file.operator("PACK", [batch, file.tensor((), "int32", np.array(72))], [target], "PackOptions", valuesCount=2)
    file.operator("RESHAPE", [data, target], [out], "ReshapeOptions")
    content, image = file.ends([data], [out, extents]), np.random.default_rng(5).standard_normal(IMAGE, np.float32)
    agrees(content, [image])
    assert {node.op_type for node in onnx_of(network_in(content)).graph.node} <= {"Transpose", "Reshape", "Identity"}


def composite(depth: int, constant: int = 1) -> bytes:
    """Return a file whose graphs call the next one twice, `depth` deep; the last computes 1 / √x and holds a constant of this size."""
    made, file = schema(), LiteRtFile()
    graphs = [file.graph]
    for level in range(depth + 1):
        data, middle, out = (file.tensor(IMAGE) for _ in range(3))
        if level == depth:
            file.operator("RSQRT", [data], [out])
            file.tensor((constant,), value=np.ones(constant))
        else:
            for given, wanted in ((data, middle), (middle, out)):
                file.operator("STABLEHLO_COMPOSITE", [given], [wanted])
                options = made.StableHLOCompositeOptionsT()
                options.name, options.decompositionSubgraphIndex, options.compositeAttributes = "twice", level + 1, []
                file.graph.operators[-1].builtinOptions2Type = made.BuiltinOptions2.StableHLOCompositeOptions
                file.graph.operators[-1].builtinOptions2 = options
        file.graph.inputs, file.graph.outputs = [data], [out]
        if level < depth:
            file.graph = made.SubGraphT()
            file.graph.tensors, file.graph.operators, file.graph.name = [], [], f"graph{level}"
            file.model.subgraphs.append(file.graph)
    file.graph = graphs[0]
    return file.ends(file.graph.inputs, file.graph.outputs)


def test_graphs_that_are_called() -> None:
    agrees(composite(2), [np.random.default_rng(6).uniform(0.5, 2, IMAGE).astype(np.float32)])
    assert "more than 10,000" in refused(composite(14))
    assert "too many more" in refused(composite(10, 1 << 20))
    assert "more than 20 deep" in refused(composite(21))


def test_several_signatures_of_one_graph(tmp_path: Path) -> None:
    """Names are those of the first signature that has one. Booleans and numbers become bytes and vectors."""
    file, draw = LiteRtFile(), np.random.default_rng(0)
    data, weight, bias = (
        file.tensor(IMAGE),
        file.tensor((4, 1, 1, 3), "float32", draw.normal(0, 1, (4, 1, 1, 3))),
        file.tensor((4,), value=np.zeros(4)),
    )
    out, flags, total = file.tensor((1, 6, 4, 4)), file.tensor((1, 6, 4, 4), "bool"), file.tensor(())
    file.operator("CONV_2D", [data, weight, bias], [out], "Conv2DOptions", strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    file.operator("GREATER", [out, file.tensor((), value=np.zeros(()))], [flags])
    file.operator("SUM", [out, file.int32(0, 1, 2, 3)], [total], "ReducerOptions", keepDims=False)
    signatures = [schema().SignatureDefT(), schema().SignatureDefT()]
    names = [(data, "image", "other"), (out, "scores", "output_0"), (flags, "", "flags"), (total, "", "total")]
    for which, signature in enumerate(signatures):
        signature.signatureKey, signature.inputs, signature.outputs = f"key{which}", [], []
        for number, *called in names:
            if called[which]:
                entry = schema().TensorMapT()
                entry.name, entry.tensorIndex = called[which], number
                (signature.inputs if number == data else signature.outputs).append(entry)
    file.model.signatureDefs = signatures
    path, image = tmp_path / "net.tflite", draw.normal(size=IMAGE).astype(np.float32)
    path.write_bytes(file.ends([data], [out, flags, total]))
    imported = load(path)
    ports = [(port.name, port.shape, port.dtype) for port in imported.spec.returns]
    assert ports == [("scores", (1, 6, 4, 4), "float32"), ("flags", (1, 6, 4, 4), "uint8"), ("total", (1,), "float32")]
    scores, flagged, summed = imported.compute([image])
    assert imported.reference_program.startswith("LiteRT") and (flagged.dtype, summed.shape) == (np.uint8, (1,))
    assert np.array_equal(scores > 0, flagged) and np.allclose(summed, scores.sum(), atol=1e-4)


def test_refused() -> None:
    assert "damaged or not a LiteRT file" in refused(b"")
    assert "damaged or not a LiteRT file" in refused(b"\x1c\0\0\0TFL3" + b"\xff" * 40)
    assert "an operator that is not supported: HASHTABLE" in refused(one("HASHTABLE")[0])
    file = LiteRtFile()
    data, out = file.tensor(IMAGE), file.tensor(IMAGE)
    file.operator("CUSTOM", [data], [out])
    file.model.operatorCodes[0].customCode = "FlexErf"
    assert "an operator that is not supported: FlexErf" in refused(file.ends([data], [out]))
    file.model.signatureDefs = [schema().SignatureDefT(), schema().SignatureDefT()]
    file.model.signatureDefs[1].subgraphIndex = 1
    assert "has 2 networks, not one" in refused(file.ends([data], [out]))
    file = LiteRtFile()
    data, out = file.tensor((1, 3), "string"), file.tensor((1, 3))
    file.operator("NEG", [data], [out], "NegOptions")
    assert "of a type that is not supported: tensor0" in refused(file.ends([data], [out]))
    file = LiteRtFile()
    data, shape, out = file.tensor(IMAGE), file.tensor((1, 1, 1, 3)), file.tensor((1, 6, 4, 1))
    file.operator("CONV_2D", [data, shape], [out], "Conv2DOptions", strideH=1, strideW=1)
    assert "computes tensor1, which must be a constant" in refused(file.ends([data, shape], [out]))


def test_all_operators_are_tested() -> None:
    """The name of each occurs in a test."""
    files = (*Path(__file__).parent.glob("test_*.py"), Path(__file__).parents[3] / "support/litert_files.py")
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    assert [kind for kind in OPERATORS if f'"{kind}"' not in text] == []


def test_an_input_that_a_file_lists_twice(tmp_path: Path) -> None:
    file = LiteRtFile()
    data, weight, out = file.tensor((2, 3)), file.tensor((4, 3), value=np.ones((4, 3))), file.tensor((2, 4))
    file.operator("FULLY_CONNECTED", [data, weight, -1], [out], "FullyConnectedOptions")
    path = tmp_path / "net.tflite"
    path.write_bytes(file.ends([data, data], [out]))
    assert [port.shape for port in load(path).spec.takes] == [(2, 3)]


@pytest.mark.parametrize("scale", [None, 0.1])
def test_an_output_that_is_an_input(scale: float | None) -> None:
    """The input and the output have names of their own."""
    file, kind = LiteRtFile(), "float32" if scale is None else "int8"
    data, out = (file.tensor((1, 5), kind, None, scale) for _ in range(2))
    file.operator("RELU", [data], [out])
    numbers = 9 * np.random.default_rng(3).standard_normal((1, 5))
    content = file.ends([data], [out, data])
    agrees(content, [numbers.astype(kind)])
    (entry,), ends = (onnx_of(network_in(content)).graph.input), onnx_of(network_in(content)).graph.output
    assert [entry.name, *(end.name for end in ends)] == ["tensor0", "tensor1", "tensor0/output"]


def test_real_numbers_with_a_scale() -> None:
    """LiteRT ignores it."""
    file = LiteRtFile()
    data, out = (file.tensor((1, 6), "float32", None, 0.05, 3) for _ in range(2))
    file.operator("TANH", [data], [out])
    agrees(file.ends([data], [out]), [np.random.default_rng(3).standard_normal((1, 6), np.float32)])


@pytest.mark.parametrize("known", [False, True])
def test_numbers_without_dimensions(known: bool) -> None:
    """A computed one stays one where a constant is the other operand; both can be packed, with or without another constant."""
    file, constant = LiteRtFile(), np.array(2.0)
    data, out, two = file.tensor((1, 6)), file.tensor((2 + known,)), file.tensor((), value=constant)
    scalars = [file.tensor(()) for _ in range(2)]
    file.operator("MEAN", [data, file.int32(0, 1)], scalars[:1], "ReducerOptions")
    file.operator("MUL", [scalars[0], two], scalars[1:], "MulOptions")
    packed = [*scalars, *([two] if known else [])]
    file.operator("PACK", packed, [out], "PackOptions", valuesCount=len(packed), axis=0)
    agrees(file.ends([data], [out]), [np.random.default_rng(3).standard_normal((1, 6), np.float32)])


def computed(file: LiteRtFile, data: int, *others: int) -> int:
    """Return a shape that is computed: the batch of a tensor, and other extents. The batch is open, as in files from Keras."""
    rank = len(file.graph.tensors[data].shape)
    file.graph.tensors[data].shapeSignature = [-1, *file.graph.tensors[data].shape[1:]]
    extents, batch, wanted = (file.tensor(shape, "int32") for shape in ((rank,), (), (1 + len(others),)))
    file.operator("SHAPE", [data], [extents], "ShapeOptions", outType=schema().TensorType.INT32)
    bounds = [file.int32(number) for number in (0, 1, 1)]
    file.operator("STRIDED_SLICE", [extents, *bounds], [batch], "StridedSliceOptions", shrinkAxisMask=1)
    numbers = [file.tensor((), "int32", np.array(number)) for number in others]
    file.operator("PACK", [batch, *numbers], [wanted], "PackOptions", valuesCount=1 + len(others))
    return wanted


def test_a_computed_shape_of_a_transposed_convolution() -> None:
    random, file = np.random.default_rng(5), LiteRtFile()
    data, out = file.tensor(IMAGE), file.tensor((1, 12, 8, 2))
    weight = file.tensor((2, 3, 3, 3), value=random.standard_normal((2, 3, 3, 3)))
    strides = {"padding": 0, "strideH": 2, "strideW": 2}
    file.operator("TRANSPOSE_CONV", [computed(file, data, 12, 8, 2), weight, data], [out], "TransposeConvOptions", **strides)
    agrees(file.ends([data], [out]), [random.standard_normal(IMAGE, np.float32)])


def test_computed_repeats_of_a_token() -> None:
    random, file = np.random.default_rng(5), LiteRtFile()
    data, tokens, out = file.tensor((1, 5, 6)), file.tensor((1, 1, 6)), file.tensor((1, 6, 6))
    token = file.tensor((1, 1, 6), value=random.standard_normal((1, 1, 6)))
    file.operator("TILE", [token, computed(file, data, 1, 1)], [tokens], "TileOptions")
    file.operator("CONCATENATION", [tokens, data], [out], "ConcatenationOptions", axis=1)
    agrees(file.ends([data], [out]), [random.standard_normal((1, 5, 6), np.float32)])


def test_frames_that_the_file_counts_to_the_batch() -> None:
    """Keras's `TimeDistributed` makes such files: they have 1 in place of an open batch, even if that is a product."""
    random, file = np.random.default_rng(5), LiteRtFile()
    data, frames, wide, out = file.tensor((1, 5, 6)), file.tensor((1, 6)), file.tensor((1, 4)), file.tensor((1, 5, 4))
    weight = file.tensor((4, 6), value=random.standard_normal((4, 6)))
    for number in (data, frames, wide, out):
        file.graph.tensors[number].shapeSignature = [-1, *file.graph.tensors[number].shape[1:]]
    file.operator("RESHAPE", [data, file.int32(-1, 6)], [frames], "ReshapeOptions")
    file.operator("FULLY_CONNECTED", [frames, weight, -1], [wide], "FullyConnectedOptions")
    file.operator("RESHAPE", [wide, file.int32(-1, 5, 4)], [out], "ReshapeOptions")
    agrees(file.ends([data], [out]), [random.standard_normal((1, 5, 6), np.float32)])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_sums_of_integers(dtype: str) -> None:
    file = LiteRtFile()
    data, out, rows = file.tensor((2, 5), dtype), file.tensor((2,), dtype), file.tensor((1, 5), dtype)
    file.operator("SUM", [data, file.int32(1)], [out], "ReducerOptions")
    file.operator("SUM", [data, file.int32(0)], [rows], "ReducerOptions", keepDims=True)
    agrees(file.ends([data], [out, rows]), [np.random.default_rng(3).integers(-9, 10, (2, 5)).astype(dtype)])


def test_a_product_of_two_activations() -> None:
    file, random = LiteRtFile(), np.random.default_rng(3)
    data, other, out = file.tensor((2, 6)), file.tensor((5, 6)), file.tensor((2, 5))
    file.operator("FULLY_CONNECTED", [data, other, -1], [out], "FullyConnectedOptions")
    agrees(file.ends([data, other], [out]), [random.standard_normal((rows, 6), np.float32) for rows in (2, 5)])


def test_rows_that_are_joined() -> None:
    file, random = LiteRtFile(), np.random.default_rng(3)
    data, weight, out = file.tensor((4, 6)), file.tensor((5, 12), value=random.standard_normal((5, 12))), file.tensor((2, 5))
    file.operator("FULLY_CONNECTED", [data, weight, -1], [out], "FullyConnectedOptions")
    agrees(file.ends([data], [out]), [random.standard_normal((4, 6), np.float32)])
