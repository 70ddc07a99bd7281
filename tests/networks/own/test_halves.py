"""Networks whose files hold float16 or float64 are float32 networks here, with the file's weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from litert_files import LiteRtFile, by_litert
from network_files import Graph, write_model
from onnx import TensorProto, helper
from own_networks import image_for, load
from torch import nn

from tvmmobile.kernels.reference import relative_error


class Within(nn.Module):
    """A network in another type, between tensors of float32."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = inner.to(dtype), dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.inner(x.to(self.dtype))
        return y.float()


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_an_exported_program(tmp_path: Path, dtype: torch.dtype, within: bool) -> None:
    torch.manual_seed(2)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    plain = plain.eval().to(dtype)
    module = Within(copy.deepcopy(plain), dtype).eval() if within else plain
    example = torch.zeros(1, 3, 8, 8, dtype=torch.float32 if within else dtype)
    torch.export.save(torch.export.export(module, (example,)), tmp_path / "net.pt2")
    imported = load(tmp_path / "net.pt2")
    image = image_for(imported)
    with torch.no_grad():
        wanted = plain.float()(torch.from_numpy(image)).numpy()
    assert [port.dtype for port in (*imported.spec.takes, *imported.spec.returns)] == ["float32"] * 2
    assert imported.parameters == 285 and relative_error(imported.compute([image])[0], wanted) <= 1e-5
    assert not any(f'dtype="{kind}"' in imported.module.script() for kind in ("float16", "bfloat16", "float64"))


def test_an_onnx_model_that_returns_float64(tmp_path: Path) -> None:
    """PyTorch's older exporter makes double precision of products with `torch.full`, as YOLO's heads have."""
    weight = np.random.default_rng(0).normal(0, 1, (5, 3, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Cast", ["c"], ["y"], to=TensorProto.DOUBLE)]
    path = write_model(tmp_path / "net.onnx", Graph(nodes, {"w": weight}), (1, 3, 8, 8))
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    onnx.save(model, path)
    imported = load(path)
    (output,) = imported.compute([image_for(imported)])
    assert imported.reference_program.startswith("ONNX Runtime") and [port.dtype for port in imported.spec.returns] == ["float32"]
    assert output.dtype == np.float32


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_constants_of_a_litert_file(tmp_path: Path, kind: str) -> None:
    """Weights in fewer bits behind `DEQUANTIZE`, as LiteRT's converter writes networks that compute in float32."""
    draw, file = np.random.default_rng(0), LiteRtFile()
    settings: dict[str, Any] = {} if kind == "float16" else {"scale": [0.01, 0.02, 0.03, 0.04]}
    weight = draw.normal(0, 0.3, (4, 3, 3, 3)) if kind == "float16" else draw.integers(-127, 128, (4, 3, 3, 3))
    x, y, real = file.tensor((1, 8, 8, 3)), file.tensor((1, 8, 8, 4)), file.tensor((4, 3, 3, 3))
    stored, bias = file.tensor((4, 3, 3, 3), kind, weight, **settings), file.tensor((4,), "float32", draw.normal(0, 1, 4))
    file.operator("DEQUANTIZE", [stored], [real])
    options = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    file.operator("CONV_2D", [x, real, bias], [y], "Conv2DOptions", **options)
    content = file.ends([x], [y])
    (tmp_path / "net.tflite").write_bytes(content)
    imported = load(tmp_path / "net.tflite")
    image = image_for(imported)
    assert imported.parameters == 112 and relative_error(imported.compute([image])[0], by_litert(content, [image])[0]) <= 1e-5
