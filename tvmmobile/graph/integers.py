"""Layers of scaled integers (precision `int8`): their constants, and their exact arithmetic.

A stored integer q stands for the real number scale · (q - zero). Activations have one scale and one zero point per tensor, and are
int8 of any sign; weights are int8 from -127 to 127 with a scale per output channel and no zero point; biases and sums are int32. Weights
that others have quantised may be -128 as well in kernels whose instructions add products in 32 bits, those for SDOT but for depthwise ones.

An integer layer is an `IntegerLayer` of a task in `int8` without `then`, whose `clamp` is in `INTEGER_CURVES`, `LOOKUP` or
none: bounds are values (`low` and `high` of `IntegerParameters`), and so are scales and zero points: all networks of the same shapes share
kernels and records. Per channel it computes

    sum = bias + Σ data · weight              exactly; where the window reaches into padding, data is `zero_in`
    q   = rint(float32(sum) · multiplier)     the product is exact and rounded once, ties to even
    out = limit(q + zero_out, low, high)      exactly: whatever leaves int8 becomes the nearest bound

where float32(sum) rounds sums from 2^24 up to 24 bits, ties to even. Derived from real numbers,

    bias       = rint(real bias / (scale_in · scale_weight)) - zero_in · Σ weight, over a channel's weights
    multiplier = scale_in · scale_weight / scale_out

A `Pool` has a bias and a multiplier per channel too. The sum over its pixels is that of weights of 1: they are -pixels · zero_in and
scale_in / (pixels · scale_out). Kernels agree with `kernels.integers`, which computes this in NumPy, bit for bit.

A layer with a residual or a curve takes more steps, in float32:

    x   = fma(float32(sum), multiplier, other)    rounded once; other = float32(residual - zero_side) · scale_side, or 0
    t   = limit(fma(x, sixth, 3 · sixth), 0, 6 · sixth)    multiples of sixth rounded
    q   = rint(x)                                 without a curve; scale_side = scale_residual / scale_out
    q   = rint(x · t)                             of h-swish; the product is exact
    q   = rint(t)                                 of h-sigmoid

With a curve, x is a real number: multiplier = scale_in · scale_weight, scale_side = scale_residual, and sixth = 1 / (6 · scale_out).

A layer that looks up (`LOOKUP`) computes out as above, with or without a residual, as a number of its own scale. What it stores is
`table[out & 255]`, which may be any function of it in any scale: all curves of one variable share kernels and records.

A layer with `addend` takes these steps too. A float32 number per channel is what rounding its bias to steps of the sums leaves, in units of
x, and its multipliers and zero points may be any: networks that others have quantised need both. What it writes as float32 is x.

    other = addend, or fma(float32(residual - zero_side), scale_side, addend)

A `Gating` has sums of one term, data - zero_in, whose multiplier is float32(gate - zero_side) · multiplier, rounded to float32.

The ends of a network are the layers' own:

    with `reads="float32"`, data = limit(rint(float · per_scale_in) + zero_in, -128, 127), the product exact; per_scale_in = 1 / scale_in
    with `reads="uint8"`, data = byte - 128
    with `writes="float32"`, out = float32(sum) · multiplier, rounded to float32, where multiplier = scale_in · scale_weight

How kernels get float32(sum) and store q is a matter of their speed. Where |sum| < 2^22 it costs nothing: sums begin at the bits of
R = 1.5 · 2^23, and are the mantissa of a float, R + sum. A multiplier that is a multiple of 2^-22 (`short_multipliers`) makes
R · multiplier an integer, so that one fused multiply-add of R + sum, and of R · (1 - multiplier) + zero_out, gives R + q + zero_out. If
zero_out is even, its ties are q's. Where q fits in 16 bits, it is narrowed in half as many instructions. Other sums are converted, which
takes a pipeline that multiplies on some cores, and other results saturated step by step. Which of the two is in a kernel has to be
known from its task: layers of more than `NARROW_TERMS` products a sum are always converted, which is hardly seen beside those; all others
are not, unless their `integers` say `wide`, as `IntegerLayer.is_wide` asks for; it is rare, as the bounds are those of inputs that have the
sign of the weights everywhere, and scales are chosen with short multipliers and even zero points.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tvmmobile.graph.curves import CURVES
from tvmmobile.graph.parameters import Array, LayerParameters

#: Sums beyond are converted.
NARROW = 1 << 22
#: Largest result of a multiplication that needs no saturation: with any zero point it fits in 16 bits.
SHORT = (1 << 15) - 1 - 128
#: Products of a sum up to which a layer's sums are taken for narrow: so many are, even of the largest weights.
NARROW_TERMS = 256
#: The denominator of short multipliers. Rounding them to these moves a product by half a step at most, where its sum is almost `NARROW`.
PARTS = 1 << 22
LOWEST, HIGHEST = -128, 127
#: Largest magnitude of weights with 7 bits: four products of these fit in 16 bits, whatever the data are.
SEVEN_BITS = 63
#: Largest sum of weights' magnitudes whose products with any data fit in 16 bits together.
MOST_TOGETHER = 255
#: Taps of a depthwise channel that follow each other, of which kernels add products in 16 bits where `together` allows it.
THREE = 3
#: Curves that integer layers compute.
INTEGER_CURVES = frozenset({"hswish", "hsigmoid"})
#: The clamp of integer layers that look up their results, and the curves of layers in float32 that it stands for.
LOOKUP = "lookup"
LOOKED_UP = frozenset(name for name, curve in CURVES.items() if not curve.operands) - INTEGER_CURVES
#: Results of a table: one for each byte.
TABLE = 256


@dataclass(frozen=True, kw_only=True)
class IntegerParameters(LayerParameters):
    """Constants of an integer layer: `weight` int8 (HWIO or (in, out); empty for a pool), `bias` int32 per output channel; no `operands`.

    Attributes:
        multiplier: float32 per output channel.
        zero_in: the input's zero point, which fills padding.
        zero_out: the output's.
        low, high: bounds of the output, integers of int8; all of int8 but for a layer that is `bounded`.
        per_scale_in: float32, 1 / scale_in, of a layer that reads float32.
        zero_side, scale_side: zero point of the residual or gate, and what a step of a residual counts.
        sixth: float32, 1 / (6 · scale_out), of a layer with a curve.
        addend: float32 per output channel, of a layer with `addend`; else empty.
        table: int8, what is stored for each byte from 0 to 255, of a layer that looks up; else empty.
    """

    multiplier: Array
    zero_in: int = 0
    zero_out: int = 0
    low: int = LOWEST
    high: int = HIGHEST
    per_scale_in: float = 1.0
    zero_side: int = 0
    scale_side: float = 0.0
    sixth: float = 0.0
    addend: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    table: Array = field(default_factory=lambda: np.zeros(0, np.int8))


def is_bounded(parameters: IntegerParameters) -> bool:
    """Decide a layer's `bounded`: true if its output has tighter bounds than int8."""
    return (parameters.low, parameters.high) != (LOWEST, HIGHEST)


def together(weight: Array) -> Array:
    """Return the magnitudes of a depthwise layer's weights, HWIO, integers or not, added up by threes of taps: (threes, channels)."""
    taps = np.abs(weight.reshape(-1, weight.shape[-1]), dtype=np.float64)
    return np.asarray(np.add.reduceat(taps, range(0, len(taps), THREE)))


def short_multipliers(multiplier: Array) -> Array:
    """Return the nearest multipliers that are multiples of 1 / `PARTS`, float32, from -1/3 to 1: others are inexact where they are used."""
    parts = np.clip(np.rint(multiplier.astype(np.float64) * PARTS), 128 - PARTS // 3, PARTS)
    return np.asarray((parts / PARTS).astype(np.float32))
