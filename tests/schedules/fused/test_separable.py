"""Depthwise and pointwise in one kernel: whose pairs it takes, what it computes, and the code of its loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from assembly import LANES, assembly_of, innermost_loops
from host_kernels import check_schedule, examples
from hypothesis import given
from hypothesis import strategies as st
from spaces import check_members

from tvmmobile.graph.layers import NO_CLAMP, Clamp, Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import make_parameters
from tvmmobile.schedules import Space, template_for
from tvmmobile.schedules.fused.separable import LEAST_BYTES, MOST_WEIGHT_BYTES, Separable

TOLERANCE = 1e-5
RELU6: Clamp = (0.0, 6.0)


def pair(
    height: int,
    width: int,
    inputs: int,
    outputs: int,
    stride: int = 1,
    kernel: tuple[int, int] = (3, 3),
    padding: tuple[int, int, int, int] = (1, 1, 1, 1),
    clamps: tuple[Clamp, Clamp] = (RELU6, RELU6),
    threads: int = 1,
    residual: bool = False,
) -> Task:
    """Return a depthwise convolution and the pointwise one that reads it."""
    first = Conv2d(height, width, inputs, inputs, kernel, (stride, stride), padding, inputs, clamps[0])
    second = Conv2d(first.out_height, first.out_width, inputs, outputs, clamp=clamps[1], residual=residual)
    return Task((first, second), threads=threads)


def space_of(task: Task) -> Space:
    template = template_for(task)
    assert isinstance(template, Separable)
    space = template.space(task)
    assert space is not None
    return space


BLOCKS = [pair(112, 112, 32, 64), pair(112, 112, 64, 128, 2), pair(56, 56, 128, 128), pair(64, 64, 8, 16), pair(8, 8, 128, 128)]


@pytest.mark.parametrize("task", BLOCKS)
@pytest.mark.parametrize("threads", [1, 4])
def test_spaces(task: Task, threads: int) -> None:
    """Members keep a strip within the cache, and its tiles within the strip."""
    task = replace(task, threads=threads)
    space = space_of(task)
    members = check_members(Separable(), task, space)
    assert 32 <= len(members) <= 512
    first = task.region[0]
    assert isinstance(first, Conv2d)
    for schedule in members:
        knobs = schedule.values
        between = 4 * knobs["strip"] * -(-first.out_width // knobs["parts"]) * first.out_channels
        assert LEAST_BYTES <= between <= 16384 and knobs["dw_rows"] <= knobs["strip"]


def test_other_pairs_are_left_alone() -> None:
    first, second = pair(9, 9, 16, 24).region
    assert isinstance(first, Conv2d) and isinstance(second, Conv2d)
    assert template_for(Task((first, second))) is not None
    refused: list[Task] = [
        Task((second, first)),
        Task((first, first)),
        Task((first, second, first)),
        Task((first, second), dtype="float16"),
        Task((first, replace(second, height=second.height - 1))),
        Task((first, replace(second, kernel=(3, 3), padding=(1, 1, 1, 1)))),
        Task((first, replace(second, stride=(2, 2)))),
        Task((replace(first, in_layout="NCHW"), second)),
    ]
    assert [template_for(task) for task in refused] == [None] * len(refused)


def test_weights_that_are_too_many_to_read_for_each_strip_are_left_alone() -> None:
    assert template_for(pair(14, 14, 128, MOST_WEIGHT_BYTES // 4 // 128)) is not None
    assert template_for(pair(14, 14, 128, MOST_WEIGHT_BYTES // 4 // 128 + 1)) is None


def check(task: Task, choice: int, folder: Path) -> None:
    """One schedule, among all that the knobs allow."""
    check_schedule(task, space_of(task), choice, TOLERANCE, folder)


@examples(24)
@given(
    st.integers(1, 19),
    st.integers(1, 31),
    st.sampled_from((2, 3, 4, 7, 8, 13, 20)),
    st.sampled_from((1, 3, 4, 10, 16, 37, 70)),
    st.sampled_from((1, 2)),
    st.booleans(),
    st.sampled_from((NO_CLAMP, RELU6, (-1.0, 1.0))),
    st.sampled_from((1, 2, 4)),
    st.integers(0, 1 << 16),
)
def test_values(
    tmp_path: Path, height: int, width: int, inputs: int, outputs: int, stride: int, same: bool, clamp: Clamp, threads: int, choice: int
) -> None:
    """`same` pads like TensorFlow: nothing before the first row of a stride of 2."""
    before = 0 if same and stride == 2 else 1
    check(pair(height, width, inputs, outputs, stride, (3, 3), (before, before, 1, 1), (clamp, RELU6), threads), choice, tmp_path)


@pytest.mark.parametrize(
    "task",
    [
        # Strips that divide neither side; one part of a row shorter than the others.
        pair(7, 29, 5, 6),
        # Unlike in both directions.
        pair(6, 15, 7, 9, 1, (3, 5), (1, 0, 0, 2)),
        # Outputs that see padding only.
        pair(2, 2, 5, 3, 1, (3, 3), (3, 3, 3, 3)),
        # A kernel larger than the image.
        pair(1, 1, 6, 5, 1, (5, 5), (2, 2, 2, 2)),
        # Panel blocks with a remainder.
        pair(5, 14, 12, 75, 2),
        # Something is added, and the activations are no bounds.
        pair(9, 17, 12, 10, residual=True, clamps=("hswish", (None, None))),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_edge_shapes(tmp_path: Path, task: Task, threads: int) -> None:
    for choice in (-1, 1009):
        check(replace(task, threads=threads), choice, tmp_path)


def test_constants_are_packed_in_the_order_of_the_arguments() -> None:
    task = pair(9, 9, 6, 10)
    packed = Separable().pack(task, space_of(task).default.values, make_parameters(task))
    assert [array.shape for array in packed] == [(9 * 6,), (6,), (6 * 12,), (12,)]


def test_loops_are_those_of_the_single_templates() -> None:
    """The product's loop and the depthwise tile's, as many FMLA as their tiles have, and nothing spilled."""
    task = BLOCKS[2]
    knobs = {"strip": 2, "parts": 4, "dw_rows": 2, "dw_columns": 4, "rows": 4, "columns": 16, "n_block": 2, "order": 0}
    assert space_of(task).schedule(knobs) in set(space_of(task))
    text = assembly_of(task, knobs)
    loops = innermost_loops(text)
    product = [loop for loop in loops if loop.indexed == loop.multiply_adds == 4 * 16 // LANES * 4]
    depthwise = [loop for loop in loops if loop.multiply_adds == 2 * 4 * 9 and not loop.indexed]
    assert product and depthwise
    assert all(loop.stack_accesses == [] for loop in product + depthwise)


@pytest.mark.parametrize("threads", [1, 4])
def test_one_scratch_buffer_for_all_strips(threads: int) -> None:
    """Allocated before the first strip, by each thread for itself, and the only allocation."""
    task = replace(BLOCKS[2], threads=threads)
    knobs = space_of(task).default.values
    before = Separable().emit(task, knobs).script().partition("T.alloc_buffer(")[0]
    assert [line.split(" in ")[1] for line in before.splitlines() if " in " in line] == (["T.parallel(4):"] if threads > 1 else [])
    loads = [line for line in assembly_of(task, knobs).splitlines() if "TVMBackendAllocWorkspace" in line and "ldr" in line]
    assert len(loads) == 1
