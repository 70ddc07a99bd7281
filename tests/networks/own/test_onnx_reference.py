"""The evaluator that ONNX models are compared with: its corrected operators compute what PyTorch does."""

from __future__ import annotations

import io
import itertools
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tvmmobile.networks.own.onnx_reference import reference_evaluator


@pytest.mark.parametrize("rounds_up", [False, True])
def test_max_pools(rounds_up: bool) -> None:
    """Of every kernel, stride, padding and dilation up to 3, where a size that is rounded up has a last pixel without a window or not."""
    tried = 0
    for kernel, stride, padding, dilation, height in itertools.product((2, 3), (1, 2, 3), (0, 1), (1, 2), (7, 8, 9)):
        if padding > kernel // 2:
            continue
        pool = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=rounds_up).eval()
        image, file = torch.randn(1, 2, height, height + 1), io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(pool, (image,), file, dynamo=False, opset_version=17)
        model = onnx.load_from_string(file.getvalue())
        (found,) = reference_evaluator(model).run(None, {model.graph.input[0].name: image.numpy()})
        assert np.array_equal(found, pool(image).numpy()), (kernel, stride, padding, dilation, height)
        tried += 1
    assert tried == 72
