"""Strassen's algorithm: its seven products, whose layers it takes, what it computes, and the code of its loops."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from assembly import LANES, assembly_of, hottest_loop
from host_kernels import check_schedule, examples, run_on_host
from hypothesis import given
from hypothesis import strategies as st
from spaces import check_members

from tvmmobile.graph.layers import NO_CLAMP, Clamp, Conv2d, Dense
from tvmmobile.graph.layouts import Layout
from tvmmobile.graph.machine import BASELINE
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import make_parameters
from tvmmobile.schedules import Space
from tvmmobile.schedules.floats.strassen import Strassen
from tvmmobile.schedules.floats.strassen_nest import STEPS, finishes

#: The direct product's errors stay below 1e-5.
TOLERANCE = 2e-5
RELU6: Clamp = (0.0, 6.0)


def task_of(
    height: int,
    width: int,
    inputs: int,
    outputs: int,
    layouts: tuple[Layout, Layout] = ("NHWC", "NHWC"),
    clamp: Clamp = RELU6,
    threads: int = 1,
) -> Task:
    return Task((Conv2d(height, width, inputs, outputs, clamp=clamp, in_layout=layouts[0], out_layout=layouts[1]),), threads=threads)


def space_of(task: Task) -> Space:
    space = Strassen().space(task)
    assert space is not None
    return space


def test_seven_products_give_the_product() -> None:
    """Whole numbers make it exact; bases hold the sums that the steps define, and each block of C is finished once."""
    rng = np.random.default_rng(0)
    a, w = rng.integers(-9, 9, (2, 2, 3, 4)), rng.integers(-9, 9, (2, 2, 4, 5))
    c: dict[tuple[int, int], np.ndarray] = {}
    previous = np.zeros((3, 4), int)
    for step in STEPS:
        previous = step.previous * previous + sum(sign * a[block] for block, sign in step.a)
        c[step.base] = c.get(step.base, 0) + previous @ sum(sign * w[block] for block, sign in step.w)
        for block in step.copies:
            c[block] = c.get(block, 0) + c[step.base]
    expected = np.einsum("ikab,kjbc->ijac", a, w)
    assert len(STEPS) == 7 and all((c[block] == expected[block]).all() for block in itertools.product((0, 1), repeat=2))
    assert sorted(block for step in STEPS for block in c if finishes(step, block)) == sorted(c)


def test_no_base_in_the_second_row_needs_the_first() -> None:
    """A row that does not exist can therefore be left out of the first row's blocks."""
    assert all(block[0] == 0 or step.base[0] == 1 for step in STEPS for block in step.copies)


TASKS = [
    task_of(14, 14, 512, 512, ("NCHW64c", "NCHW16c")),
    task_of(14, 14, 256, 512),
    task_of(28, 28, 128, 256),
    task_of(7, 7, 1024, 1024, ("NCHW32c", "NCHW64c")),
    task_of(12, 12, 384, 384, ("NCHW64c", "NCHW16c")),
    task_of(4, 4, 128, 128),
]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("threads", [1, 4])
def test_spaces(task: Task, threads: int) -> None:
    task = replace(task, threads=threads)
    space = space_of(task)
    assert 1 <= len(check_members(Strassen(), task, space)) <= 768


def test_other_layers_are_left_alone() -> None:
    (layer,) = TASKS[1].region
    assert isinstance(layer, Conv2d)
    refused = [
        Task((layer,), dtype="float16"),
        Task((layer, layer)),
        Task((Dense(512, 512),)),
        Task((replace(layer, stride=(2, 2)),)),
        Task((replace(layer, kernel=(3, 3), padding=(1, 1, 1, 1)),)),
        Task((replace(layer, in_layout="NCHW"),)),
        Task((replace(layer, out_layout="NCHW2c"),)),
        Task((replace(layer, in_channels=BASELINE.strassen_channels - 8),)),
        Task((replace(layer, out_channels=BASELINE.strassen_channels + 4),)),
        Task((replace(layer, height=1, width=7),)),
    ]
    assert [Strassen().space(task) for task in refused] == [None] * len(refused)


def check(task: Task, choice: int, folder: Path) -> None:
    """One schedule, among all that the knobs allow."""
    check_schedule(task, space_of(task), choice, TOLERANCE, folder)


@examples(5)
@given(
    st.integers(2, 15),
    st.integers(4, 15),
    st.sampled_from((128, 136, 160, 192, 256, 320)),
    st.sampled_from((128, 136, 144, 192, 256)),
    st.sampled_from(("NHWC", "NCHW4c", "NCHW8c", "NCHW16c", "NCHW32c", "NCHW64c")),
    st.sampled_from(("NHWC", "NCHW4c", "NCHW8c", "NCHW16c", "NCHW64c")),
    st.sampled_from((NO_CLAMP, (0.0, None), RELU6, (-1.0, 1.0))),
    st.sampled_from((1, 2, 3)),
    st.integers(0, 1 << 20),
)
def test_values(
    tmp_path: Path,
    height: int,
    width: int,
    inputs: int,
    outputs: int,
    before: Layout,
    after: Layout,
    clamp: Clamp,
    threads: int,
    choice: int,
) -> None:
    layouts = (_dividing(before, inputs), _dividing(after, outputs))
    check(task_of(height, width, inputs, outputs, layouts, clamp, threads), choice, tmp_path)


def _dividing(layout: Layout, channels: int) -> Layout:
    """Return the layout, or one whose blocks divide the channels."""
    return layout if layout == "NHWC" or channels % int(layout[4:-1]) == 0 else "NCHW8c"


@pytest.mark.parametrize(
    ("task", "threads"),
    [
        (TASKS[0], 1),
        (TASKS[3], 4),
        (task_of(3, 3, 128, 128), 1),
        (task_of(3, 3, 128, 128), 4),
        (task_of(14, 14, 136, 152, ("NCHW8c", "NCHW4c")), 1),
        (task_of(14, 14, 136, 152, ("NCHW8c", "NCHW4c")), 4),
    ],
)
def test_usual_knobs(tmp_path: Path, task: Task, threads: int) -> None:
    task = replace(task, threads=threads)
    assert run_on_host(task, space_of(task).default, tmp_path / "kernel.so") <= TOLERANCE


@pytest.mark.parametrize(("height", "width", "threads", "axis"), [(13, 61, 1, 0), (15, 53, 3, 1)])
def test_last_part_is_shorter(tmp_path: Path, height: int, width: int, threads: int, axis: int) -> None:
    """It has an odd number of pixels where the others have an even one."""
    task = task_of(height, width, 128, 128, threads=threads)
    knobs = {"rows": 7, "columns": 8, "parts": 8, "m_block": 4, "n_block": 2, "k_block": 0, "axis": axis}
    assert run_on_host(task, space_of(task).schedule(knobs), tmp_path / "kernel.so") <= TOLERANCE


def test_weights_are_packed_in_the_order_in_which_they_are_read() -> None:
    """Seven quarters of the weights; the first group's first panel, K by K."""
    task = TASKS[0]
    knobs = space_of(task).default.values
    parameters = make_parameters(task)
    weight, bias = Strassen().pack(task, knobs, parameters)
    assert weight.shape == (7 * 256 * 256,) and (bias == parameters[0].bias).all()
    assert (weight[: 64 * 8].reshape(64, 8) == parameters[0].weight[0, 0, :64, :8]).all()
    assert (weight[64 * 8 : 2 * 64 * 8].reshape(64, 8) == parameters[0].weight[0, 0, :64, 8:16]).all()


@pytest.mark.parametrize("task", TASKS[:2])
def test_loop_is_the_tiles(task: Task) -> None:
    """Lane-indexed FMLA, as many as the tile has, and nothing spilled."""
    knobs = space_of(task).default.values
    loop = hottest_loop(assembly_of(task, knobs, Strassen()))
    assert loop.multiply_adds == loop.indexed == knobs["rows"] * knobs["columns"] // LANES * 4
    assert loop.stack_accesses == []


def test_members_keep_their_sum_in_the_first_level_cache() -> None:
    for task in TASKS:
        layer = task.layer
        assert isinstance(layer, Conv2d)
        for schedule in space_of(task):
            knobs = schedule.values
            part = math.ceil(layer.height * layer.width / knobs["parts"])
            half = math.ceil(part / 2)
            rows = min(knobs["m_block"] * knobs["rows"] or half, half)
            assert 4 * rows * min(knobs["k_block"] or layer.in_channels, layer.in_channels // 2) <= 13000
