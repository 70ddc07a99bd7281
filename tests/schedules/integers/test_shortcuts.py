"""A manifest's entry on kernels' shortcuts agrees with the kernels' packed constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tvmmobile.graph.integers import IntegerParameters
from tvmmobile.graph.layers import Array, Conv2d, Dense, IntegerFacts, Layer, LayerParameters
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import make_parameters
from tvmmobile.schedules import Template, templates_for
from tvmmobile.schedules.integers.long import table_size
from tvmmobile.schedules.space import Knobs

ENDS = {"unconverted": 1.0, "scaled_at_once": 1.0}


def kernel_of(*layers: Layer, mcpu: str = "cortex-a72") -> tuple[Task, Template, Knobs, list[IntegerParameters]]:
    """Return a task with the first template that takes it, its default knobs, and constants whose weights are normally distributed."""
    task = Task(layers, "int8", machine=machine_of(mcpu))
    template = templates_for(task)[0]
    space = template.space(task)
    assert space is not None
    given = [parameter for parameter in make_parameters(task) if isinstance(parameter, IntegerParameters)]
    return task, template, space.default.values, [replace(one, weight=normal(one.weight.shape)) for one in given]


def shortcuts(task: Task, template: Template, knobs: Knobs, given: Sequence[LayerParameters]) -> list[dict[str, float]]:
    """Return the shortcuts of a kernel with these constants."""
    return template.shortcuts(task, knobs, tuple(given))


def normal(shape: tuple[int, ...]) -> Array:
    """Weights of which few are large."""
    return np.clip(np.rint(np.random.default_rng(0).normal(0, 44, shape)), -127, 127).astype(np.int8)


@pytest.mark.parametrize("depth", [64, 72, 248])
def test_products_by_fours_are_those_of_the_packed_order(depth: int) -> None:
    """There are whole panels and a narrower one, with a half step that may have a partner."""
    task, template, knobs, given = kernel_of(Conv2d(4, 4, depth, 40))
    knobs = {**knobs, "columns": 16}
    (found,) = shortcuts(task, template, knobs, given)
    tables = template.pack(task, knobs, tuple(given))[-1].reshape(-1, table_size(depth))
    assert len(tables) == 3
    pairs, singles = tables[:, 0], tables[:, 1]
    partners = depth // 16 - 2 * pairs - singles  # of half a step
    products = 2 * 16 * pairs + 24 * partners
    share = (products * [16, 16, 8]).sum() / (depth * 40)
    assert 0 < share < 1 and found == ENDS | {"four_products": pytest.approx(share)}


def test_products_by_fours_of_an_image() -> None:
    """27 products of a window, padded to two steps: weights that fit, and in one panel of two one channel whose weights do not."""
    task, template, knobs, (constants,) = kernel_of(Conv2d(16, 16, 3, 32, (3, 3), (2, 2), (1, 1, 1, 1), in_layout="NCHW", reads="float32"))
    weight = np.clip(constants.weight, -63, 63)
    assert template.name == "long_image" and shortcuts(task, template, knobs, [replace(constants, weight=weight)])[0]["four_products"] == 1
    weight[..., 5] = 127
    found = shortcuts(task, template, {**knobs, "columns": 16}, [replace(constants, weight=weight)])
    assert found[0]["four_products"] == 0.5


def test_taps_by_threes_are_those_of_whole_eights() -> None:
    task, template, knobs, (constants,) = kernel_of(Conv2d(6, 6, 32, 32, (3, 3), padding=(1, 1, 1, 1), groups=32))
    weight = np.clip(constants.weight, -85, 85)
    weight[0, :, 0, 9] = 100
    constants = replace(constants, weight=weight)
    assert shortcuts(task, template, knobs, [constants]) == [ENDS | {"three_taps": 0.75}]
    assert template.pack(task, knobs, (constants,))[-1].tolist() == [1, 0, 1, 1]


def test_both_layers_of_a_kernel_are_told_apart() -> None:
    first = Conv2d(28, 28, 64, 64, (3, 3), padding=(1, 1, 1, 1), groups=64)
    task, template, knobs, given = kernel_of(first, Conv2d(28, 28, 64, 64))
    depthwise, product = shortcuts(task, template, knobs, given)
    assert template.name == "long_separable" and depthwise.keys() - ENDS.keys() == {"three_taps"}
    assert product.keys() - ENDS.keys() == {"four_products"} and 0 < product["four_products"] < 1


@pytest.mark.parametrize(
    ("layer", "unconverted", "at_once"),
    [
        (Conv2d(4, 4, 64, 16, integers=IntegerFacts(wide=True)), 0, 0),
        (Conv2d(4, 4, 512, 16), 0, 0),
        (Conv2d(4, 4, 64, 16, residual=True), 1, 0),
        (Conv2d(4, 4, 64, 16, clamp="hswish"), 1, 0),
        (Dense(64, 10, writes="float32"), 1, 0),
    ],
)
def test_what_the_ends_of_a_layer_take(layer: Layer, unconverted: float, at_once: float) -> None:
    (found,) = shortcuts(*kernel_of(layer))
    assert (found["unconverted"], found["scaled_at_once"]) == (unconverted, at_once)


def test_kernels_with_dot_products_add_nothing_in_16_bits() -> None:
    assert shortcuts(*kernel_of(Conv2d(4, 4, 64, 16), mcpu="cortex-a76")) == [ENDS]


def test_layers_in_float32_have_none() -> None:
    task = Task((Conv2d(4, 4, 64, 16),), machine=machine_of("cortex-a72"))
    template = templates_for(task)[0]
    space = template.space(task)
    assert space is not None and shortcuts(task, template, space.default.values, make_parameters(task)) == []
