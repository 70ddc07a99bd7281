"""Scales of int8 tensors: an integer stands for the real value step · (integer − zero)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvmmobile.graph.integers import HIGHEST, LOWEST
from tvmmobile.graph.layers import Array
from tvmmobile.kernels.integer_reference import quantise


@dataclass(frozen=True)
class Scale:
    """The scale and zero point of a tensor.

    Attributes:
        step: real difference between two adjacent integers, representable in float32.
        zero: zero point, the int8 integer that stands for 0.
    """

    step: float
    zero: int

    @property
    def per_step(self) -> float:
        """The reciprocal of `step`, rounded to float32; real values are multiplied by it."""
        return float(np.float32(1 / self.step))

    @property
    def low(self) -> float:
        """The least real value."""
        return self.step * (LOWEST - self.zero)

    @property
    def high(self) -> float:
        """The largest real value."""
        return self.step * (HIGHEST - self.zero)

    def quantised(self, values: Array) -> Array:
        """Quantise values to the nearest int8 integers, as layers that read float32 do."""
        return quantise(values, self.per_step, self.zero)

    def real(self, integers: Array) -> Array:
        """Dequantise integers to float32."""
        real: Array = (integers.astype(np.float32) - np.float32(self.zero)) * np.float32(self.step)
        return real

    def rounded(self, values: Array) -> Array:
        """Quantise and dequantise values, in float32."""
        return self.real(self.quantised(values))


def scale_of(low: float, high: float) -> Scale:
    """Return the scale of a tensor with values from `low` to `high`, in which 0 is exact; for a range too small for float32, a step of 1.

    Zero points are even, which costs kernels nothing (`graph.integers`); the range moves by at most one step.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    step = np.float32((high - low) / (HIGHEST - LOWEST))
    if not step > np.finfo(np.float32).tiny:
        return Scale(1.0, 0)
    return Scale(float(step), int(np.clip(2 * round((LOWEST - low / float(step)) / 2), LOWEST, HIGHEST - 1)))
