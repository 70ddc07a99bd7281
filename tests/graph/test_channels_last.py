"""Steps of images that layout conversion leaves with channels first, such as those of tokens that are an image again: nothing is turned."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_networks import Lambda, error_against_torch, prepared, seeded
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tvmmobile.graph.layers import Opaque
from tvmmobile.networks.models.weights import seed_weights

TOLERANCE, CHANNELS, SHAPE = 1e-5, 8, (1, 3, 6, 5)
Function = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Beside(nn.Module):
    """Tokens of an image through a layer, as an image again, and what a function makes of both images."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.tokens = nn.Sequential(nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, CHANNELS))
        self.function = function

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        image = self.image(image)
        tokens = self.tokens(image.flatten(2).transpose(1, 2))
        return self.function(tokens.transpose(1, 2).reshape(image.shape), image)


def network_of(function: Function) -> nn.Module:
    with torch.no_grad():
        channels = function(*torch.zeros(2, 1, CHANNELS, *SHAPE[2:])).shape[1]
    return seeded(Beside(function), nn.Conv2d(channels, 5, 1), nn.ReLU())


def moved(network: nn.Module) -> int:
    """Kernels that turn images, alone or while they do something else."""
    layers = (node.layer for node in prepared(network, SHAPE).nodes)
    return sum("transpose" in layer.operator for layer in layers if isinstance(layer, Opaque))


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda one, other: one + other, id="sum"),
        pytest.param(lambda one, other: torch.cat([one, other], 1).relu(), id="concatenation"),
        pytest.param(lambda one, other: torch.cat([one, other[:, :, :3]], 2), id="rows"),
        pytest.param(lambda one, other: torch.cat([one, other.narrow(-1, 0, 2)], -1), id="columns, counted from behind"),
        pytest.param(lambda one, other: one[:, 2:6] * other.sigmoid()[:, :4], id="slices"),
        pytest.param(lambda one, other: one * torch.arange(8.0).reshape(8, 1, 1) - other / 3, id="one number for each channel"),
        pytest.param(lambda one, other: one * torch.arange(float(one.shape[3])) + other, id="one number for each column"),
        pytest.param(lambda one, other: one * other.mean((2, 3), keepdim=True), id="means"),
        pytest.param(lambda one, other: one[:, :1] + other[:, 7:], id="one channel"),
        pytest.param(lambda one, other: one.clamp(-0.5, 0.75).reshape(other.shape) + other, id="a view of the same shape"),
        pytest.param(lambda one, other: one.clamp(-0.5, 0.75).squeeze(2) + other, id="a squeeze of nothing"),
        pytest.param(lambda one, other: torch.where(one > 0, one, other), id="choice"),
        pytest.param(lambda one, other: F.pad(one, (1, 2, 0, 1, 0, 3), value=0.5), id="more rows, columns and channels"),
        pytest.param(lambda one, other: F.pad(F.max_pool2d(one + other, 3, 2, 1), (0, 0, 0, 0, 0, 4)).relu(), id="greatest, more channels"),
        pytest.param(lambda one, other: F.pad(one + other, (1, 2, 2, 1), mode="reflect"), id="reflected"),
        pytest.param(lambda one, other: F.pad(other, (1, 2, 0, 1), mode="replicate") * F.pad(one, (1, 2, 0, 1)), id="border repeated"),
        pytest.param(lambda one, other: (one + other)[:, torch.tensor([7, 0, 0, 3])], id="chosen channels"),
        pytest.param(lambda one, other: torch.roll(one, 2, 3) + one.flip(2), id="columns in another order, rows from below"),
        pytest.param(lambda one, other: F.max_pool2d(one * other, (2, 3), ceil_mode=True), id="greatest of parts of windows"),
    ],
)
def test_nothing_is_turned(tmp_path: Path, function: Function) -> None:
    network = network_of(function)
    assert moved(network) == 0
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= TOLERANCE


def test_who_wants_channels_first_gets_them(tmp_path: Path) -> None:
    """Rows of an image as a batch, of which layout conversion knows nothing."""
    network = network_of(lambda one, other: (one + other) * torch.softmax((one + other).flatten(1, 2), 2).reshape(one.shape))
    assert moved(network) >= 1
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= TOLERANCE


def test_an_input_with_channels_last_is_scaled_as_it_is(tmp_path: Path) -> None:
    """Its steps are part of no layer; it is turned once at most."""
    shape, steps = (1, 7, 6, 3), Lambda(lambda x: x.permute(0, 3, 1, 2) / 2 - torch.arange(3.0).reshape(3, 1, 1))
    network = nn.Sequential(steps, nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    seed_weights(network, 0, (), shape[1:])
    layers = [node.layer for node in prepared(network, shape).nodes]
    assert sum(isinstance(layer, Opaque) for layer in layers) <= 1
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 8))])
def test_random_steps(tmp_path: Path, seed: int) -> None:
    """Ten of them, each of images before it."""

    def steps(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        draw, images = random.Random(seed), [one, other]
        for _ in range(10):
            first, second = draw.choice(images), draw.choice(images)
            last = first.shape[1] - 1
            results = [
                torch.cat([first, second], 1)[:, : draw.randint(1, 12)],
                first[:, draw.randint(0, last) :],
                first[:, : second.shape[1]] - second[:, : first.shape[1]],
                first.tanh() * draw.choice((0.5, 2.0)),
                first + torch.linspace(-1, 1, last + 1).reshape(-1, 1, 1),
            ]
            images.append(draw.choice(results))
        return torch.cat(images[-3:], 1)

    network = network_of(steps)
    assert moved(network) == 0
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= TOLERANCE
