"""Pixel shuffles and NCHW are the layout of the layer before them: no kernel of their own, whatever is left of the order of channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import Residual, error_against_torch, prepared, seeded
from torch import nn

from tvmmobile.graph.layers import Conv2d, Opaque, Resize

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
    # A convolution of an image writes NHWC, which is turned afterwards.
    assert [type(layer) for layer in layers if not isinstance(layer, Opaque)] == [Conv2d, Conv2d, *([Conv2d] if followed else [])]
    assert followed or not isinstance(layers[-1], Opaque)
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
    layouts = [layer.out_layout for node in prepared(network, IMAGE).nodes if isinstance(layer := node.layer, Conv2d)]
    assert layouts and set(layouts) == {"NHWC"}
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


class Resized(nn.Module):
    """Three times as many pixels a side."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(image, scale_factor=3, mode="bilinear")


@pytest.mark.parametrize(("behind", "layout"), [((), "NCH1cW1c"), ((Resized(),), "NCHW")], ids=str)
def test_images_in_nchw(tmp_path: Path, behind: tuple[nn.Module, ...], layout: str) -> None:
    """Networks return images in this layout."""
    network = seeded(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 5, 1), *behind)
    found = [node.layer for node in prepared(network, IMAGE).nodes]
    assert all(isinstance(layer, Conv2d | Resize) for layer in found) and found[-1].out_layout == layout
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_images_of_one_channel_stay_as_they_are() -> None:
    network = seeded(nn.Conv2d(3, 1, 3, 1, 1))
    (layer,) = (node.layer for node in prepared(network, IMAGE).nodes)
    assert isinstance(layer, Conv2d) and layer.out_layout == "NHWC"


class Windows(nn.Module):
    """Rows of channels, one for each pixel of windows of 2×2, as MobileViT unfolds images."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        parts = image.reshape(-1, 5, 3, 2, 4, 2).permute(0, 3, 5, 2, 4, 1)
        return parts.reshape(-1, 4, 12, 5).sin()


def test_what_is_moved_further_is_moved_once(tmp_path: Path) -> None:
    """It is moved from NHWC, in which a pixel's channels are adjacent."""
    network = seeded(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 5, 1), Windows())
    *layers, last = (node.layer for node in prepared(network, (1, 3, 6, 8)).nodes)
    assert [layer.out_layout for layer in layers if isinstance(layer, Conv2d)] == ["NHWC", "NHWC"] and isinstance(last, Opaque)
    assert error_against_torch(network, (1, 3, 6, 8), tmp_path / "net.so") <= TOLERANCE
