"""Convolutions beside each other, as networks are trained with: one layer with the values of all."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path

import pytest
import torch
from small_networks import error_against_torch, prepared, seeded, unit
from torch import nn

SHAPE = (1, 3, 7, 6)


class Branches(nn.Module):
    """A sum of what modules return for the same tensor."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return reduce(torch.add, [branch(image) for branch in self.branches])


def conv(kernel: int | tuple[int, int], stride: int = 1, groups: int = 1, padding: int | tuple[int, int] | None = None) -> nn.Module:
    """Return a convolution with batch norm."""
    around = padding if padding is not None else kernel // 2 if isinstance(kernel, int) else tuple(taps // 2 for taps in kernel)
    return nn.Sequential(nn.Conv2d(8, 8, kernel, stride, around, groups=groups, bias=False), nn.BatchNorm2d(8))


@pytest.mark.parametrize(
    ("branches", "layers"),
    [
        pytest.param([conv(3), conv(1), nn.BatchNorm2d(8)], ["conv_7x6_8x8_k3x3s1x1p1.1.1.1_relu"], id="RepVGG"),
        pytest.param([conv(3, 2), conv(1, 2)], ["conv_7x6_8x8_k3x3s2x2p1.1.1.1_relu"], id="RepVGG, with a stride"),
        pytest.param(
            [nn.BatchNorm2d(8), *(conv(3, 1, 8) for _ in range(3)), conv(1, 1, 8)], ["dw_7x6_8_k3x3s1x1p1.1.1.1_relu"], id="MobileOne"
        ),
        pytest.param([conv(3, 1, 2), nn.BatchNorm2d(8)], ["conv_7x6_8x8_k3x3s1x1p1.1.1.1_g2_relu"], id="groups"),
        pytest.param([conv(1), conv(1), nn.Conv2d(8, 8, 1)], ["pw_7x6_8x8_relu"], id="single pixels"),
        pytest.param([conv(3), nn.Identity()], ["conv_7x6_8x8_k3x3s1x1p1.1.1.1_add_relu"], id="residual"),
        pytest.param([conv((1, 5)), conv((5, 1))], None, id="crossed"),
        pytest.param([conv(3), conv(3, groups=8)], None, id="dense and depthwise"),
        pytest.param([conv(3), nn.Sequential(conv(1), nn.ReLU())], None, id="with an activation"),
        pytest.param([nn.BatchNorm2d(8), nn.BatchNorm2d(8)], None, id="batch norms"),
    ],
)
def test_a_sum_of_branches(tmp_path: Path, branches: list[nn.Module], layers: list[str] | None) -> None:
    network = seeded(*unit(3, 8), Branches(*branches), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    if layers is not None:
        assert [node.layer.name for node in prepared(network, SHAPE).nodes][1:-1] == layers
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= 1e-5


@pytest.mark.parametrize(
    "join",
    [
        pytest.param(lambda one, other, third: sum([one, other, third]), id="a sum that begins with zero"),
        pytest.param(lambda one, other, third: one - other + third, id="a difference"),
        pytest.param(lambda one, other, third: (other * 1.0 + 0.0) / 1.0 - (third - one), id="a difference of a difference"),
    ],
)
def test_other_ways_to_join_branches(tmp_path: Path, join: Callable[..., torch.Tensor]) -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branches = nn.ModuleList([conv(3), conv(1), nn.BatchNorm2d(8)])

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return join(*(branch(image) for branch in self.branches))

    network = seeded(*unit(3, 8), Joined(), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    assert [node.layer.name for node in prepared(network, SHAPE).nodes][1:-1] == ["conv_7x6_8x8_k3x3s1x1p1.1.1.1_relu"]
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= 1e-5


def test_a_branch_with_another_reader_stays(tmp_path: Path) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = conv(3), conv(1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            branch = self.one(image)
            return (branch + self.other(image)) * branch.sigmoid()

    network = seeded(*unit(3, 8), Shared(), nn.AdaptiveAvgPool2d(1))
    assert [node.layer.name.partition("_")[0] for node in prepared(network, SHAPE).nodes][:4] == ["pw", "conv", "dw", "pw"]
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= 1e-5


def test_a_branch_of_one_pixel_is_added_to_all(tmp_path: Path) -> None:
    branches = Branches(nn.BatchNorm2d(8), conv((7, 6), padding=0))
    network = nn.Sequential(*unit(3, 8), branches, nn.ReLU(), nn.AdaptiveAvgPool2d(1)).eval()
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= 1e-5


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    class Whole(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            numbers = (image * 9).to(torch.int32)
            return (numbers * 2 + numbers * 3).to(torch.float32)

    network = seeded(*unit(3, 8), Whole())
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= 1e-5
