"""Numbers rounded to a grid of integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tvmmobile.graph.layers.kind import Layer
from tvmmobile.graph.parameters import Array, LayerParameters


def shift_of(stored: str) -> int:
    """Return the offset that turns integers of a type into int8."""
    return 128 if stored == "uint8" else 0


@dataclass(frozen=True)
class Rounding(Layer):
    """Rounds numbers to those that integers represent: (limit(rint(x / step) + zero, low, high) - zero) · step, as float32.

    Kernels that write or read integers round by themselves, so no kernel consists of this layer alone.

    Attributes:
        shape: shape of input and output, with the batch of 1.
        step: the difference between two neighbours.
        zero: the integer that represents 0.
        low, high: bounds, integers.
        stored: `int8` or `uint8` where the input holds integers (unsigned ones are offset by 128); "" where it holds float32.
    """

    shape: tuple[int, ...]
    step: float
    zero: int
    low: int
    high: int
    stored: str = ""
    kind: ClassVar[str] = "rounding"
    computes_batches = True

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`shape`."""
        return self.shape

    @property
    def name(self) -> str:
        numbers = (f"{number:g}" for number in (self.step, self.zero, self.low, self.high))
        stored = [f"from_{self.stored}"] * bool(self.stored)
        return "_".join(["rounding", "x".join(map(str, self.shape[1:])), *numbers, *stored])

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        return self.rounded(data)

    def rounded(self, values: Array) -> Array:
        """Return a tensor's numbers, rounded, or those that its integers represent."""
        step = np.float32(self.step)
        if self.stored:
            integers = values.astype(np.float32) - np.float32(shift_of(self.stored))
        else:
            integers = np.clip(np.rint(values / step) + np.float32(self.zero), self.low, self.high)
        return np.asarray((integers - np.float32(self.zero)) * step, np.float32)
