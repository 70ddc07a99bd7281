"""Layer norms and RMS norms over channels: values for any size and schedule, and from networks in any shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from host_kernels import check_schedule, examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import error_against_torch, prepared, seeded
from torch import nn
from torch.nn import functional

from tvmmobile.graph.layers import ChannelNorm
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_for


@examples(20)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.sampled_from((2, 3, 4, 5, 8, 13, 16, 40, 131)),
    st.sampled_from((1e-3, 1e-5, 1e-6)),
    st.sampled_from(("float32", "float16")),
    st.booleans(),
    st.integers(1, 3),
    st.integers(0, 5),
)
def test_values(
    tmp_path: Path, size: tuple[int, int], channels: int, epsilon: float, dtype: str, centred: bool, threads: int, choice: int
) -> None:
    task = Task((ChannelNorm(*size, channels, epsilon, centred),), dtype, threads, machine_of("cortex-a76"))
    template = template_for(task)
    assert template is not None and template.name == "channel_norm"
    space = template.space(task)
    assert space is not None and 1 <= len(space) <= 4
    check_schedule(task, space, choice, 1e-5 if dtype == "float32" else 3e-3, tmp_path)


@pytest.mark.parametrize("shape", [(1, 5, 12), (3, 12), (1, 2, 3, 12), (2, 2, 3, 12)], ids=str)
def test_networks(tmp_path: Path, shape: tuple[int, ...]) -> None:
    network = nn.Sequential(nn.LayerNorm(12, 1e-6)).eval()
    nn.init.uniform_(network[0].weight)
    nn.init.uniform_(network[0].bias)
    assert [type(node.layer) for node in prepared(network, shape).nodes] == [ChannelNorm]
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


class Spelled(nn.Module):
    """A function of rows and of a weight for each of twelve channels."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.linspace(0.5, 1.5, 12))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.function(rows, self.weight)


@pytest.mark.parametrize("shape", [(12,), (1, 5, 12), (3, 12), (2, 2, 3, 12)], ids=str)
def test_rms_norms(tmp_path: Path, shape: tuple[int, ...]) -> None:
    network = nn.Sequential(nn.RMSNorm(12, 1e-6)).eval()
    nn.init.uniform_(network[0].weight)
    assert [node.layer.kind for node in prepared(network, shape).nodes] == ["RMS norm"]
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x, w: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w, id="power"),
        pytest.param(lambda x, w: w * (x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)), id="product"),
        pytest.param(lambda x, w: w * (x / torch.sqrt(1e-6 + x.square().mean(-1, keepdim=True))), id="quotient"),
        pytest.param(lambda x, w: x * (1 / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)) * w, id="inverse"),
        pytest.param(lambda x, w: w * (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)).type_as(x), id="converted"),
        pytest.param(lambda x, w: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6), id="no weight"),
        pytest.param(lambda x, w: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * 3.0, id="one weight"),
    ],
)
def test_rms_norms_that_are_spelled_out(tmp_path: Path, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    network, shape = Spelled(function).eval(), (1, 5, 12)
    assert [node.layer.name for node in prepared(network, shape).nodes] == ["rmsnorm_1x5_12_e1e-06"]
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x, w: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6) * w, id="another axis"),
        pytest.param(lambda x, w: x * torch.rsqrt(x.pow(2).mean((1, 2), keepdim=True) + 1e-6) * w, id="two axes"),
        pytest.param(lambda x, w: x * torch.rsqrt(x.pow(4).mean(-1, keepdim=True) + 1e-6) * w, id="another power"),
        pytest.param(lambda x, w: x * (2 / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)) * w, id="twice as much"),
        pytest.param(lambda x, w: (x + 1) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w, id="of something else"),
        pytest.param(lambda x, w: x * torch.rsqrt((x * w).pow(2).mean(-1, keepdim=True) + 1e-6), id="weighted before"),
        pytest.param(lambda x, w: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + w) * w, id="several summands"),
    ],
)
def test_what_is_no_rms_norm_over_channels(tmp_path: Path, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    network, shape = Spelled(function).eval(), (1, 5, 12)
    assert not any(node.layer.kind == "RMS norm" for node in prepared(network, shape).nodes)
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


def test_an_rms_norm_of_images_with_channels_first(tmp_path: Path) -> None:
    """It stays between its convolutions, in their layout."""
    norm = Spelled(lambda x, w: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6) * w[:, None, None])
    network, shape = seeded(nn.Conv2d(3, 12, 3), norm, nn.Conv2d(12, 5, 1), nn.AdaptiveAvgPool2d(1)), (1, 3, 7, 8)
    assert [node.layer.kind for node in prepared(network, shape).nodes] == ["conv 3x3", "RMS norm", "conv 1x1", "average pool"]
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


def test_an_rms_norm_over_the_columns_of_images(tmp_path: Path) -> None:
    network, shape = seeded(nn.Conv2d(3, 12, 3), nn.ReLU(), Spelled(lambda x, w: functional.rms_norm(x, x.shape[3:]))), (1, 3, 7, 8)
    assert [node.layer.name for node in prepared(network, shape).nodes][-1] == "rmsnorm_1x60_6_e1.19209e-07"
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5
