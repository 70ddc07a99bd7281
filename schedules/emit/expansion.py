"""Weights that a library computes at start-up from fewer bits: what the file holds, and what `init` makes of it.

A kernel reads packed float32 numbers either way. They would make the file larger, so it holds the layer's own weights in a precision of
`graph.small_weights`. `native/expand.h` computes the same bits as this file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d, Layer, LayerParameters
from tvmmobile.graph.precision import FLOAT32, INT8
from tvmmobile.graph.small_weights import stored_weights


@dataclass(frozen=True, eq=False)
class Transform:
    """A transform G · w · Gᵀ of square windows of weights, in float32 with products and sums in order.

    With weights in int8 and small whole numbers in `rows`, only the last product rounds.

    Attributes:
        rows: G but for a factor for each row, (values, taps of a side).
        factors: products of the rows' factors, (values, values).
    """

    rows: Array
    factors: Array

    def __call__(self, weight: Array) -> Array:
        """Transform (taps of a side, taps of a side, K, N) weights to (values, values, K, N), without the factors."""
        columns = _combined(self.rows, weight)
        return _combined(self.rows, columns.swapaxes(0, 1)).swapaxes(0, 1)


def _combined(rows: Array, values: Array) -> Array:
    """Return Σ rows[p, i] · values[i] for each p, summed in the order of i."""
    total: Array = np.multiply.outer(rows[:, 0], values[0])
    for place in range(1, rows.shape[1]):
        total += np.multiply.outer(rows[:, place], values[place])
    return total


@dataclass(frozen=True, eq=False)
class Expansion:
    """The first of a kernel's constants, as the file holds it and as `init` makes it.

    The packed numbers are [part][transformed value][group of panels][K block][panel][K][column] with a transform, else
    [group of panels][panel][K block][tap][K][column], see `pack_panels`.

    Attributes:
        stored: the weights, (taps, K, N) in int8 or float16.
        scales: factor of each output channel, in float32; `None` for float16.
        transform: transform of the taps; `None` if these are only packed.
        width: channels per panel.
        k_block: K per block; the last one may be shorter.
        parts: parts of the output channels that follow each other.
    """

    stored: Array
    scales: Array | None
    transform: Transform | None
    width: int
    k_block: int
    parts: int = 1

    def values(self) -> Array:
        """Return what is packed, (values or taps, K, N) in float32."""
        wide = self.stored.astype(FLOAT32.numpy)
        if self.transform is None:
            return wide if self.scales is None else wide * self.scales
        side = self.transform.rows.shape[1]
        values = self.transform(wide.reshape(side, side, *wide.shape[1:]))
        factors = self.transform.factors[:, :, None, None]
        return (values * (factors if self.scales is None else factors * self.scales)).reshape(-1, *wide.shape[1:])


#: For libraries whose files hold all constants.
NO_EXPANSIONS: Mapping[bytes, Expansion] = MappingProxyType({})


def digest_of(constant: Array) -> bytes:
    """Return a digest of a kernel's constant, by which a library's expansions are found."""
    return hashlib.sha256(np.ascontiguousarray(constant).data).digest()


def is_expandable(layer: Layer) -> bool:
    """Return whether the templates for a layer have an `expansion`, see `Template.expansion`."""
    return isinstance(layer, Conv2d) and layer.groups == 1 and not layer.windows and layer.kernel != (1, 1)


def stored_taps(parameters: LayerParameters) -> tuple[Array, Array | None]:
    """Return a layer's weights as its file holds them, (taps, K, N), and int8's scales."""
    weight, scales = stored_weights(parameters.weight, parameters.stored)
    assert (scales is None) == (parameters.stored != INT8.name)
    return np.ascontiguousarray(weight.reshape(-1, *weight.shape[-2:])), scales
