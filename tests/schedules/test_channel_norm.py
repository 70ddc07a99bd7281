"""Layer norms over channels: values for any size and schedule, and from networks in any shape."""

from __future__ import annotations

from pathlib import Path

import pytest
from host_kernels import check_schedule, examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import error_against_torch, prepared
from torch import nn

from tvmmobile.graph.layers import ChannelNorm
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_for


@examples(14)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.sampled_from((2, 3, 4, 5, 8, 13, 16, 40, 131)),
    st.sampled_from((1e-3, 1e-5, 1e-6)),
    st.sampled_from(("float32", "float16")),
    st.integers(1, 3),
    st.integers(0, 5),
)
def test_values(tmp_path: Path, size: tuple[int, int], channels: int, epsilon: float, dtype: str, threads: int, choice: int) -> None:
    task = Task((ChannelNorm(*size, channels, epsilon),), dtype, threads, machine_of("cortex-a76"))
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
