"""Resizes: the pixels they are made of are PyTorch's, and every schedule computes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from host_kernels import check_schedule, examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import error_against_torch, prepared, seeded, unit
from torch import nn

from tvmmobile.graph.layers import Conv2d, LayerParameters, Opaque, Resize
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.resizing import GIVEN, METHODS, PLACES
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import relative_error
from tvmmobile.schedules import template_for

sides = st.integers(1, 12)
#: Below a vector, odd, whole vectors, and more than one at a time.
channels = st.sampled_from((1, 3, 4, 7, 16, 21, 40))
#: A layer's method and places, and PyTorch's.
TORCH = {
    ("linear", "half_pixel"): {"mode": "bilinear", "align_corners": False},
    ("linear", "align_corners"): {"mode": "bilinear", "align_corners": True},
    ("floor", "asymmetric"): {"mode": "nearest"},
}


@examples(60)
@given(sides, sides, st.integers(1, 20), st.integers(1, 20), st.sampled_from(sorted(TORCH)))
def test_pixels_are_those_of_pytorch(height: int, width: int, rows: int, columns: int, rule: tuple[str, str]) -> None:
    layer = Resize(height, width, 2, rows, columns, *rule)
    data = np.random.default_rng(0).normal(0.0, 1.0, layer.input_shape).astype(np.float32)
    image = torch.from_numpy(data).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(image, (rows, columns), **TORCH[rule]).permute(0, 2, 3, 1).numpy()
    nothing = LayerParameters(np.zeros(0), np.zeros(0))
    assert relative_error(layer.compute(data, nothing, {}), expected) <= 1e-5


@examples(24)
@given(
    st.tuples(sides, sides),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    channels,
    st.sampled_from(METHODS),
    st.sampled_from(sorted(PLACES)),
    st.sampled_from(("float32", "float16")),
    st.integers(1, 3),
    st.sampled_from(("NHWC", "NCHW")),
    st.integers(0, 5),
)
def test_values(
    tmp_path: Path,
    size: tuple[int, int],
    wanted: tuple[int, int],
    depth: int,
    method: str,
    places: str,
    dtype: str,
    threads: int,
    layout: str,
    choice: int,
) -> None:
    task = Task((Resize(*size, depth, *wanted, method, places, layout),), dtype, threads, machine_of("cortex-a76"))
    template = template_for(task)
    assert template is not None and template.name == "resize"
    space = template.space(task)
    assert space is not None and 1 <= len(space) <= 6
    check_schedule(task, space, choice, 1e-6 if dtype == "float32" else 2e-3, tmp_path)


@examples(8)
@given(
    st.sampled_from(("linear", "nearest")), st.sampled_from(("float32", "float16")), st.sampled_from(("NHWC", "NCHW")), st.integers(0, 5)
)
def test_values_of_given_pixels(tmp_path: Path, method: str, dtype: str, layout: str, choice: int) -> None:
    task = Task((Resize(9, 6, 7, 13, 10, method, GIVEN, layout),), dtype, 2, machine_of("cortex-a76"))
    template = template_for(task)
    assert template is not None and template.name == "resize"
    space = template.space(task)
    assert space is not None
    check_schedule(task, space, choice, 1e-6 if dtype == "float32" else 2e-3, tmp_path)


@pytest.mark.parametrize("size", [(14, 16), (9, 5), (20, 11)], ids=str)
@pytest.mark.parametrize("mode", [{"mode": "bilinear"}, {"mode": "bilinear", "align_corners": True}, {"mode": "nearest"}], ids=str)
def test_networks(tmp_path: Path, size: tuple[int, int], mode: dict[str, object]) -> None:
    """A resize between two convolutions may have any size."""

    class Scaled(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return nn.functional.interpolate(image, size, **mode)  # type: ignore[arg-type]

    network, shape = seeded(*unit(3, 12, 3, 2), Scaled(), *unit(12, 5, 3)), (1, 3, 14, 16)
    found = [node.layer for node in prepared(network, shape).nodes]
    assert [layer.kind for layer in found if isinstance(layer, Resize)]
    assert not any(isinstance(layer, Opaque) for layer in found)
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


class AmongPixels(nn.Module):
    """Softmax over the pixels of each channel: its result has the channels first."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flatten(2).softmax(2).reshape(image.shape)


def test_what_has_the_channels_first_is_resized_with_them_last(tmp_path: Path) -> None:
    network, shape = seeded(*unit(3, 12, 3, 2), AmongPixels(), nn.Upsample(scale_factor=2, mode="bilinear"), *unit(12, 5)), (1, 3, 14, 16)
    layers = [node.layer for node in prepared(network, shape).nodes]
    assert [layer.channels for layer in layers if isinstance(layer, Resize)] == [12]
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5


def test_a_resized_input_keeps_its_layout(tmp_path: Path) -> None:
    network, shape = seeded(nn.Upsample(scale_factor=2, mode="bilinear"), *unit(3, 12, 3, 2)), (1, 3, 7, 8)
    first, second, *_ = (node.layer for node in prepared(network, shape).nodes)
    assert isinstance(first, Opaque) and first.operator == "resize2d"
    assert isinstance(second, Conv2d) and second.in_layout == "NCHW"
    assert error_against_torch(network, shape, tmp_path / "net.so") <= 1e-5
