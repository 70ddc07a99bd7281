"""Softmax outside of attention: values for any axis and schedule, and from networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from host_kernels import check_schedule, examples, kernel_on_host
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Lambda, error_against_torch, prepared, seeded
from torch import nn

from tvmmobile.graph.layers import Opaque, Softmax
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters
from tvmmobile.schedules import template_for


@examples(30)
@given(
    st.sampled_from(((), (1,), (5,), (2, 3), (1, 3, 3))),
    st.sampled_from((1, 2, 3, 4, 5, 8, 13, 21, 40)),
    st.sampled_from(((), (1,), (3,), (4,), (9,), (2, 11), (5, 8))),
    st.sampled_from(("float32", "float16")),
    st.sampled_from((("", ""), ("float16", "float32"), ("float32", ""))),
    st.integers(1, 3),
    st.integers(0, 2),
    st.booleans(),
)
def test_values(
    tmp_path: Path,
    leading: tuple[int, ...],
    channels: int,
    trailing: tuple[int, ...],
    dtype: str,
    stored: tuple[str, str],
    threads: int,
    choice: int,
    logarithm: bool,
) -> None:
    reads, writes = (name if name != dtype else "" for name in stored)
    task = Task((Softmax(leading, channels, trailing, logarithm, reads=reads, writes=writes),), dtype, threads, machine_of("cortex-a76"))
    template = template_for(task)
    assert template is not None and template.name == "softmax"
    space = template.space(task)
    assert space is not None and 1 <= len(space) <= 3
    check_schedule(task, space, choice, 1e-6 if (dtype, reads, writes) == ("float32", "", "") else 2e-3, tmp_path)


@pytest.mark.parametrize("reads", ["", "float32"])
@pytest.mark.parametrize("trailing", [(), (9,)])
def test_masks_in_half_precision(tmp_path: Path, trailing: tuple[int, ...], reads: str) -> None:
    """Minus infinity, and the smallest number of the type in which they are stored, in some elements and in all of a row."""
    task = Task((Softmax((3,), 200, trailing, reads=reads),), "float16", machine=machine_of("cortex-a76"))
    template, (data,) = template_for(task), make_inputs(task)
    space = template.space(task) if template else None
    assert space is not None
    least = np.finfo(data.dtype).min
    data[0, ::2], data[1, 5:], data[2] = -np.inf, least, least
    actual, expected = (
        kernel_on_host(task, next(iter(space)), tmp_path / "kernel.so")([data]),
        expected_output(task, [data], make_parameters(task)),
    )
    assert np.abs(actual.astype(np.float64) - expected).max() <= 2e-3 * expected.max()
    assert actual[2].astype(np.float64) == pytest.approx(1 / 200, rel=1e-3)


def layers_of(network: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """Return the names of its layers, and operators of those that no template takes."""
    return [
        layer.operator if isinstance(layer, Opaque) else layer.name for layer in (node.layer for node in prepared(network, shape).nodes)
    ]


@pytest.mark.parametrize(
    ("function", "names"),
    [
        pytest.param(lambda x: x.softmax(1), ["softmax_1x5x6_c21", "transpose"], id="channels"),
        pytest.param(lambda x: (50 * x).softmax(1), ["softmax_1x5x6_c21", "transpose"], id="far from each other"),
        pytest.param(lambda x: x.softmax(-1), ["softmax_1x5_c6_21", "transpose"], id="columns"),
        pytest.param(lambda x: x.softmax(-2), ["softmax_1_c5_6x21", "transpose"], id="rows"),
        pytest.param(lambda x: x.flatten(2).softmax(-1), ["transpose", "softmax_1x21_c30"], id="pixels"),
        pytest.param(lambda x: x.mean((2, 3)).softmax(-1), ["pool_5x6_21", "softmax_1_c21"], id="classes"),
        pytest.param(lambda x: x.log_softmax(1), ["logsoftmax_1x5x6_c21", "transpose"], id="logarithms"),
        pytest.param(lambda x: (50 * x).flatten(2).log_softmax(-1), ["transpose", "logsoftmax_1x21_c30"], id="logarithms far apart"),
        pytest.param(lambda x: x.reshape(-1).softmax(0), ["transpose", "softmax_c630"], id="all"),
    ],
)
def test_behind_a_convolution(tmp_path: Path, function: Callable[[torch.Tensor], torch.Tensor], names: list[str]) -> None:
    network, shape = seeded(nn.Conv2d(3, 21, 3), Lambda(function)), (1, 3, 7, 8)
    assert layers_of(network, shape)[1:] == names
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


@pytest.mark.parametrize("axis", [-1, 1])
def test_masks(tmp_path: Path, axis: int) -> None:
    """Minus infinity, and rows of nothing but the smallest number, all of whose elements have the same share."""
    least = torch.finfo(torch.float32).min

    def masked(image: torch.Tensor) -> torch.Tensor:
        rows = image.flatten(2)
        return torch.cat([rows.masked_fill(rows > 0, -torch.inf).softmax(axis), (rows * 0 + least).softmax(axis)], 1)

    network, shape = seeded(nn.Conv2d(3, 21, 3), Lambda(masked)), (1, 3, 7, 8)
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


def test_a_segmentation_network(tmp_path: Path) -> None:
    """Its head is resized in the layout of its layers, and so are the shares of classes."""
    resized = nn.Upsample(scale_factor=4, mode="bilinear")
    network, shape = seeded(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 5, 1), resized, nn.Softmax(1)), (1, 3, 12, 16)
    assert layers_of(network, shape)[2:] == ["resize_6x8_to_24x32_5_linear_half_pixel", "softmax_1x24x32_c5", "transpose"]
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


def test_of_a_batch(tmp_path: Path) -> None:
    network, shape = seeded(nn.Conv2d(3, 9, 3), nn.Softmax(1)), (2, 3, 7, 8)
    assert layers_of(network, shape).count("softmax_1x5x6_c9") == 2
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5
