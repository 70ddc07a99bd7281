"""Learnable affine blocks behind convolutions and activations, as PP-LCNet has them, are steps of the layer before, or in its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lowered_networks import prepare
from small_networks import accepted, error_against_torch, error_of, seeded
from torch import nn

from tvmmobile.graph.curves import SCALED
from tvmmobile.graph.layers import Conv2d, Opaque
from tvmmobile.graph.network import read_network
from tvmmobile.graph.precision import FLOAT16, FLOAT32, Precision
from tvmmobile.networks.frontend import import_torch

SHAPE = (1, 3, 12, 8)


class Affine(nn.Module):
    """One factor and one number for all channels, or for each."""

    def __init__(self, factor: float, shift: float, channels: int = 1) -> None:
        super().__init__()
        spread = torch.linspace(0.5, 1.5, channels).reshape(-1, 1, 1) if channels > 1 else torch.ones(1)
        self.factor, self.shift = (nn.Parameter(number * spread) for number in (factor, shift))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x + self.shift


class HardSwish(nn.Module):
    """H-swish as Paddle's exporter spells it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.clip(x + 3.0, 0.0, 6.0) / 6.0


class HardSigmoid(nn.Module):
    """A number that is added and belongs to the activation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.clip(x + 3.0, 0.0, 6.0) / 6.0


def lcnet(channels: int = 1) -> nn.Module:
    """Return a block of PP-LCNetV3, with affine blocks of one number or of one for each channel."""
    wide, deep = (16, 32) if channels > 1 else (1, 1)
    first = [nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1, groups=16), Affine(0.9, 0.5, wide), HardSwish(), Affine(0.4, -0.1, wide)]
    second = [nn.Conv2d(16, 32, 1), Affine(1.9, 0.8, deep), HardSwish(), Affine(0.6, -0.5, deep)]
    return nn.Sequential(*first, *second, nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.ReLU(), Affine(0.5, 0.1, deep))


@pytest.mark.parametrize("precision", [FLOAT32, FLOAT16], ids=["float32", "float16"])
@pytest.mark.parametrize("channels", [1, 2], ids=["one number", "one for each channel"])
def test_affine_blocks_are_steps_of_layers(tmp_path: Path, channels: int, precision: Precision) -> None:
    network = seeded(lcnet(channels))
    read = read_network(*prepare(import_torch(network, SHAPE), accepted, precision=precision))
    layers = [node.layer for node in read.nodes if isinstance(node.layer, Conv2d)]
    others = {node.layer.operator for node in read.nodes if isinstance(node.layer, Opaque)}
    assert len(layers) == 4 and others <= {"transpose", "cast_transpose"}
    assert [layer.steps for layer in layers] == [(), ("hswish", SCALED), ("hswish", SCALED), ((0.0, None), SCALED)]
    if precision == FLOAT32:
        assert error_of(read, network, SHAPE, tmp_path / "net.so") < 1e-5


@pytest.mark.parametrize("behind", [HardSwish, HardSigmoid, nn.ReLU, nn.ReLU6, nn.SiLU])
@pytest.mark.parametrize("number", [3.0, -1.25])
def test_a_number_in_front_of_an_activation(tmp_path: Path, behind: type[nn.Module], number: float) -> None:
    """It is a bias; that of a hard activation stays what it is."""

    class Added(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + number

    network = seeded(nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), Added(), behind()))
    read = read_network(*prepare(import_torch(network, SHAPE), accepted))
    assert len([node for node in read.nodes if isinstance(node.layer, Conv2d)]) == 1
    assert error_of(read, network, SHAPE, tmp_path / "net.so") < 1e-5


class Read(nn.Module):
    """An activation that is read beside its affine block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.affine = nn.Conv2d(3, 8, 1), Affine(0.5, 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = torch.relu(self.conv(x))
        return torch.cat([found, self.affine(found)], 1)


def test_what_is_read_without_the_block_stays(tmp_path: Path) -> None:
    assert error_against_torch(seeded(Read()), SHAPE, tmp_path / "net.so") < 1e-5
