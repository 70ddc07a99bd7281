"""The evaluator that ONNX models are compared with: its corrected operators compute what PyTorch does."""

from __future__ import annotations

import io
import itertools
import random
import tracemalloc
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tvmmobile.networks.own.onnx_reference import reference_evaluator


def _evaluated(module: nn.Module, image: torch.Tensor) -> np.ndarray[Any, Any]:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (image,), file, dynamo=False, opset_version=17)
    model = onnx.load_from_string(file.getvalue())
    (found,) = reference_evaluator(model).run(None, {model.graph.input[0].name: image.numpy()})
    return np.asarray(found)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_convolutions(dimensions: int) -> None:
    """Of random kernels, strides, dilations, groups and padding; with and without a bias, of one image and of two."""
    draw = random.Random(dimensions)
    for _ in range(40):
        groups, kernel = draw.choice((1, 2, 4)), [draw.randint(1, 4) for _ in range(dimensions)]
        rest = ([draw.randint(*limits) for _ in range(dimensions)] for limits in ((1, 3), (0, 3), (1, 3)))
        module = (nn.Conv1d, nn.Conv2d)[dimensions - 1](4, 8, kernel, *map(tuple, rest), groups, draw.random() < 0.5).eval()
        image = torch.randn(draw.randint(1, 2), 4, *(draw.randint(10, 13) for _ in range(dimensions)))
        with torch.no_grad():
            wanted = module(image).numpy()
        found = _evaluated(module, image)
        assert found.shape == wanted.shape and np.abs(found - wanted).max() < 1e-5, module


@pytest.mark.parametrize("kind", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_convolutions_that_pad_by_rule(kind: str) -> None:
    """What zeros a rule adds is what the same convolution has with these zeros as attributes."""
    helper, weight = onnx.helper, np.random.default_rng(0).standard_normal((2, 3, 4, 3)).astype(np.float32)
    image = np.random.default_rng(1).standard_normal((1, 3, 9, 8)).astype(np.float32)
    # Rows: 5 windows of 4 every 2 reach over 12 of 9; columns: 4 windows of 5 (3, dilated) every 2 over 11 of 8.
    pads = {"SAME_UPPER": [1, 1, 2, 2], "SAME_LOWER": [2, 2, 1, 1], "VALID": [0, 0, 0, 0]}[kind]
    found = []
    for attributes in ({"auto_pad": kind}, {"pads": pads}):
        node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], dilations=[1, 2], **attributes)
        ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in (("x", image.shape), ("y", None))]
        graph = helper.make_graph([node], "net", ports[:1], ports[1:], [onnx.numpy_helper.from_array(weight, "w")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        found += reference_evaluator(model).run(None, {"x": image})
    assert found[0].shape == ((1, 2, 3, 2) if kind == "VALID" else (1, 2, 5, 4)) and np.array_equal(*found)


def test_a_dilated_convolution_takes_no_more_memory_than_its_data() -> None:
    """With its gaps spelled out, the kernel alone would be some 350 times as large: 110 MB."""
    module, image = nn.Conv2d(96, 96, 3, 1, 36, 36, bias=False).eval(), torch.randn(1, 96, 14, 14)
    with torch.no_grad():
        wanted = module(image).numpy()
    tracemalloc.start()
    try:
        found = _evaluated(module, image)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.abs(found - wanted).max() < 1e-5 and most < 20e6


@pytest.mark.parametrize("rounds_up", [False, True])
def test_max_pools(rounds_up: bool) -> None:
    """Of every kernel, stride, padding and dilation up to 3, where a size that is rounded up has a last pixel without a window or not."""
    tried = 0
    for kernel, stride, padding, dilation, height in itertools.product((2, 3), (1, 2, 3), (0, 1), (1, 2), (7, 8, 9)):
        if padding > kernel // 2:
            continue
        pool = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=rounds_up).eval()
        image = torch.randn(1, 2, height, height + 1)
        assert np.array_equal(_evaluated(pool, image), pool(image).numpy()), (kernel, stride, padding, dilation, height)
        tried += 1
    assert tried == 72
