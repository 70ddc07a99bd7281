"""Computes kernels' reference outputs with PyTorch on the host, for inputs and parameters whose results reach every bound.

Integer layers are computed by `kernels.integer_reference`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.curves import SCALED
from tvmmobile.graph.integers import HIGHEST, LOWEST, IntegerParameters
from tvmmobile.graph.layers import Array, Layer, LayerParameters, SumLayer
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.integer_reference import compute_integers, random_integers
from tvmmobile.kernels.ranked import error_in_any_order


def make_inputs(task: Task) -> list[Array]:
    """Draw the region's input, then its layers' other inputs (`Layer.random_input`); integers are spread evenly over all of int8.

    The values depend only on the task.
    """
    generator = np.random.default_rng(_seed(task.name))
    shapes = [task.region[0].input_shape, *task.side_shapes.values()]
    types = [task.storage[0].numpy, *[task.precision.numpy] * len(task.side_shapes)]
    if task.precision.is_integer:
        return [
            generator.integers(LOWEST, HIGHEST + 1, shape).astype(kind)
            if kind.kind in "iu"
            else generator.normal(0.0, 2.0, shape).astype(kind)
            for shape, kind in zip(shapes, types, strict=True)
        ]
    first = task.region[0]
    return [first.random_input(generator, shape).astype(kind) for shape, kind in zip(shapes, types, strict=True)]


def make_parameters(task: Task) -> tuple[LayerParameters, ...]:
    """Draw the constants of each layer (`Layer.random_parameters`); outputs that are rounded to integers spread over int8."""
    generator = np.random.default_rng(_seed(task.name) + 1)
    parameters = [
        random_integers(layer, generator)
        if task.precision.is_integer
        else layer.random_parameters(generator, task.precision.arithmetic.numpy)
        for layer in task.region
    ]
    if task.rounds:
        parameters[-1] = _beyond_integers(task.region[-1], parameters[-1])
    return tuple(parameters)


def _beyond_integers(layer: Layer, drawn: LayerParameters) -> LayerParameters:
    """Scale the constants so that results spread over int8, and some of the first channel's exceed it."""
    bias, operands = drawn.bias.copy(), drawn.operands
    bias[0] = 16.0
    if isinstance(layer, SumLayer) and layer.steps[-1:] == (SCALED,):
        *others, scale, shift = operands
        return LayerParameters(drawn.weight, bias, (*others, np.full_like(scale, 2 * HIGHEST), shift))
    factor = drawn.bias.dtype.type(HIGHEST / 2)
    return LayerParameters(factor * drawn.weight, factor * bias, operands)


def expected_output(task: Task, inputs: Sequence[Array], parameters: tuple[LayerParameters, ...]) -> Array:
    """Compute the region's output for `make_inputs` layer by layer with PyTorch on the host, in `Precision.reference`.

    Outputs that kernels round to integers are clamped to int8's bounds, but not rounded.
    """
    if task.precision.is_integer:
        integers, *sides = inputs
        for layer, constants in zip(task.region, parameters, strict=True):
            assert isinstance(constants, IntegerParameters)
            integers = compute_integers(layer, integers, constants, {name: sides.pop(0) for name in layer.side_shapes})
        return integers
    wide = np.dtype(task.precision.reference)
    data, *others = (array.astype(wide, copy=False) for array in inputs)
    for layer, stored in zip(task.region, parameters, strict=True):
        weight, bias, *operands = (array.astype(wide, copy=False) for array in (stored.weight, stored.bias, *stored.operands))
        constants = LayerParameters(weight, bias, tuple(operands))
        side = {name: others.pop(0) for name in layer.side_shapes}
        data = layer.compute(data, constants, side)
    return data.clip(LOWEST, HIGHEST) if task.rounds else data


def relative_error(actual: npt.NDArray[np.floating], expected: npt.NDArray[np.floating]) -> float:
    """Return the largest absolute difference, relative to the largest expected magnitude; infinite if shapes differ or `actual` is not
    finite.
    """
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return float("inf")
    scale = float(np.abs(expected).max()) or 1.0
    return float(np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max()) / scale


def decibels(signal: float, noise: float) -> float | None:
    """Return the ratio of two energies in decibels; `None` if one of them is 0."""
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None


def network_error(outputs: Sequence[npt.NDArray[Any]], expected: Sequence[npt.NDArray[Any]], quantised: bool = False) -> float:
    """Return the largest error of a network's outputs: `relative_error` or, for integers such as classes, the share that differs.

    Rows ordered by score may be in another order, see `rows_error`.

    Args:
        quantised: whether bytes are quantised values, for which a difference of 1 is no error.
    """
    if [output.shape for output in outputs] != [output.shape for output in expected]:
        return float("inf")
    return error_in_any_order([_tensor_error(*pair, quantised) for pair in zip(outputs, expected, strict=True)], outputs, expected)


def _tensor_error(actual: npt.NDArray[Any], expected: npt.NDArray[Any], quantised: bool) -> float:
    if expected.dtype.kind == "f":
        return relative_error(actual, expected)
    if quantised and expected.dtype in (np.int8, np.uint8):
        return float(np.mean(np.abs(actual.astype(np.int32) - expected) > 1))
    return float(np.mean(actual != expected))


def _seed(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
