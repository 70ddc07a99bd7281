"""Winograd's filtering: whose layers it takes, what it computes, and the code of its loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from assembly import LANES, assembly_of, innermost_loops
from host_kernels import check_schedule, examples, run_on_host
from hypothesis import given
from hypothesis import strategies as st
from spaces import check_members

from tvmmobile.graph.layers import NO_CLAMP, Clamp, Conv2d, Dense
from tvmmobile.graph.layouts import Layout
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.precision import FLOAT16
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import make_parameters
from tvmmobile.schedules import KnobSchedule, Space
from tvmmobile.schedules.floats.winograd import LEAST_CHANNELS, Winograd
from tvmmobile.schedules.floats.winograd_nest import CHAIN, IN_TURN
from tvmmobile.schedules.floats.winograd_transform import HALF_SIZES, SIZES

#: The direct sum's errors stay below 1e-5; see test_winograd_errors.py. The second is for tiles of the largest size.
TOLERANCE, LARGEST_TOLERANCE = 3e-5, 4e-5
#: The direct sum's errors are up to 5e-3.
HALF_TOLERANCE = 1e-2
RELU: Clamp = (0.0, None)
PADDED = (1, 1, 1, 1)


def task_of(side: int, inputs: int, outputs: int, layouts: tuple[Layout, Layout] = ("NHWC", "NHWC"), threads: int = 1) -> Task:
    layer = Conv2d(side, side, inputs, outputs, (3, 3), padding=PADDED, clamp=RELU, in_layout=layouts[0], out_layout=layouts[1])
    return Task((layer,), threads=threads)


def half(layer: Conv2d, threads: int = 1) -> Task:
    return Task((layer,), FLOAT16.name, threads, machine_of("cortex-a76"))


def space_of(task: Task) -> Space:
    space = Winograd().space(task)
    assert space is not None
    return space


TASKS = [
    task_of(56, 64, 64),
    task_of(28, 128, 128, ("NCHW32c", "NCHW32c")),
    task_of(14, 256, 512, ("NCHW32c", "NHWC")),
    task_of(7, 512, 512),
    task_of(13, 20, 36),
    task_of(1, 16, 16),
]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("threads", [1, 4])
def test_spaces(task: Task, threads: int) -> None:
    task = replace(task, threads=threads)
    space = space_of(task)
    members = check_members(Winograd(), task, space)
    assert 1 <= len(members) <= 96 * threads


def test_other_layers_are_left_alone() -> None:
    (layer,) = TASKS[1].region
    assert isinstance(layer, Conv2d)
    refused = [
        Task((layer, layer)),
        Task((Dense(512, 512),)),
        Task((replace(layer, stride=(2, 2)),)),
        Task((replace(layer, kernel=(1, 1), padding=(0, 0, 0, 0)),)),
        Task((replace(layer, kernel=(3, 1)),)),
        Task((replace(layer, groups=2),)),
        Task((replace(layer, in_layout="NCHW"),)),
        Task((replace(layer, out_layout="NCHW2c"),)),
        Task((replace(layer, in_channels=LEAST_CHANNELS - 4, in_layout="NHWC"),)),
        Task((replace(layer, out_channels=130, out_layout="NHWC"),)),
    ]
    assert [Winograd().space(task) for task in refused] == [None] * len(refused)


paddings = st.integers(0, 4)


@examples(16)
@given(
    st.tuples(st.integers(1, 19), st.integers(1, 19)),
    st.tuples(paddings, paddings, paddings, paddings),
    st.sampled_from((16, 20, 32, 48, 96)),
    st.sampled_from((16, 24, 40, 64)),
    st.sampled_from(("NHWC", "NCHW4c", "NCHW8c", "NCHW16c")),
    st.sampled_from(("NHWC", "NCHW4c", "NCHW8c", "NCHW16c")),
    st.sampled_from((NO_CLAMP, RELU, (0.0, 6.0), "hswish")),
    st.booleans(),
    st.sampled_from((1, 2, 3)),
    st.integers(0, 1 << 20),
)
def test_values(
    tmp_path: Path,
    sides: tuple[int, int],
    padding: tuple[int, int, int, int],
    inputs: int,
    outputs: int,
    before: Layout,
    after: Layout,
    clamp: Clamp,
    residual: bool,
    threads: int,
    choice: int,
) -> None:
    """Any sides and padding, also such that tiles see nothing but padding; with remainders of tiles, blocks and panels."""
    layouts = (_dividing(before, inputs), _dividing(after, outputs))
    layer = Conv2d(*sides, inputs, outputs, (3, 3), (1, 1), padding, 1, clamp, *layouts, residual)
    if min(layer.out_height, layer.out_width) > 0:
        task = Task((layer,), threads=threads)
        check_schedule(task, space_of(task), choice, TOLERANCE, tmp_path)


@examples(12)
@given(
    st.tuples(st.integers(1, 19), st.integers(1, 19)),
    st.tuples(paddings, paddings, paddings, paddings),
    st.sampled_from((16, 24, 40, 96)),
    st.sampled_from((16, 32, 72)),
    st.sampled_from(("NHWC", "NCHW8c", "NCHW32c")),
    st.sampled_from((NO_CLAMP, RELU, "hswish")),
    st.booleans(),
    st.sampled_from((1, 2, 3)),
    st.integers(0, 1 << 20),
)
def test_values_in_half_precision(
    tmp_path: Path,
    sides: tuple[int, int],
    padding: tuple[int, int, int, int],
    inputs: int,
    outputs: int,
    layout: Layout,
    clamp: Clamp,
    residual: bool,
    threads: int,
    choice: int,
) -> None:
    """Tiles of 2×2, 2×4 and 4×2 outputs."""
    layouts = (_dividing(layout, inputs), _dividing(layout, outputs))
    layer = Conv2d(*sides, inputs, outputs, (3, 3), (1, 1), padding, 1, clamp, *layouts, residual)
    if min(layer.out_height, layer.out_width) > 0:
        task = half(layer, threads)
        check_schedule(task, space_of(task), choice, HALF_TOLERANCE, tmp_path)


def test_sizes_in_half_precision(tmp_path: Path) -> None:
    """Oblong tiles have fewer products than square ones where they cover the output, and are what untuned kernels use there."""
    layer = Conv2d(28, 28, 128, 128, (3, 3), padding=PADDED)
    space = space_of(half(layer))
    assert {member.values["size"] for member in space} <= set(HALF_SIZES) and space.usual["size"] in HALF_SIZES[1:]
    assert Winograd().executed_macs(half(layer)) == 7 * 14 * (6 * 4) * 128 * 128
    assert run_on_host(half(layer), space.default, tmp_path / "kernel.so") <= HALF_TOLERANCE


def _dividing(layout: Layout, channels: int) -> Layout:
    """Return the layout, if its blocks divide the channels."""
    return layout if layout != "NHWC" and channels % int(layout[4:-1]) == 0 else "NHWC"


@examples(4)
@given(st.integers(2, 9), st.sampled_from((((32, 24), ((1, 4, 20), (0, 0, 12))), ((40,), ((0, 20, 16),)))), st.integers(0, 1 << 16))
def test_pieces(tmp_path: Path, side: int, cut: tuple[tuple[int, ...], tuple[tuple[int, int, int], ...]], choice: int) -> None:
    sources, pieces = cut
    depth = sum(count for _, _, count in pieces)
    layer = Conv2d(side, side + 1, depth, 16, (3, 3), padding=PADDED, residual=True, sources=sources, pieces=pieces, added=(24, 5))
    task = Task((layer,))
    check_schedule(task, space_of(task), choice, TOLERANCE, tmp_path)


def test_windows(tmp_path: Path) -> None:
    """Zeros outside them are multiplied like other weights, and counted as what is executed."""
    windows = ((0, 2, 0, 2), (0, 2, 1, 3), (1, 3, 0, 2), (1, 3, 1, 3))
    plain = Conv2d(7, 6, 16, 64, (3, 3), (1, 1), (1, 1, 1, 1))
    task = Task((replace(plain, windows=windows),))
    check_schedule(task, space_of(task), 0, TOLERANCE, tmp_path)
    assert Winograd().executed_macs(task) == Winograd().executed_macs(Task((plain,)))


@pytest.mark.parametrize("task", [TASKS[2], TASKS[4], TASKS[5]])
@pytest.mark.parametrize("threads", [1, 4])
def test_usual_knobs(tmp_path: Path, task: Task, threads: int) -> None:
    task = replace(task, threads=threads)
    assert run_on_host(task, space_of(task).default, tmp_path / "kernel.so") <= TOLERANCE


@pytest.mark.parametrize("size", SIZES)
def test_executed_multiply_adds_are_those_of_the_best_size(size: int) -> None:
    """They are counted for tiles that cover the output, and may exceed it."""
    task = task_of(56, 16, 128)
    assert Winograd().executed_macs(task) == (56 // 7) ** 2 * 9**2 * 16 * 128 <= (-(-56 // size)) ** 2 * (size + 2) ** 2 * 16 * 128
    assert Winograd().executed_macs(task_of(36, 16, 16)) == (36 // 6) ** 2 * 8**2 * 16 * 16
    assert Winograd().executed_macs(task_of(14, 16, 16)) == 3**2 * 7**2 * 16 * 16


@pytest.mark.parametrize(("task", "offered"), [(TASKS[0], set()), (TASKS[1], {7}), (TASKS[2], {5}), (TASKS[3], set()), (TASKS[4], {5})])
def test_odd_tiles_are_for_layers_where_they_save_much(task: Task, offered: set[int], tmp_path: Path) -> None:
    """They are tried, but never the schedule of a layer that nobody tuned."""
    space = space_of(task)
    odd = {member.values["size"]: member for member in space if member.values["size"] % 2}
    assert odd.keys() == offered and space.usual["size"] % 2 == 0
    for member in odd.values():
        assert run_on_host(task, member, tmp_path / "kernel.so") <= LARGEST_TOLERANCE


def test_largest_tiles_sum_in_chains(tmp_path: Path) -> None:
    """With 512 terms in one sum, the largest error would be twice the bound."""
    task = task_of(28, 512, 128)
    schedules = [member for member in space_of(task) if member.values["size"] == SIZES[-1]]
    assert schedules and all(0 < member.values["k_block"] <= CHAIN for member in schedules)
    assert run_on_host(task, schedules[0], tmp_path / "kernel.so") <= 1.6e-5


@pytest.mark.parametrize(("inputs", "k_block"), [(20, 0), (36, 32), (96, 32), (160, 64), (176, 64)])
@pytest.mark.parametrize(("threads", "axis"), [(1, 0), (3, 1)])
def test_largest_tiles(inputs: int, k_block: int, threads: int, axis: int, tmp_path: Path) -> None:
    """One chain, two, and more, the last of them shorter; with remainders of tiles, rows and panels, and outputs in blocks."""
    layer = Conv2d(23, 17, inputs, 40, (3, 3), (1, 1), (1, 0, 2, 1), 1, (0.0, 6.0), "NHWC", "NCHW8c", residual=True)
    knobs = {"size": SIZES[-1], "tiles": 5, "rows": 4, "columns": 8, "k_block": k_block, "parts": 2, "axis": axis}
    schedule = KnobSchedule("winograd", Winograd.version, tuple(knobs.items()))
    assert run_on_host(Task((layer,), threads=threads), schedule, tmp_path / "kernel.so") <= LARGEST_TOLERANCE


@pytest.mark.parametrize("axis", [0, 1, IN_TURN])
@pytest.mark.parametrize("tiles", [0, 13])
@pytest.mark.parametrize("threads", [2, 3])
def test_what_threads_share(axis: int, tiles: int, threads: int, tmp_path: Path) -> None:
    """There are 20 tiles of 36 input channels: with blocks of 13, two blocks of 10; neither they, chunks nor parts divide by 3."""
    layer = Conv2d(17, 13, 36, 64, (3, 3), (1, 1), PADDED, 1, RELU, "NHWC", "NCHW8c", residual=True)
    knobs = {"size": 4, "tiles": tiles, "rows": 4, "columns": 8, "k_block": 32, "parts": 4, "axis": axis}
    schedule = KnobSchedule("winograd", Winograd.version, tuple(knobs.items()))
    assert run_on_host(Task((layer,), threads=threads), schedule, tmp_path / "kernel.so") <= TOLERANCE


def test_tiles_that_remain_go_to_a_thread_with_fewer_blocks() -> None:
    """Of four blocks of 13, 13, 13 and 10 tiles, the last thread once had two, and the first none."""
    layer = Conv2d(28, 28, 64, 64, (3, 3), padding=PADDED)
    task = Task((layer,), threads=4)
    knobs = {"size": 4, "tiles": 14, "rows": 4, "columns": 8, "k_block": 0, "parts": 1, "axis": 0}
    assert "if v == 0:" in Winograd().emit(task, knobs).script()


def test_weights_are_packed_in_the_order_in_which_they_are_read() -> None:
    """Part by part, each point's panels; at the point at infinity in both directions they are the last taps."""
    task = TASKS[0]
    knobs = {**space_of(task).default.values, "size": 4, "parts": 2, "columns": 8, "k_block": 0}
    parameters = make_parameters(task)
    weight, bias = Winograd().pack(task, knobs, parameters)
    assert weight.shape == (36 * 64 * 64,) and (bias == parameters[0].bias).all()
    part = weight.reshape(2, 36, 4, 64, 8)
    assert (part[0, 35, 1] == parameters[0].weight[2, 2, :, 8:16]).all()
    assert (part[1, 35, 0] == parameters[0].weight[2, 2, :, 32:40]).all()
    np.testing.assert_allclose(part[0, 0, 0], parameters[0].weight[0, 0, :, :8] / 16, rtol=1e-6)


@pytest.mark.parametrize("task", TASKS[:2])
def test_loops(task: Task) -> None:
    """The products' is the tile's, by lane, with no spills; those of the transforms spill little, of four vectors' sums at a time."""
    knobs = space_of(task).default.values
    loops = innermost_loops(assembly_of(task, knobs, Winograd()))
    products = max(loops, key=lambda loop: loop.indexed)
    assert products.multiply_adds == products.indexed == knobs["rows"] * knobs["columns"] // LANES * 4
    assert products.stack_accesses == []
    assert all(len(loop.stack_accesses) <= 0.1 * len(loop.instructions) for loop in loops if len(loop.instructions) > 60)
