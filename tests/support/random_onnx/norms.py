"""Normalisations."""

from __future__ import annotations

from functools import partial

import numpy as np

from random_onnx.draw import Draw
from random_onnx.reductions import signed
from random_onnx.registry import draws

draw_kind = partial(draws, "norms")


def per_channel(draw: Draw, count: int) -> tuple[str, str]:
    """Factors and summands."""
    return draw.constant(draw.random.uniform(0.5, 2.0, count)), draw.constant(draw.random.normal(0, 1, count))


@draw_kind("BatchNormalization")
def batch_norm(draw: Draw) -> None:
    shape = draw.shape(2, 5)
    statistics = [draw.constant(draw.random.normal(0, 0.5, shape[1])), draw.constant(draw.random.uniform(0.5, 2.0, shape[1]))]
    draw.apply(
        [draw.data(shape), *per_channel(draw, shape[1]), *statistics], epsilon=draw.pick([None, 1e-3, 0.1]), momentum=draw.pick([None, 0.5])
    )


@draw_kind("InstanceNormalization")
def instance_norm(draw: Draw) -> None:
    shape = draw.image(draw.pick([1, 2, 2, 3]))
    draw.apply([draw.data(shape), *per_channel(draw, shape[1])], epsilon=draw.pick([None, 1e-3, 0.1]))


@draw_kind("LayerNormalization", "RMSNormalization")
def layer_norm(draw: Draw) -> None:
    shape = draw.shape(2, 5)
    axis = draw.integer(0, len(shape) - 1) if draw.chance(0.3) else draw.pick([None, -1])
    rest = shape[-1 if axis is None else axis :]
    scale = draw.constant(draw.random.uniform(0.5, 2.0, rest))
    inputs = [draw.data(shape), scale]
    if draw.operator == "LayerNormalization" and draw.chance(0.7):
        inputs.append(draw.constant(draw.random.normal(0, 1, rest)))
    draw.apply(inputs, axis=axis if axis is None or axis < 0 else signed(draw, axis, len(shape)), epsilon=draw.pick([None, 1e-3, 0.1]))


@draw_kind("GroupNormalization")
def group_norm(draw: Draw) -> None:
    groups, each = draw.integer(1, 3), draw.integer(1, 3)
    shape = draw.image(draw.pick([1, 2, 2, 3]))
    shape[1] = groups * each
    count = shape[1] if draw.since >= 21 else groups
    draw.apply([draw.data(shape), *per_channel(draw, count)], num_groups=groups, epsilon=draw.pick([None, 1e-3]))


@draw_kind("LpNormalization")
def lp_norm(draw: Draw) -> None:
    shape = draw.shape(1, 5)
    draw.apply([draw.data(shape)], axis=draw.pick([None, draw.integer(0, len(shape) - 1)]), p=draw.pick([None, 1, 2]))


@draw_kind("MeanVarianceNormalization")
def mean_variance(draw: Draw) -> None:
    draw.apply([draw.data(draw.image())], axes=draw.pick([None, [2, 3], [1, 2, 3], [-1]]))


@draw_kind("Det")
def determinant(draw: Draw) -> None:
    size = draw.integer(1, 3)
    draw.apply([draw.data([draw.integer(1, 3), size, size])])


@draw_kind("EyeLike")
def eye_like(draw: Draw) -> None:
    draw.apply([draw.data([draw.integer(1, 5), draw.integer(1, 5)])], k=draw.pick([None, -1, 1]), dtype=draw.pick([None, 1, 6]))


@draw_kind("Trilu")
def triangle(draw: Draw) -> None:
    shape = draw.shape(2, 4)
    inputs = [draw.data(shape)]
    if draw.chance():
        inputs.append(draw.constant(draw.integer(-3, 3), np.int64))
    draw.apply(inputs, upper=draw.pick([None, 0, 1]))
