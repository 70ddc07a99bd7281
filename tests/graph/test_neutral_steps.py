"""Steps that change nothing are left out: what a product repeats itself is not repeated before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_networks import error_against_torch, prepared
from torch import nn

from tvmmobile.graph.layers import Conv2d, Opaque, Pool

TOLERANCE, SHAPE = 1e-5, (1, 3, 7, 6)
Function = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
#: Of an image and a gate, whose product every one of them is.
PRODUCTS: dict[str, Function] = {
    "expanded": lambda image, gate: image * gate.expand_as(image),
    "expanded first": lambda image, gate: gate.expand_as(image) * image,
    "repeated": lambda image, gate: image * gate.repeat(1, 1, *image.shape[2:]),
    "both expanded": lambda image, gate: image.expand_as(image) * gate.expand(-1, -1, 7, 1),
}


class Gated(nn.Module):
    """A squeeze-and-excite block between two convolutions."""

    def __init__(self, product: Function) -> None:
        super().__init__()
        self.image, self.gate, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 5, 1)
        self.product = product

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        image = self.image(image)
        gate = self.gate(image.mean((2, 3), keepdim=True)).sigmoid()
        return self.last(self.product(image, gate))


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_gate_is_not_repeated_for_every_pixel(tmp_path: Path, name: str) -> None:
    network = Gated(PRODUCTS[name]).eval()
    layers = [node.layer for node in prepared(network, SHAPE).nodes]
    assert [type(layer) for layer in layers] == [Conv2d, Pool, Conv2d, Conv2d]
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= TOLERANCE


def test_a_product_with_a_tensor_of_fewer_dimensions(tmp_path: Path) -> None:
    weights = torch.linspace(0.1, 2, 42).reshape(7, 6)
    network = Gated(lambda image, gate: image + gate.expand(-1, -1, 7, 6) * weights).eval()
    assert not [node.layer.name for node in prepared(network, SHAPE).nodes if "broadcast" in node.layer.name]
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= TOLERANCE


def test_what_a_product_cannot_repeat_stays(tmp_path: Path) -> None:
    """Both operands are repeated along one axis, so one of them has to be."""
    network = Gated(lambda image, gate: gate.expand(-1, -1, 4, 5) * gate.sin().expand(-1, -1, 4, 5)).eval()
    assert any(isinstance(node.layer, Opaque) for node in prepared(network, SHAPE).nodes)
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= TOLERANCE
