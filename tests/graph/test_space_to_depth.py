"""Pixels as channels in front of the first convolution: no copy of the image, whatever form they come in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_networks import error_against_torch, prepared, seeded
from torch import nn

TOLERANCE = 1e-5
Function = Callable[[torch.Tensor], torch.Tensor]


class First(nn.Module):
    """A function of an image before a convolution."""

    def __init__(self, function: Function, conv: nn.Conv2d) -> None:
        super().__init__()
        self.function, self.conv = function, conv

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.conv(self.function(image))
        return made


def focus(x: torch.Tensor) -> torch.Tensor:
    """Move pixels to channels as YOLOv5 does."""
    return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)


def first_layer(network: nn.Module, shape: tuple[int, ...]) -> str:
    return prepared(network, shape).nodes[0].layer.name


@pytest.mark.parametrize(
    ("function", "conv", "name"),
    [
        pytest.param(nn.functional.pixel_unshuffle, nn.Conv2d(12, 8, 3, padding=1), "conv_8x12_3x8_k6x6s2x2p2.2.2.2", id="unshuffle"),
        pytest.param(focus, nn.Conv2d(12, 8, 3, 2, 1), "conv_8x12_3x8_k6x6s4x4p2.2.2.2", id="slices"),
        pytest.param(nn.functional.pixel_unshuffle, nn.Conv2d(12, 8, 1), "conv_8x12_3x8_k2x2s2x2p0.0.0.0", id="one pixel"),
        pytest.param(
            lambda x, _: x.unflatten(3, (-1, 4)).permute(0, 4, 1, 2, 3).flatten(1, 2),
            nn.Conv2d(12, 8, (3, 1), bias=False),
            "conv_8x12_3x8_k3x4s1x4p0.0.0.0",
            id="columns alone",
        ),
    ],
)
def test_it_is_a_convolution_of_the_image(tmp_path: Path, function: Callable[..., torch.Tensor], conv: nn.Conv2d, name: str) -> None:
    """The number of multiplications stays."""
    before = (lambda x: function(x)) if function is focus else (lambda x: function(x, 2))
    network, shape = seeded(First(before, conv), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)), (1, 3, 8, 12)
    assert first_layer(network, shape).startswith(f"{name}_nchw_relu")
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE


def test_of_scaled_images_and_batches(tmp_path: Path) -> None:
    network, shape = seeded(First(lambda x: focus(x / 2 - 1), nn.Conv2d(12, 8, 3, padding=1)), nn.AdaptiveAvgPool2d(1)), (2, 3, 8, 12)
    names = [node.layer.name.partition("_")[0] for node in prepared(network, shape).nodes]
    assert names == ["strided", "conv", "pool", "strided", "conv", "pool", "concatenate"]
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., ::2, 1::2]], 1), id="one twice"),
        pytest.param(lambda x: torch.cat([x[..., :4, ::2], x[..., 4:, ::2], x[..., :4, 1::2], x[..., 4:, 1::2]], 1), id="halves"),
        pytest.param(lambda x: focus(x).flip(2), id="upside down"),
        pytest.param(lambda x: torch.cat([focus(x)[:, :6], focus(x * 2)[:, 6:]], 1), id="of two images"),
        pytest.param(lambda x: focus(x)[:, [*range(11), 3]], id="chosen"),
    ],
)
def test_other_images_are_kept(tmp_path: Path, function: Function) -> None:
    network, shape = seeded_for(First(function, nn.Conv2d(12, 8, 3, padding=1))), (1, 3, 8, 12)
    assert not first_layer(network, shape).startswith("conv_8x12_3")
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE


def seeded_for(network: nn.Module) -> nn.Module:
    """Return a network for images of a single size."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.1, 0.3)
    return network.eval()


def test_of_many_channels_a_copy_remains(tmp_path: Path) -> None:
    """One, for a matrix product, rather than several."""
    network, shape = seeded(nn.Conv2d(3, 12, 3), nn.PixelUnshuffle(2), nn.Conv2d(48, 8, 1), nn.AdaptiveAvgPool2d(1)), (1, 3, 8, 10)
    assert [node.layer.name.partition("_")[0] for node in prepared(network, shape).nodes] == ["conv", "transpose", "pw", "pool"]
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE
