"""Libraries of every precision on CPUs that they were not compiled for: they compute the right values, or `init` refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from other_cpus import OLD, expected_outcomes, outcomes

import tvmmobile
from tvmmobile.devices.virtual_board import VirtualDevice
from tvmmobile.virtual.board import load_board

NETWORK = """
from torch import nn

def make():
    first = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish()
    depthwise = nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6()
    pointwise = nn.Conv2d(16, 64, 1), nn.GELU(), nn.GroupNorm(4, 64)
    last = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1)
    return nn.Sequential(*first, *depthwise, *pointwise, *last)
"""
#: One of Armv9, with SMMLA.
NEWER = "cortex-a710"


@pytest.mark.virtual
@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("board", ["pi3bplus", "a311d", "rk3566", "pi4", "pi5", NEWER])
def test_a_library_runs_or_is_refused(board: str, dtype: str, tmp_path: Path) -> None:
    newer = load_board("pi5").model_copy(update={"mcpu": NEWER, "qemu_cpu": "max"})
    device = VirtualDevice("newer", newer) if board == NEWER else board
    if dtype == "float16" and board in ("pi3bplus", "a311d", "pi4"):
        pytest.skip("the core does not compute in half precision")
    file, data = tmp_path / "network.py", tmp_path / "images.npy"
    file.write_text(NETWORK)
    np.save(data, np.random.default_rng(0).uniform(-1, 1, (4, 3, 32, 32)).astype(np.float32))
    calibrate = data if dtype == "int8" else None
    model = tvmmobile.load(f"{file}:make", resolution=32)
    library = tvmmobile.compile(model, device, dtype=dtype, calibrate=calibrate, out=tmp_path / "out", logs=tmp_path)
    found = outcomes(library)
    if board == NEWER:  # whose float32 may use SVE
        assert set(found.values()) <= set(expected_outcomes("max").values()) and found["max"] == ""
        assert dtype != "int8" or found == expected_outcomes(*OLD, "cortex-a76")
    else:
        assert found == expected_outcomes(*(OLD if dtype != "float32" and board in ("rk3566", "pi5") else ()))
