"""Linear layers of many rows: as 1×1 convolutions, with what follows them, whatever shape the rows have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import Lambda, Residual, error_against_torch, prepared
from torch import nn

from tvmmobile.graph.layers import Conv2d, Layer, Opaque

TOLERANCE = 1e-5


def ready(*modules: nn.Module) -> nn.Module:
    """Return the modules in a row, in eval mode, with weights that all matter."""
    network = nn.Sequential(*modules).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.1, 1.5 / parameter[0].numel() ** 0.5, generator)
    return network


class Scale(nn.Module):
    """A factor for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(8))

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return data * self.factor


def tokens() -> nn.Module:
    return Lambda(lambda image: image.flatten(2).transpose(1, 2))


def image_of(height: int, width: int) -> nn.Module:
    return Lambda(lambda rows: rows.transpose(1, 2).reshape(1, -1, height, width))


def layers_of(network: nn.Module, shape: tuple[int, ...]) -> list[Layer]:
    return [node.layer for node in prepared(network, shape).nodes]


@settings(max_examples=10, derandomize=True, database=None, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.sampled_from((3, 8, 17)),
    st.sampled_from((4, 13)),
    st.booleans(),
    st.sampled_from((nn.Identity(), nn.ReLU6(), nn.GELU(), nn.SiLU())),
)
def test_values(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], inputs: int, outputs: int, bias: bool, activation: nn.Module
) -> None:
    shape = (*rows, inputs)
    network = ready(nn.Linear(inputs, 12, bias=bias), activation, nn.Linear(12, outputs))
    found = layers_of(network, shape)
    if max(rows) > 1:
        assert [type(layer) for layer in found] == [Conv2d, Conv2d] and sum(layer.macs for layer in found) > 0
    assert error_against_torch(network, shape, tmp_path_factory.mktemp("net") / "net.so") <= TOLERANCE


def test_blocks_of_tokens_move_nothing(tmp_path: Path) -> None:
    """An image becomes tokens and an image again; the activation, the scales of the branch and the residual are in the layers."""
    block = Residual(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 24), nn.GELU(), nn.Linear(24, 8), Scale()))
    network = ready(nn.Conv2d(3, 8, 3, padding=1), tokens(), block, image_of(5, 6), nn.Conv2d(8, 5, 1))
    shape = (1, 3, 5, 6)
    found = layers_of(network, shape)
    assert [layer.name for layer in found if isinstance(layer, Conv2d)][1:] == [
        "pw_5x6_8x24_gelu",
        "pw_5x6_24x8_add_linear",
        "pw_5x6_8x5_to_nchw_linear",
    ]
    assert not [layer for layer in found if isinstance(layer, Opaque)]
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE


class ChannelsFirst(nn.Module):
    """ConvNeXt's block: tokens in the branch, an image with the channels first around it."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.LayerNorm(8)
        self.wide, self.narrow, self.factor = nn.Linear(8, 24), nn.Linear(24, 8), nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        rows = self.norm(self.depthwise(image).permute(0, 2, 3, 1))
        return image + self.narrow(nn.functional.gelu(self.wide(rows))).permute(0, 3, 1, 2) * self.factor


def test_images_with_channels_first_are_not_turned_either(tmp_path: Path) -> None:
    network = ready(nn.Conv2d(3, 8, 1), ChannelsFirst(), ChannelsFirst(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    shape = (1, 3, 5, 6)
    found = layers_of(network, shape)
    assert not any(isinstance(layer, Opaque) for layer in found)
    assert [layer.name for layer in found if isinstance(layer, Conv2d)].count("pw_5x6_24x8_add_linear") == 2
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE


class Pooling(nn.Module):
    """MetaFormer's block with a pool: a group norm, and the difference between what it computes and its pool."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.pool = norm, nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        normed = self.norm(image)
        return image + self.pool(normed) - normed


class ByGroups(nn.Module):
    """A group norm as ONNX has it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 2)
        self.factor, self.summand = (nn.Parameter(torch.ones(1, 8, 1, 1)) for _ in range(2))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.norm(image.reshape(1, 2, -1)).reshape(image.shape) * self.factor + self.summand


@pytest.mark.parametrize("norm", [lambda: nn.GroupNorm(2, 8), ByGroups], ids=["one operator", "by groups"])
def test_pools_between_group_norms_turn_nothing(tmp_path: Path, norm: Callable[[], nn.Module]) -> None:
    network = ready(nn.Conv2d(3, 8, 1), Pooling(norm()), Pooling(norm()), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    shape = (1, 3, 5, 6)
    kinds = [type(layer).__name__ for layer in layers_of(network, shape)]
    assert "Opaque" not in kinds and kinds.count("GroupNorm") == kinds.count("MeanPool") == 2
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize("stride", [1, 2])
def test_pools_of_tokens_are_of_their_image(tmp_path: Path, stride: int) -> None:
    """MViT has such pools: the linear layer's image is one row, the pool's is not."""
    turned = Lambda(lambda rows: rows.flip(1))
    network = ready(nn.Conv2d(3, 8, 1), tokens(), turned, nn.Linear(8, 8), image_of(5, 6), nn.MaxPool2d(3, stride, 1))
    assert error_against_torch(network, (1, 3, 5, 6), tmp_path / "net.so") <= TOLERANCE


def test_a_branch_takes_what_it_is_added_to(tmp_path: Path) -> None:
    """Although the one has two axes of pixels and the other only one."""
    turned = Lambda(lambda rows: rows.reshape(1, 30, 8).flip(1))
    back = Lambda(lambda rows: rows.reshape(1, 5, 6, 8))
    network = ready(
        nn.Conv2d(3, 8, 1), Lambda(lambda image: image.permute(0, 2, 3, 1)), Residual(nn.Sequential(turned, nn.Linear(8, 8), back))
    )
    shape = (1, 3, 5, 6)
    assert [layer.name for layer in layers_of(network, shape) if isinstance(layer, Conv2d)][1:] == ["pw_1x30_8x8_add_linear"]
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE


def test_of_several_images_at_once(tmp_path: Path) -> None:
    """PyTorch's exporter multiplies them by as many copies of the weights."""
    split = Lambda(lambda rows: rows.reshape(3, 10, 8))
    network = ready(nn.Conv2d(3, 8, 1), tokens(), split, nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 6))
    shape = (1, 3, 5, 6)
    assert [type(layer) for layer in layers_of(network, shape)] == [Conv2d] * 3
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(lambda x: x.transpose(1, 2).reshape(1, 30, 8), id="another order"),
        pytest.param(lambda x: x.reshape(1, 5, 6, 8).permute(0, 2, 1, 3), id="pixels turned"),
        pytest.param(lambda x: x.reshape(1, 15, 16), id="pairs of pixels"),
        pytest.param(lambda x: x.reshape(1, 30, 2, 4).permute(0, 2, 1, 3), id="heads"),
        pytest.param(lambda x: torch.cat([x[:, :1], x], 1), id="one more"),
        pytest.param(lambda x: x * torch.linspace(-1, 1, 30)[:, None], id="by pixel"),
        pytest.param(lambda x: x + x.transpose(1, 2).reshape(1, 30, 8), id="sum with another order"),
        pytest.param(lambda x: (x.transpose(1, 2) * torch.full((8, 1), 0.5)).exp().transpose(1, 2), id="channels first"),
        pytest.param(lambda x: (x.transpose(1, 2) * torch.full((30,), 0.5)).transpose(1, 2), id="channels first, by pixel"),
        pytest.param(lambda x: x.reshape(1, 1, 30, 8).transpose(1, 2).flatten(1, 2), id="axes of 1"),
        pytest.param(lambda x: (x * torch.full((8,), 0.5)) + x, id="read before its factors"),
        pytest.param(lambda x: x * x.transpose(1, 2).reshape(1, 2, 4, 30).mean((2, 3), keepdim=True)[0, :1], id="means of heads"),
    ],
)
def test_other_orders_are_kept(tmp_path: Path, between: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Whatever happens to the tokens of a layer before the next one."""
    with torch.no_grad():
        last = between(torch.zeros(1, 30, 8)).shape[-1]
    network = ready(nn.Conv2d(3, 8, 1), tokens(), nn.Linear(8, 8), Lambda(between), nn.Linear(last, 7))
    assert error_against_torch(network, (1, 3, 5, 6), tmp_path / "net.so") <= TOLERANCE


class NormedRows(nn.Module):
    """A linear layer without bias and a batch norm of its rows, as LeViT has them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = self.linear(rows)
        normed: torch.Tensor = self.norm(rows.flatten(0, 1)).reshape_as(rows)
        return normed


def moved(network: nn.Module) -> nn.Module:
    """Return the network with statistics of batch norms that matter."""
    generator = torch.Generator().manual_seed(1)
    for name, statistic in network.named_buffers():
        if statistic.ndim:
            nn.init.uniform_(statistic, 0.5, 2.0, generator) if name.endswith("var") else nn.init.normal_(statistic, 0.0, 0.5, generator)
    return network


def test_a_batch_norm_of_rows_is_in_the_weights(tmp_path: Path) -> None:
    network = moved(ready(NormedRows(8, 12), nn.Hardswish(), NormedRows(12, 8)))
    assert [layer.name for layer in layers_of(network, (1, 9, 8))] == ["pw_1x9_8x12_hswish", "pw_1x9_12x8_linear"]
    assert error_against_torch(network, (1, 9, 8), tmp_path / "net.so") <= TOLERANCE


def test_other_batch_norms_are_factors_and_shifts(tmp_path: Path) -> None:
    """Behind a residual, which the next block reads too, and before any layer."""
    network = moved(ready(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 1), Residual(nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 1, 1)))))
    assert error_against_torch(network, (1, 3, 6, 5), tmp_path / "net.so") <= TOLERANCE


def test_factors_of_an_image_that_rows_become(tmp_path: Path) -> None:
    """Global response normalisation (arXiv 2301.00808): each channel is scaled after its norm over all pixels."""

    def normed(rows: torch.Tensor) -> torch.Tensor:
        norm = rows.norm(p=2, dim=(1, 2), keepdim=True)
        return rows + rows * (norm / (norm.mean(-1, keepdim=True) + 1e-6))

    last = Lambda(lambda image: image.permute(0, 2, 3, 1))
    network = ready(nn.Conv2d(3, 8, 1), last, nn.Linear(8, 12), nn.GELU(), Lambda(normed), nn.Linear(12, 5))
    assert error_against_torch(network, (1, 3, 6, 5), tmp_path / "net.so") <= TOLERANCE


def test_patches_with_their_channels_first_are_turned_once(tmp_path: Path) -> None:
    """MobileViT v2 (arXiv 2206.02680) has such patches: the summand of a branch is the image that the branch's norm reads."""
    patches = Lambda(lambda image: image.reshape(1, 8, 2, 2, 3, 2).permute(0, 1, 3, 5, 2, 4).reshape(1, 8, 4, 6))
    blocks = [Residual(nn.Sequential(nn.GroupNorm(1, 8), nn.Conv2d(8, 24, 1), nn.SiLU(), nn.Conv2d(24, 8, 1))) for _ in range(2)]
    network = ready(nn.Conv2d(3, 8, 1), patches, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    shape = (1, 3, 4, 6)
    found = layers_of(network, shape)
    assert [layer.operator for layer in found if isinstance(layer, Opaque)] == ["transpose"]
    assert [layer.name for layer in found if isinstance(layer, Conv2d)].count("pw_4x6_24x8_add_linear") == 2
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize("between", [nn.Flatten(), nn.Sequential(nn.Flatten(1), nn.Dropout()), Lambda(lambda x: x.reshape(1, -1))])
def test_a_classifier_of_a_whole_image_reads_it_as_it_is(tmp_path: Path, between: nn.Module) -> None:
    network = ready(nn.Conv2d(3, 8, 3), nn.ReLU(), between, nn.Linear(8 * 4 * 5, 7), nn.ReLU(), nn.Linear(7, 3))
    assert [layer.name for layer in layers_of(network, (1, 3, 6, 7)) if isinstance(layer, Opaque)] == []
    assert error_against_torch(network, (1, 3, 6, 7), tmp_path / "net.so") <= TOLERANCE
