"""Sparse 1×1 convolutions: values for every pattern and knob, what is shared among threads, and the inner loop."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assembly import assembly_of, hottest_loop
from host_kernels import check_schedule, examples, kernel_on_host
from hypothesis import given
from hypothesis import strategies as st

from tvmmobile.graph.layers import NO_CLAMP, Conv2d, LayerParameters
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.precision import FLOAT16, FLOAT32, Precision
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels import reference
from tvmmobile.kernels.reference import expected_output, make_inputs
from tvmmobile.schedules import Space, template_named, templates_for
from tvmmobile.schedules.emit.sparse_clusters import Clusters
from tvmmobile.schedules.emit.sparse_entries import Entries
from tvmmobile.schedules.emit.sparse_nest import strips_of
from tvmmobile.schedules.floats.sparse import Sparse

LAYER = Conv2d(14, 14, 512, 512, clamp=(0.0, None), in_layout="NCHW", out_layout="NCHW", sparse=(52429, 1))
KNOBS = {"vectors": 7, "unroll": 4, "k_block": 0, "copy": 1, "axis": 0}
NAMES = ("sparse", "sparse_clusters")

sides = st.integers(1, 9)
steps = st.sampled_from((NO_CLAMP, (0.0, None), (0.0, 6.0), "hswish"))
#: As many entries as that share of all: none, one, few, all.
shares = st.sampled_from((0.0, 1e-9, 0.02, 0.1, 0.2, 0.5, 1.0))


def template(name: str) -> Sparse[Any]:
    found = template_named(name, 1)
    assert isinstance(found, Sparse)
    return found


def space_of(task: Task, name: str) -> Space:
    space = template(name).space(task)
    assert space is not None
    return space


def sparse(layer: Conv2d, share: float, together: int) -> Conv2d:
    """Return the layer with that share of its weights, rounded up."""
    count = math.ceil(share * layer.in_channels * layer.out_channels / together)
    return replace(layer, in_layout="NCHW", out_layout="NCHW", sparse=(count, together))


@pytest.mark.parametrize(("precision", "tolerance"), [(FLOAT32, 1e-5), (FLOAT16, 1e-2)], ids=lambda one: getattr(one, "name", ""))
@pytest.mark.parametrize("name", NAMES)
@examples(25)
@given(
    st.tuples(sides, sides, st.sampled_from((1, 3, 17, 70, 140, 300)), st.integers(1, 9), st.sampled_from((1, 2, 4))),
    shares,
    steps,
    st.sampled_from((1, 2, 3)),
    st.integers(0, 1 << 16),
    st.booleans(),
    st.booleans(),
)
def test_values(
    tmp_path: Path,
    name: str,
    precision: Precision,
    tolerance: float,
    shape: tuple[int, int, int, int, int],
    share: float,
    clamp: str,
    threads: int,
    choice: int,
    residual: bool,
    scaled: bool,
) -> None:
    """Weights have empty rows and columns, a single non-zero, no non-zeros, or no zeros."""
    height, width, depth, groups, together = shape
    groups *= 2 if name == "sparse_clusters" else 1
    layer = sparse(Conv2d(height, width, depth, groups * together, clamp=clamp, residual=residual, scaled=scaled), share, together)
    task = Task((layer,), precision.name, threads, machine_of("cortex-a76"))
    assert template(name) in templates_for(task)
    check_schedule(task, space_of(task, name), choice, tolerance, tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("threads", [1, 3])
def test_fewer_entries_than_the_layer_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, name: str) -> None:
    """Rows and columns are empty, and one output has almost all weights."""
    layer = Conv2d(5, 5, 40, 12, in_layout="NCHW", out_layout="NCHW", sparse=(100, 1))
    weight = np.zeros(layer.weight_shape, np.float32)
    weight[..., 3:38, 7] = 0.5
    weight[..., 20, 1] = -1.0
    given = (LayerParameters(weight, np.arange(12, dtype=np.float32)),)
    monkeypatch.setattr("host_kernels.make_parameters", lambda task: given)
    task = Task((layer,), threads=threads)
    data = make_inputs(task)
    for number, schedule in enumerate(list(space_of(task, name))[::17]):
        actual = kernel_on_host(task, schedule, tmp_path / f"{number}.so")(data)
        assert reference.relative_error(actual, expected_output(task, data, given)) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_more_entries_than_the_layer_says(name: str) -> None:
    layer = replace(LAYER, sparse=(3, 1))
    full = LayerParameters(np.ones(layer.weight_shape, np.float32), np.zeros(512, np.float32))
    with pytest.raises(ValueError, match=r"^pw_14x14_512x512_sparse3x1_nchw_to_nchw_relu has 262144 entries$"):
        template(name).pack(Task((layer,)), template(name).usual, (full,))


@pytest.mark.parametrize("name", NAMES)
def test_nans_reach_what_their_channel_reaches(tmp_path: Path, name: str) -> None:
    """The exception is products with zeros, which are left out."""
    layer = sparse(Conv2d(3, 5, 9, 8, clamp=(0.0, None)), 0.3, 1)
    task = Task((layer,))
    data = make_inputs(task)
    data[0][0, 4, 1, 2] = np.nan
    weight = reference.make_parameters(task)[0].weight.reshape(9, 8)
    found = np.isnan(kernel_on_host(task, space_of(task, name).default, tmp_path / "kernel.so")(data))
    assert (found[0, :, 1, 2] == (weight[4] != 0)).all() and found.sum() == (weight[4] != 0).sum() > 0


def test_threads_share_the_entries() -> None:
    """Equally many each, to within a row."""
    layer = replace(LAYER, sparse=(60000, 1))
    weight = np.zeros((512, 512), np.float32)
    weight[:, :100] = 1.0
    weight[::64, 100:] = 1.0
    *_, bounds = Entries(layer, k_block=0, threads=4, unroll=4).pack(weight, 1, False)
    entries = [int((weight[:, low:high] != 0).sum()) for low, high in itertools.pairwise(bounds)]
    assert bounds[0] == 0 and bounds[-1] == 512 and max(entries) - min(entries) < 1024


@pytest.mark.parametrize(("pixels", "most", "expected"), [(49, 7, [7, 6]), (196, 7, [7] * 7), (3, 8, [3]), (9, 2, [2, 1])])
def test_strips_are_about_equal_and_cover_all_pixels(pixels: int, most: int, expected: list[int]) -> None:
    strips = strips_of(pixels, 4, most)
    assert [len(strip.vectors) for strip in strips for _ in range(strip.count)] == expected
    covered = set()
    for strip in strips:
        for number in range(strip.count):
            start = strip.start + number * len(strip.vectors) * strip.lanes
            covered |= {start + place + lane for place in strip.vectors for lane in range(strip.lanes)}
    assert covered == set(range(pixels))


def test_dense_templates_refuse_sparse_layers() -> None:
    assert templates_for(Task((LAYER,))) == list(map(template, NAMES))
    for other in (
        replace(LAYER, in_layout="NHWC"),
        replace(LAYER, out_layout="NHWC"),
        replace(LAYER, stride=(2, 2)),
        replace(LAYER, out_channels=511, sparse=(400, 2)),
    ):
        assert templates_for(Task((other,))) == []


@pytest.mark.parametrize(("mcpu", "most"), [("cortex-a72", 12), ("cortex-a76", 12)])
def test_the_loop_has_little_besides_loads_and_multiplications(mcpu: str, most: int) -> None:
    """28 FMLA of a step of four entries; two vectors of pixels with an instruction, offsets and weights without spills."""
    loop = hottest_loop(assembly_of(Task((LAYER,), machine=machine_of(mcpu)), KNOBS, template("sparse"), mcpu))
    pixels = sum(text.startswith(("ldp\tq", "ldr\tq")) and "]," not in text for text in loop.instructions)
    assert loop.multiply_adds == loop.indexed == 28 and pixels <= 17 and not loop.stack_accesses
    assert len(loop.instructions) - loop.multiply_adds - pixels <= most


def test_clusters_join_outputs_that_share_inputs() -> None:
    """Every weight is in one list; outputs with the same pattern are one cluster, and their inputs are loaded once."""
    layer = replace(LAYER, in_channels=40, out_channels=8, sparse=(48, 1))
    pattern = np.zeros((40, 8), bool)
    for number, outputs in enumerate(([0, 5], [1, 7], [2, 3], [4, 6])):
        pattern[number * 10 : number * 10 + 6, outputs] = True
    weight = np.where(pattern, np.arange(1, 321, dtype=np.float32).reshape(40, 8), 0)
    values, offsets, starts, firsts, order, bounds = Clusters(layer, k_block=0, threads=1, size=2, unroll=1).pack(weight, 1, False)
    assert sorted(map(sorted, order.reshape(4, 2).tolist())) == [[0, 5], [1, 7], [2, 3], [4, 6]]
    assert starts[-1] == 24 and bounds.tolist() == [0, 4] and firsts.tolist() == [0, 12, 24, 36]
    assert sorted(values[:48]) == sorted(weight[pattern]) and not values[48:].any()
    assert sorted(offsets[:24]) == sorted(np.flatnonzero(pattern.any(1)))


def test_a_channel_of_a_pair_fills_up_lists() -> None:
    """Three channels of both outputs, one of each alone: one of the three goes to both other lists, and no list is padded."""
    layer = replace(LAYER, in_channels=5, out_channels=2, sparse=(8, 1))
    weight = np.array([[1, 2], [3, 4], [5, 6], [7, 0], [0, 8]], np.float32)
    values, offsets, starts, *_ = Clusters(layer, k_block=0, threads=1, size=2, unroll=2).pack(weight, 1, False)
    assert starts.tolist() == [0, 1, 2, 3]
    assert offsets[:6].tolist() == [0, 3, 0, 4, 1, 2] and values[:8].tolist() == [1, 7, 2, 8, 3, 4, 5, 6]
    one = Clusters(layer, k_block=0, threads=1, size=2, unroll=1).pack(weight, 1, False)
    assert one[2].tolist() == [0, 1, 2, 5]


def test_a_strip_may_be_the_whole_image() -> None:
    """The last of 13 vectors of 7×7 pixels overlaps with the one before."""
    task = Task((replace(LAYER, height=7, width=7),))
    whole = [name for name in NAMES for schedule in space_of(task, name) if schedule.values["vectors"] == 13]
    assert set(whole) == set(NAMES) and strips_of(49, 4, 13)[0].vectors[-2:] == (44, 45)


def test_the_loops_of_clusters_load_pixels_once(tmp_path: Path) -> None:
    """Two entries for two outputs: 28 FMLA, and seven pairs of vectors of pixels."""
    knobs = {"vectors": 7, "cluster": 4, "unroll": 2, "k_block": 256, "copy": 1, "axis": 0}
    loop = hottest_loop(assembly_of(Task((LAYER,), machine=machine_of("cortex-a72")), knobs, template("sparse_clusters"), "cortex-a72"))
    pixels = sum(text.startswith(("ldp\tq", "ldr\tq")) and "]," not in text for text in loop.instructions)
    assert loop.multiply_adds == loop.indexed == 28 and pixels <= 9 and not loop.stack_accesses
    assert len(loop.instructions) - loop.multiply_adds - pixels <= 9
