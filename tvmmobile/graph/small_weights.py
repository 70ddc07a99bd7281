"""Weights that are stored in fewer bits than float32, and the numbers that they represent.

A layer's `weights` names the precision in which its kernel reads them. If the kernel reads float32 numbers that a C library's `init` makes,
`LayerParameters.stored` names the one in which the file holds them. A layer's constants are float32 numbers that this precision has, in
int8 times a scale for each output channel.
"""

from __future__ import annotations

import numpy as np

from tvmmobile.graph.parameters import Array, LayerParameters
from tvmmobile.graph.precision import FLOAT16, FLOAT32, INT8

#: Largest weight in int8: they are symmetric.
MOST = 127
#: Fewest weights of a layer that are stored in fewer bits: 128 KiB in float32. The layers of a network with fewer make up little of its
#: file, and many of them are computed in one kernel with their neighbours.
FEWEST = 32_768


def fits(weight: Array, name: str) -> bool:
    """Return whether there are many weights, all finite in a precision."""
    return weight.size >= FEWEST and bool(np.isfinite(rounded(weight, name)).all())


def rounded(weight: Array, name: str) -> Array:
    """Return the float32 numbers that stored weights represent; output channels are last."""
    stored, scales = stored_weights(weight, name)
    wide = stored.astype(FLOAT32.numpy)
    return wide if scales is None else wide * scales


def stored_weights(weight: Array, name: str) -> tuple[Array, Array | None]:
    """Return weights in a precision, and int8's scale of each output channel (the last axis); unchanged by `rounded` beforehand."""
    if name != INT8.name:
        with np.errstate(over="ignore"):
            return weight.astype(FLOAT16.numpy), None
    largest = np.abs(weight).max(axis=tuple(range(weight.ndim - 1)))
    scales = np.where(largest > 0, largest / MOST, 1).astype(FLOAT32.numpy)
    with np.errstate(invalid="ignore"):
        return np.rint(weight / scales).clip(-MOST, MOST).astype(INT8.numpy), scales


def as_stored(parameters: LayerParameters, name: str) -> LayerParameters:
    """Return a layer's constants as its kernel reads them: stored weights, with their scales after all other per-channel constants."""
    weight, scales = stored_weights(parameters.weight, name)
    return LayerParameters(weight, parameters.bias, parameters.operands + (() if scales is None else (scales,)))
