"""Sparse 1×1 convolutions: values for every pattern and knob, what is shared among threads, and the inner loop."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from assembly import assembly_of, hottest_loop
from hypothesis import given
from hypothesis import strategies as st
from support.host_kernels import check_schedule, examples, kernel_on_host

from tvmmobile.graph.layers import NO_CLAMP, Conv2d, LayerParameters
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.precision import FLOAT16, FLOAT32, Precision
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels import reference
from tvmmobile.kernels.reference import expected_output, make_inputs
from tvmmobile.schedules import Space, Template, template_for, template_named, templates_for
from tvmmobile.schedules.emit.sparse_entries import Entries
from tvmmobile.schedules.emit.sparse_nest import strips_of

LAYER = Conv2d(14, 14, 512, 512, clamp=(0.0, None), in_layout="NCHW", out_layout="NCHW", sparse=(52429, 1))
KNOBS = {"vectors": 7, "unroll": 4, "k_block": 0, "copy": 1, "axis": 0}

sides = st.integers(1, 9)
steps = st.sampled_from((NO_CLAMP, (0.0, None), (0.0, 6.0), "hswish"))
#: As many entries as that share of all: none, one, few, all.
shares = st.sampled_from((0.0, 1e-9, 0.02, 0.1, 0.2, 0.5, 1.0))


def template() -> Template:
    found = template_named("sparse", 1)
    assert found is not None
    return found


def space_of(task: Task) -> Space:
    space = template().space(task)
    assert space is not None
    return space


def sparse(layer: Conv2d, share: float, together: int) -> Conv2d:
    """The layer with that share of its weights, rounded up."""
    count = math.ceil(share * layer.in_channels * layer.out_channels / together)
    return replace(layer, in_layout="NCHW", out_layout="NCHW", sparse=(count, together))


@pytest.mark.parametrize(("precision", "tolerance"), [(FLOAT32, 1e-5), (FLOAT16, 1e-2)], ids=lambda one: getattr(one, "name", ""))
@examples(40)
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
    """With empty rows and columns, no weights at all, one, or no zeros."""
    height, width, depth, groups, together = shape
    layer = sparse(Conv2d(height, width, depth, groups * together, clamp=clamp, residual=residual, scaled=scaled), share, together)
    task = Task((layer,), precision.name, threads, machine_of("cortex-a76"))
    assert template_for(task) is template()
    check_schedule(task, space_of(task), choice, tolerance, tmp_path)


@pytest.mark.parametrize("threads", [1, 3])
def test_fewer_entries_than_the_layer_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Rows and columns are empty, and one output has almost all weights."""
    layer = Conv2d(5, 5, 40, 12, in_layout="NCHW", out_layout="NCHW", sparse=(100, 1))
    weight = np.zeros(layer.weight_shape, np.float32)
    weight[..., 3:38, 7] = 0.5
    weight[..., 20, 1] = -1.0
    given = (LayerParameters(weight, np.arange(12, dtype=np.float32)),)
    monkeypatch.setattr("support.host_kernels.make_parameters", lambda task: given)
    task = Task((layer,), threads=threads)
    data = make_inputs(task)
    for number, schedule in enumerate(list(space_of(task))[::17]):
        actual = kernel_on_host(task, schedule, tmp_path / f"{number}.so")(data)
        assert reference.relative_error(actual, expected_output(task, data, given)) < 1e-6


def test_more_entries_than_the_layer_says() -> None:
    layer = replace(LAYER, sparse=(3, 1))
    full = LayerParameters(np.ones(layer.weight_shape, np.float32), np.zeros(512, np.float32))
    with pytest.raises(ValueError, match=r"^pw_14x14_512x512_sparse3x1_nchw_to_nchw_relu has 262144 entries$"):
        template().pack(Task((layer,)), KNOBS, (full,))


def test_nans_reach_what_their_channel_reaches(tmp_path: Path) -> None:
    """But for products with zeros, which are left out."""
    layer = sparse(Conv2d(3, 5, 9, 8, clamp=(0.0, None)), 0.3, 1)
    task = Task((layer,))
    data = make_inputs(task)
    data[0][0, 4, 1, 2] = np.nan
    weight = reference.make_parameters(task)[0].weight.reshape(9, 8)
    found = np.isnan(kernel_on_host(task, space_of(task).default, tmp_path / "kernel.so")(data))
    assert (found[0, :, 1, 2] == (weight[4] != 0)).all() and found.sum() == (weight[4] != 0).sum() > 0


def test_threads_share_the_entries() -> None:
    """Equally many each, to within a row."""
    layer = replace(LAYER, sparse=(60000, 1))
    weight = np.zeros((512, 512), np.float32)
    weight[:, :100] = 1.0
    weight[::64, 100:] = 1.0
    *_, bounds = Entries(layer, 4, 0, 4).pack(weight, 1, False)
    entries = [int((weight[:, low:high] != 0).sum()) for low, high in itertools.pairwise(bounds)]
    assert bounds[0] == 0 and bounds[-1] == 512 and max(entries) - min(entries) < 1024


@pytest.mark.parametrize(("pixels", "most", "expected"), [(49, 7, [7, 6]), (196, 7, [7] * 7), (3, 8, [3]), (9, 2, [2, 1])])
def test_strips_are_about_equal_and_cover_all_pixels(pixels: int, most: int, expected: list[int]) -> None:
    strips = strips_of(pixels, 4, most)
    assert [len(one.vectors) for one in strips for _ in range(one.count)] == expected
    covered = set()
    for one in strips:
        for number in range(one.count):
            start = one.start + number * len(one.vectors) * one.lanes
            covered |= {start + place + lane for place in one.vectors for lane in range(one.lanes)}
    assert covered == set(range(pixels))


def test_dense_templates_refuse_sparse_layers() -> None:
    assert templates_for(Task((LAYER,))) == [template()]
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
    loop = hottest_loop(assembly_of(Task((LAYER,), machine=machine_of(mcpu)), KNOBS, template(), mcpu))
    pixels = sum(text.startswith(("ldp\tq", "ldr\tq")) and "]," not in text for text in loop.instructions)
    assert loop.multiply_adds == loop.indexed == 28 and pixels <= 17 and not loop.stack_accesses
    assert len(loop.instructions) - loop.multiply_adds - pixels <= most
