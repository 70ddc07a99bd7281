"""Integer layers as tasks, and the bound below which their sums are not converted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tvmmobile.graph.integers import (
    LARGEST_UNSATURATED,
    LEAST_CONVERTED_SUM,
    MULTIPLIER_DENOMINATOR,
    NARROW_TERMS,
    IntegerParameters,
    short_multipliers,
)
from tvmmobile.graph.layers import Conv2d, Dense, Layer, Pool
from tvmmobile.graph.precision import INT8
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import task_from_json, task_to_json
from tvmmobile.schedules import TEMPLATES

POINTWISE = Conv2d(4, 5, 64, 8)


def with_sums(layer: Layer, products: int, bias: int) -> IntegerParameters:
    """Constants of which the last channel's sum of |weight| is that, and its bias; all others are small."""
    weight = np.zeros(getattr(layer, "weight_shape", (0,)), np.int8)
    flat = weight.reshape(-1, weight.shape[-1])
    for place in range(len(flat)):
        flat[place, -1] = min(products, 127) * (-1) ** place
        products -= abs(int(flat[place, -1]))
    assert products == 0
    channels = weight.shape[-1] or 1
    biases = np.zeros(channels, np.int32)
    biases[-1] = bias
    return IntegerParameters(weight, biases, multiplier=np.full(channels, 2.0**-10, np.float32))


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    ("products", "bias", "wide"),
    [(1000, LEAST_CONVERTED_SUM - 128001, False), (1000, LEAST_CONVERTED_SUM - 128000, True), (0, LEAST_CONVERTED_SUM, True)],
)
def test_a_layer_is_wide_from_two_to_the_22_on(products: int, bias: int, wide: bool, sign: int) -> None:
    parameters = with_sums(POINTWISE, products, sign * bias)
    assert int(POINTWISE.largest_sums(parameters)[-1]) == 128 * products + bias
    assert POINTWISE.is_wide(parameters) == wide
    marked = POINTWISE.with_facts(wide=wide)
    assert marked.converts_sums == wide and Task((marked,), "int8").name == f"pw_4x5_64x8_{'wide_' * wide}linear_int8_t1"


def test_a_layer_is_wide_whose_results_leave_16_bits() -> None:
    """Before they are limited to 8; what is written as floats is not limited."""
    parameters = with_sums(POINTWISE, 1000, 2000)
    for scaled, wide in ((LARGEST_UNSATURATED - 0.1, False), (LARGEST_UNSATURATED + 0.1, True), (-LARGEST_UNSATURATED - 0.1, True)):
        given = replace(parameters, multiplier=short_multipliers(np.full(8, scaled / 130000)))
        assert POINTWISE.is_wide(given) == wide and not replace(POINTWISE, writes="float32").is_wide(given)


@pytest.mark.parametrize(
    ("layer", "changes", "otherwise"),
    [
        (POINTWISE, {"zero_out": 7}, True),
        (replace(POINTWISE, writes="float32"), {"zero_out": 7}, False),
        (POINTWISE, {"multiplier": np.full(8, 1e-3, np.float32)}, True),
        (POINTWISE, {"multiplier": short_multipliers(np.full(8, 1e-3))}, False),
        (replace(POINTWISE, clamp="hswish"), {"multiplier": np.full(8, 1e-3, np.float32), "sixth": 0.1}, False),
    ],
)
def test_a_layer_is_wide_whose_kernel_would_round_otherwise(layer: Conv2d, changes: dict[str, Any], otherwise: bool) -> None:
    """Odd zero points have other ties, and multipliers that are not short a product that is not exact; with a curve there are no ties.

    With an addend, kernels round all of these.
    """
    given = replace(with_sums(layer, 1000, 2000), **changes)
    assert layer.is_wide(given) == layer.rounds_otherwise(given) == otherwise
    added, given = layer.with_facts(addend=True), replace(given, addend=np.zeros(8, np.float32))
    assert not added.is_wide(given) and added.is_wide(replace(given, bias=given.bias + LEAST_CONVERTED_SUM))


def test_short_multipliers_are_near_and_exact() -> None:
    """The addend of a product, 1.5 · 2^23 · (1 - multiplier) and a zero point, is an integer below 2^24."""
    given = np.random.default_rng(0).uniform(-0.5, 1.5, 1000).astype(np.float32)
    found = short_multipliers(given)
    assert np.abs(found - np.clip(given, 128 / MULTIPLIER_DENOMINATOR - 1 / 3, 1)).max() <= 1 / MULTIPLIER_DENOMINATOR
    added = 1.5 * 2**23 * (1 - found.astype(np.float64))
    assert np.array_equal(added, np.rint(added)) and added.min() >= 0 and added.max() < 2**24 - 128


def test_layers_of_many_terms_are_converted_and_never_wide() -> None:
    """All networks of these shapes then have the same kernel; below that size, not even the largest weights make a layer wide."""
    assert NARROW_TERMS * 127 * 128 < LEAST_CONVERTED_SUM
    many = Dense(NARROW_TERMS + 1, 4)
    assert many.converts_sums and not many.is_wide(with_sums(many, 127 * NARROW_TERMS, LEAST_CONVERTED_SUM))
    assert not Dense(NARROW_TERMS, 4).converts_sums and not Pool(7, 7, 8).converts_sums
    assert Pool(7, 7, 1).is_wide(
        IntegerParameters(np.zeros(0, np.int8), np.array([LEAST_CONVERTED_SUM - 49 * 128], np.int32), multiplier=np.zeros(1))
    )


def test_integer_tasks_are_named_stored_and_refused_by_float_templates() -> None:
    layer = replace(POINTWISE, reads="float32").with_facts(wide=True)
    task = Task((layer,), "int8", 4)
    assert task.name == "pw_4x5_64x8_from_float32_wide_linear_int8_t4" and task_from_json(task_to_json(task)) == task
    assert task_to_json(task)["region"] == [
        {"kind": "conv2d", "reads": "float32", "wide": True, "height": 4, "width": 5, "in_channels": 64, "out_channels": 8}
    ]
    assert (task.lanes, task.precision, task.needs) == (16, INT8, {"integers", "reads", "wide", "threads"})
    for each in (task, Task((replace(layer, reads="int8").with_facts(wide=False),))):
        assert "integers" in each.needs and not [template.name for template in TEMPLATES if template.space(each) is not None]
    rounding = Task((replace(layer, reads="", writes="int8").with_facts(wide=False),))
    assert rounding.needs == {"writes"} and rounding.rounds and not task.rounds
