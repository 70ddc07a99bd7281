"""PReLUs and leaky ReLUs: part of the layer before them, whatever form and slopes they have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_networks import Residual, error_against_torch, prepared, seeded, unit
from torch import nn

from tvmmobile.graph.layers import Conv2d, Layer, Opaque, SumLayer

TOLERANCE = 1e-5
IMAGE = (1, 3, 9, 8)


class Sloped(nn.Module):
    """A function of an image and of slopes for its channels, some negative and some above 1."""

    def __init__(self, channels: int, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.slopes, self.function = nn.Parameter(torch.linspace(-0.4, 1.5, channels).reshape(-1, 1, 1)), function

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.function(image, self.slopes)


def prelu(slopes: int = 1) -> nn.PReLU:
    """Return a PReLU with different slopes."""
    made = nn.PReLU(slopes)
    with torch.no_grad():
        made.weight.copy_(torch.linspace(0.3, -0.5, slopes))
    return made


def layers_of(network: nn.Module, shape: tuple[int, ...] = IMAGE) -> list[Layer]:
    return [node.layer for node in prepared(network, shape).nodes]


@pytest.mark.parametrize(
    "activation",
    [
        pytest.param(lambda: prelu(8), id="slopes"),
        pytest.param(prelu, id="one slope"),
        pytest.param(lambda: nn.LeakyReLU(0.2), id="leaky"),
        pytest.param(lambda: Sloped(8, lambda x, w: torch.where(x > 0, x, w * x)), id="above"),
        pytest.param(lambda: Sloped(8, lambda x, w: torch.where(x < 0, x * w, x)), id="below"),
        pytest.param(lambda: Sloped(8, lambda x, w: x.clamp(min=0) + x.clamp(max=0) * w[None]), id="sum"),
    ],
)
def test_it_is_part_of_the_layer(tmp_path: Path, activation: Callable[[], nn.Module]) -> None:
    network = seeded(*unit(3, 8, 3, activation=activation()), *unit(8, 9), nn.AdaptiveAvgPool2d(1))
    assert [layer.clamp for layer in layers_of(network) if isinstance(layer, Conv2d)] == ["prelu", (0.0, 6.0)]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    "activation",
    [
        pytest.param(lambda: Sloped(8, lambda x, w: torch.where(x > 0.1, x, w * x)), id="from 0.1"),
        pytest.param(lambda: Sloped(8, lambda x, w: torch.where(x > 0, x + 1, w * x)), id="of something else"),
        pytest.param(lambda: Sloped(8, lambda x, w: torch.where(x > 0, x, w.sum() * x[:, :1])), id="of one channel"),
    ],
)
def test_what_only_looks_like_it(tmp_path: Path, activation: Callable[[], nn.Module]) -> None:
    network = seeded(*unit(3, 8, 3, activation=activation()), *unit(8, 9))
    assert layers_of(network, (1, 3, 8, 6))[0].name.endswith("linear")
    assert error_against_torch(network, (1, 3, 8, 6), tmp_path / "net.so") <= TOLERANCE


def test_in_every_kind_of_layer(tmp_path: Path) -> None:
    """Behind residuals and transposed convolutions, too, which are shuffled after it."""
    middle = *unit(8, 8, 3, groups=8, activation=prelu(8)), Residual(nn.Conv2d(8, 8, 1)), prelu(8)
    up = nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.BatchNorm2d(6), prelu(6), nn.ConvTranspose2d(6, 5, 2, 2), nn.LeakyReLU(0.1)
    head = nn.Conv2d(5, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 12), prelu(12), nn.Linear(12, 4)
    network = seeded(*unit(3, 8, 3, activation=prelu()), *middle, *up, *head)
    layers = layers_of(network)
    assert not any(isinstance(layer, Opaque) for layer in layers)
    assert [layer.clamp for layer in layers if isinstance(layer, SumLayer)].count("prelu") == 6
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_elsewhere_it_moves_nothing(tmp_path: Path) -> None:
    """Behind a norm it is a kernel of its own, in the layout of its neighbours."""
    network = seeded(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), prelu(8), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1))
    assert [layer.name.partition("_")[0] for layer in layers_of(network)] == ["conv", "groupnorm", "dw", "pw", "pool"]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE
