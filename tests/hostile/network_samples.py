"""Small networks of each format that between them have windows, shapes that are computed, conversions, integers and constants."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np


@cache
def pt2(kind: str = "plain") -> bytes:
    """Return a `.pt2`: `plain`, for any batch (`dynamic`), or of more operators (`varied`)."""
    import torch
    from network_files import write_pt2

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.ReLU6(), torch.nn.Flatten(1), torch.nn.Linear(64, 2))
    settings = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if kind == "dynamic" else {}
    shape = (2, 3, 8, 8) if kind == "dynamic" else (1, 3, 8, 8)
    if kind == "varied":
        module = _varied()
    with tempfile.TemporaryDirectory(prefix="tvmmobile-fuzz-") as folder:
        return write_pt2(module.eval(), Path(folder, "made.pt2"), shape, **settings).read_bytes()


def _varied() -> Any:
    import torch
    from torch import nn

    class Varied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.up = nn.Conv2d(3, 4, 3, padding=2, dilation=2), nn.ConvTranspose2d(4, 2, 2, 2)
            self.norm, self.last = nn.BatchNorm2d(4), nn.Linear(2, 2)

        def forward(self, image: Any) -> Any:
            x = nn.functional.max_pool2d(torch.relu(self.norm(self.first(image))), 2)
            x = torch.cat([self.up(x), nn.functional.interpolate(x[:, :2], scale_factor=2.0, mode="bilinear")], 1)
            x = nn.functional.avg_pool2d(nn.functional.pad(x, (1, 1, 1, 1)), 3, 2, 1).mean((2, 3))
            x = torch.softmax(self.last(x.reshape(1, 2, 2)), -1) + torch.arange(2).to(torch.float32)
            return x.permute(0, 2, 1).expand(2, 2, 2) * torch.full((2, 2), 0.5)

    return Varied()


def onnx_models(folder: Path) -> list[bytes]:
    """ONNX models with windows, computed shapes, conversions, integers and sparse constants."""
    from network_files import Graph, convolution, write_model
    from onnx import helper, numpy_helper

    node = helper.make_node
    random = np.random.default_rng(1)
    ints = {
        "shape": [1, 64],
        "sizes": [1, 4, 5, 7],
        "pads": [0, 0, 1, 1, 0, 0, 0, 1],
        "ends": [4],
        "zero": [0],
        "axis": [2],
        "split": [2, 2],
    }
    constants = {name: np.array(numbers, np.int64) for name, numbers in ints.items()}
    constants |= {"m": random.normal(0, 1, (64, 3)).astype(np.float32), "k": random.normal(0, 1, (4, 2, 2, 2)).astype(np.float32)}
    constants |= {
        "low": np.float32(0),
        "high": np.float32(6),
        "s": np.float32(0.1),
        "z": np.int8(3),
        "q": np.arange(-128, 128).astype(np.int8).repeat(2).reshape(256, 2),
    }
    half = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float16), "half")
    chains = [
        [
            node("Relu", ["c"], ["d"]),
            node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0], dilations=[1, 1], ceil_mode=0),
            node("Reshape", ["e", "shape"], ["f"]),
            node("Gemm", ["f", "m"], ["y"], alpha=1.0, transB=0),
        ],
        [
            node("ConvTranspose", ["c", "k"], ["d"], strides=[2, 2], pads=[1, 1, 0, 0], output_padding=[0, 0], group=1, dilations=[1, 1]),
            node("Clip", ["d", "low", "high"], ["e"]),
            node("AveragePool", ["e"], ["f"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
            node("ReduceMean", ["f"], ["g"], axes=[2, 3], keepdims=1),
            node("Constant", [], ["h"], value=half),
            node("Cast", ["h"], ["i"], to=1),
            node("Mul", ["g", "i"], ["y"]),
        ],
        [
            node("Resize", ["c", "", "", "sizes"], ["d"], mode="nearest"),
            node("Pad", ["d", "pads", "low"], ["e"], mode="constant"),
            node("Slice", ["e", "zero", "ends", "axis"], ["f"]),
            node("Transpose", ["f"], ["g"], perm=[0, 2, 3, 1]),
            node("Softmax", ["g"], ["y"], axis=-1),
        ],
        [
            node("QuantizeLinear", ["c", "s", "z"], ["d"]),
            node("DequantizeLinear", ["d", "s", "z"], ["e"]),
            node("Split", ["e", "split"], ["f", "g"], axis=1),
            node("Concat", ["g", "f"], ["h"], axis=1),
            node("Flatten", ["h"], ["i"], axis=1),
            node("DequantizeLinear", ["q", "s", "z"], ["j"]),
            node("MatMul", ["i", "j"], ["y"]),
        ],
        [
            node("Shape", ["c"], ["d"]),
            node("Gather", ["d", "zero"], ["e"], axis=0),
            node("ConstantOfShape", ["e"], ["f"]),
            node("Expand", ["f", "ends"], ["g"]),
            node("Tile", ["g", "ends"], ["h"]),
            node("ReduceSum", ["h"], ["i"], keepdims=0),
            node("Add", ["c", "i"], ["y"]),
        ],
    ]
    made = []
    for number, after in enumerate(chains):
        graph = convolution(after, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [1, 1], "group": 1})
        read = {name for one in after for name in one.input}
        graph = Graph(graph.nodes, {**graph.constants, **{name: array for name, array in constants.items() if name in read}})
        made.append(write_model(folder / f"made{number}.onnx", graph).read_bytes())
    return [*made, _sparse_onnx(made[0])]


def _sparse_onnx(content: bytes) -> bytes:
    """Return a model with sparse constants in place of its own: initializers, and a node with the weights of the convolution."""
    import onnx
    from onnx import helper, numpy_helper
    from sparse_files import sparse_onnx

    model = onnx.load_model_from_string(content)
    real = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    sparse = {tensor.name: sparse_onnx(numpy_helper.to_array(tensor).round(), tensor.name, tensor.name == "m") for tensor in real}
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=sparse.pop("w")))
    model.graph.sparse_initializer.extend(sparse.values())
    for tensor in real:
        model.graph.initializer.remove(tensor)
    written: bytes = model.SerializeToString()
    return written


def litert_models() -> list[bytes]:
    """LiteRT files: in float32, in int8, with shapes, pads and resizes, and with sparse weights."""
    from litert_files import LiteRtFile
    from sparse_files import pruned, sparse_file

    made = []
    for scale in (None, 0.1):
        grid = {} if scale is None else {"dtype": "int8", "scale": scale}
        file = LiteRtFile()
        data, middle, small, flat, out = (
            file.tensor(shape, **grid) for shape in ((1, 8, 8, 3), (1, 4, 4, 4), (1, 2, 2, 4), (1, 16), (1, 2))
        )
        weight, matrix = (
            file.tensor((4, 3, 3, 3), value=np.ones((4, 3, 3, 3)), **grid),
            file.tensor((2, 16), value=np.ones((2, 16)), **grid),
        )
        bias = file.tensor((4,), value=np.ones(4)) if scale is None else file.tensor((4,), "int32", np.ones(4), 0.01)
        file.operator(
            "CONV_2D", [data, weight, bias], [middle], "Conv2DOptions", strideH=2, strideW=2, dilationHFactor=1, dilationWFactor=1
        )
        file.operator("MAX_POOL_2D", [middle], [small], "Pool2DOptions", strideH=2, strideW=2, filterHeight=2, filterWidth=2)
        file.operator("RESHAPE", [small, file.int32(1, 16)], [flat])
        file.operator("FULLY_CONNECTED", [flat, matrix], [out], "FullyConnectedOptions")
        made.append(file.ends([data], [out]))
    file = LiteRtFile()
    data, padded, middle, large, up, out = (
        file.tensor(shape) for shape in ((1, 8, 8, 3), (1, 10, 10, 3), (1, 8, 8, 6), (1, 12, 12, 6), (1, 24, 24, 2), (1, 2))
    )
    depthwise, kernel = file.tensor((1, 3, 3, 6), value=np.ones((1, 3, 3, 6))), file.tensor((2, 2, 2, 6), value=np.ones((2, 2, 2, 6)))
    first = file.tensor((6, 3, 3, 3), value=np.ones((6, 3, 3, 3)))
    file.operator("PAD", [data, file.tensor((4, 2), "int32", np.array([[0, 0], [1, 1], [1, 1], [0, 0]]))], [padded])
    file.operator("CONV_2D", [padded, first], [middle], "Conv2DOptions", strideH=1, strideW=1, padding=1)
    after = file.tensor((1, 8, 8, 6))
    file.operator("DEPTHWISE_CONV_2D", [middle, depthwise], [after], "DepthwiseConv2DOptions", strideH=1, strideW=1, depthMultiplier=1)
    file.operator("RESIZE_BILINEAR", [after, file.int32(12, 12)], [large], "ResizeBilinearOptions", halfPixelCenters=True)
    file.operator("TRANSPOSE_CONV", [file.int32(1, 24, 24, 2), kernel, large], [up], "TransposeConvOptions", strideH=2, strideW=2)
    file.operator("MEAN", [up, file.int32(1, 2)], [out], "ReducerOptions")
    made.append(file.ends([data], [out]))
    for dtype in ("float32", "float16"):
        made.append(sparse_file(pruned(0, dtype=dtype), (1, 0, 2, 3), {0: 2, 1: 4}, (False, True, False, False))[1])
    return made
