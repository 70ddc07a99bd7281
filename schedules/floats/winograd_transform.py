"""Winograd's minimal filtering F(m, 3): m outputs of a three-tap filter from m + 2 multiplications, with its transforms on vectors.

S. Winograd, "Arithmetic complexity of computations", 1980; A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks", arXiv
1509.09308. Inputs and weights are polynomials, evaluated at m + 1 points and at infinity; the outputs are interpolated from the products.
The points are 0 and pairs ±a: a pair's values differ only in the sign of their odd part, so each part is summed once. 0 is no
point of odd m.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.schedules.emit.expansion import Transform
from tvmmobile.schedules.emit.kernel import Expr, Kernel

#: Taps of the filter in each dimension.
TAPS = 3
#: Positive points by m; their negatives and infinity are points, too, and 0 for an even m. Powers of 2 where there are few, so that only
#: sums round. Those of 7 were found by trying: of four pairs, they are among those with the smallest errors.
_PAIRS = {
    2: (Fraction(1),),
    4: (Fraction(1), Fraction(2)),
    5: (Fraction(1), Fraction(2), Fraction(1, 2)),
    6: (Fraction(1), Fraction(2), Fraction(1, 2)),
    7: (Fraction(1, 4), Fraction(5, 8), Fraction(5, 4), Fraction(2)),
}
SIZES = tuple(_PAIRS)
#: Positive points of F(4) in half precision, found by trying: errors are half of those with 1 and 2. No coefficient has to be rounded.
_HALF_PAIRS = (Fraction(11, 16), Fraction(3, 2))
#: Sizes in half precision; tiles of 4×4 outputs would have twice the errors of 4×2.
HALF_SIZES = (2, 24, 42)
#: Largest transformed input in half precision, as a multiple of the largest input: 2 along the side of 2 outputs, 5.5 along that of 4.
GROWTH = 11
#: Root mean square of the rounding errors of 4×2 outputs in half precision, as a multiple of the direct sum's.
NOISE = 2.1

#: Pairs of a coefficient and the vector that it multiplies.
_Terms = list[tuple[float, Any]]


@dataclass(frozen=True)
class Filtering:
    """The transforms of F(m, 3) along one dimension, for m in `SIZES`.

    Transformed values are in the order of the points: 0 if it is one, then a and -a for each pair, then infinity.

    Attributes:
        outputs: m.
        oblong: true in tiles that are not square, which only half precision has.
    """

    outputs: int
    oblong: bool = False

    @property
    def values(self) -> int:
        """Number of inputs that `outputs` neighbouring outputs read, and of points."""
        return self.outputs + TAPS - 1

    @property
    def _pairs(self) -> tuple[Fraction, ...]:
        return _HALF_PAIRS if self.oblong and self.outputs == 4 else _PAIRS[self.outputs]

    @property
    def _zero(self) -> int:
        """1 if 0 is a point, else 0; the place of the first pair's value."""
        return 1 - self.outputs % 2

    def input(self, kernel: Kernel, data: Sequence[Expr | None]) -> list[Expr]:
        """Return the vectors of inputs at the points; `None` in `data` stands for zeros."""
        all_pairs, zero = _monic(self._pairs), self._zero
        transformed_inputs = [_sum(kernel, zip(all_pairs, data[::2], strict=True))] if zero else []
        for a in self._pairs:
            other_pairs = _monic(tuple(pair for pair in self._pairs if pair != a))
            even = _sum(kernel, zip(other_pairs, data[1 + zero :: 2], strict=True))
            odd = _sum(kernel, zip(other_pairs, data[zero:-1:2], strict=True))
            transformed_inputs += [_sum(kernel, [(1.0, even), (sign * float(a), odd)]) for sign in (1, -1)]
        return [*transformed_inputs, _sum(kernel, zip(all_pairs, data[zero::2], strict=True))]

    def output(self, kernel: Kernel, products: Sequence[Expr]) -> list[Expr]:
        """Return the vectors of outputs, given the vectors of products at the points."""
        zero = self._zero
        pairs = [(products[zero + 2 * place], products[zero + 2 * place + 1]) for place in range(len(self._pairs))]
        even = [kernel.T.bind(positive + negative) for positive, negative in pairs]
        odd = [kernel.T.bind(positive - negative) for positive, negative in pairs]
        outputs = []
        for power in range(self.outputs):
            terms: _Terms = [(float(a**power), part) for a, part in zip(self._pairs, odd if power % 2 else even, strict=True)]
            ends = [(1.0, products[0])] * (zero * (power == 0)) + [(1.0, products[-1])] * (power == self.outputs - 1)
            outputs.append(_sum(kernel, [*ends, *terms]))
        return outputs

    @property
    def weights(self) -> Array:
        """The matrix (values, taps) that transforms a filter, in float64."""
        rows = [[float(point**tap / scale) for tap in range(TAPS)] for point, scale in self.scaled_points]
        return np.array([*rows, [0.0] * (TAPS - 1) + [1.0]])

    @property
    def scaled_points(self) -> list[tuple[Fraction, Fraction]]:
        """The points but infinity, each with the product of its distances from the others."""
        points = [*[Fraction(0)] * self._zero, *itertools.chain.from_iterable((a, -a) for a in self._pairs)]
        return [(point, math.prod((point - other for other in points if other != point), start=Fraction(1))) for point in points]


def sides(size: int) -> tuple[int, int]:
    """Return the height and width of a tile in output pixels: both are its size, or the digits of a size of two digits."""
    return divmod(size, 10) if size > 9 else (size, size)


def filterings(size: int) -> tuple[Filtering, Filtering]:
    """Return the transforms of a tile's columns and of its rows."""
    height, width = sides(size)
    return Filtering(height, height != width), Filtering(width, height != width)


@functools.cache
def in_whole_numbers(outputs: int) -> Transform:
    """Return the transform of a square tile's weights by whole numbers, and factors."""
    rows, factors = [], []
    for point, scale in Filtering(outputs).scaled_points:
        whole = point.denominator ** (TAPS - 1)
        rows.append([float(point**tap * whole) for tap in range(TAPS)])
        factors.append(1 / (scale * whole))
    infinity, all_factors = [0.0] * (TAPS - 1) + [1.0], (*factors, Fraction(1))
    products = [[float(one * other) for other in all_factors] for one in all_factors]
    return Transform(np.array([*rows, infinity], FLOAT32.numpy), np.array(products, FLOAT32.numpy))


def transformed(weight: Array, size: int) -> Array:
    """Transform (3, 3, K, N) weights to (points, K, N), computed in float64 and returned in the dtype of `weight`."""
    down, across = filterings(size)
    points = np.einsum("pi,qj,ijkn->pqkn", down.weights, across.weights, weight.astype(np.float64))
    return np.ascontiguousarray(points.reshape(-1, *weight.shape[2:]), weight.dtype)


def _monic(pairs: tuple[Fraction, ...]) -> list[float]:
    """Return the coefficients of Π (x² - a²) in powers of x², the lowest first; the last one is 1."""
    product = [Fraction(1)]
    for a in pairs:
        product = [higher - a * a * same for higher, same in zip([Fraction(0), *product], [*product, Fraction(0)], strict=True)]
    return [float(coefficient) for coefficient in product]


def _sum(kernel: Kernel, terms: Any) -> Expr:
    """Return Σ coefficient · vector, as multiply-adds; terms with coefficient 1 come first."""
    nonzero = sorted(((factor, value) for factor, value in terms if value is not None), key=lambda term: term[0] != 1.0)
    total: Expr = None
    for factor, value in nonzero:
        scaled = value if abs(factor) == 1.0 else kernel.splat(kernel.number(abs(factor))) * value
        if total is None:
            total = scaled if factor > 0 else kernel.splat(kernel.number(0.0)) - scaled
        else:
            total = total + scaled if factor > 0 else total - scaled
    return kernel.splat(kernel.number(0.0)) if total is None else kernel.T.bind(total)
