"""Group norms: values for any size, groups and schedule, and from networks in any shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from host_kernels import check_schedule, examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Residual, error_against_torch, prepared, seeded
from torch import nn

from tvmmobile.graph.layers import Conv2d, GroupNorm, Opaque
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters
from tvmmobile.schedules import template_for


@examples(14)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.sampled_from((1, 2, 4, 5)),
    st.sampled_from((1, 2, 3, 4, 7, 8, 13, 20)),
    st.sampled_from(("float32", "float16")),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_values(tmp_path: Path, size: tuple[int, int], groups: int, each: int, dtype: str, threads: int, choice: int) -> None:
    task = Task((GroupNorm(*size, groups * each, groups, 1e-3),), dtype, threads, machine_of("cortex-a76"))
    template = template_for(task)
    assert template is not None and template.name == "group_norm"
    space = template.space(task)
    assert space is not None and 1 <= len(space) <= 3
    check_schedule(task, space, choice, 1e-5 if dtype == "float32" else 3e-3, tmp_path)


def test_groups_of_one_number_are_their_bias(tmp_path: Path) -> None:
    """ONNX has them, an instance norm of one pixel; PyTorch's modules refuse them."""
    task = Task((GroupNorm(1, 1, 7, 7, 1e-3),))
    template = template_for(task)
    assert template is not None
    space = template.space(task)
    assert space is not None
    data, (parameters,) = make_inputs(task), make_parameters(task)
    assert (expected_output(task, data, (parameters,)).reshape(-1) == parameters.bias).all()
    check_schedule(task, space, 0, 1e-6, tmp_path)


def layers_of(network: nn.Module, shape: tuple[int, ...]) -> list[type]:
    """Return the layers of its kernels, in order."""
    return [type(node.layer) for node in prepared(network, shape).nodes]


def test_between_convolutions(tmp_path: Path) -> None:
    """Nothing is moved but the network's input and output."""
    network, shape = nn.Sequential(nn.Conv2d(8, 12, 1), nn.GroupNorm(3, 12), nn.Conv2d(12, 8, 3, 1, 1)).eval(), (1, 8, 5, 6)
    nn.init.uniform_(network[1].weight)
    nn.init.uniform_(network[1].bias)
    found = layers_of(network, shape)
    assert [layer for layer in found if layer in (Conv2d, GroupNorm)] == [Conv2d, GroupNorm, Conv2d] and len(found) <= 5
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


@pytest.mark.parametrize("affine", [True, False])
def test_alone(tmp_path: Path, affine: bool) -> None:
    network, shape = nn.Sequential(nn.GroupNorm(1, 12, affine=affine)).eval(), (1, 12, 3, 4)
    assert GroupNorm in layers_of(network, shape)
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


def normed(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """Return a convolution and its group norm, whose factors and summands differ from 1 and 0."""
    norm = nn.GroupNorm(2, outputs)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), norm]


def opaque_operators(network: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """Return the operators that no template takes, in order."""
    return [layer.operator for node in prepared(network, shape).nodes if isinstance(layer := node.layer, Opaque)]


def test_residual_networks_move_nothing(tmp_path: Path) -> None:
    """Sums and activations around the norms take images as these leave them."""
    block = Residual(nn.Sequential(*normed(8, 8), nn.ReLU(), *normed(8, 8)))
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)
    network, shape = seeded(*normed(3, 8, 2), nn.ReLU(), block, nn.ReLU(), *normed(8, 12), nn.SiLU(), *head), (1, 3, 10, 12)
    assert not [name for name in opaque_operators(network, shape) if "transpose" in name]
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


def test_an_image_that_is_normed_first_is_turned_once(tmp_path: Path) -> None:
    """The norm is followed by its activation and the sum that skips the block."""
    norm, block = normed(8, 8)[1], Residual(nn.Sequential(*normed(8, 8)))
    network, shape = nn.Sequential(norm, nn.ReLU(), block, nn.ReLU(), nn.Conv2d(8, 5, 1)).eval(), (1, 8, 5, 6)
    assert opaque_operators(network, shape) == ["transpose"]
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("images", [1, 2])
def test_instance_norms(tmp_path: Path, affine: bool, images: int) -> None:
    norm = nn.InstanceNorm2d(8, affine=affine)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter)
    network, shape = seeded(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 5, 1)), (images, 3, 7, 8)
    assert any(isinstance(node.layer, GroupNorm) for node in prepared(network, shape).nodes)
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


def test_batches() -> None:
    """They are normed image by image."""
    network = nn.Sequential(nn.Conv2d(4, 8, 1), nn.GroupNorm(2, 8)).eval()
    assert layers_of(network, (2, 4, 3, 3)).count(GroupNorm) == 2


@pytest.mark.parametrize(
    ("own", "behind"),
    [pytest.param(True, ["multiply_add_transpose"], id="factors of pixels"), pytest.param(False, ["transpose"], id="none")],
)
def test_layer_norms_of_images(own: bool, behind: list[str], tmp_path: Path) -> None:
    """Over channels, rows and columns, with factors and summands for each pixel of a channel or without."""
    norm = nn.LayerNorm([8, 5, 6], elementwise_affine=own)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter)
    network, shape = nn.Sequential(nn.Conv2d(3, 8, 3), norm).eval(), (1, 3, 7, 8)
    assert layers_of(network, shape).count(GroupNorm) == 1 and opaque_operators(network, shape) == behind
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


def test_layer_norms_of_means(tmp_path: Path) -> None:
    """Over two dimensions of three, which layout conversion would swap without swapping the factors."""

    class Means(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.LayerNorm([4, 6])
            for parameter in self.norm.parameters():
                nn.init.uniform_(parameter)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            normed: torch.Tensor = self.norm(self.conv(x).mean(3))
            return normed

    assert error_against_torch(Means().eval(), (1, 3, 6, 7), tmp_path / "net.so") <= 1e-5
