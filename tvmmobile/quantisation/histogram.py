"""Collects a tensor's values over any number of images in a histogram of fixed size, and derives quantisation ranges from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.integers import HIGHEST, LOWEST
from tvmmobile.graph.layers import Array
from tvmmobile.quantisation.scales import Scale, scale_of

_BINS = 2048
#: Smaller magnitudes count as 0, as in `scale_of`: float32 is too coarse to divide such a range into bins.
_LEAST = float(np.finfo(np.float32).tiny)
#: Share of the values that a percentile's range leaves out at each end.
_OUTSIDE = 1e-4
#: Ends of the range that least squares tries, as shares of the smallest or largest value.
_SHARES = np.linspace(1.0, 0.3, 71)
#: The same for table lookups, whose curves may be flat on one side.
_SHARES_LOOKED_UP = np.geomspace(1.0, 0.1, 24)


class Histogram:
    """Counts values between symmetric limits that double when a value exceeds them, so that each batch is read once.

    Attributes:
        low, high: smallest and largest value, with 0 always included.
    """

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self._limit = 0.0
        self._counts = np.zeros(_BINS, np.int64)

    def add(self, values: Array) -> None:
        """Count a batch of finite values."""
        self.low, self.high = min(self.low, float(values.min(initial=0.0))), max(self.high, float(values.max(initial=0.0)))
        most = max(-self.low, self.high)
        if most > max(self._limit, _LEAST):
            self._widen(most)
        self._counts += np.histogram(values, _BINS, (-self._limit, self._limit))[0] if self._limit else 0

    def _widen(self, most: float) -> None:
        """Double the limits until they reach `most`: pairs of bins become one."""
        if not self._limit:
            self._limit = most
        while self._limit < most:
            pairs = self._counts.reshape(-1, 2).sum(1)
            self._counts = np.pad(pairs, _BINS // 4)
            self._limit *= 2

    @property
    def _middles(self) -> npt.NDArray[np.float64]:
        edges = np.linspace(-self._limit, self._limit, _BINS + 1)
        return (edges[1:] + edges[:-1]) / 2

    def all_values(self) -> Scale:
        """Return the scale for the range from the smallest to the largest value."""
        return scale_of(self.low, self.high)

    def most_values(self) -> Scale:
        """Return the scale for the range without one in 10,000 values at each end."""
        middles, half = self._middles, self._limit / _BINS
        total = int(self._counts.sum())
        below, above = np.cumsum(self._counts), np.cumsum(self._counts[::-1])[::-1]
        inside = (below > _OUTSIDE * total) & (above > _OUTSIDE * total)
        if not inside.any():
            return self.all_values()
        low, high = float(middles[inside].min()) - half, float(middles[inside].max()) + half
        return scale_of(max(low, self.low), min(high, self.high))

    def least_squares(self) -> Scale:
        """Return the scale with the least mean square error from rounding and saturation, moving each end in turn towards 0."""
        ends = [self.low, self.high]
        for end in (1, 0, 1, 0):
            if ends[end]:
                extreme = (self.low, self.high)[end]
                ranges = [(extreme * share, *ends[1 - end : 2 - end]) for share in _SHARES]
                errors = [self._error(scale_of(min(pair), max(pair))) for pair in ranges]
                ends[end] = ranges[int(np.argmin(errors))][0]
        return scale_of(*ends)

    def looked_up(self, curve: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]], written: Scale) -> Scale:
        """Return the scale of a lookup table's argument with the least mean square error of the curve's values.

        Args:
            curve: function that the table holds.
            written: scale of the curve's values.
        """
        filled = np.flatnonzero(self._counts)
        counts, middles = self._counts[filled], self._middles[filled]
        exact, stored = curve(middles), np.arange(LOWEST, HIGHEST + 1)

        def error(ends: tuple[float, float]) -> float:
            scale = scale_of(*ends)
            table = written.rounded(curve(np.float64(scale.step) * (stored - scale.zero)))
            return float((counts * np.square(table[scale.quantised(middles).astype(int) - LOWEST] - exact)).sum())

        low, high = self.low, self.high
        for _ in range(2):
            low = min((self.low * share for share in _SHARES_LOOKED_UP), key=lambda end: error((end, high)))
            high = min((self.high * share for share in _SHARES_LOOKED_UP), key=lambda end: error((low, end)))
        return scale_of(low, high)

    def _error(self, scale: Scale) -> float:
        """Return the sum of squared errors of the values when quantised with a scale."""
        filled = np.flatnonzero(self._counts)
        middles = self._middles[filled]
        integers = np.clip(np.rint(middles / scale.step) + scale.zero, LOWEST, HIGHEST)
        return float((self._counts[filled] * np.square((integers - scale.zero) * scale.step - middles)).sum())


#: Methods of choosing a range, by the name that documents and results use.
RANGES: Mapping[str, Callable[[Histogram], Scale]] = {
    "minimum and maximum": Histogram.all_values,
    "percentile": Histogram.most_values,
    "least squares": Histogram.least_squares,
}
