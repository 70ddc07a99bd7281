"""Depthwise and sparse 1×1 convolutions in one kernel: whose pairs it takes, and what it computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from host_kernels import check_schedule, examples
from hypothesis import assume, given
from hypothesis import strategies as st

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.precision import FLOAT16, FLOAT32, Precision
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_named, templates_for

FIRST = Conv2d(14, 14, 24, 24, (3, 3), (1, 1), (1, 1, 1, 1), 24, (0.0, 6.0), in_layout="NCHW")
SECOND = Conv2d(14, 14, 24, 16, clamp=(0.0, None), out_layout="NCHW", sparse=(80, 1))


@pytest.mark.parametrize(("precision", "tolerance"), [(FLOAT32, 1e-5), (FLOAT16, 1e-2)], ids=lambda one: getattr(one, "name", ""))
@examples(15)
@given(
    st.tuples(st.sampled_from((4, 8, 14, 28)), st.sampled_from((4, 8, 14, 28)), st.sampled_from((2, 3, 70, 140)), st.integers(1, 3)),
    st.sampled_from(((1, 3, 3, (1, 1, 1, 1)), (2, 3, 3, (0, 0, 1, 1)), (1, 5, 3, (2, 1, 2, 1)), (2, 5, 5, (2, 2, 2, 2)))),
    st.sampled_from((1, 2)),
    st.sampled_from(("hswish", (0.0, 6.0))),
    st.sampled_from((1, 2, 3)),
    st.integers(0, 1 << 16),
)
def test_values(
    tmp_path: Path,
    precision: Precision,
    tolerance: float,
    shape: tuple[int, int, int, int],
    window: tuple[int, int, int, tuple[int, int, int, int]],
    together: int,
    clamp: str,
    threads: int,
    choice: int,
) -> None:
    """Layers have strides, kernels that are not square, and padding on some sides."""
    height, width, depth, quarter = shape
    stride, rows, columns, padding = window
    first = Conv2d(
        height * stride, width * stride, depth, depth, (rows, columns), (stride, stride), padding, depth, clamp, in_layout="NCHW"
    )
    outputs = 4 * quarter * together
    sparse = (max(depth * outputs // together // 5, 1), together)
    second = Conv2d(first.out_height, first.out_width, depth, outputs, clamp=clamp, out_layout="NCHW", sparse=sparse)
    task = Task((first, second), precision.name, threads, machine_of("cortex-a76"))
    template = template_named("sparse_separable", 1)
    assert template is not None
    space = template.space(task)
    assume(space is not None)  # else no strip of whole rows is a whole number of vectors, or all are too long
    assert space is not None
    check_schedule(task, space, choice, tolerance, tmp_path)


def test_whose_pairs_it_takes() -> None:
    assert [template.name for template in templates_for(Task((FIRST, SECOND)))] == ["sparse_separable"]
    for others in (
        (replace(FIRST, in_layout="NHWC"), SECOND),
        (FIRST, replace(SECOND, out_layout="NHWC")),
        (FIRST, replace(SECOND, sparse=())),
        (FIRST, replace(SECOND, scaled=True)),
        (replace(FIRST, residual=True), SECOND),
        (FIRST, replace(SECOND, residual=True)),
        (replace(FIRST, height=7, width=7), replace(SECOND, height=7, width=7)),
    ):
        assert "sparse_separable" not in [template.name for template in templates_for(Task(others))]
