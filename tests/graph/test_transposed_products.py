"""Attention of images with their channels first: one layer that moves nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from small_networks import Lambda, error_against_torch, prepared, seeded, unit
from torch import nn

from tvmmobile.graph.layers import Attention, Opaque, Product

IMAGE = (1, 3, 5, 6)


class ChannelsFirst(nn.Module):
    """Attention between pixels, as EfficientViT of Microsoft (arXiv 2305.07027) has it: values times the transposed weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Conv2d(8, 24, 1), nn.Conv2d(8, 8, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        query, key, value = self.embed(image).flatten(2).split(8, 1)
        weights = (query.transpose(-2, -1) @ key * 0.3).softmax(-1)
        return self.last((value @ weights.transpose(-2, -1)).reshape(image.shape))


def test_values_times_transposed_weights(tmp_path: Path) -> None:
    network = seeded(*unit(3, 8), ChannelsFirst(), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    layers = [node.layer for node in prepared(network, IMAGE).nodes]
    assert [type(layer) for layer in layers].count(Attention) == 1
    assert not [layer.name for layer in layers if isinstance(layer, Opaque)]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= 1e-5


class Routed(nn.Module):
    """A convolution whose weights are a mixture of three experts', as CondConv's (arXiv 1904.04971) are."""

    def __init__(self) -> None:
        super().__init__()
        self.route, self.experts = nn.Linear(8, 3), nn.Linear(3, 12 * 8)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        weights = self.experts(self.route(image[:1].mean((2, 3))).sigmoid())
        return nn.functional.conv2d(image, weights.reshape(12, 8, 1, 1))


def test_a_pointwise_convolution_with_computed_weights_is_a_product(tmp_path: Path) -> None:
    network = seeded(*unit(3, 8), Routed(), nn.BatchNorm2d(12), nn.SiLU(), *unit(12, 8, 3))
    layers = [node.layer for node in prepared(network, IMAGE).nodes]
    assert [type(layer) for layer in layers].count(Product) == 1
    assert not [layer.name for layer in layers if isinstance(layer, Opaque)]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= 1e-5


class Heads(nn.Module):
    """Attention in heads beside a depthwise convolution of the values, as YOLO11 and YOLO26 have it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.beside, self.last = nn.Conv2d(8, 48, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 8, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        query, key, value = self.embed(image).view(1, 2, 24, 30).split(8, 2)
        weights = (query.transpose(-2, -1) @ key * 0.3).softmax(-1)
        mixed = (value @ weights.transpose(-2, -1)).view(1, 16, 5, 6)
        return self.last(mixed + self.beside(value.reshape(1, 16, 5, 6)))


def test_heads_and_their_values_stay_images(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), Heads()).eval()
    layers = [node.layer for node in prepared(network, IMAGE).nodes]
    assert [type(layer) for layer in layers].count(Attention) == 1
    assert not [layer.name for layer in layers if isinstance(layer, Opaque)]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= 1e-5


def test_heads_that_share_their_weights(tmp_path: Path) -> None:
    def mixed(image: torch.Tensor) -> torch.Tensor:
        pixels = image.flatten(2)
        weights = (pixels.transpose(1, 2) @ pixels).reshape(1, 1, 30, 30).softmax(-1)
        return image.reshape(1, 4, 2, 30) @ weights.transpose(-1, -2)

    network = nn.Sequential(*unit(3, 8), Lambda(mixed)).eval()
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= 1e-5
