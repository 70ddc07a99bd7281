"""Padding in front of convolutions and pools: part of them where that changes no result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from network_files import write_onnx
from own_networks import error_of, load, names_of
from small_networks import Lambda, error_against_torch, prepared, seeded
from torch import nn
from torch.nn import functional as F  # noqa: N812

TOLERANCE = 1e-5
SHAPE = (1, 3, 9, 8)
Function = Callable[[torch.Tensor], torch.Tensor]


def names(network: nn.Module) -> list[str]:
    return [node.layer.name for node in prepared(network, SHAPE).nodes]


@pytest.mark.parametrize(
    ("pad", "conv", "name"),
    [
        pytest.param((0, 1, 0, 1), nn.Conv2d(3, 4, 3, 2), "conv_9x8_3x4_k3x3s2x2p0.0.1.1", id="below and on the right"),
        pytest.param((2, 1, 0, 3), nn.Conv2d(3, 4, 3, 1, 1), "conv_9x8_3x4_k3x3s1x1p1.3.4.2", id="beside its own"),
        pytest.param((1, 0, 1, 0), nn.Conv2d(3, 3, 3, 2, groups=3), "dw_9x8_3_k3x3s2x2p1.1.0.0", id="depthwise"),
        pytest.param((1, 1, 1, 1), nn.Conv2d(3, 4, 1, bias=False), "conv_9x8_3x4_k1x1s1x1p1.1.1.1", id="one pixel"),
    ],
)
def test_zeros_in_front_of_a_convolution(tmp_path: Path, pad: tuple[int, ...], conv: nn.Conv2d, name: str) -> None:
    network = seeded(nn.ZeroPad2d(pad), conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    assert any(one.startswith(name) for one in names(network)) and not any("pad" in one for one in names(network))
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    ("function", "becomes"),
    [
        pytest.param(lambda x: F.max_pool2d(F.pad(x.relu(), (0, 1, 0, 1)), 3, 2), "part", id="positive numbers"),
        pytest.param(lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 0), value=-torch.inf), 3, 2), "part", id="minus infinity"),
        pytest.param(lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2), "layer", id="numbers of both signs"),
        pytest.param(lambda x: F.max_pool2d(F.pad(x.relu(), (0, 3, 0, 3)), 3), "layer", id="windows of zeros alone"),
        pytest.param(lambda x: F.max_pool2d(F.pad(x.relu(), (0, 1, 0, 1)), 2, 1, ceil_mode=True), "part", id="rounded up in vain"),
        pytest.param(lambda x: F.max_pool2d(F.pad(x.relu(), (0, 1, 0, 1)), 2, 2, ceil_mode=True), "layer", id="rounded up"),
        pytest.param(lambda x: F.avg_pool2d(F.pad(x, (1, 0, 1, 0)), 3, 2), "part", id="mean"),
        pytest.param(lambda x: F.avg_pool2d(F.pad(x, (1, 0, 1, 0)), 3, 2, 1, count_include_pad=False), "layer", id="mean of those inside"),
        pytest.param(lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), value=0.5), x.new_ones(1, 4, 3, 3)), "pad", id="other numbers"),
        pytest.param(lambda x: F.conv2d(F.pad(x, (0, 0, 0, 0, 1, 1)), x.new_ones(1, 6, 3, 3)), "pad", id="channels"),
    ],
)
def test_behind_a_convolution(tmp_path: Path, function: Function, becomes: str) -> None:
    network = seeded(nn.Conv2d(3, 4, 3, padding=1), Lambda(function), nn.AdaptiveAvgPool2d((1, None)))
    found = names(network)
    assert any("pad" in name for name in found) == (becomes == "pad")
    assert any(name.startswith("dw_9x8_4_k1x1s1x1p") for name in found) == (becomes == "layer")
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= TOLERANCE


def test_no_width_is_no_layer(tmp_path: Path) -> None:
    """Swin pads its images, whose channels are last, to whole windows."""
    network = seeded(nn.Conv2d(3, 4, 3, padding=1), Lambda(lambda x: F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 0, 0, 0)).sin()))
    assert not any("pad" in name or name.startswith("dw") or "transpose" in name for name in names(network))
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= TOLERANCE


def test_from_onnx(tmp_path: Path) -> None:
    network = seeded(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.ZeroPad2d(1), nn.MaxPool2d(3, 2))
    imported = load(write_onnx(network, tmp_path / "net.onnx", SHAPE))
    assert not any("pad" in name for name in names_of(imported))
    assert error_of(imported, tmp_path / "net.so") <= TOLERANCE
