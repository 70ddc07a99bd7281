"""Constants for each channel beside images: part of the layer before them, whatever their shape, and no permutation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_networks import Lambda, Residual, error_against_torch, prepared, seeded, unit
from torch import nn

SHAPE = (1, 3, 6, 5)


class Scaled(nn.Module):
    """A function of a tensor and a parameter with one number for each of 8 channels."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], dimensions: int) -> None:
        super().__init__()
        self.function, self.scale = function, nn.Parameter(torch.linspace(0.5, 2, 8).reshape([1] * (dimensions - 3) + [8, 1, 1]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.function(image, self.scale)


@pytest.mark.parametrize("dimensions", [3, 4])
@pytest.mark.parametrize(
    ("function", "kinds"),
    [
        pytest.param(lambda x, c: c * x, [], id="left factor"),
        pytest.param(lambda x, c: x * c, [], id="right factor"),
        pytest.param(lambda x, c: c + x, [], id="left summand"),
        pytest.param(lambda x, c: torch.maximum(c, x), ["maximum_add"], id="left bound"),
        pytest.param(lambda x, c: c - x, None, id="minuend"),
        pytest.param(lambda x, c: x / c, ["divide_add"], id="divisor"),
    ],
)
def test_in_a_residual_branch(
    tmp_path: Path, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], kinds: list[str] | None, dimensions: int
) -> None:
    branch = nn.Sequential(nn.Conv2d(8, 16, 1), nn.GELU(), nn.Conv2d(16, 8, 1), Scaled(function, dimensions))
    network = seeded(*unit(3, 8), Residual(branch), *unit(8, 4), nn.AdaptiveAvgPool2d(1))
    names = [node.layer.name for node in prepared(network, SHAPE).nodes]
    if kinds is not None:
        assert [name.partition("_1x")[0] for name in names[3:-2]] == kinds
        assert names[2].partition("_")[0] == "pw" and ("_add_" in names[2]) == (not kinds)
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= 1e-5


class Affine(nn.Module):
    """A factor and a summand."""

    def __init__(self) -> None:
        super().__init__()
        self.factor, self.summand = nn.Parameter(torch.tensor([1.5])), nn.Parameter(torch.tensor([-0.25]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.factor * image + self.summand


def test_a_factor_and_a_summand_for_all_channels(tmp_path: Path) -> None:
    """HGNet v2 has such constants behind activations, of shape (1)."""
    network = seeded(*unit(3, 8), Affine(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1))
    names = [node.layer.name.partition("_1x")[0] for node in prepared(network, SHAPE).nodes]
    assert names[0].endswith("_relu6_scaled") and not any(name.startswith(("dw", "transpose")) for name in names)
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= 1e-5


@pytest.mark.parametrize("batch", [1, 4])
def test_factors_of_images_are_none_of_channels(tmp_path: Path, batch: int) -> None:
    factors = torch.linspace(0.5, 2, 4).reshape(-1, 1, 1, 1)
    network = seeded(nn.Conv2d(3, 4, 3), Lambda(lambda x: factors * x), Lambda(lambda x: x.sum(0, keepdim=True)))
    assert error_against_torch(network, (batch, *SHAPE[1:]), tmp_path / "net.so") <= 1e-5
