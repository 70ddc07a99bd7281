"""Feature pyramids: products with an enlarged image, before it is enlarged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_networks import accepted, error_of, seeded, unit
from torch import nn
from torch.nn import functional

from tvmmobile.graph.layers import Conv2d, Resize
from tvmmobile.graph.network import read_network
from tvmmobile.graph.passes.pipeline import compose, lower_to_kernels
from tvmmobile.graph.passes.resized_pieces import resized_pieces
from tvmmobile.networks.frontend import import_torch

SHAPE = (1, 3, 12, 20)


class Pyramid(nn.Module):
    """A small image, enlarged, beside one or two others, through a 1×1 convolution."""

    def __init__(self, mode: str, place: int, beside: int, outputs: int, read_again: bool = False) -> None:
        super().__init__()
        self.small = nn.Sequential(*unit(3, 16, 3, 2))
        self.large = nn.ModuleList(nn.Sequential(*unit(3, 8 + 4 * number, 3)) for number in range(beside))
        self.last = nn.Sequential(*unit(16 + sum(8 + 4 * number for number in range(beside)), outputs, 1, activation=nn.SiLU()))
        self.mode, self.place, self.read_again = mode, place, read_again

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        enlarged = functional.interpolate(self.small(x), scale_factor=2.0, mode=self.mode)
        parts = [large(x) for large in self.large]
        whole: torch.Tensor = self.last(torch.cat([*parts[: self.place], enlarged, *parts[self.place :]], 1))
        return torch.cat([whole, enlarged * 2.0], 1) if self.read_again else whole


@pytest.mark.parametrize(
    ("network", "resized"),
    [
        (Pyramid("bilinear", 1, 2, 16), [16]),
        (Pyramid("nearest", 2, 2, 5), [5]),
        (Pyramid("nearest", 0, 1, 20), [16]),  # more channels would be resized
        (Pyramid("nearest", 0, 1, 12, read_again=True), [16]),
    ],
)
def test_products_come_before_a_resize(tmp_path: Path, network: nn.Module, resized: list[int]) -> None:
    network = seeded(network)
    composed = compose(import_torch(network, SHAPE), accepted)
    layers = dict(composed.layers)
    read = read_network(*lower_to_kernels(replace(composed, module=resized_pieces(accepted, layers)(composed.module), layers=layers)))
    assert [node.layer.channels for node in read.nodes if isinstance(node.layer, Resize)] == resized
    split = any(node.layer.residual for node in read.nodes if isinstance(node.layer, Conv2d))
    assert split == (network[0].last[0].out_channels < 20 and not network[0].read_again)
    if split:
        assert error_of(read, network, SHAPE, tmp_path / "network.so") < 1e-5
