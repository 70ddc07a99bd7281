"""Concatenations and sums behind activations, as parts of the layers beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_networks import accepted, error_of, seeded, unit
from torch import nn

from tvmmobile.graph.curves import PLUS
from tvmmobile.graph.layers import Conv2d, Opaque
from tvmmobile.graph.network import Network, read_network
from tvmmobile.graph.passes.joined_copies import joined_copies
from tvmmobile.graph.passes.pipeline import compose, lower_to_kernels
from tvmmobile.networks.frontend import import_torch

SHAPE = (1, 3, 12, 10)


class Halves(nn.Module):
    """A block of YOLO: half of the channels go through a residual unit, and all that came to be is put together."""

    def __init__(self, activation: nn.Module, reads_inner: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(*unit(3, 16, 1, activation=activation))
        self.inner = nn.Sequential(*unit(8, 4, 3, activation=activation))
        self.outer = nn.Sequential(*unit(4, 8, 3, activation=activation))
        self.last = nn.Sequential(*unit(24 + 8 * reads_inner, 12, 1, activation=activation))
        self.reads_inner = reads_inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.first(x).chunk(2, 1)
        inner = self.outer(self.inner(right))
        behind = [inner] if self.reads_inner else []
        return self.last(torch.cat([left, right, right + inner, *behind], 1))


def joined(network: nn.Module) -> Network:
    composed = compose(import_torch(network, SHAPE), accepted)
    layers = dict(composed.layers)
    return read_network(*lower_to_kernels(replace(composed, module=joined_copies(accepted, layers)(composed.module), layers=layers)))


def convolutions(network: Network) -> list[Conv2d]:
    return [node.layer for node in network.nodes if isinstance(node.layer, Conv2d)]


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.LeakyReLU(0.1)])
def test_a_sum_is_the_last_step_of_the_layer_in_front(tmp_path: Path, activation: nn.Module) -> None:
    network = seeded(Halves(activation))
    read = joined(network)
    found = convolutions(read)
    assert [layer.then for layer in found] == [(), (), (PLUS,), ()] and found[-1].pieces == ((0, 0, 8), (0, 8, 8), (1, 0, 8))
    assert found[1].pieces == ((0, 8, 8),) and found[2].added == (16, 8)
    assert not any(isinstance(node.layer, Opaque) for node in read.nodes)
    assert error_of(read, network, SHAPE, tmp_path / "network.so") < 1e-5


class Added(nn.Module):
    """Half of the channels are the input of a convolution that is added to them."""

    def __init__(self, returned: bool) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(3, 13, 1), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(13, 5, 1)
        self.returned = returned

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.first(x).split((7, 6), 1)
        whole = self.last(torch.cat([left, right + self.inner(right)], 1))
        return torch.cat([whole, right.amax(1, keepdim=True)], 1) if self.returned else whole


@pytest.mark.parametrize("returned", [False, True])
def test_a_slice_is_read_from_the_whole(tmp_path: Path, returned: bool) -> None:
    """Unless it has other readers as well."""
    network = seeded(Added(returned))
    read = joined(network)
    assert [layer.added for layer in convolutions(read) if layer.residual] == [() if returned else (13, 7)]
    assert error_of(read, network, SHAPE, tmp_path / "network.so") < 1e-5


def test_a_term_with_another_reader_stays() -> None:
    assert not any(layer.then for layer in convolutions(joined(seeded(Halves(nn.SiLU(), reads_inner=True)))))


class Wide(nn.Module):
    """Concatenations for which float32 prefers Strassen's algorithm, so that they are copied."""

    def __init__(self, readers: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Sequential(*unit(3, 64)) for _ in range(2))
        self.readers = nn.ModuleList(nn.Sequential(*unit(128, 128)) for _ in range(readers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = torch.cat([part(x) for part in self.parts], 1)
        total: torch.Tensor = sum(reader(whole) for reader in self.readers)
        return total


@pytest.mark.parametrize("readers", [1, 2])
def test_the_only_reader_of_a_concatenation_reads_its_pieces(tmp_path: Path, readers: int) -> None:
    network = seeded(Wide(readers))
    read = joined(network)
    pieces = [layer.pieces for layer in convolutions(read) if layer.pieces and not layer.is_depthwise]
    assert pieces == ([((0, 0, 64), (1, 0, 64))] if readers == 1 else [])
    assert sum(layer.is_depthwise for layer in convolutions(read)) == readers - 1
    assert error_of(read, network, SHAPE, tmp_path / "network.so") < 1e-5
