"""Convolutions and pools along sequences, as in networks for sound: their layers, and values beside PyTorch's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from network_files import write_onnx
from own_networks import error_of, load, names_of
from small_networks import Lambda, Residual, error_against_torch, prepared
from torch import nn
from torch.nn import functional as F  # noqa: N812

TOLERANCE = 1e-5
SHAPE = (1, 3, 24)


def unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Module:
    conv = nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2 * dilation, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm1d(outputs), nn.ReLU())


def seeded(*modules: nn.Module) -> nn.Module:
    """Return the modules in a row, in eval mode, with Kaiming weights and batch norms that matter."""
    network = nn.Sequential(*modules).eval()
    torch.manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif tensor.is_floating_point():
            tensor.normal_(0.1, (2 / tensor[0].numel()) ** 0.5)
    return network


def kinds(network: nn.Module, shape: tuple[int, ...] = SHAPE) -> list[str]:
    return [node.layer.name.partition("_")[0] for node in prepared(network, shape).nodes]


def keyword_network() -> nn.Module:
    """Separable convolutions with residuals, and a classifier."""
    block = nn.Sequential(unit(12, 12, 9, groups=12), nn.Conv1d(12, 12, 1), nn.BatchNorm1d(12))
    body = unit(3, 12, 5, 2), Residual(block), nn.Hardswish(), unit(12, 8, 3, dilation=2)
    return seeded(*body, nn.MaxPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(1), nn.Linear(8, 5))


@pytest.mark.parametrize("batch", [1, 2])
def test_a_classifier(tmp_path: Path, batch: int) -> None:
    network, shape = keyword_network(), (batch, *SHAPE[1:])
    if batch == 1:
        assert kinds(network) == ["conv", "dw", "pw", "conv", "maxpool", "pool", "dense"]
    assert error_against_torch(network, shape, tmp_path / "net.so") <= TOLERANCE


def test_from_onnx(tmp_path: Path) -> None:
    imported = load(write_onnx(keyword_network(), tmp_path / "net.onnx", SHAPE))
    assert [name.partition("_")[0] for name in names_of(imported)] == ["conv", "dw", "pw", "conv", "maxpool", "pool", "dense"]
    assert error_of(imported, tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        pytest.param(nn.PReLU(6), [], id="slopes"),
        pytest.param(Lambda(lambda x: torch.cat([x, 2 * x], 1)[:, 3:9]), ["dw", "dw"], id="channels joined and cut"),
        pytest.param(Lambda(lambda x: x[..., 3:19:2]), ["strided"], id="places cut"),
        pytest.param(Lambda(lambda x: torch.cat([x, 2 * x], 2)), ["dw", "concatenate"], id="places joined"),
        pytest.param(Lambda(lambda x: F.glu(torch.cat([x, -x], 1), 1)), None, id="gated"),
        pytest.param(Lambda(lambda x: F.pad(x, (4, 0))), [], id="causal"),
        pytest.param(Lambda(lambda x: x * torch.arange(24.0, dtype=x.dtype)), None, id="factors of places"),
        pytest.param(Lambda(lambda x: x + torch.arange(6.0, dtype=x.dtype)[:, None]), None, id="summands of channels"),
        pytest.param(nn.Sequential(nn.AvgPool1d(3, 2, 1), nn.ConvTranspose1d(6, 6, 4, 2, 1), nn.ReLU()), ["dw", "conv"], id="up again"),
        pytest.param(nn.ConvTranspose1d(6, 6, 3, 1, 1, groups=2), None, id="transposed, in groups"),
        pytest.param(Lambda(lambda x: F.layer_norm(x.transpose(1, 2), (6,)).transpose(1, 2)), ["norm"], id="layer norm"),
        pytest.param(nn.GroupNorm(2, 6), ["groupnorm"], id="group norm"),
        pytest.param(Lambda(lambda x: F.conv1d(x, x[:, :, :3].expand(6, 6, 3), padding=1)), None, id="computed weights"),
        pytest.param(Lambda(lambda x: x * x.mean(2).unsqueeze(2)), None, id="gated"),
        pytest.param(Lambda(lambda x: x * x.mean(2).view(1, -1, 1) + x.mean(2).mean()), None, id="gated by a view"),
        pytest.param(Lambda(lambda x: x * F.batch_norm(x.mean(2), torch.zeros(6), torch.ones(6))[..., None]), None, id="gated by a norm"),
    ],
)
def test_between_convolutions(tmp_path: Path, between: nn.Module, expected: list[str] | None) -> None:
    network = seeded(nn.Conv1d(3, 6, 3, padding=1), between, nn.Conv1d(6, 4, 3), nn.AdaptiveAvgPool1d(1))
    if expected is not None:
        assert kinds(network) == ["conv", *expected, "conv", "pool"]
    assert error_against_torch(network, SHAPE, tmp_path / "net.so") <= TOLERANCE


COLUMN = (1, 3, 24, 1)


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        pytest.param(nn.GELU("tanh"), None, id="GELU"),
        pytest.param(nn.PReLU(6), [], id="slopes"),
        pytest.param(nn.BatchNorm2d(6), [], id="batch norm"),
        pytest.param(Lambda(lambda x: x + torch.arange(6.0)[:, None, None]), None, id="summands of channels"),
        pytest.param(Lambda(lambda x: x * torch.arange(24.0)[:, None]), None, id="factors of places"),
        pytest.param(Lambda(lambda x: x * x.mean((2, 3), keepdim=True)), None, id="gated"),
        pytest.param(Lambda(lambda x: x * x.mean((2, 3)).reshape(1, -1, 1, 1)), None, id="gated by a view"),
        pytest.param(Lambda(lambda x: torch.cat([x, 2 * x], 2)[:, :, 3:27]), None, id="joined and cut"),
        pytest.param(Lambda(lambda x: torch.cat([x, 2 * x], 3).mean(3, keepdim=True)), None, id="two columns"),
        pytest.param(Lambda(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)), None, id="halves swapped"),
        pytest.param(Lambda(lambda x: F.relu(x.squeeze(3) + 1).unsqueeze(3)), [], id="squeezed between"),
        pytest.param(
            nn.Sequential(nn.MaxPool2d((3, 1), (2, 1), (1, 0)), nn.ConvTranspose2d(6, 6, (4, 1), (2, 1), (1, 0))), None, id="up again"
        ),
        pytest.param(
            nn.Sequential(nn.AvgPool2d((2, 1)), nn.Conv2d(6, 6, (3, 1), groups=6, padding=(2, 0), dilation=(2, 1))), None, id="by channel"
        ),
        pytest.param(nn.Conv2d(6, 6, 3, padding=1), None, id="a window beside the column"),
        pytest.param(Lambda(lambda x: F.pad(x, (1, 1, 2, 0))[..., 1:2]), None, id="padded"),
    ],
)
def test_columns(tmp_path: Path, between: nn.Module, expected: list[str] | None) -> None:
    """Images of one column are laid out in a row."""
    network = seeded(
        nn.Conv2d(3, 6, (3, 1), padding=(1, 0)), between, nn.Conv2d(6, 6, 1), nn.Conv2d(6, 4, (3, 1), (2, 1)), nn.AdaptiveAvgPool2d(1)
    )
    nodes = prepared(network, COLUMN).nodes
    if expected is not None:
        assert kinds(network, COLUMN) == ["conv", *expected, "pw", "conv", "pool"]
    first, *_, last = (node.layer for node in nodes if node.layer.name.startswith("conv"))
    assert (first.kernel, last.kernel) == ((1, 3), (1, 3))
    assert error_against_torch(network, COLUMN, tmp_path / "net.so") <= TOLERANCE


def test_images_with_columns_beside_each_other_stay(tmp_path: Path) -> None:
    """A kernel of one column, where the image has several, is none of a sequence."""
    network = seeded(nn.Conv2d(3, 6, (3, 1)), nn.Conv2d(6, 4, (1, 2)), nn.AdaptiveAvgPool2d(1))
    assert [node.layer.kernel for node in prepared(network, (1, 3, 24, 2)).nodes[:2]] == [(3, 1), (1, 2)]
    assert error_against_torch(network, (1, 3, 24, 2), tmp_path / "net.so") <= TOLERANCE
