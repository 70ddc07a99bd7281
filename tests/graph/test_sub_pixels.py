"""Transposed convolutions as convolutions, whatever their kernel, stride, padding and groups, with what follows them in the same layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_networks import Lambda, error_against_torch, prepared, seeded, unit
from torch import nn

from tvmmobile.graph.layers import Conv2d, Opaque

TOLERANCE = 1e-5
IMAGE = (1, 3, 6, 7)


@settings(max_examples=8, derandomize=True, database=None, deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(1, 2),
    st.sampled_from((1, 2, 4)),
)
def test_values(
    tmp_path_factory: pytest.TempPathFactory,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: int,
    beyond: int,
    dilation: int,
    groups: int,
) -> None:
    assume(beyond < min(stride))
    extents = [(side - 1) * s - 2 * padding + dilation * (k - 1) + beyond + 1 for side, s, k in zip((6, 7), stride, kernel, strict=True)]
    assume(min(extents) > 0)
    transposed = nn.ConvTranspose2d(8, 12, kernel, stride, padding, beyond, groups, True, dilation)
    network = seeded(*unit(3, 8, 3), transposed, *unit(12, 5))
    assert error_against_torch(network, IMAGE, tmp_path_factory.mktemp("net") / "net.so") <= TOLERANCE


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.Identity()], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("norm", [False, True], ids=["bias", "norm"])
def test_bias_norm_and_activation_are_in_the_layer(tmp_path: Path, activation: nn.Module, norm: bool) -> None:
    follows = [nn.BatchNorm2d(12)] if norm else []
    network = seeded(*unit(3, 8, 3), nn.ConvTranspose2d(8, 12, 4, 2, 1, bias=not norm), *follows, activation, *unit(12, 5))
    found = [node.layer for node in prepared(network, IMAGE).nodes]
    assert [type(layer) for layer in found] == [Conv2d, Conv2d, Conv2d]
    second = found[1]
    assert isinstance(second, Conv2d) and (second.kernel, second.out_channels, second.padding) == ((3, 3), 48, (1, 1, 1, 1))
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize("follows", [[], [nn.BatchNorm2d(1), nn.ReLU()]], ids=["bias", "norm"])
def test_a_single_channel(tmp_path: Path, follows: list[nn.Module]) -> None:
    """Networks for super-resolution end with it."""
    network = seeded(*unit(3, 8, 3), nn.ConvTranspose2d(8, 1, 9, 2, 4, 1), *follows)
    assert [type(node.layer) for node in prepared(network, IMAGE).nodes] == [Conv2d, Conv2d]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_two_pixels_of_two_are_a_product(tmp_path: Path) -> None:
    """Decoders have such layers; nothing is multiplied by zeros."""
    network = seeded(*unit(3, 8, 3), nn.ConvTranspose2d(8, 12, 2, 2), nn.ReLU())
    second = prepared(network, IMAGE).nodes[1].layer
    assert isinstance(second, Conv2d) and second.is_pointwise and second.macs == 6 * 7 * 8 * 12 * 4
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_without_a_stride_it_is_a_convolution(tmp_path: Path, groups: int) -> None:
    """LowFormer's attention ends with such layers, depthwise or not."""
    transposed = nn.ConvTranspose2d(8, 8, 3, 1, 1, groups=groups, bias=False)
    network = seeded(*unit(3, 8, 3), transposed, nn.BatchNorm2d(8), nn.ReLU(), *unit(8, 5))
    assert [type(node.layer) for node in prepared(network, IMAGE).nodes] == [Conv2d, Conv2d, Conv2d]
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE


def test_what_another_layer_reads_too_is_shuffled_once(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.one, self.other = nn.ConvTranspose2d(3, 8, 2, 2), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, image):  # type: ignore[no-untyped-def]
            up = self.up(image)
            return self.one(up.relu()) + self.other(up)

    assert error_against_torch(seeded(Twice()), IMAGE, tmp_path / "net.so") <= TOLERANCE


class Joined(nn.Module):
    """A level of a U-Net: an image of twice the size and another one, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.rise = nn.Sequential(*unit(3, 8, 3, 2), *unit(8, 12)), nn.ConvTranspose2d(12, 8, 2, 2)
        self.kept, self.last = nn.Sequential(*unit(3, 8)), nn.Sequential(*unit(16, 5, 3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(torch.cat([self.rise(self.before(image)), self.kept(image)], 1))


def test_joined_with_another_image_it_is_not_turned(tmp_path: Path) -> None:
    network, shape = seeded(Joined(), nn.AdaptiveAvgPool2d(1)), (1, 3, 8, 12)
    layers = [node.layer for node in prepared(network, shape).nodes]
    assert not [layer.name for layer in layers if isinstance(layer, Opaque)]
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE


def test_numbers_of_columns_are_not_those_of_channels(tmp_path: Path) -> None:
    columns = torch.linspace(-1, 1, 14)
    network = nn.Sequential(*unit(3, 8, 3), nn.ConvTranspose2d(8, 14, 2, 2), Lambda(lambda x: x * columns), *unit(14, 5)).eval()
    assert error_against_torch(network, IMAGE, tmp_path / "net.so") <= TOLERANCE
