"""The reference of integer layers against the same arithmetic in Python's integers and fractions."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tvmmobile.graph.integers import LOOKUP, IntegerParameters
from tvmmobile.graph.layers import Conv2d, Dense, Gating, IntegerFacts, Layer, Pool
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.integer_reference import compute_integers, fused, quantise, random_integers, requantise
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters

LAYERS: tuple[Layer, ...] = (
    Conv2d(5, 4, 3, 4, (3, 3), (2, 2), (1, 1, 0, 2), in_layout="NCHW", reads="float32"),
    Conv2d(4, 3, 6, 6, (3, 3), (1, 1), (1, 1, 1, 1), 6),
    Conv2d(3, 3, 8, 5, integers=IntegerFacts(bounded=True)),
    Dense(300, 3, writes="float32"),
    Dense(12, 3, integers=IntegerFacts(bounded=True)),
    Pool(3, 4, 5),
    Conv2d(3, 2, 8, 5, residual=True, integers=IntegerFacts(bounded=True)),
    Conv2d(3, 2, 8, 5, clamp="hswish"),
    Conv2d(4, 4, 6, 6, (3, 3), (1, 1), (1, 1, 1, 1), 6, clamp="hsigmoid"),
    Conv2d(3, 2, 8, 5, clamp="hswish", residual=True),
    Conv2d(3, 2, 8, 5, clamp=LOOKUP),
    Conv2d(3, 2, 8, 5, clamp=LOOKUP, residual=True, integers=IntegerFacts(addend=True)),
    Dense(12, 3, clamp="hswish"),
    Gating(3, 2, 5),
    Conv2d(3, 3, 8, 5, integers=IntegerFacts(addend=True)),
    Dense(300, 3, writes="float32", integers=IntegerFacts(addend=True)),
    Pool(3, 4, 5, integers=IntegerFacts(addend=True)),
    Conv2d(3, 2, 8, 5, residual=True, integers=IntegerFacts(addend=True)),
    Conv2d(3, 2, 8, 5, clamp="hswish", integers=IntegerFacts(addend=True)),
    Gating(3, 2, 5, integers=IntegerFacts(addend=True)),
)


def element(layer: Layer, data: np.ndarray, given: IntegerParameters, row: int, column: int, channel: int) -> int:
    """Return one sum, in Python's integers, of int8 data in NHWC."""
    total = int(given.bias[channel])
    if isinstance(layer, Pool):
        return total + sum(int(q) for q in data[0, :, :, channel].ravel())
    if isinstance(layer, Gating):
        return total + int(data[0, row, column, channel])
    if isinstance(layer, Dense):
        return total + sum(int(q) * int(w) for q, w in zip(data[0], given.weight[:, channel], strict=True))
    assert isinstance(layer, Conv2d)
    for y, x, depth in np.ndindex(*layer.kernel, given.weight.shape[2]):
        at = row * layer.stride[0] + y - layer.padding[0], column * layer.stride[1] + x - layer.padding[1]
        inside = 0 <= at[0] < layer.height and 0 <= at[1] < layer.width
        source = channel if layer.is_depthwise else depth
        total += (int(data[(0, *at, source)]) if inside else given.zero_in) * int(given.weight[y, x, depth, channel])
    return total


def nearest(exact: Fraction) -> Fraction:
    """Rounded to float32, ties to even; not near the ends of its range."""
    if not exact:
        return exact
    unit = Fraction(2) ** (math.frexp(float(exact))[1] - 24)
    return round(exact / unit) * unit


def result(
    layer: Layer, given: IntegerParameters, total: Fraction, multiplier: Fraction, residual: int | None, addend: Fraction
) -> Fraction:
    """Return the value that is rounded to an integer, by the definition, in fractions."""
    curve = layer.clamp if isinstance(layer, Conv2d | Dense) and isinstance(layer.clamp, str) and layer.clamp != LOOKUP else ""
    if residual is None and not curve and not given.addend.size:
        return total * multiplier
    other = addend if residual is None else nearest((residual - given.zero_side) * Fraction(given.scale_side) + addend)
    x = nearest(total * multiplier + other)
    sixth = Fraction(given.sixth)
    inside = min(max(nearest(x * sixth + nearest(3 * sixth)), Fraction(0)), nearest(6 * sixth))
    return {"": x, "hswish": x * inside, "hsigmoid": inside}[curve]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_outputs_are_those_of_exact_arithmetic(layer: Layer) -> None:
    """Every output: sums in Python's integers, their products with float32 multipliers in fractions, rounded to even."""
    task = Task((layer,), "int8")
    inputs, (given,) = make_inputs(task), make_parameters(task)
    assert isinstance(given, IntegerParameters) and not layer.is_wide(given)
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
        addend = Fraction(float(given.addend[place[-1]])) if given.addend.size else Fraction(0)
        if actual.dtype == np.float32:
            assert actual[place] == nearest(Fraction(float(total)) * Fraction(float(given.multiplier[place[-1]])) + addend)
        else:
            multiplier, residual = Fraction(float(given.multiplier[place[-1]])), None
            if isinstance(layer, Gating):
                multiplier = nearest((int(inputs[1][0, 0, 0, place[-1]]) - given.zero_side) * multiplier)
            elif len(inputs) > 1:
                residual = int(inputs[1][place])
            rounded = round(result(layer, given, Fraction(float(total)), multiplier, residual, addend))
            stored = min(max(rounded + given.zero_out, given.low), given.high)
            assert actual[place] == (given.table[stored % 256] if given.table.size else stored)


@pytest.mark.parametrize(
    "layer", [Conv2d(1, 2, 1056, 2), Dense(1056, 2), Conv2d(33, 33, 2, 2, (33, 32), groups=2)], ids=lambda layer: layer.name
)
def test_sums_beyond_those_that_float32_has(layer: Conv2d | Dense) -> None:
    """One channel has a sum of more than 2^24; the other has products that mostly cancel out."""
    (given,) = make_parameters(Task((layer,), "int8"))
    assert isinstance(given, IntegerParameters)
    weight = np.full(layer.weight_shape, 127, np.int8)
    weight.reshape(-1, 2)[::2, 1] = -127
    weight.reshape(-1, 2)[1056 // 2 :, 1] = 1
    data = np.full((2, *layer.input_shape[1:]), 127, np.int8)
    data[1] = -128
    found = layer.integer_sums(data, replace(given, weight=weight)).reshape(2, -1, 2)
    expected = data.reshape(2, -1)[:, :1].astype(np.int64) * weight.reshape(-1, 2).astype(np.int64).sum(0) + given.bias
    assert np.abs(expected[:, 0] - given.bias[0]).max() > 2**24 and (found == expected[:, None]).all()


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
    data, *others = make_inputs(task)
    found = compute_integers(task.layer, data, given, dict(zip(task.layer.side_shapes, others, strict=True)))
    assert len(np.unique(found)) >= min(found.size, 24) // 3
    wide = replace(given, multiplier=given.multiplier * 8, sixth=given.sixth * 8, table=given.table[:0])
    if not isinstance(layer, Gating):
        assert set(np.unique(requantise(task.layer.integer_sums(data, wide), wide, layer.curve))) & {-128, 127}


def test_sums_of_products_are_rounded_once() -> None:
    """Also where rounding the sum to float64 first would end half-way between two numbers of float32."""
    one, tiny = np.float32(1), np.float32(2.0**-40)
    halfway = np.array([1 + 2.0**-12, -1 - 2.0**-12], np.float32), np.array([1 + 2.0**-12] * 2, np.float32)
    assert fused(*halfway, np.array([tiny, -tiny])).tolist() == [1 + 2.0**-11 + 2.0**-23, -(1 + 2.0**-11 + 2.0**-23)]
    assert fused(np.array([one]), np.array([one]), np.array([2.0**-24 + 2.0**-60], np.float32)).tolist() == [1.0]
    generator = np.random.default_rng(0)
    a, b, c = (
        generator.normal(0, 1, 3000).astype(np.float32) * np.exp2(generator.integers(-20, 20, 3000)).astype(np.float32) for _ in "abc"
    )
    for given in (c, np.rint(-a * b).astype(np.float32), -(a * b)):
        exact = [nearest(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))) for x, y, z in zip(a, b, given, strict=True)]
        assert fused(a, b, given).tolist() == [float(number) for number in exact]
