"""Operators of vision networks, imported from PyTorch's and ONNX's files, compiled for this machine, and compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from network_files import write_onnx, write_onnx_newer, write_pt2
from own_networks import TOLERANCE, error_of, load, names_of
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tvmmobile.system.errors import UserError

Function = Callable[[torch.Tensor], torch.Tensor]
SIDE = 6


def assigned(x: torch.Tensor) -> torch.Tensor:
    """Some channels changed in place."""
    y = x.clone()
    y[:, 1:3] = y[:, 1:3] * 2
    return y


def masked(x: torch.Tensor) -> torch.Tensor:
    """Some numbers, and some channels and columns, replaced in place."""
    y = x.clone()
    y[y < 0] = 0.5
    y[:, torch.tensor([0, 2]), :, torch.tensor([1, -1])] = 7.0
    return F.avg_pool2d(y, 2)


def warped(x: torch.Tensor) -> torch.Tensor:
    """Moved and turned a little."""
    grid = F.affine_grid(torch.tensor([[[0.9, 0.1, 0.0], [0.0, 0.8, 0.1]]]), (1, 4, 5, 7), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


#: Of 4 channels of 6 × 6 pixels; in ONNX as well, where PyTorch's exporter and ONNX's evaluator have them.
BOTH: dict[str, Function] = {
    "amax": lambda x: x.amax((2, 3)),
    "argmax": lambda x: x.argmax(1).float(),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "greatest of windows side by side": lambda x: F.max_pool2d(x, (2, 3), padding=1, ceil_mode=True),
    "booleans that are equal": lambda x: ((x > 0) == (x > 1)).float(),
    "nearest, to any size": lambda x: F.interpolate(x, size=(7, 4)),
    "convolution of one frame": lambda x: F.conv3d(x.unsqueeze(2), torch.arange(72.0).view(2, 4, 1, 3, 3).sin()),
    "cumsum": lambda x: x.cumsum(1),
    "group norm": lambda x: F.group_norm(x, 2, torch.tensor([1.0, 2, 3, 4]), torch.tensor([0.1, 0.2, 0.3, 0.4])),
    "group norm without parameters": lambda x: F.group_norm(x, 2),
    "leaky ReLU": lambda x: F.leaky_relu(x, 0.1),
    "NaN found by comparison": lambda x: torch.where((y := x.log()) != y, 7.0, y) + torch.where(y == y, y, 3.0),
    "one part": lambda x: torch.cat([part * 2 for part in x.chunk(1, 1)], 1),
    "PReLU": lambda x: F.prelu(x, torch.tensor([0.1, -0.2, 0.3, 1.4])),
    "PReLU with one slope": lambda x: F.prelu(x, torch.tensor([0.3])),
    "places in two dimensions": lambda x: x[:, :, torch.tensor([0, 2]), torch.tensor([1, -1])],
    "places in dimensions apart": lambda x: x[:, torch.tensor([0, 2, 3]), :, torch.tensor([1, 0, 5])].transpose(0, 1),
    "reflect": lambda x: F.pad(x, (1, 2, 3, 1), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 2, 3, 1), mode="replicate"),
    "scatter": lambda x: x.scatter(1, torch.zeros(1, 1, 6, 6, dtype=torch.long), 0.0),
    "selu": F.selu,
    "sort": lambda x: x.flatten(1).sort(1, descending=True)[0],
    "three dimensions": lambda x: F.interpolate(x.unsqueeze(2), scale_factor=2, mode="trilinear"),
    "topk": lambda x: x.topk(2, 1)[0],
    "topk's places": lambda x: x.flatten(1).topk(5)[1].float(),
    "unfold": lambda x: F.unfold(x, 3, padding=1, stride=2),
    "writing channels": assigned,
}
PYTORCH: dict[str, Function] = {
    "addmv, addbmm": lambda x: torch.addmv(x[0, 0, 0], x[0, 1], x[0, 2, 0]) + torch.addbmm(x[0, 0], x[0], x[0]),
    "dist": lambda x: x * torch.dist(x, 2 * x),
    "adaptive max pool": lambda x: F.adaptive_max_pool2d(x, (4, 2)),
    "adaptive max pool, equal windows": lambda x: F.adaptive_max_pool2d(x, (3, 2)),
    "amin": lambda x: x.amin(1, keepdim=True),
    "antialiased": lambda x: F.interpolate(x, size=(4, 3), mode="bilinear", antialias=True),
    "argmax of infinities": lambda x: torch.where(x > 99, x, float("-inf")).argmax(1).float() + 1,
    "argmax and argmin of NaNs": lambda x: torch.cat([x.log().argmax(1), x.log().argmin(1), x.log().flip(2).argmin(1)]).float()[None],
    "average by a divisor": lambda x: F.avg_pool2d(F.avg_pool2d(x, 3, 2, 1, True, divisor_override=7), 3, 2, divisor_override=5),
    "celu": lambda x: F.celu(x, 0.5),
    "divisions": lambda x: torch.div(x, 2, rounding_mode="floor") + torch.div(x * 5, 3, rounding_mode="trunc"),
    "exp2, erfc, hypot": lambda x: torch.exp2(x) + torch.erfc(x) + torch.hypot(x, x + 1),
    "fmax, fmin": lambda x: torch.fmax(x.log(), x) + torch.fmin(x.log(), 1 - x),
    "fold": lambda x: F.fold(F.unfold(x, 3, padding=1), (6, 6), 3, padding=1),
    "fold, side by side": lambda x: F.fold(F.unfold(x, (3, 2), stride=(3, 2)).sin(), (6, 6), (3, 2), stride=(3, 2)),
    "grid_sample": warped,
    "logsumexp": lambda x: x.logsumexp(1),
    "max": lambda x: x.max(2)[0] + x.min(2)[1],
    "median": lambda x: x.median(1)[0],
    "nothing joined": lambda x: torch.cat([x[:, :0], x, x[:, 3:3]], 1).sin(),
    "numbers in place": masked,
    "one_hot": lambda x: F.one_hot(x.argmax(1), 4).float(),
    "permutation of axes from the end": lambda x: x.permute(0, -2, -1, 1).sin(),
    "prod": lambda x: x.prod(1),
    "unpooled": lambda x: F.avg_pool2d(F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), 3, 1),
    "view_copy, narrow_copy, unbind_copy": lambda x: torch.stack(torch.unbind_copy(torch.view_copy(x, (8, 18)).narrow_copy(1, 2, 9), 1)),
    "var_mean": lambda x: sum(torch.var_mean(x, 1)),
    "windows of an axis": lambda x: x.unfold(2, 3, 1).unfold(3, 2, 2),
}
#: That ONNX alone has trouble with: shapes and branches that are computed.
ONNX: dict[str, Function] = {
    "chunk": lambda x: x.chunk(2, 1)[1],
    "constant padding": lambda x: F.pad(x, (1, 2, 3, 1), value=0.5),
    "instance norm": lambda x: F.instance_norm(x, weight=torch.tensor([1.0, 2, 3, 4]), bias=torch.tensor([0.1, 0.2, 0.3, 0.4])),
    "places from the end": lambda x: x[:, torch.tensor([-1, 0])],
    "view by places": lambda x: x.mean((0, 2, 3))[torch.arange(4).view(1, 4, 1, 1)],
    "local response": lambda x: F.local_response_norm(x, 3),
    "reshape by size": lambda x: x.view(x.size(0), x.size(1) // 2, -1).mean(2),
    "tile": lambda x: x.tile((1, 1, 2, 1)),
}
#: That PyTorch's newer exporter does not write.
OLDER: dict[str, Function] = {"greatest of all": lambda x: x / x.amax()}


class Net(nn.Module):
    """A convolution and a function of its output."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 3, padding=1), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.conv(x))


def net(function: Function) -> nn.Module:
    torch.manual_seed(0)
    return Net(function).eval()


#: Forms of others, or rare.
RARE = {"amin", "celu", "exp2, erfc, hypot", "fold", "max", "median", "one_hot", "places in dimensions apart", "prod", "scatter", "sort"}

#: That PyTorch's newer exporter of ONNX writes otherwise.
NEWER = {"group norm", "topk", "view by places", "writing channels"}


def cases(*tables: dict[str, Function]) -> list[Any]:
    """Names, the rare ones marked as long tests."""
    return [pytest.param(name, marks=[pytest.mark.long] * (name in RARE)) for table in tables for name in table]


@pytest.mark.parametrize("name", cases(BOTH, PYTORCH))
def test_from_pytorch(tmp_path: Path, name: str) -> None:
    path = write_pt2(net((BOTH | PYTORCH)[name]), tmp_path / "net.pt2", (1, 3, SIDE, SIDE))
    assert error_of(load(path), tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize("name", cases(BOTH, ONNX, OLDER))
def test_from_onnx(tmp_path: Path, name: str) -> None:
    path = write_onnx(net((BOTH | ONNX | OLDER)[name]), tmp_path / "net.onnx", (1, 3, SIDE, SIDE))
    assert error_of(load(path), tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name not in NEWER)) for name in BOTH | ONNX])
def test_from_the_newer_exporter(tmp_path: Path, name: str) -> None:
    path = write_onnx_newer(net((BOTH | ONNX)[name]), tmp_path / "net.onnx", (1, 3, SIDE, SIDE))
    assert error_of(load(path), tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize("write", [write_pt2, write_onnx])
def test_a_mean_over_all_pixels_has_a_template(tmp_path: Path, write: Callable[..., Path]) -> None:
    names = names_of(load(write(net(lambda x: x.mean((2, 3))), tmp_path / f"net.{write.__name__[6:]}", (1, 3, SIDE, SIDE))))
    assert names[1].startswith("pool_") and not any(name.startswith("mean") for name in names)


@pytest.mark.parametrize("write", [write_pt2, write_onnx])
@pytest.mark.parametrize("name", ["leaky ReLU", "PReLU", "PReLU with one slope"])
def test_slopes_are_part_of_the_layer(tmp_path: Path, name: str, write: Callable[..., Path]) -> None:
    names = names_of(load(write(net(BOTH[name]), tmp_path / f"net.{write.__name__[6:]}", (1, 3, SIDE, SIDE))))
    assert names[0].endswith("prelu")


@pytest.mark.parametrize("write", [write_pt2, write_onnx])
def test_a_group_norm_has_a_template(tmp_path: Path, write: Callable[..., Path]) -> None:
    """ONNX's exporter writes it as an instance norm between reshapes."""
    module = net(BOTH["group norm"])
    names = names_of(load(write(module, tmp_path / f"net.{write.__name__[6:]}", (1, 3, SIDE, SIDE))))
    assert names[1].startswith("groupnorm_6x6_4_g2") and len(names) <= 3


def test_what_cannot_be_imported_is_named_with_its_line(tmp_path: Path) -> None:
    path = write_pt2(net(torch.linalg.matrix_exp), tmp_path / "net.pt2", (1, 3, SIDE, SIDE))
    with pytest.raises(UserError, match=r"aten\.linalg_matrix_exp\.default \(test_operators\.py, line \d+\)"):
        load(path)


def test_names_of_parameters_may_have_hyphens(tmp_path: Path) -> None:
    module = nn.Sequential()
    module.add_module("block1-0", nn.Conv2d(3, 4, 1))
    assert error_of(load(write_pt2(module.eval(), tmp_path / "net.pt2", (1, 3, SIDE, SIDE))), tmp_path / "net.so") <= TOLERANCE
