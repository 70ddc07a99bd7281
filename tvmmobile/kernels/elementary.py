"""Emits elementary functions as vector arithmetic, where TVM would call a maths library, so that our libraries need none.

Range reduction and most polynomials are those of S. Moshier's Cephes library (single precision); erf's is from N. Juffa, "A more accurate
and faster implementation of erff()", 2016. `ERRORS` lists their errors; infinities and NaNs are treated as in C.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from tvmmobile.graph.precision import FLOAT32, is_precision, precision_named
from tvmmobile.schedules.emit.vectors import Expr, Vectors

#: Largest relative error in float32 if the result is a normal number; for `sin` and `cos`, the largest absolute error. Arguments of `sin`,
#: `cos` and `tan` are within ±8192, and quotients of `fmod` within ±2²⁹.
ERRORS = {
    "exp": 1.5e-7,
    "exp2": 1.5e-7,
    "exp10": 2e-7,
    "log": 1.5e-7,
    "log2": 2e-7,
    "log10": 2e-7,
    "log1p": 3e-7,
    "tanh": 2e-7,
    "sigmoid": 2e-7,
    "erf": 1.5e-7,
    "sinh": 4e-7,
    "cosh": 4e-7,
    "sin": 1.5e-7,
    "cos": 1.5e-7,
    "tan": 4e-7,
    "atan": 3e-7,
    "asin": 4e-7,
    "acos": 4e-7,
    "asinh": 5e-7,
    "acosh": 5e-7,
    "atan2": 4e-7,
    "fmod": 0.0,
    "pow": 8e-7,
}
#: TVM's operators that are not named `tirx.` and the function's name.
_OPERATORS = {"log2": "prim.log2"}
#: Bases of exponential functions: log₂ of the base, its reciprocal in two parts (the first with few bits), and ln of the base.
_BASES = {
    "exp": (math.log2(math.e), 0.693359375, -2.121944400546905827679e-4, 1.0),
    "exp2": (1.0, 1.0, 0.0, math.log(2)),
    "exp10": (math.log2(10), 0.30078125, 2.48745663981195213739e-4, math.log(10)),
}
#: Coefficients of polynomials, here and below, from the highest power to the lowest.
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1, 1.0, 1.0)
_LOG = (
    *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1),
    *(2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)
_TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
_SINH = (2.03721912945e-4, 8.33028376239e-3, 1.66667160211e-1)
_SIN, _COS = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1), (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
_ATAN = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)
_ASIN = (4.2163199048e-2, 2.4181311049e-2, 4.5470025998e-2, 7.4953002686e-2, 1.6666752422e-1)
_ERF_NEAR = (-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1)
_ERF_FAR = (-1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1, -1.128717512)
#: Magnitude from which adding 1 to the square does not change it.
_GREAT = 1e5
#: π/2 in three parts, the first two with few bits.
_HALF_PI = (1.5703125, 4.837512969970703125e-4, 7.549789954891882e-8)


class Elementary(Vectors):
    """The functions of `ERRORS`, for vectors or single numbers."""

    @property
    def _sign(self) -> int:
        """The number of the sign bit."""
        return int(self._integer.removeprefix("int")) - 1

    def exp(self, x: Expr, base: str = "exp") -> Expr:
        """Return the base to the power of x: 0 on underflow, ∞ on overflow."""
        log2, first, second, log = _BASES[base]
        x = self.bind(x)
        bounded = self.bind(self.limited(x, -152 / log2, 130 / log2))
        rounder = 1.5 * 2.0**self._mantissa
        shifted = self.bind(bounded * self.number(log2) + self.number(rounder))
        whole = self.bind(self._opaque(self._opaque(shifted) - self.number(rounder)))
        number = self.bind(self._bits(shifted, self._integer) - self._splat(self._pattern(rounder), self._integer))
        rest = self.bind(((bounded - whole * self.number(first)) - whole * self.number(second)) * self.number(log))
        half = self.bind(self.T.shift_right(number, self._splat(1, self._integer)))
        value = self._polynomial(_EXP, rest) * self._power(half) * self._power(number - half)
        return self.T.Select(x < self.number(math.inf), value, x)  # a NaN remains one

    exp2 = functools.partialmethod(exp, base="exp2")
    exp10 = functools.partialmethod(exp, base="exp10")

    def log(self, x: Expr) -> Expr:
        """Return the natural logarithm: -∞ for 0, NaN for negative numbers."""
        x = self.bind(x)
        small = x < self.number(2.0**-126)
        scaled = self.bind(self._bits(self.T.Select(small, x * self.number(2.0**25), x), self._integer))
        shift = self._splat(self._mantissa, self._integer)
        exponent = self.bind(self.T.shift_right(scaled - self._splat(self._pattern(math.sqrt(0.5)), self._integer), shift))
        f = self.bind(self._from(scaled - self.T.shift_left(exponent, shift)) - self.number(1.0))
        whole = self.bind(self.cast(exponent) - self.T.Select(small, self.number(25.0), self.number(0.0)))
        square = self.bind(f * f)
        low = f * square * self._polynomial(_LOG, f) + whole * self.number(-2.12194440e-4) - square * self.number(0.5)
        value = self.bind(f + low + whole * self.number(0.693359375))
        other = self.T.Select(self.equal(x, 0.0), self.number(-math.inf), self.number(math.nan))
        return self.T.Select(x > self.number(0.0), self.T.Select(x < self.number(math.inf), value, x), other)

    def log2(self, x: Expr) -> Expr:
        """Return the logarithm to base 2."""
        return self.log(x) * self.number(1 / math.log(2))

    def log10(self, x: Expr) -> Expr:
        """Return the logarithm to base 10."""
        return self.log(x) * self.number(1 / math.log(10))

    def log1p(self, x: Expr) -> Expr:
        """Return log(1 + x), accurate even for tiny x."""
        x = self.bind(x)
        more = self.bind(x + self.number(1.0))
        rest = self.bind(self._opaque(more) - self.number(1.0))
        usual = self.bind(self.log(more))
        exact = self.bind(usual * (x / rest))
        return self.T.Select(self.equal(rest, 0.0), x, self.T.Select(more < self.number(math.inf), exact, usual))

    def sigmoid(self, x: Expr) -> Expr:
        """Return 1 / (1 + exp(-x))."""
        return self.number(1.0) / (self.number(1.0) + self.exp(self.number(0.0) - x))

    def tanh(self, x: Expr) -> Expr:
        """Return the hyperbolic tangent."""
        x = self.bind(x)
        far = self.number(1.0) - self.number(2.0) / (self.exp(self.size(x) * self.number(2.0)) + self.number(1.0))
        return self._near(x, 0.625, self._odd(_TANH, x), self.signed(far, x))

    def sinh(self, x: Expr) -> Expr:
        """Return the hyperbolic sine."""
        x = self.bind(x)
        half = self._half_exp(x)
        return self._near(x, 1.0, self._odd(_SINH, x), self.signed(half - self.number(0.25) / half, x))

    def cosh(self, x: Expr) -> Expr:
        """Return the hyperbolic cosine."""
        half = self._half_exp(x)
        return half + self.number(0.25) / half

    def erf(self, x: Expr) -> Expr:
        """Return the error function."""
        x = self.bind(x)
        size = self.bind(self.size(x))
        far = self.number(1.0) - self.exp(self._polynomial(_ERF_FAR, size) * size)
        near = x + x * self._polynomial(_ERF_NEAR, self.bind(x * x))
        return self._near(x, 0.927734375, near, self.signed(far, x))

    def sin(self, x: Expr) -> Expr:
        """Return the sine."""
        sine, cosine, number = self._reduced(x)
        return self._quadrant(number, sine, cosine)

    def cos(self, x: Expr) -> Expr:
        """Return the cosine."""
        sine, cosine, number = self._reduced(x)
        return self._quadrant(number + self._splat(1, self._integer), sine, cosine)

    def tan(self, x: Expr) -> Expr:
        """Return the tangent."""
        sine, cosine, number = self._reduced(x)
        one = self._splat(1, self._integer)
        odd = self.T.bitwise_and(number, one) > self._splat(0, self._integer)
        return self.T.Select(odd, (self.number(0.0) - cosine) / sine, sine / cosine)

    def atan(self, x: Expr) -> Expr:
        """Return the arc tangent."""
        x = self.bind(x)
        size = self.bind(self.size(x))
        far, middle = size > self.number(math.tan(3 * math.pi / 8)), size > self.number(math.tan(math.pi / 8))
        turned = self.T.Select(middle, (size - self.number(1.0)) / (size + self.number(1.0)), size)
        rest = self.bind(self.T.Select(far, self.number(-1.0) / size, turned))
        start = self.T.Select(far, self.number(math.pi / 2), self.T.Select(middle, self.number(math.pi / 4), self.number(0.0)))
        return self.signed(start + self._odd(_ATAN, rest), x)

    def atan2(self, y: Expr, x: Expr) -> Expr:
        """Return the angle of the point (x, y)."""
        y, x = self.bind(y), self.bind(x)
        height, width = self.bind(self.size(y)), self.bind(self.size(x))
        steep, zero = height > width, self.number(0.0)
        low, high = self.bind(self.T.Select(steep, width, height)), self.bind(self.T.Select(steep, height, width))
        ratio = self.T.Select(self.equal(low, high), self.T.Select(self.equal(high, 0.0), zero, self.number(1.0)), low / high)
        angle = self.bind(self.atan(ratio))
        angle = self.bind(self.T.Select(steep, self.number(math.pi / 2) - angle, angle))
        is_left = self._bits(x, self._integer) < self._splat(0, self._integer)
        angle = self.signed(self.T.Select(is_left, self.number(math.pi) - angle, angle), y)
        return self.T.Select(self.equal(x, x), self.T.Select(self.equal(y, y), angle, y), x)

    def asin(self, x: Expr) -> Expr:
        """Return the arc sine: NaN beyond ±1."""
        x = self.bind(x)
        far, angle = self._arc(x)
        return self.signed(self.T.Select(far, self.number(math.pi / 2) - angle, angle), x)

    def acos(self, x: Expr) -> Expr:
        """Return the arc cosine: NaN beyond ±1."""
        x = self.bind(x)
        far, angle = self._arc(x)
        large = self.T.Select(x < self.number(0.0), self.number(math.pi) - angle, angle)
        return self.T.Select(far, large, self.number(math.pi / 2) - self.signed(angle, x))

    def _arc(self, x: Expr) -> tuple[Expr, Expr]:
        """Return whether |x| > 1/2, and the arc cosine of |x| if so, otherwise its arc sine."""
        from tvm import tirx

        size = self.bind(self.size(x))
        far = size > self.number(0.5)
        square = self.bind(self.T.Select(far, (self.number(1.0) - size) * self.number(0.5), size * size))
        side = self.bind(self.T.Select(far, tirx.sqrt(square), size))
        angle = self.bind(side + side * square * self._polynomial(_ASIN, square))
        return far, self.bind(self.T.Select(far, angle + angle, angle))

    def asinh(self, x: Expr) -> Expr:
        """Return the inverse hyperbolic sine."""
        from tvm import tirx

        x = self.bind(x)
        size = self.bind(self.size(x))
        square = self.bind(size * size)
        near = self.log1p(size + square / (self.number(1.0) + tirx.sqrt(square + self.number(1.0))))
        return self.signed(self.T.Select(size < self.number(_GREAT), near, self.log(size) + self.number(math.log(2))), x)

    def acosh(self, x: Expr) -> Expr:
        """Return the inverse hyperbolic cosine: NaN below 1."""
        from tvm import tirx

        x = self.bind(x)
        above = self.bind(x - self.number(1.0))
        near = self.log1p(above + tirx.sqrt(above * (above + self.number(2.0))))
        value = self.T.Select(x < self.number(_GREAT), near, self.log(x) + self.number(math.log(2)))
        return self.T.Select(x < self.number(1.0), self.number(math.nan), value)

    def _half_exp(self, x: Expr) -> Expr:
        """Return exp(|x|) / 2 without intermediate overflow."""
        root = self.bind(self.exp(self.size(x) * self.number(0.5)))
        return self.bind(root * self.number(0.5) * root)

    def _power(self, exponent: Expr) -> Expr:
        """Return 2 to the power of an integer; the result has to be a normal number."""
        biased = exponent + self._splat(self._bias, self._integer)
        return self._from(self.T.shift_left(biased, self._splat(self._mantissa, self._integer)))

    def _polynomial(self, coefficients: Sequence[float], x: Expr) -> Expr:
        """Return a polynomial's value by Horner's method; coefficients begin with that of the highest power."""
        value = self.number(coefficients[0])
        for coefficient in coefficients[1:]:
            value = value * x + self.number(coefficient)
        return value

    def _odd(self, coefficients: Sequence[float], x: Expr) -> Expr:
        """Return x + x³ · a polynomial in x²."""
        square = self.bind(x * x)
        return x + x * square * self._polynomial(coefficients, square)

    def size(self, x: Expr) -> Expr:
        """Return |x|."""
        return self._from(self.T.bitwise_and(self._bits(x, self._integer), self._splat((1 << self._sign) - 1, self._integer)))

    def signed(self, value: Expr, x: Expr) -> Expr:
        """Return a non-negative value with the sign of x."""
        sign = self.T.bitwise_and(self._bits(x, self._integer), self._splat(-(1 << self._sign), self._integer))
        return self._from(self.T.bitwise_or(self._bits(value, self._integer), sign))

    def _near(self, x: Expr, limit: float, near: Expr, far: Expr) -> Expr:
        """Return `near` if |x| is less than the limit, otherwise `far`."""
        return self.T.Select(self.size(x) < self.number(limit), near, far)

    def equal(self, x: Expr, value: Expr | float) -> Expr:
        """Return whether two numbers are equal."""
        from tvm import tirx

        return tirx.EQ(x, self.number(value) if isinstance(value, float) else value)

    def _reduced(self, x: Expr) -> tuple[Expr, Expr, Expr]:
        """Return the sine and cosine of x minus the nearest multiple of π/2, and bits that end with the number of this multiple."""
        x = self.bind(x)
        rounder = 1.5 * 2.0**self._mantissa
        shifted = self.bind(x * self.number(2 / math.pi) + self.number(rounder))
        whole = self.bind(self._opaque(self._opaque(shifted) - self.number(rounder)))
        for part in _HALF_PI:
            x = self.bind(x - whole * self.number(part))
        square = self.bind(x * x)
        cosine = self.number(1.0) - square * self.number(0.5) + square * square * self._polynomial(_COS, square)
        return self.bind(self._odd(_SIN, x)), self.bind(cosine), self.bind(self._bits(shifted, self._integer))

    def _quadrant(self, number: Expr, sine: Expr, cosine: Expr) -> Expr:
        """Return the sine after adding `number` quarter turns; only the last two bits of `number` matter."""
        one, two, zero = (self._splat(value, self._integer) for value in (1, 2, 0))
        number = self.bind(number)
        value = self.bind(self.T.Select(self.T.bitwise_and(number, one) > zero, cosine, sine))
        return self.T.Select(self.T.bitwise_and(number, two) > zero, self.number(0.0) - value, value)


def power(x: Expr, y: Expr, lanes: int, bind: Callable[[Expr], Expr]) -> Expr:
    """Return x to the power of y in float32, computed in float64, or by multiplications if y is a constant integer within ±16."""
    from tvm import tirx

    narrow = Elementary("float32", lanes, bind, True)
    constant = y
    while isinstance(constant, (tirx.Broadcast, tirx.Cast)):
        constant = constant.value
    x, exponent = bind(x), float(constant.value) if isinstance(constant, tirx.FloatImm) else math.nan
    y = y if math.isnan(exponent) else narrow.number(exponent)
    if abs(exponent) in range(1, 17):
        value, squared = None, x
        for bit in f"{abs(int(exponent)):b}"[::-1]:
            value = value if bit == "0" else squared if value is None else bind(value * squared)
            squared = bind(squared * squared)
        return value if exponent > 0 else narrow.number(1.0) / value
    wide, T = Elementary("float64", lanes, bind, False), narrow.T  # noqa: N806
    y = bind(y)
    size = narrow.size(x)
    value = narrow.cast(wide.exp(wide.cast(y) * wide.log(wide.cast(size))))
    if math.isnan(exponent):
        whole, half = bind(tirx.floor(y)), bind(y * narrow.number(0.5))
    else:  # TVM refuses bindings whose value it could compute, where an operator contains the result twice
        floor = math.floor(exponent) if math.isfinite(exponent) else exponent
        whole, half = narrow.number(floor), narrow.number(exponent * 0.5)
    odd = tirx.And(narrow.equal(whole, y), tirx.NE(tirx.floor(half), half))
    value = T.Select(odd, narrow.signed(value, x), value)
    broken = tirx.And(tirx.And(x < narrow.number(0.0), x > narrow.number(-math.inf)), tirx.NE(whole, y))
    ones = tirx.And(narrow.equal(size, 1.0), narrow.equal(narrow.size(y), math.inf))
    return T.Select(
        tirx.Or(tirx.Or(narrow.equal(y, 0.0), narrow.equal(x, 1.0)), ones),
        narrow.number(1.0),
        T.Select(broken, narrow.number(math.nan), value),
    )


def remainder(x: Expr, y: Expr, lanes: int, bind: Callable[[Expr], Expr]) -> Expr:
    """Return C's `fmod` in float32, computed in float64: x minus y times their quotient rounded towards zero, with the sign of x."""
    from tvm import tirx

    narrow, wide = Elementary("float32", lanes, bind, True), Elementary("float64", lanes, bind, False)
    x, y = bind(x), bind(y)
    over, under = bind(wide.cast(narrow.size(x))), bind(wide.cast(narrow.size(y)))
    rest = narrow.cast(over - under * tirx.floor(over / under))
    is_infinite = tirx.And(narrow.equal(narrow.size(y), math.inf), narrow.size(x) < narrow.number(math.inf))
    return narrow.T.Select(is_infinite, x, narrow.signed(rest, x))


#: Functions of two numbers that are computed in float64.
_BY_WIDE = {"pow": power, "fmod": remainder}


def _lowered(name: str, call: Any) -> Any:
    """Rewrite a call as arithmetic in float32; calls whose precision needs another type stay unchanged."""
    from tvm import tirx

    kind, _, lanes = str(call.ty.dtype).partition("x")
    if (precision_named(kind).total if is_precision(kind) else kind) != FLOAT32.name:
        return call
    bound: list[tuple[Any, Any]] = []

    def bind(value: Any) -> Any:
        if isinstance(value, tirx.Var):  # TVM refuses two names of one value where an operator contains the result twice
            return value
        variable = tirx.Var(f"{name}_{len(bound)}", value.ty)
        bound.append((variable, value))
        return variable

    functions = Elementary(FLOAT32.name, int(lanes or 1), bind, True)
    arguments = [functions.cast(argument) for argument in call.args]
    by_wide = _BY_WIDE.get(name)
    result = by_wide(arguments[0], arguments[1], functions.lanes, bind) if by_wide else getattr(functions, name)(*arguments)
    for variable, value in reversed(bound):
        result = tirx.Let(variable, value, result)
    return result if kind == FLOAT32.name else tirx.Cast(call.ty, result)


@functools.cache
def register() -> None:
    """Make TVM's builds in this process replace calls of elementary functions by arithmetic."""
    from tvm.tirx import register_intrin_lowering

    for name in ERRORS:
        register_intrin_lowering(_OPERATORS.get(name, f"tirx.{name}"), "llvm", f=functools.partial(_lowered, name), level=99)
