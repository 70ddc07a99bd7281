"""Kernels whose input is put together from pieces of other tensors: any pieces, channels that are no whole vectors, and who takes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from host_kernels import check_layer, examples
from hypothesis import given
from hypothesis import strategies as st

from tvmmobile.graph.curves import PLUS
from tvmmobile.graph.layers import NO_CLAMP, Clamp, Conv2d, MaxPool
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import task_from_json, task_to_json
from tvmmobile.schedules import TEMPLATES, template_for

#: Channels, the tensors that they are from, and the pieces.
Pieces = tuple[int, tuple[int, ...], tuple[tuple[int, int, int], ...]]

clamps = st.sampled_from((NO_CLAMP, (0.0, None), (0.0, 6.0), "hswish"))
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
threads = st.sampled_from((1, 2, 3))
choices = st.integers(0, 1 << 16)
PAIR = Conv2d(14, 14, 60, 58, clamp=(0.0, None), sources=(116, 58), pieces=((0, 56, 31), (1, 0, 29)))
JOINED = Conv2d(14, 14, 128, 64, (3, 3), padding=(1, 1, 1, 1), sources=(64, 64), pieces=((0, 0, 64), (1, 0, 64)))


@st.composite
def inputs(draw: st.DrawFn, groups: int = 1) -> Pieces:
    """A piece may reach over groups, and channels be read twice."""
    sources = draw(st.lists(st.sampled_from((1, 6, 20, 58, 116)), min_size=1, max_size=3))
    pieces = []
    for _ in range(draw(st.integers(1, 4))):
        source = draw(st.integers(0, len(sources) - 1))
        first = draw(st.integers(0, sources[source] - 1))
        pieces.append((source, first, draw(st.integers(1, sources[source] - first))))
    count = sum(count for _, _, count in pieces)
    missing = -count % groups
    return count + missing, tuple(sources), (*pieces, *[(0, 0, 1)] * missing)


@examples(24)
@given(sizes, inputs(), st.sampled_from((1, 2)), st.sampled_from((3, 8, 24, 58)), clamps, threads, choices, st.booleans(), st.booleans())
def test_pointwise(
    tmp_path: Path,
    size: tuple[int, int],
    given_channels: Pieces,
    stride: int,
    outputs: int,
    clamp: Clamp,
    thread_count: int,
    choice: int,
    residual: bool,
    blocks: bool,
) -> None:
    """The output may be in blocks."""
    depth, sources, pieces = given_channels
    layouts = "NHWC", "NCHW8c" if blocks and outputs % 8 == 0 else "NHWC"
    layer = Conv2d(*size, depth, outputs, (1, 1), (stride, stride), (0,) * 4, 1, clamp, *layouts, residual)
    check_layer(replace(layer, sources=sources, pieces=pieces), thread_count, choice, "pointwise", tmp_path)


@examples(20)
@given(sizes, inputs(groups=3), st.sampled_from((6, 9, 24, 60)), st.sampled_from((1, 3)), clamps, threads, choices, st.booleans())
def test_grouped(
    tmp_path: Path,
    size: tuple[int, int],
    given_channels: Pieces,
    outputs: int,
    kernel: int,
    clamp: Clamp,
    thread_count: int,
    choice: int,
    residual: bool,
) -> None:
    """In three groups, each with pieces of its own."""
    depth, sources, pieces = given_channels
    layer = Conv2d(*size, depth, outputs, (kernel, kernel), (1, 1), (kernel // 2,) * 4, 3, clamp, residual=residual)
    check_layer(replace(layer, sources=sources, pieces=pieces), thread_count, choice, "conv", tmp_path)


@examples(8)
@given(sizes, inputs(), clamps, threads, choices)
def test_windows(tmp_path: Path, size: tuple[int, int], given_channels: Pieces, clamp: Clamp, thread_count: int, choice: int) -> None:
    """A decoder joins levels like this in front of a transposed convolution."""
    depth, sources, pieces = given_channels
    windows = ((0, 2, 0, 2), (0, 2, 1, 3), (1, 3, 0, 2), (1, 3, 1, 3))
    layer = Conv2d(*size, depth, 48, (3, 3), (1, 1), (1, 1, 1, 1), 1, clamp, windows=windows)
    check_layer(replace(layer, sources=sources, pieces=pieces), thread_count, choice, "conv", tmp_path)


@examples(8)
@given(sizes, st.sampled_from((1, 3)), st.integers(0, 1), st.integers(0, 9), st.booleans(), threads, choices)
def test_an_added_slice(
    tmp_path: Path, size: tuple[int, int], kernel: int, more: int, first: int, residual: bool, thread_count: int, choice: int
) -> None:
    """The sum or what the activation makes of it, plus a slice, with the output's channels or more of them on either side."""
    outputs = 7 + choice % 14
    steps: dict[str, Any] = {"residual": True} if residual else {"clamp": "silu", "then": (PLUS,)}
    added = (first + outputs + more, first)
    layer = Conv2d(*size, 5, outputs, (kernel, kernel), (1, 1), (kernel // 2,) * 4, added=added, **steps)
    assert task_from_json(task_to_json(Task((layer,)))).layer == layer
    check_layer(layer, thread_count, choice, "pointwise" if kernel == 1 else "conv", tmp_path)


@examples(20)
@given(sizes, inputs(), st.sampled_from((3, 5)), st.sampled_from((1, 2)), clamps, threads, choices)
def test_depthwise(
    tmp_path: Path, size: tuple[int, int], given_channels: Pieces, kernel: int, stride: int, clamp: Clamp, thread_count: int, choice: int
) -> None:
    depth, sources, pieces = given_channels
    if depth > 1:
        layer = Conv2d(*size, depth, depth, (kernel, kernel), (stride, stride), (kernel // 2,) * 4, depth, clamp)
        check_layer(replace(layer, sources=sources, pieces=pieces), thread_count, choice, "depthwise", tmp_path)


@examples(16)
@given(sizes, inputs(), st.sampled_from((1, 2)), threads, choices)
def test_max_pool(tmp_path: Path, size: tuple[int, int], given_channels: Pieces, stride: int, thread_count: int, choice: int) -> None:
    depth, sources, pieces = given_channels
    layer = MaxPool(*size, depth, (3, 3), (stride, stride), (1, 1, 1, 1), sources, pieces)
    check_layer(layer, thread_count, choice, "max_pool", tmp_path)


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (PAIR, ["pointwise"]),
        (replace(PAIR, in_layout="NCHW4c"), []),
        (replace(PAIR, scaled=True), []),
        (replace(PAIR, groups=2), ["conv"]),
        (replace(PAIR, groups=60, out_channels=60, kernel=(3, 3)), ["depthwise"]),
        (replace(PAIR, groups=60, out_channels=60, kernel=(3, 3), out_layout="NCHW20c"), []),
        (JOINED, ["conv", "winograd"]),
        (replace(JOINED, in_layout="NCHW32c"), []),
        # Strassen's algorithm would take it as one tensor.
        (Conv2d(14, 14, 256, 256, sources=(512,), pieces=((0, 128, 256),)), ["pointwise"]),
    ],
)
def test_whose_they_are(layer: Conv2d, names: list[str]) -> None:
    assert [template.name for template in TEMPLATES if template.space(Task((layer,))) is not None] == names


def test_no_kernel_of_several_layers_takes_them() -> None:
    depthwise = Conv2d(14, 14, 60, 60, (3, 3), (1, 1), (1, 1, 1, 1), 60)
    product = Conv2d(14, 14, 60, 60)
    for first, second in ((depthwise, product), (product, depthwise)):
        assert template_for(Task((first, second))) is not None
        cut = replace(first, sources=(64,), pieces=((0, 4, 60),))
        assert template_for(Task((cut, second))) is None
        assert template_for(Task((first, replace(second, sources=(60,), pieces=((0, 0, 60),))))) is None


def test_names_and_json() -> None:
    task = Task((PAIR,))
    assert task.name == "pw_14x14_60x58_of116.58_cut0.56.31-1.0.29_relu_float32_t1"
    assert task_from_json(task_to_json(task)) == task
    assert PAIR.input_shape == (1, 14, 14, 116) and task.side_shapes == {"source1_0": (1, 14, 14, 58)}
    # Of the tensors, only the pieces are read.
    assert task.least_bytes == Task((replace(PAIR, sources=(), pieces=()),)).least_bytes
