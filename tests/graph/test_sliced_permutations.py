"""Slices of a permutation are cut out of what it reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_networks import Lambda, error_against_torch, prepared
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tvmmobile.graph.layers import Opaque

TOLERANCE = 1e-5
TOKENS = (1, 12, 16)


def operators(network: nn.Module) -> list[str]:
    """Names of the kernels that are no layers."""
    return [node.layer.operator for node in prepared(network, TOKENS).nodes if isinstance(node.layer, Opaque)]


def network_of(function: Callable[[torch.Tensor], torch.Tensor], width: int) -> nn.Module:
    """Return the function between two linear layers, the second of which reads tokens of that width."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 48), Lambda(function), nn.Linear(width, 5)).eval()


def channel_attention(joined: torch.Tensor) -> torch.Tensor:
    """Attention of XCiT between channels: products of unit vectors, with a factor for each head."""
    query, key, value = joined.reshape(1, 12, 3, 4, 4).permute(2, 0, 3, 4, 1).unbind(0)
    products = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)
    weights = (products * torch.tensor([4.0, 8.0, 2.0, 1.0]).reshape(4, 1, 1)).softmax(-1)
    return (weights @ value).permute(0, 3, 1, 2).reshape(1, 12, 16)


def test_queries_keys_and_values_are_cut_out_in_their_order(tmp_path: Path) -> None:
    network = network_of(channel_attention, 16)
    found = operators(network)
    assert found.count("strided_slice_transpose") == 3 and "strided_slice" not in found, found
    assert error_against_torch(network, TOKENS, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: x.mT[:, :40].relu().mT[..., :32] + x.mT[:, 8:].exp().mT[..., :32], id="elements in two slices"),
        pytest.param(lambda x: (x.mT[:, :16] * x.mT[:, 16:32].exp() - x.mT.abs()[:, :16]).mT.repeat(1, 1, 2), id="read as a whole, too"),
        pytest.param(lambda x: (x.T[:-16].exp() - x.T[32:].tile(2, 1, 1)).T, id="reversed, negative places"),
        pytest.param(lambda x: (x.mT[:, ::3, 2:].exp() - x.mT[:, 1::3, :-2]).tile(1, 2, 1).mT, id="steps, several axes"),
    ],
)
def test_values_of_other_slices(tmp_path: Path, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    network = network_of(function, 32)
    assert error_against_torch(network, TOKENS, tmp_path / "net.so") <= TOLERANCE
