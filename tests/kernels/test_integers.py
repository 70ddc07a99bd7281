"""The reference of integer layers against the same arithmetic in Python's integers and fractions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tvmmobile.graph.integers import IntegerParameters, is_wide
from tvmmobile.graph.layers import Conv2d, Dense, Layer, Pool
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.integers import compute_integers, quantise, random_integers, requantise, sums_of
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters

LAYERS: tuple[Layer, ...] = (
    Conv2d(5, 4, 3, 4, (3, 3), (2, 2), (1, 1, 0, 2), in_layout="NCHW", reads="float32"),
    Conv2d(4, 3, 6, 6, (3, 3), (1, 1), (1, 1, 1, 1), 6),
    Conv2d(3, 3, 8, 5),
    Dense(300, 3, writes="float32"),
    Dense(12, 3),
    Pool(3, 4, 5),
)


def element(layer: Layer, data: np.ndarray, given: IntegerParameters, row: int, column: int, channel: int) -> int:
    """One sum, in Python's integers, of int8 data in NHWC."""
    total = int(given.bias[channel])
    if isinstance(layer, Pool):
        return total + sum(int(q) for q in data[0, :, :, channel].ravel())
    if isinstance(layer, Dense):
        return total + sum(int(q) * int(w) for q, w in zip(data[0], given.weight[:, channel], strict=True))
    assert isinstance(layer, Conv2d)
    for y, x, depth in np.ndindex(*layer.kernel, given.weight.shape[2]):
        at = row * layer.stride[0] + y - layer.padding[0], column * layer.stride[1] + x - layer.padding[1]
        inside = 0 <= at[0] < layer.height and 0 <= at[1] < layer.width
        source = channel if layer.is_depthwise else depth
        total += (int(data[(0, *at, source)]) if inside else given.zero_in) * int(given.weight[y, x, depth, channel])
    return total


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_outputs_are_those_of_exact_arithmetic(layer: Layer) -> None:
    """Every output: sums in Python's integers, their products with float32 multipliers in fractions, rounded to even."""
    task = Task((layer,), "int8")
    inputs, (given,) = make_inputs(task), make_parameters(task)
    assert isinstance(given, IntegerParameters) and not is_wide(layer, given)
    actual = expected_output(task, inputs, (given,))
    assert actual.dtype == task.storage[1].numpy and actual.shape == layer.output_shape
    data = inputs[0]
    if data.dtype == np.float32:
        per_scale = Fraction(float(np.float32(given.per_scale_in)))
        data = np.array([min(max(round(Fraction(float(x)) * per_scale) + given.zero_in, -128), 127) for x in data.ravel()]).reshape(
            data.shape
        )
        data = data.transpose(0, 2, 3, 1)
    for place in np.ndindex(actual.shape):
        row, column = place[1:3] if len(place) == 4 else (0, 0)
        total = np.float32(element(layer, data, given, row, column, place[-1]))
        if actual.dtype == np.float32:
            assert actual[place] == total * given.multiplier[place[-1]]
        else:
            rounded = round(Fraction(float(total)) * Fraction(float(given.multiplier[place[-1]])))
            assert actual[place] == min(max(rounded + given.zero_out, given.low), given.high)


def test_ties_go_to_even_before_the_zero_point_is_added_and_sums_keep_24_bits() -> None:
    given = IntegerParameters(np.zeros((1, 1), np.int8), np.zeros(1, np.int32), multiplier=np.array([0.5], np.float32), zero_out=1)
    assert requantise(np.array([1, 3, 5, -1, -3]), given).tolist() == [1, 3, 3, 1, -1]
    fine = replace(given, multiplier=np.array([2.0**-18], np.float32), zero_out=0)
    assert requantise(np.array([2**24 + 2**17 + 1, 2**24 + 2**17 + 2]), fine).tolist() == [64, 65]
    assert requantise(np.array([2**31 - 1, -(2**31)]), replace(given, low=-3, high=100)).tolist() == [100, -3]
    assert quantise(np.array([0.25, 0.75, np.inf, -np.inf], np.float32), 2.0, 3).tolist() == [3, 5, 127, -128]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_random_constants_use_the_range(layer: Layer) -> None:
    """Outputs take many values, and some are saturated; the folded zero point makes the result that of real numbers."""
    generator = np.random.default_rng(5)
    given = replace(random_integers(layer, generator), low=-128, high=127)
    task = Task((replace(layer, reads="", writes=""),), "int8")
    found = compute_integers(task.layer, make_inputs(task)[0], given)
    assert len(np.unique(found)) >= min(found.size, 24) // 3
    wide = replace(given, multiplier=given.multiplier * 8)
    assert set(np.unique(requantise(sums_of(task.layer, make_inputs(task)[0], wide), wide))) & {-128, 127}
