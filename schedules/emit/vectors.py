"""Arithmetic on whole vectors or single floats, from operations that every target has, without calls to a maths library.

On the Cortex-A72 comparing four floats takes a cycle, comparing their bits as integers half a cycle, and dividing them 34 cycles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tvmmobile.graph.integers import HIGHEST, LOWEST

Expr = Any

_LOG2_E = 1.4426950408889634
#: 2ᶠ for |f| ≤ 1/2, least relative error (8e-8), lowest power first.
_EXP2 = (1.0000000716546849, 0.6931469670647602, 0.24022119723840327, 0.05550713273498564, 0.009675541334443198, 0.001327647199235735)
#: (Φ(t) - 1/2) / t · 2, of 2 t² / _FAR² - 1, lowest power first: of Φ, the normal distribution's, the error is 2e-7 up to `_FAR`.
_NORMAL = (
    *(0.25710394978523254, -0.12834419310092926, 0.09546658396720886, -0.0775994062423706, 0.06429454684257507, -0.05199489742517471),
    *(0.039708930999040604, -0.03024333156645298, 0.023657485842704773, -0.013652298599481583, 0.004107298795133829),
    *(-0.003981277346611023, 0.005510644521564245, -0.002215906046330929),
)
_FAR = 5.5
#: 1/d by a guess and two Newton steps, r · (a - d·r), tuned so that errors are equal on both sides of zero: 6e-9 of the result.
#: The bits of the guess are the mantissa of this number, and the largest exponents', less the bits of d. The result is `_SCALE / d`.
_GUESS, _STEPS, _SCALE = 1.414306640625, (1.435762889681854, 1.0305924450378963), 0.26553019528650734
#: In half precision: 2ᶠ within 2e-3, one Newton step, and the bits of a guess whose error is 1.5 %. The numbers are those, of some
#: hundred near the exact ones, with which rounding does least harm: x · sigmoid(x) is within 1.3e-3 of max(1, |x|), and x from 9 up.
_HALF_EXP2 = (1.0004432486215697, 0.7034470220911557, 0.23842617854564332)
_HALF_GUESS, _HALF_STEP, _HALF_SCALE = (29 << 10) + 420, 1.435546875, 0.51513671875
#: Its bounds: below the lower one the guess, and the product, are 0; from the upper one on the sigmoid is 1.
_HALF_LEAST, _HALF_MOST = -10.7, 9.0
#: Bound of the sigmoid's argument x: exp(±x), and one more than that, have normal reciprocals.
_MOST = 85.0


#: 1.5 · 2^23: the sum of a smaller float32 number with it has no fraction, and the nearest integer in its low bits.
ROUNDER = 12582912.0


def vector_of(kind: str, lanes: int) -> str:
    """Return TVM's name of a vector of a type, or of the type itself for one lane."""
    return f"{kind}x{lanes}" if lanes > 1 else kind


class Vectors:
    """Vectors of so many lanes, or single numbers.

    Args:
        dtype: `float16`, `float32` or `float64`.
        bind: gives a value a name, so that it is computed once.
        ordered: true if the vector unit has maximum and minimum of integers of the same width.
        wide: type that exponential functions are computed in; "" for `dtype`.
    """

    def __init__(self, dtype: str, lanes: int, bind: Callable[[Expr], Expr], ordered: bool, wide: str = "") -> None:
        from tvm.tirx.script import builder

        self.T, self.dtype, self.lanes, self.bind, self.ordered = builder, dtype, lanes, bind, ordered and lanes > 1
        self.wide = wide or dtype
        kind = np.finfo(dtype)
        self._mantissa, self._bias, self._integer = kind.nmant, kind.maxexp - 1, f"int{kind.bits}"

    def number(self, value: float) -> Expr:
        """Return a number in all lanes."""
        return self._splat(value, self.dtype)

    def cast(self, x: Expr) -> Expr:
        """Convert numbers of another type to this one."""
        return self.T.Cast(self.dtype if self.lanes == 1 else f"{self.dtype}x{self.lanes}", x)

    def rounded(self, x: Expr) -> Expr:
        """Return the nearest int8, ties to even."""
        # A sum of this size has no fraction, and the integer in its low bits.
        moved = self._bits(self.limited(x, LOWEST, HIGHEST) + self.number(1.5 * 2.0**self._mantissa), self._integer)
        return self.T.Cast("int8" if self.lanes == 1 else f"int8x{self.lanes}", moved)

    def limited(self, x: Expr, low: float | None, high: float | None) -> Expr:
        """Return x limited to the given bounds; a NaN remains one."""
        x = x if low is None else self.T.max(x, self.number(low))
        return x if high is None else self.T.min(x, self.number(high))

    def bounded(self, x: Expr, low: float | None, high: float | None) -> Expr:
        """Return `limited`, comparing integers if 0 is the lower bound and vectors can: half the cost of comparing floats.

        Non-negative floats sort like their bits, and negative ones are negative integers. A NaN may become one of the bounds: only for
        factors and terms of what is a NaN without them.
        """
        if low != 0.0 or not self.ordered:
            return self.limited(x, low, high)
        bits = self.T.max(self._bits(x, self._integer), self._splat(0, self._integer))
        return self._from(bits if high is None else self.T.min(bits, self._splat(self._pattern(high), self._integer)))

    def at_most(self, x: Expr, bound: float) -> Expr:
        """Return the smaller of x and a positive bound, for `bounded`: the bits of negative numbers are less than those of others."""
        return self._from(self.T.min(self._bits(x, self._integer), self._splat(self._pattern(bound), self._integer)))

    def at_least(self, x: Expr, bound: float) -> Expr:
        """Return the larger of x and a negative bound, see `bounded`: as unsigned integers, only numbers below it have larger bits."""
        kind = f"u{self._integer}"
        return self._from(self.T.min(self._bits(x, kind), self._splat(self._pattern(bound), kind)))

    def sigmoid(self, x: Expr) -> Expr:
        """Return 1 / (1 + exp(-x)), absolute error at most 4e-7; 0 and 1 beyond ±85 within that; a NaN remains one."""
        if self.wide != self.dtype:  # too few digits for the steps below, and exp(85) is infinite
            wide = self._wider()
            return self.cast(wide.sigmoid(wide.cast(x)))
        return self._logistic(self.limited(x, -_MOST, _MOST), keeps_nan=True)

    def sigmoid_from(self, x: Expr) -> Expr:
        """Return `sigmoid` of an x from -85 up; any value for a NaN, so only for factors of x."""
        if self.wide != self.dtype:
            wide = self._wider()
            return self.cast(wide.sigmoid_from(wide.cast(x)))
        return self._logistic(self.at_most(x, _MOST), keeps_nan=False)

    def silu(self, x: Expr) -> Expr:
        """Return x · sigmoid(x). Below the lower bound the other factor no longer shrinks, so that x must not grow."""
        if self.wide == self.dtype:
            x = self.bind(self.limited(x, -_MOST, None))
            return x * self.sigmoid_from(x)
        x = self.bind(self.limited(x, _HALF_LEAST, None))
        return x * self._half_logistic(self.bind(self.at_most(x, _HALF_MOST)))

    def exp_negative(self, x: Expr) -> Expr:
        """Return exp(x) for x up to 0, relative error at most 2e-7; exp(-85) below -85, any value for a NaN."""
        return self._exp(self.bind(self.at_least(x, -_MOST)), _LOG2_E)

    def spoiled(self, x: Expr, other: Expr) -> Expr:
        """Return x, or NaN where the other number is a NaN or infinite."""
        return x + (self._kept(other) - other)

    def normal_cdf_from(self, x: Expr) -> Expr:
        """Return the share of a normal distribution below an x from -5.5 up, absolute error at most 2e-7; any value for a NaN."""
        if self.wide != self.dtype:
            wide = self._wider()
            return self.cast(wide.normal_cdf_from(wide.cast(x)))
        x = self.bind(self.at_most(x, _FAR))
        place = self.bind(x * x * self.number(2 / _FAR**2) - self.number(1.0))
        power = self.number(_NORMAL[-1])
        for coefficient in reversed(_NORMAL[:-1]):
            power = power * place + self.number(coefficient)
        return self.number(0.5) + self.number(0.5) * x * power

    def _logistic(self, x: Expr, keeps_nan: bool) -> Expr:
        """Return `sigmoid` within ±85."""
        return self._reciprocal(self.number(_SCALE) + self._exp(self.bind(x), -_LOG2_E, _SCALE, keeps_nan))

    def _half_logistic(self, x: Expr) -> Expr:
        """Return the sigmoid within the bounds of half precision: 16 instructions for eight numbers, where `_logistic` takes 50."""
        factor, rounder = self.number(-_LOG2_E), self.number(1.5 * 2.0**self._mantissa)
        shifted = self.bind(x * factor + rounder)
        rest = self.bind(x * factor + self._kept(rounder - self._kept(shifted)))
        first, second, third = (self.number(coefficient * _HALF_SCALE) for coefficient in _HALF_EXP2)
        power = (third * rest + second) * rest + first
        exponent = self.T.shift_left(self._bits(shifted, self._integer), self._splat(self._mantissa, self._integer))
        d = self.bind(self.number(_HALF_SCALE) + self._from(self._bits(power, self._integer) + exponent))
        guess = self.bind(self._from(self._splat(_HALF_GUESS, self._integer) - self._bits(d, self._integer)))
        return guess * (self.number(_HALF_STEP) - d * guess)

    def _wider(self) -> Vectors:
        return Vectors(self.wide, self.lanes, self.bind, self.ordered)

    def _exp(self, x: Expr, factor: float, scale: float = 1.0, keeps_nan: bool = False) -> Expr:
        """scale · 2^(factor · x), where that is a normal number."""
        # Adding it rounds to an integer, which is then in the low bits: that of the exponent, or the exponent with its bias.
        rounder = self.number(1.5 * 2.0**self._mantissa + (self._bias if keeps_nan else 0))
        shifted = self.bind(x * self.number(factor) + rounder)
        whole = self._kept(self._kept(shifted) - rounder)
        rest = self.bind(x * self.number(factor) - whole)
        power = self.number(_EXP2[-1] * scale)
        for coefficient in reversed(_EXP2[:-1]):
            power = power * rest + self.number(coefficient * scale)
        exponent = self.T.shift_left(self._bits(shifted, self._integer), self._splat(self._mantissa, self._integer))
        # A sum of bits costs half as much as a product, but makes numbers of some NaNs.
        return power * self._from(exponent) if keeps_nan else self._from(self._bits(power, self._integer) + exponent)

    def _reciprocal(self, d: Expr) -> Expr:
        """`_SCALE` / d for a d from `_SCALE` up."""
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

    def _kept(self, x: Expr) -> Expr:
        """Hide a value from TVM, which would simplify the floats x + y - y to x."""
        return self._from(self._bits(x, self._integer))

    def _pattern(self, value: float) -> int:
        """Return the bits of a number."""
        return int(np.dtype(self.dtype).type(value).view(f"u{self._integer}"))
