"""Group norms: values for any size, groups and schedule, and from networks in any shape."""

from __future__ import annotations

from pathlib import Path

import pytest
from host_kernels import check_schedule, examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import error_against_torch, prepared
from torch import nn

from tvmmobile.graph.layers import Conv2d, GroupNorm
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
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
    if size == (1, 1) and each == 1:
        each = 2  # PyTorch refuses groups of one number
    task = Task((GroupNorm(*size, groups * each, groups, 1e-3),), dtype, threads, machine_of("cortex-a76"))
    template = template_for(task)
    assert template is not None and template.name == "group_norm"
    space = template.space(task)
    assert space is not None and 1 <= len(space) <= 3
    check_schedule(task, space, choice, 1e-5 if dtype == "float32" else 3e-3, tmp_path)


def layers_of(network: nn.Module, shape: tuple[int, ...]) -> list[type]:
    """Of its kernels, in order."""
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


def test_batches() -> None:
    """They are normed image by image."""
    network = nn.Sequential(nn.Conv2d(4, 8, 1), nn.GroupNorm(2, 8)).eval()
    assert layers_of(network, (2, 4, 3, 3)).count(GroupNorm) == 2
