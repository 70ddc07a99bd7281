"""Recognises weights that a file holds as integers after their conversion to float32."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.system.errors import UserError

#: Largest distance of a filter's values from integers, in steps of its scale, and the most steps.
_OFF, _MOST = 2.0**-14, 256
#: Values of a filter that are looked at first.
_FEW = 32


@dataclass(eq=False)
class WeightScales:
    """The scale of each filter of a quantised network, by the filter's real values.

    Graph passes move weights to other layouts and permute channels, so that a filter is known by its values in ascending order. Where two
    filters have the same values, the scale of either fits both.

    Attributes:
        scales: scales of filters, by a digest of their values.
        parameters: number of parameters that were dequantised.
    """

    scales: dict[bytes, float] = field(default_factory=dict)
    parameters: int = 0

    def dequantise(self, integers: Array, scale: Array, zero: Array, axis: int, block: int = 0) -> Array:
        """Return the real values, float32, of constants with one scale or one for each place of an axis, and note the scale of each filter.

        Args:
            integers: numbers of any type; those in 8-bit floating point have scales as integers do, but no filter of integers.
            block: places of the axis that share a scale, where there is one for each such block; 0 for none.

        Raises:
            UserError: a scale is negative or not finite, or there is another number of them.
        """
        if not (np.isfinite(scale) & (scale >= 0)).all():
            raise UserError("the network has weights with a scale that is negative or not finite.", "Quantise it again.")
        if block:
            return self._from_blocks(integers, scale, zero, axis % integers.ndim, block)
        shape = [scale.size if place == axis % integers.ndim else 1 for place in range(integers.ndim)]
        if scale.size > 1 and (scale.size != integers.shape[axis] or list(scale.shape) not in ([scale.size], shape[-scale.ndim :])):
            raise UserError(
                f"the network has weights {list(integers.shape)} with scales {list(scale.shape)}, not one for each place of an axis.",
                "Quantise it with a scale for each tensor or each output channel.",
            )
        scales, zeros = (array.astype(np.float64).reshape(shape if array.size > 1 else ()) for array in (scale, zero))
        real: Array = np.asarray((integers.astype(np.float64) - zeros) * scales).astype(np.float32)
        self.parameters += real.size
        if integers.ndim > 1 and not integers.dtype.name.startswith("float"):
            for along in {axis % integers.ndim} if scale.size > 1 else {0, integers.ndim - 1}:
                each = np.broadcast_to(np.where(scales > 0, scales, 1.0).ravel(), real.shape[along])  # LiteRT gives filters of zeros a 0
                self.scales.update(zip(map(_key, np.moveaxis(real, along, 0)), map(float, each), strict=True))
        return real

    def _from_blocks(self, integers: Array, scale: Array, zero: Array, axis: int, block: int) -> Array:
        """Return the real values of constants whose filters have several scales each, of which none is noted."""
        extents = [-(-extent // block) if place == axis else extent for place, extent in enumerate(integers.shape)]
        if list(scale.shape) != extents or zero.shape not in ((), scale.shape):
            what = f"weights {list(integers.shape)} with scales {list(scale.shape)}"
            raise UserError(f"the network has {what}, not one for each {block} places of axis {axis}.", "Quantise it again.")
        whole = (slice(None),) * axis + (slice(integers.shape[axis]),)
        scales, zeros = (np.repeat(array.astype(np.float64), block, axis)[whole] if array.ndim else array for array in (scale, zero))
        real: Array = ((integers.astype(np.float64) - zeros) * scales).astype(np.float32)
        self.parameters += real.size
        return real

    def of(self, weight: Array) -> Array | None:
        """Return the scale of each output channel, the last axis of `weight`, float64; `None` if a filter is not from the file.

        A filter whose weights are all the same, as an average's, is an integer of 1.
        """
        found = []
        for values in np.moveaxis(weight, -1, 0):
            first = float(values.flat[0])
            scale = self.scales.get(_key(values), first if first > 0 and (values == first).all() else None)
            scale = self._fitting(values) if scale is None else scale
            scale = _common_step(values.ravel()) if scale is None else scale
            if scale is None:
                return None
            found.append(scale)
        return np.array(found)

    def _fitting(self, values: Array) -> float | None:
        """Return the largest known scale that divides a filter's values; `None` if no filter of the file has one.

        Graph passes cut filters into parts: those of a transposed convolution become filters for each pixel that a place makes.
        """
        largest = np.abs(values).max(initial=0.0)
        scales = np.unique(list(self.scales.values()))
        fitting = _dividing(values, _dividing(largest, scales[(scales > 0) & (largest / scales < _MOST)]))
        return float(fitting[-1]) if fitting.size else None


def _common_step(values: Array) -> float | None:
    """Return the largest number that divides a filter's values at most 128 times; `None` if there is none.

    A batch norm behind a convolution scales its filters, each by a factor of its own.
    """
    largest = np.abs(values.astype(np.float64)).max(initial=0.0)
    if not largest:
        return None
    candidates = largest / np.arange(1, _MOST // 2 + 1)
    for some in (values[:_FEW], values):  # few of real numbers rule out all candidates
        candidates = _dividing(some, candidates)
    return float(candidates[0]) if candidates.size else None


def _dividing(values: Array, scales: Array) -> Array:
    """Return the scales that divide all values."""
    steps = values.reshape(1, -1) / scales.reshape(-1, 1)
    found: Array = scales[np.abs(steps - np.rint(steps)).max(1, initial=0.0) <= _OFF]
    return found


def _key(values: Array) -> bytes:
    return hashlib.sha256(np.sort(values.astype(np.float32).ravel() + 0.0).tobytes()).digest()
