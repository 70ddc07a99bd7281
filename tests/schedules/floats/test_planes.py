"""Convolutions and pools with their channels first: values for every shape and knob."""

from __future__ import annotations

from pathlib import Path

import pytest
from host_kernels import check_schedule, examples
from hypothesis import given
from hypothesis import strategies as st

from tvmmobile.graph.layers import NO_CLAMP, Clamp, Conv2d, Pool
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_for

sides = st.integers(1, 19)
steps = st.sampled_from((NO_CLAMP, (0.0, 6.0), "hswish"))
dtypes = pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-2)])


def check(layer: Conv2d | Pool, name: str, dtype: str, threads: int, tolerance: float, choice: int, folder: Path) -> None:
    task = Task((layer,), dtype, threads, machine_of("cortex-a76"))
    template = template_for(task)
    assert template is not None and template.name == name
    space = template.space(task)
    assert space is not None
    check_schedule(task, space, choice, tolerance, folder)


@dtypes
@examples(40)
@given(
    st.tuples(sides, sides, st.integers(2, 6)),
    st.sampled_from((1, 2, 3, 5, 7)),
    st.sampled_from((1, 2, 3)),
    st.tuples(*[st.integers(0, 3)] * 4),
    st.sampled_from((1, 2)),
    steps,
    st.sampled_from((1, 2)),
    st.integers(0, 1 << 16),
)
def test_depthwise(
    tmp_path: Path,
    dtype: str,
    tolerance: float,
    shape: tuple[int, int, int],
    kernel: int,
    stride: int,
    padding: tuple[int, int, int, int],
    dilation: int,
    clamp: Clamp,
    threads: int,
    choice: int,
) -> None:
    height, width, channels = shape
    window = (kernel, kernel), (stride, stride), padding, channels
    layer = Conv2d(height, width, channels, channels, *window, clamp, "NCHW", "NCHW", dilation=(dilation, dilation))
    if min(layer.out_height, layer.out_width) > 0:
        check(layer, "plane_conv", dtype, threads, tolerance, choice, tmp_path)


@dtypes
@examples(20)
@given(
    st.tuples(sides, sides, st.integers(1, 4), st.integers(1, 9)),
    st.sampled_from((1, 2, 3, 5)),
    st.sampled_from((1, 2)),
    steps,
    st.sampled_from((1, 2)),
    st.integers(0, 1 << 16),
)
def test_first_convolution(
    tmp_path: Path,
    dtype: str,
    tolerance: float,
    shape: tuple[int, int, int, int],
    kernel: int,
    stride: int,
    clamp: Clamp,
    threads: int,
    choice: int,
) -> None:
    around = kernel // 2
    padding = around, around, around, kernel - around
    layer = Conv2d(*shape, (kernel, kernel), (stride, stride), padding, 1, clamp, "NCHW", "NCHW")
    if min(layer.out_height, layer.out_width) > 0:
        check(layer, "plane_conv", dtype, threads, tolerance, choice, tmp_path)


@dtypes
@examples(12)
@given(sides, sides, st.integers(1, 20), st.sampled_from((1, 3)), st.integers(0, 1 << 16))
def test_pool(tmp_path: Path, dtype: str, tolerance: float, height: int, width: int, channels: int, threads: int, choice: int) -> None:
    check(Pool(height, width, channels, "NCHW"), "plane_mean", dtype, threads, tolerance, choice, tmp_path)


@dtypes
@examples(16)
@given(
    st.tuples(sides, sides, st.sampled_from((3, 8, 20, 64))),
    st.sampled_from((1, 2)),
    steps,
    st.booleans(),
    st.sampled_from((1, 3)),
    st.integers(0, 1 << 16),
)
def test_from_channels_last_to_channels_first(
    tmp_path: Path,
    dtype: str,
    tolerance: float,
    shape: tuple[int, int, int],
    stride: int,
    clamp: Clamp,
    depthwise: bool,
    threads: int,
    choice: int,
) -> None:
    """The step between layers of both kinds stores elements of a vector one by one."""
    layer = Conv2d(*shape, 24, stride=(stride, stride), clamp=clamp, out_layout="NCHW")
    if depthwise:
        window = (3, 3), (stride, stride), (1, 1, 1, 1), shape[2]
        layer = Conv2d(*shape, shape[2], *window, clamp, out_layout="NCHW")
    check(layer, "depthwise" if depthwise else "pointwise", dtype, threads, tolerance, choice, tmp_path)
