"""A network whose kernels compute in half precision, on the virtual Pi 5: the library agrees with PyTorch as far as that can."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tvmmobile
from tvmmobile.graph.precision import FLOAT16

NETWORK = """
from torch import nn

def make():
    def block(inputs, outputs, stride):
        depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU6()
        return *depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.Hardswish()

    first = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()
    return nn.Sequential(*first, *block(16, 80, 1), *block(80, 40, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10))
"""


@pytest.mark.virtual
def test_a_network_in_half_precision(tmp_path: Path) -> None:
    file = tmp_path / "network.py"
    file.write_text(NETWORK)
    model = tvmmobile.load(f"{file}:make", resolution=32)  # the least there is
    results = tvmmobile.tune(model, "pi5", trials=0, dtype="float16", out=tmp_path / "out", logs=tmp_path / "logs")
    (result,) = results.variants
    assert result.dtype == "float16" and 1e-4 < result.max_error < FLOAT16.network_tolerance
    kernels = [kernel["name"] for kernel in json.loads((tmp_path / "out" / f"{result.name}.json").read_text())["kernels"]]
    assert all("_float16_t1" in name for name in kernels) and len(kernels) >= 5
    assert (
        "nchw_from_float32" in kernels[0]
        and kernels[-1].startswith("dense_40x10_to_float32")
        and not any("cast" in name for name in kernels)
    )
