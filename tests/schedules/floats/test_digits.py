"""Products of floats and int8 by digits compute, under QEMU, what PyTorch computes with the numbers that these weights stand for."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from integer_kernels import output_on, space_of

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Array, Conv2d
from tvmmobile.graph.layouts import blocked
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.precision import INT8
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters, relative_error
from tvmmobile.running.bench import started_agents
from tvmmobile.running.measure import Agents
from tvmmobile.schedules import templates_for

#: Pixels are rounded to a step of 1/65024 of their range.
TOLERANCE = 1e-4
WEIGHTS = INT8.name
LAYERS = (
    Conv2d(6, 6, 64, 96, clamp=(0.0, 6.0), in_layout=blocked(32), out_layout=blocked(32), weights=WEIGHTS),
    Conv2d(5, 7, 40, 36, clamp="hswish", weights=WEIGHTS),
    Conv2d(1, 1, 24, 13, weights=WEIGHTS),
    Conv2d(7, 5, 33, 40, stride=(2, 2), clamp=(0.0, 6.0), weights=WEIGHTS),
    Conv2d(4, 5, 120, 24, residual=True, scaled=True, weights=WEIGHTS),
    Conv2d(3, 3, 80, 21, scaled=True, in_layout=blocked(20), weights=WEIGHTS),
    Conv2d(9, 3, 18, 20, residual=True, out_layout="NCHW", weights=WEIGHTS),
    Conv2d(4, 5, 48, 20, reads="float16", writes="float16", clamp="hswish", weights=WEIGHTS),
)


@pytest.fixture(scope="module")
def pi5() -> Iterator[Agents]:
    """A core with SDOT."""
    with started_agents(find_device("pi5-virtual")) as found:
        yield found


@pytest.mark.virtual
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer.height}x{layer.width}_{layer.in_channels}x{layer.out_channels}")
def test_kernels_agree_with_the_reference(pi5: Agents, layer: Conv2d, tmp_path: Path) -> None:
    rng = random.Random(layer.in_channels)
    for threads in (1, 2):
        task = Task((layer,), threads=threads, machine=pi5.profile.machine)
        schedule = rng.choice(space_of(task, "digits"))
        given, inputs = make_parameters(task), make_inputs(task)
        error = relative_error(output_on(pi5, task, schedule, given, inputs, tmp_path), expected_output(task, inputs, given))
        assert error <= task.tolerance, f"{task.name} {schedule}: {error}"


@pytest.mark.virtual
@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-20, 1e20])
def test_every_pixel_has_a_scale_of_its_own(pi5: Agents, size: float, tmp_path: Path) -> None:
    """Each pixel of zeros, or of very small or large numbers beside others, is as exact as it would be alone."""
    layer = Conv2d(1, 4, 32, 16, weights=WEIGHTS)
    task = Task((layer,), machine=pi5.profile.machine)
    given, inputs = make_parameters(task), make_inputs(task)
    image: Array = inputs[0].reshape(4, 32)
    image[1] *= np.float32(size)
    image[2, 5] = image[3, 5] = np.abs(image).max()
    found = output_on(pi5, task, space_of(task, "digits")[0], given, inputs, tmp_path).reshape(4, 16)
    expected = expected_output(task, inputs, given).reshape(4, 16)
    for pixel in range(4):
        least = np.abs(expected[pixel]).max()
        assert np.abs(found[pixel] - expected[pixel]).max() <= TOLERANCE * least


@pytest.mark.virtual
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_pixel_that_is_not_finite_has_no_finite_result(pi5: Agents, number: float, tmp_path: Path) -> None:
    """The other pixels keep their results."""
    task = Task((Conv2d(1, 3, 32, 16, weights=WEIGHTS),), machine=pi5.profile.machine)
    given, inputs = make_parameters(task), make_inputs(task)
    expected = expected_output(task, inputs, given).reshape(3, 16)
    inputs[0].reshape(3, 32)[1, 7] = number
    found = output_on(pi5, task, space_of(task, "digits")[0], given, inputs, tmp_path).reshape(3, 16)
    assert not np.isfinite(found[1]).any()
    assert np.abs(np.delete(found - expected, 1, 0)).max() <= TOLERANCE * np.abs(expected).max()


def test_only_cores_with_dot_products_take_it() -> None:
    layer = LAYERS[0]
    for mcpu, wanted in (("cortex-a72", False), ("cortex-a53", False), ("cortex-a55", True), ("cortex-a76", True)):
        names = [one.name for one in templates_for(Task((layer,), machine=machine_of(mcpu)))]
        assert ("digits" in names) == wanted and "pointwise" in names
