"""Steps behind concatenations, between branches and behind what has other readers: layers of their own, and what PyTorch computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_networks import error_against_torch, prepared, seeded, unit
from torch import nn
from torch.nn import functional

from tvmmobile.graph.layers import Conv2d, Opaque

TOLERANCE = 1e-5
IMAGE = (1, 3, 9, 7)
Join = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Branches(nn.Module):
    """Two convolutions of an image, joined, and what reads the result."""

    def __init__(self, join: Join, channels: int = 8, behind: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.second = (nn.Sequential(*unit(3, 8, kernel)) for kernel in (3, 1))
        self.join, self.behind = join, behind or nn.Sequential(*unit(channels, 5))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        one, other = self.first(image), self.second(image)
        return self.behind(self.join(one, other)) + one.mean() + other.mean()


def joined(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.cat([one, other], 1)


def in_front(network: nn.Module) -> list[Conv2d]:
    """Return the layers that were put in front of steps; nothing but the two means may be left to the fallback."""
    layers = [node.layer for node in prepared(network, IMAGE).nodes]
    opaque = [layer.operator for layer in layers if isinstance(layer, Opaque)]
    assert not [name for name in opaque if "concat" in name or "multiply" in name or "max" in name], opaque
    return [layer for layer in layers if isinstance(layer, Conv2d) and layer.is_depthwise and layer.kernel == (1, 1)]


@pytest.mark.parametrize(
    ("join", "channels", "behind", "wanted"),
    [
        pytest.param(joined, 16, [nn.BatchNorm2d(16), nn.ReLU()], ("relu", 2, False), id="a batch norm behind a concatenation"),
        pytest.param(joined, 16, [nn.SiLU()], ("silu", 2, False), id="a curve behind a concatenation"),
        pytest.param(lambda one, other: joined(one, other) + joined(other, one), 16, [], ("linear", 2, True), id="a sum of concatenations"),
        pytest.param(lambda one, other: functional.relu6(one + other), 8, [], ("relu6", 0, True), id="a bounded sum"),
        pytest.param(lambda one, other: functional.relu(one) * other, 8, [], ("times", 0, False), id="a product"),
        pytest.param(lambda one, other: functional.relu(one - other), 8, [], ("relu", 0, True), id="a difference"),
        pytest.param(lambda one, other: torch.sigmoid(one * 0.5 + 0.25), 8, [], ("sigmoid", 0, False), id="scaled and shifted"),
        pytest.param(
            lambda one, other: one * other.mean((2, 3), True), 8, unit(8, 8, 3, groups=8), ("gated", 0, False), id="a gate of channels"
        ),
        pytest.param(lambda one, other: functional.hardswish(one * 2), 8, [], ("hswish", 0, False), id="a curve of something else"),
    ],
)
def test_a_step_is_a_layer(tmp_path: Path, join: Join, channels: int, behind: list[nn.Module], wanted: tuple[str, int, bool]) -> None:
    network = seeded(Branches(join, channels, nn.Sequential(*behind, *unit(channels, 5))))
    first = in_front(network)[-1]
    clamp = {(0.0, None): "relu", (0.0, 6.0): "relu6", (None, None): "linear"}.get(first.clamp, first.clamp)  # type: ignore[arg-type]
    assert (clamp, len(first.sources), first.residual) == wanted
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


class ResponseNorm(nn.Module):
    """Global response normalisation (arXiv 2301.00808): channels by their magnitude over all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.factor, self.summand = (nn.Parameter(torch.linspace(start, 1, 8).reshape(1, 8, 1, 1)) for start in (0.5, -0.5))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        magnitude = image.norm(dim=(2, 3), keepdim=True)
        share = magnitude / (magnitude.mean(1, keepdim=True) + 1e-6)
        return image + torch.addcmul(self.summand, self.factor, image * share)


def test_steps_that_begin_with_the_same_tensor_are_layers_of_their_own(tmp_path: Path) -> None:
    network = seeded(*unit(3, 8), ResponseNorm(), *unit(8, 5))
    layers = [node.layer for node in prepared(network, IMAGE).nodes][:-1]  # the last is the output's layout
    opaque = [layer for layer in layers if isinstance(layer, Opaque)]
    assert not [layer.operator for layer in opaque if "mean" in layer.operator or math.prod(layer.input_shape) > 8]
    assert [layer.clamp for layer in layers if isinstance(layer, Conv2d) and layer.is_depthwise] == [
        "square",
        (None, None),
        "gated",
        (None, None),
    ]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


class Normalised(nn.Module):
    """An image whose channels are scaled and shifted, at once or one by one as torchvision's GoogLeNet does it, and a convolution."""

    def __init__(self, one_by_one: bool) -> None:
        super().__init__()
        self.one_by_one, self.layers = one_by_one, nn.Sequential(*unit(3, 8, 3, 2))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if not self.one_by_one:
            return self.layers((image - 0.45) / 0.225)  # type: ignore[no-any-return]
        channels = [image[:, channel, None] * scale + 0.1 * channel for channel, scale in enumerate((0.9, 1.1, 1.2))]
        return self.layers(torch.cat(channels, 1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("one_by_one", [False, True])
def test_what_normalises_the_input_is_no_layer(tmp_path: Path, one_by_one: bool) -> None:
    """The input has its channels first, and in integers a layer of its own would lose digits."""
    network = seeded(Normalised(one_by_one))
    layers = [node.layer for node in prepared(network, IMAGE).nodes]
    (layer,) = (layer for layer in layers if isinstance(layer, Conv2d))
    assert layer.kernel == (3, 3) and layer.in_channels == 3
    assert not any("take" in layer.operator for layer in layers if isinstance(layer, Opaque))
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE
