"""Kernels in float32 that read weights in fewer bits compute what PyTorch computes with the numbers that these stand for."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from host_kernels import examples, run_on_host
from hypothesis import given
from hypothesis import strategies as st

from tvmmobile.graph.layers import NO_CLAMP, Clamp, Conv2d, Dense, Layer, LayerParameters
from tvmmobile.graph.layouts import blocked
from tvmmobile.graph.precision import FLOAT16, INT8, SMALL_WEIGHTS
from tvmmobile.graph.small_weights import as_stored, rounded, stored_weights
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import template_named, templates_for

RELU6: Clamp = (0.0, 6.0)
#: Rows that a kernel rounds to 16 bits: within a step of the largest magnitude in a block.
FIXED = 1e-4
_NUMBER = itertools.count()
kinds = st.sampled_from(SMALL_WEIGHTS)


def check(layer: Layer, threads: int, choice: int, name: str, version: int, folder: Path) -> None:
    task = Task((layer,), threads=threads)
    template = template_named(name, version)
    space = template.space(task) if template else None
    assert space is not None and [found.name for found in templates_for(task)] == [name]
    schedules = list(space.unpruned())
    schedule = schedules[choice % len(schedules)]
    error = run_on_host(task, schedule, folder / f"small{next(_NUMBER)}.so")
    assert error <= (FIXED if schedule.values.get("fixed") else 1e-5), f"{task.name} {schedule}: {error}"


@examples(16)
@given(kinds, st.sampled_from((1, 5, 64, 513, 1037)), st.sampled_from((3, 13, 40, 64)), st.integers(1, 2), st.integers(0, 1 << 16))
def test_dense(tmp_path: Path, kind: str, depth: int, outputs: int, threads: int, choice: int) -> None:
    check(Dense(depth, outputs, "hswish" if choice % 2 else NO_CLAMP, weights=kind), threads, choice, "dense", 1, tmp_path)


@examples(16)
@given(kinds, st.integers(1, 6), st.sampled_from((3, 36, 96)), st.sampled_from((13, 40, 64)), *[st.booleans()] * 3, st.integers(0, 1 << 16))
def test_pointwise(
    tmp_path: Path, kind: str, side: int, depth: int, outputs: int, residual: bool, scaled: bool, strided: bool, choice: int
) -> None:
    stride = (2, 2) if strided else (1, 1)
    layer = Conv2d(side, side + 1, depth, outputs, stride=stride, clamp=RELU6, residual=residual, scaled=scaled, weights=kind)
    check(layer, 1 + choice % 2, choice, "pointwise", 2, tmp_path)


def test_pointwise_in_channel_blocks(tmp_path: Path) -> None:
    layer = Conv2d(5, 5, 64, 96, clamp=RELU6, in_layout=blocked(32), out_layout=blocked(32), weights=INT8.name)
    check(layer, 1, 4321, "pointwise", 2, tmp_path)


@given(st.integers(0, 1 << 16), st.integers(1, 40), st.integers(1, 8), st.sampled_from((1e-30, 1e-3, 1.0, 1e6)))
def test_int8_has_a_scale_for_each_channel(seed: int, depth: int, outputs: int, size: float) -> None:
    """Weights are off by half a step at most, and rounded ones are stored as they are."""
    weight = (np.random.default_rng(seed).normal(0.0, size, (depth, outputs)) * np.geomspace(1, 1e3, outputs)).astype(np.float32)
    weight[:, 0] *= seed % 2  # a channel without weights
    stored, scales = stored_weights(weight, INT8.name)
    assert scales is not None and stored.dtype == np.int8 and np.abs(stored.astype(int)).max() <= 127
    near = rounded(weight, INT8.name)
    assert (np.abs(near - weight) <= 0.5001 * scales).all()
    again, _ = stored_weights(near, INT8.name)
    assert (again == stored).all()


def test_half_precision_has_no_scales() -> None:
    weight = np.array([[1.0, 2.0**-11 + 1, 1e6]], np.float32)
    kept = as_stored(LayerParameters(weight, np.zeros(3, np.float32)), FLOAT16.name)
    assert kept.weight.dtype == np.float16 and kept.operands == ()
    assert rounded(weight, FLOAT16.name).tolist() == [[1.0, 1.0, np.inf]]


@pytest.mark.parametrize("kind", SMALL_WEIGHTS)
def test_tasks_say_how_weights_are_stored(kind: str) -> None:
    """The name and the bytes; those of float32 weights are what they were."""
    wide, small = Task((Dense(64, 40),)), Task((Dense(64, 40, weights=kind),))
    assert wide.name == "dense_64x40_linear_float32_t1" and small.name == f"dense_64x40_{kind}weights_linear_float32_t1"
    assert wide.least_bytes - small.least_bytes == 64 * 40 * (3 if kind == INT8.name else 2)
