"""Pixel shuffles are the layout of the convolution before them: no kernel of their own, whatever they leave of the order of channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import Residual, error_against_torch, prepared, seeded
from torch import nn

from tvmmobile.graph.layers import Conv2d, Opaque

TOLERANCE = 1e-5
IMAGE = (1, 3, 6, 7)


class DepthToSpace(nn.Module):
    """Pixels before channels, as TensorFlow orders them."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = image.shape
        parts = image.reshape(batch, 2, 2, channels // 4, height, width)
        return parts.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // 4, 2 * height, 2 * width)


@settings(max_examples=6, derandomize=True, database=None, deadline=None)
@given(st.sampled_from((1, 2, 3, 8)), st.sampled_from((2, 3)), st.sampled_from((1, 3)), st.booleans(), st.integers(0, 1000))
def test_values(tmp_path_factory: pytest.TempPathFactory, channels: int, side: int, kernel: int, followed: bool, choice: int) -> None:
    shuffle = nn.Conv2d(8, channels * side**2, kernel, 1, kernel // 2), nn.PixelShuffle(side)
    network = seeded(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU6(), *shuffle, *([nn.Conv2d(channels, 5, 3, 1, 1)] if followed else []))
    layers = [node.layer for node in prepared(network, IMAGE).nodes]
    # What follows leaves channels last, and the output has them first.
    assert [type(layer) for layer in layers] == [Conv2d, Conv2d, *([Conv2d, Opaque] if followed else [])]
    assert error_against_torch(network, IMAGE, tmp_path_factory.mktemp("net") / "net.so", choice) <= TOLERANCE


def test_another_order_of_channels(tmp_path: Path) -> None:
    network = seeded(nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 12, 3, 1, 1), nn.Hardswish(), DepthToSpace())
    _, layer = (node.layer for node in prepared(network, IMAGE).nodes)
    assert isinstance(layer, Conv2d) and layer.out_layout == "NCH2cW2c" and layer.clamp == "hswish"
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_a_residual_keeps_its_order_of_channels(tmp_path: Path) -> None:
    """Only where blocks are of adjacent channels may the residual be read as it is."""
    network = seeded(nn.Conv2d(3, 12, 1), Residual(nn.Conv2d(12, 12, 3, 1, 1)), nn.PixelShuffle(2))
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_what_is_read_elsewhere_is_not_shuffled(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.other = nn.Conv2d(3, 12, 3, 1, 1), nn.Conv2d(12, 3, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            image = self.first(image)
            return nn.functional.pixel_shuffle(image, 2) + nn.functional.interpolate(self.other(image), scale_factor=2)

    network = seeded(Twice())
    assert all(layer.out_layout == "NHWC" for node in prepared(network, IMAGE).nodes if isinstance(layer := node.layer, Conv2d))
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE
