"""Numbers that a `.pt2` takes out of constants with `.item()` are known; those out of the input are refused as that, unless it only checks
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from network_files import write_pt2
from own_networks import TOLERANCE, error_of, image_for, load
from torch import nn

from tvmmobile.system.errors import UserError


def _anchors(maps: Sequence[torch.Tensor], strides: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Places and strides of all pixels, as ultralytics' detectors make them: `torch.full` takes a number out of a constant."""
    places, steps = [], []
    for number, one in enumerate(maps):
        height, width = one.shape[2:]
        across, down = (torch.arange(extent, dtype=torch.float32) + 0.5 for extent in (width, height))
        down, across = torch.meshgrid(down, across, indexing="ij")
        places.append(torch.stack((across, down), -1).view(-1, 2))
        steps.append(torch.full((height * width, 1), strides[number], dtype=torch.float32))
    return torch.cat(places), torch.cat(steps)


class Detector(nn.Module):
    """A head on two maps, with strides and a factor that are constants of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.heads = nn.ModuleList(nn.Conv2d(8, 4, 1) for _ in range(2))
        self.strides, self.factor = torch.tensor([2.0, 4.0]), nn.Buffer(torch.tensor([0.7, 1.7]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x).relu()
        maps = [head(one) for head, one in zip(self.heads, (first, self.second(first).relu()), strict=True)]
        places, strides = (anchor.transpose(0, 1) for anchor in _anchors(maps, self.strides))
        left, right = torch.cat([one.flatten(2) for one in maps], 2).chunk(2, 1)
        return torch.cat((places - left, places + right), 1) * strides * self.factor.sum().item()


class Gain(nn.Module):
    """A number of the input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * x.amax().item()


class Checked(nn.Module):
    """A check of computed values, as transformers' detectors have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        torch._check((x < 1e6).all().item(), lambda: "values are too large")
        return x.relu()


@pytest.mark.parametrize("side", [None, 48])
def test_numbers_out_of_constants_are_numbers(tmp_path: Path, side: int | None) -> None:
    torch.manual_seed(5)
    even = {axis: 2 * torch.export.Dim(f"half{axis}", min=4, max=200) for axis in (2, 3)}
    module = Detector().eval()
    path = write_pt2(module, tmp_path / "net.pt2", (1, 3, 32, 32), strict=False, dynamic_shapes={"x": even} if side else None)
    imported = load(path, side)
    image = image_for(imported)
    assert imported.spec.input_shape[2:] == (side or 32,) * 2
    with torch.no_grad():
        assert np.array_equal(imported.compute([image])[0], module(torch.from_numpy(image)).numpy())
    assert side or error_of(imported, tmp_path / "net.so") <= TOLERANCE


def test_a_number_out_of_the_input_is_refused_as_that(tmp_path: Path) -> None:
    path = write_pt2(Gain().eval(), tmp_path / "net.pt2", (1, 3, 8, 8), strict=False)
    with pytest.raises(UserError, match=r"takes a number out of a tensor that it computes, with \.item\(\)"):
        load(path)


def test_a_number_that_is_only_checked_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(5)
    module = Checked().eval()
    imported = load(write_pt2(module, tmp_path / "net.pt2", (1, 3, 8, 8), strict=False))
    assert error_of(imported, tmp_path / "net.so") <= TOLERANCE
