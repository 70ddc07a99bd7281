"""ONNX's evaluator in Python: its corrected operators compute what PyTorch and ONNX Runtime do."""

from __future__ import annotations

import io
import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from network_files import Graph, batch_norm, write_model
from onnx import helper, numpy_helper
from quantised_files import run_onnxruntime
from torch import nn

from tvmmobile.networks.own.onnx.constants import fold_constants
from tvmmobile.networks.own.onnx.reference import reference_evaluator


def _evaluated(module: nn.Module, image: torch.Tensor) -> np.ndarray[Any, Any]:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (image,), file, dynamo=False, opset_version=17)
    model = onnx.load_from_string(file.getvalue())
    (found,) = reference_evaluator(model).run(None, {model.graph.input[0].name: image.numpy()})
    return np.asarray(found)


@pytest.mark.parametrize("rounds_up", [False, True])
def test_max_pools(rounds_up: bool) -> None:
    """Kernels, strides, paddings and dilations go up to 3; where a size is rounded up, the last pixel may have no window."""
    tried = 0
    for kernel, stride, padding, dilation, height in itertools.product((2, 3), (1, 2, 3), (0, 1), (1, 2), (7, 8, 9)):
        if padding > kernel // 2:
            continue
        pool = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=rounds_up).eval()
        image = torch.randn(1, 2, height, height + 1)
        assert np.array_equal(_evaluated(pool, image), pool(image).numpy()), (kernel, stride, padding, dilation, height)
        tried += 1
    assert tried == 72


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
def test_older_batch_norms_are_not_in_training(tmp_path: Path, opset: int) -> None:
    node, constants = batch_norm("x")
    after = helper.make_node("Softmax", ["n"], ["y"], axis=2)
    path = write_model(tmp_path / "net.onnx", Graph([node, after], constants), opset=opset)
    image = np.random.default_rng(6).normal(0, 1, (1, 3, 8, 8)).astype(np.float32)
    (found,) = reference_evaluator(onnx.load(str(path))).run(None, {"x": image})
    np.testing.assert_allclose(found, run_onnxruntime(path, image), rtol=1e-4, atol=1e-6)


def test_batch_norms_of_constants_are_not_in_training(tmp_path: Path) -> None:
    node, constants = batch_norm("k")
    constants["k"] = np.random.default_rng(7).normal(0, 1, (1, 3, 8, 8)).astype(np.float32)
    path = write_model(tmp_path / "net.onnx", Graph([node, helper.make_node("Add", ["x", "n"], ["y"])], constants), opset=9)
    folded = fold_constants(onnx.load(str(path)))
    (found,) = (numpy_helper.to_array(tensor) for tensor in folded.graph.initializer if tensor.name == "n")
    expected = run_onnxruntime(path, np.zeros((1, 3, 8, 8), np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
