"""Arithmetic on vectors or scalars of floats, built from operations that every target has; no maths library is called.

On the Cortex-A72, the maximum of four floats takes a cycle, that of their bits as integers half a cycle, and a division 34 cycles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tvmmobile.graph.integers import HIGHEST, LOWEST

Expr = Any

_LOG2_E = 1.4426950408889634
#: Minimax polynomial of 2ᶠ for |f| ≤ 1/2 (relative error 8e-8), lowest power first.
_EXP2 = (1.0000000716546849, 0.6931469670647602, 0.24022119723840327, 0.05550713273498564, 0.009675541334443198, 0.001327647199235735)
#: Polynomial of 2 · (Φ(t) - 1/2) / t in 2 t² / _FAR² - 1, lowest power first, where Φ is the normal distribution's CDF: the error of Φ is
#: 2e-7 for |t| up to `_FAR`.
_NORMAL = (
    *(0.25710394978523254, -0.12834419310092926, 0.09546658396720886, -0.0775994062423706, 0.06429454684257507, -0.05199489742517471),
    *(0.039708930999040604, -0.03024333156645298, 0.023657485842704773, -0.013652298599481583, 0.004107298795133829),
    *(-0.003981277346611023, 0.005510644521564245, -0.002215906046330929),
)
_FAR = 5.5
#: `_SCALE / d` by an initial guess and two Newton steps, r · (a - d·r), tuned so that the relative error is balanced around zero: 6e-9.
#: The bits of the guess are those of a constant (mantissa of `_GUESS`, largest exponents' sum) minus those of d.
_GUESS, _STEPS, _SCALE = 1.414306640625, (1.435762889681854, 1.0305924450378963), 0.26553019528650734
#: In half precision: 2ᶠ within 2e-3, one Newton step, and the bits of a guess with an error of 1.5 %. Of some hundred coefficients near the
#: exact ones, these suffer least from rounding: the error of x · sigmoid(x) is below 1.3e-3 of max(1, |x|), and it is x from 9 up.
_HALF_EXP2 = (1.0004432486215697, 0.7034470220911557, 0.23842617854564332)
_HALF_GUESS, _HALF_STEP, _HALF_SCALE = (29 << 10) + 420, 1.435546875, 0.51513671875
#: Bounds of x in half precision: below the lower one the guess, and so the product, is 0; from the upper one on the sigmoid is 1.
_HALF_LEAST, _HALF_MOST = -10.7, 9.0
#: In half precision, Φ(x) is the sigmoid of x · (a + b x²) within 2e-4; with these bounds of x, the error of x · Φ(x) is below 1.3e-3 of
#: max(1, |x|), it is x from 4.2 up, and -8e-5 from the lower one down.
_HALF_NORMAL = (1.5970663247240096, 0.07049640675439486)
_HALF_NORMAL_LEAST, _HALF_NORMAL_MOST = -3.9, 3.6
#: GELU's approximation by the hyperbolic tangent is x · sigmoid(x · (a + b x²)), with a = 2 √(2/π) and b = 0.044715 a.
_TANH_NORMAL = (1.5957691216057308, 0.07135481282553)
#: In half precision, exponential functions of x ≤ 0 are multiplied by this so that they are normal down to the bound of x.
_HALF_EXP_SCALE, _HALF_EXP_LEAST = 2.0**14, -18.7
#: Bound of the sigmoid's argument x: exp(±x) and 1 + exp(±x) have normal reciprocals.
_MOST = 85.0


#: 1.5 · 2²³: adding it to a smaller float32 rounds to the nearest integer, which is then in the low bits of the sum.
ROUNDER = 12582912.0


def vector_of(kind: str, lanes: int) -> str:
    """Return the TVM dtype of a vector of `lanes` elements of type `kind`, or of a scalar for one lane."""
    return f"{kind}x{lanes}" if lanes > 1 else kind


class Vectors:
    """Arithmetic on vectors of `lanes` lanes, or on scalars for one lane.

    Args:
        dtype: `float16`, `float32` or `float64`.
        bind: function that binds an expression to a name, so that it is computed once.
        ordered: true if the vector unit has integer maximum and minimum of the same width.
        wide: type in which exponential functions are computed; "" for `dtype`.
    """

    def __init__(self, dtype: str, lanes: int, bind: Callable[[Expr], Expr], ordered: bool, wide: str = "") -> None:
        from tvm.tirx.script import builder

        self.T, self.dtype, self.lanes, self.bind, self.ordered = builder, dtype, lanes, bind, ordered and lanes > 1
        self.wide = wide or dtype
        kind = np.finfo(dtype)
        self._mantissa, self._bias, self._integer = kind.nmant, kind.maxexp - 1, f"int{kind.bits}"

    def number(self, value: float) -> Expr:
        """Return a constant broadcast to all lanes."""
        return self._splat(value, self.dtype)

    def cast(self, x: Expr) -> Expr:
        """Convert values of another type to `dtype`."""
        return self.T.Cast(self.dtype if self.lanes == 1 else f"{self.dtype}x{self.lanes}", x)

    def rounded(self, x: Expr) -> Expr:
        """Return values rounded to int8, ties to even, saturating."""
        # Adding 1.5 · 2^mantissa rounds to the nearest integer, which is then in the low bits of the sum.
        moved = self._bits(self.limited(x, LOWEST, HIGHEST) + self.number(1.5 * 2.0**self._mantissa), self._integer)
        return self.T.Cast("int8" if self.lanes == 1 else f"int8x{self.lanes}", moved)

    def limited(self, x: Expr, low: float | None, high: float | None) -> Expr:
        """Return x clamped to [low, high], where `None` means unbounded; NaN stays NaN."""
        x = x if low is None else self.T.max(x, self.number(low))
        return x if high is None else self.T.min(x, self.number(high))

    def bounded(self, x: Expr, low: float | None, high: float | None) -> Expr:
        """Return `limited`, with integer comparisons (half the cost) if the lower bound is 0 and the vector unit has them.

        The bits of non-negative floats compare as integers in the same order, and those of negative floats are negative integers. NaN may
        become a bound: use it only where another factor or term is NaN as well.
        """
        if low != 0.0 or not self.ordered:
            return self.limited(x, low, high)
        bits = self.T.max(self._bits(x, self._integer), self._splat(0, self._integer))
        return self._from(bits if high is None else self.T.min(bits, self._splat(self._pattern(high), self._integer)))

    def at_most(self, x: Expr, bound: float) -> Expr:
        """Return the smaller of x and a positive bound by comparing bits: as signed integers, those of negative floats are the smallest."""
        return self._from(self.T.min(self._bits(x, self._integer), self._splat(self._pattern(bound), self._integer)))

    def at_least(self, x: Expr, bound: float) -> Expr:
        """Return the larger of x and a negative bound by comparing bits: as unsigned integers, only those of smaller floats are larger."""
        kind = f"u{self._integer}"
        return self._from(self.T.min(self._bits(x, kind), self._splat(self._pattern(bound), kind)))

    def sigmoid(self, x: Expr) -> Expr:
        """Return 1 / (1 + exp(-x)) with an absolute error of at most 4e-7; x is clamped to ±85, and NaN stays NaN."""
        if self.wide != self.dtype:  # too few digits for the steps below, and exp(85) overflows
            wide = self._wider()
            return self.cast(wide.sigmoid(wide.cast(x)))
        return self._logistic(self.limited(x, -_MOST, _MOST), keeps_nan=True)

    def sigmoid_from(self, x: Expr) -> Expr:
        """Return `sigmoid` for x ≥ -85; NaN gives any value, so multiply the result by x."""
        if self.wide != self.dtype:
            wide = self._wider()
            return self.cast(wide.sigmoid_from(wide.cast(x)))
        return self._logistic(self.at_most(x, _MOST), keeps_nan=False)

    def silu(self, x: Expr) -> Expr:
        """Return x · sigmoid(x). x is clamped from below, because the sigmoid stops shrinking there and the product would grow."""
        if self.wide == self.dtype:
            x = self.bind(self.limited(x, -_MOST, None))
            return x * self.sigmoid_from(x)
        x = self.bind(self.limited(x, _HALF_LEAST, None))
        return x * self._half_logistic(self.bind(self.at_most(x, _HALF_MOST)))

    def gelu(self, x: Expr) -> Expr:
        """Return x · Φ(x), where Φ is the normal distribution's CDF."""
        if self.wide != self.dtype:
            return self._half_gelu(x, _HALF_NORMAL)
        # Below -5.5 the CDF is 0 within its error.
        x = self.bind(self.limited(x, -_FAR, None))
        return x * self._normal_cdf_from(x)

    def gelu_tanh(self, x: Expr) -> Expr:
        """Return GELU's approximation by the hyperbolic tangent."""
        if self.wide != self.dtype:
            return self._half_gelu(x, _TANH_NORMAL)
        x = self.bind(self.limited(x, -13.0, None))
        return x * self.sigmoid_from(self.at_least(self._cubic(self.bind(self.at_most(x, 13.0)), *_TANH_NORMAL), -_MOST))

    def exp_negative(self, x: Expr) -> Expr:
        """Return exp(x) for x ≤ 0 with a relative error of at most 2e-7; exp(-85) below -85, any value for NaN."""
        return self._exp(self.bind(self.at_least(x, -_MOST)), _LOG2_E)

    @property
    def share_scale(self) -> float:
        """The factor that `scaled_exp` contains."""
        return 1.0 if self.wide == self.dtype else _HALF_EXP_SCALE

    def scaled_exp(self, x: Expr) -> Expr:
        """Return `share_scale` · exp(x) for x ≤ 0, any value for NaN. In half precision, the error is at most 3e-3 of `share_scale`,
        and below -18.7 it is the value there.
        """
        if self.wide == self.dtype:
            return self.exp_negative(x)
        return self._half_power(self.bind(self.at_least(x, _HALF_EXP_LEAST)), _LOG2_E, _HALF_EXP_SCALE)

    def expm1_below(self, x: Expr) -> Expr:
        """Return exp(min(x, 0)) - 1 with an absolute error of at most 2e-7; any value for NaN."""
        if self.wide != self.dtype:
            wide = self._wider()
            return self.cast(wide.expm1_below(wide.cast(x)))
        return self.exp_negative(self.limited(x, None, 0.0)) - self.number(1.0)

    def spoiled(self, x: Expr, source: Expr) -> Expr:
        """Return x, or NaN where `source` is NaN or infinite."""
        return x + (self._opaque(source) - source)

    def _normal_cdf_from(self, x: Expr) -> Expr:
        """Return the normal distribution's CDF for x ≥ -5.5 with an absolute error of at most 2e-7; any value for NaN."""
        x = self.bind(self.at_most(x, _FAR))
        place = self.bind(x * x * self.number(2 / _FAR**2) - self.number(1.0))
        power = self.number(_NORMAL[-1])
        for coefficient in reversed(_NORMAL[:-1]):
            power = power * place + self.number(coefficient)
        return self.number(0.5) + self.number(0.5) * x * power

    def _logistic(self, x: Expr, keeps_nan: bool) -> Expr:
        """Return `sigmoid` for |x| ≤ 85."""
        return self._reciprocal(self.number(_SCALE) + self._exp(self.bind(x), -_LOG2_E, _SCALE, keeps_nan))

    def _half_gelu(self, x: Expr, terms: tuple[float, float]) -> Expr:
        """Return x · sigmoid(x · (a + b x²)) in half precision, where (a, b) = `terms`."""
        x = self.bind(self.limited(x, _HALF_NORMAL_LEAST, None))
        power = self._cubic(self.bind(self.at_most(x, _HALF_NORMAL_MOST)), *(-_LOG2_E * term for term in terms))
        return x * self._half_logistic(self.bind(power), 1.0)

    def _cubic(self, x: Expr, first: float, third: float) -> Expr:
        """Return first · x + third · x³ of a bound x."""
        return x * (self.number(first) + self.number(third) * (x * x))

    def _half_logistic(self, x: Expr, factor: float = -_LOG2_E) -> Expr:
        """Return 1 / (1 + 2^(factor · x)) in half precision, where factor · x is in [-13, 15.5]: 16 instructions per 8 lanes, where
        `_logistic` takes 50.
        """
        d = self.bind(self.number(_HALF_SCALE) + self._half_power(x, factor, _HALF_SCALE))
        guess = self.bind(self._from(self._splat(_HALF_GUESS, self._integer) - self._bits(d, self._integer)))
        return guess * (self.number(_HALF_STEP) - d * guess)

    def _half_power(self, x: Expr, factor: float, scale: float) -> Expr:
        """Return scale · 2^(factor · x) of a bound x in half precision within 3e-3, where that is a normal number."""
        rounder = self.number(1.5 * 2.0**self._mantissa)
        exponent = x if factor == 1.0 else x * self.number(factor)
        shifted = self.bind(exponent + rounder)
        rest = self.bind(exponent + self._opaque(rounder - self._opaque(shifted)))
        first, second, third = (self.number(coefficient * scale) for coefficient in _HALF_EXP2)
        power = (third * rest + second) * rest + first
        whole = self.T.shift_left(self._bits(shifted, self._integer), self._splat(self._mantissa, self._integer))
        return self._from(self._bits(power, self._integer) + whole)

    def _wider(self) -> Vectors:
        return Vectors(self.wide, self.lanes, self.bind, self.ordered)

    def _exp(self, x: Expr, factor: float, scale: float = 1.0, keeps_nan: bool = False) -> Expr:
        """Return scale · 2^(factor · x), where that is a normal number."""
        # Adding this rounds factor · x to an integer, which is then in the low bits, with the exponent's bias if `keeps_nan`.
        rounder = self.number(1.5 * 2.0**self._mantissa + (self._bias if keeps_nan else 0))
        shifted = self.bind(x * self.number(factor) + rounder)
        whole = self._opaque(self._opaque(shifted) - rounder)
        rest = self.bind(x * self.number(factor) - whole)
        power = self.number(_EXP2[-1] * scale)
        for coefficient in reversed(_EXP2[:-1]):
            power = power * rest + self.number(coefficient * scale)
        exponent = self.T.shift_left(self._bits(shifted, self._integer), self._splat(self._mantissa, self._integer))
        # Adding bits costs half as much as a multiplication, but turns some NaNs into numbers.
        return power * self._from(exponent) if keeps_nan else self._from(self._bits(power, self._integer) + exponent)

    def _reciprocal(self, d: Expr) -> Expr:
        """Return `_SCALE` / d for d ≥ `_SCALE`."""
        d = self.bind(d)
        guess = ((2 * self._bias - 1) << self._mantissa) + int((_GUESS - 1) * 2**self._mantissa)
        root = self.bind(self._from(self._splat(guess, self._integer) - self._bits(d, self._integer)))
        for step in _STEPS:
            root = self.bind(root * (self.number(step) - d * root))
        return root

    def _splat(self, value: float, kind: str) -> Expr:
        scalar = getattr(self.T, kind)(value)
        return self.T.Broadcast(scalar, self.lanes) if self.lanes > 1 else scalar

    def _bits(self, x: Expr, kind: str) -> Expr:
        return self.T.reinterpret(kind if self.lanes == 1 else f"{kind}x{self.lanes}", x)

    def _from(self, bits: Expr) -> Expr:
        return self._bits(bits, self.dtype)

    def _opaque(self, x: Expr) -> Expr:
        """Hide a value from TVM's simplifier, which would turn the float expression x + y - y into x."""
        return self._from(self._bits(x, self._integer))

    def _pattern(self, value: float) -> int:
        """Return the bits of a float as an integer."""
        return int(np.dtype(self.dtype).type(value).view(f"u{self._integer}"))
