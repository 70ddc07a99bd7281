"""Axes of a plot: from values to coordinates, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_MAX_TICKS = 8


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        low, high: the values at its ends.
        start, end: their coordinates.
        logarithmic: whether equal distances are equal ratios.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    def at(self, value: float) -> float:
        """The coordinate of a value."""
        low, high, place = (math.log(each) if self.logarithmic else each for each in (self.low, self.high, value))
        return self.start + (place - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """At most eight round values, at least three where round values fall that close."""
        if self.logarithmic:
            for digits in ((1, 2, 5), (1, 2, 3, 5, 7), range(1, 10), (1, 3), (1,)):
                found = self._decades(digits)
                if 3 <= len(found) <= _MAX_TICKS:
                    return found
        return self._even()

    def _decades(self, digits: Sequence[int]) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = [digit * 10.0**power for power in powers for digit in digits]
        return [value for value in values if self.low <= value <= self.high]

    def _even(self) -> list[float]:
        rough = (self.high - self.low) / (_MAX_TICKS - 2)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [float(f"{count * step:.12g}") for count in range(first, last + 1)]


def axis_of(values: Sequence[float], start: float, end: float, *, logarithmic: bool = False, margin: float = 0.08) -> Axis:
    """An axis around `values` with a margin at both ends, as a share of their range; positive values only if logarithmic."""
    low, high = min(values), max(values)
    if logarithmic:
        ratio = (high / low) ** margin if high > low else 2.0
        return Axis(low / ratio, high * ratio, start, end, True)
    room = (high - low) * margin if high > low else max(abs(high) * margin, 1.0)
    return Axis(low - room, high + room, start, end, False)
