"""Layers of scaled integers (precision `int8`): their constants, and facts about their arithmetic.

A stored integer q stands for the real number scale · (q - zero). Per channel, a layer computes

    out = limit(rint(float32(bias + Σ data · weight) · multiplier) + zero_out, low, high)

`docs/int8-arithmetic.md` defines every step, bit for bit; `kernels/integer_reference.py` computes it in NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tvmmobile.graph.curves import CURVES
from tvmmobile.graph.parameters import Array, LayerParameters

#: Sums from this magnitude on are converted.
LEAST_CONVERTED_SUM = 1 << 22
#: Largest result of a multiplication that needs no saturation: with any zero point it fits in 16 bits.
LARGEST_UNSATURATED = (1 << 15) - 1 - 128
#: Number of products up to which a layer's sums are treated as narrow: they are, even with the largest weights.
NARROW_TERMS = 256
#: The denominator of short multipliers. Rounding them to these moves a product by half a step at most, where its sum is almost
#: `LEAST_CONVERTED_SUM`.
MULTIPLIER_DENOMINATOR = 1 << 22
LOWEST, HIGHEST = -128, 127
#: Largest magnitude of weights with 7 bits: four products of these fit in 16 bits, whatever the data are.
SEVEN_BITS = 63
#: Largest sum of weights' magnitudes whose products with any data fit in 16 bits together.
MOST_TOGETHER = 255
#: Taps of a depthwise channel that follow each other, of which kernels add products in 16 bits where `tap_triple_sums` allows it.
TAPS_TOGETHER = 3
#: Curves that integer layers compute.
INTEGER_CURVES = frozenset({"hswish", "hsigmoid"})
#: The clamp of integer layers that look up their results, and the curves in float32 that it replaces.
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
        per_scale_in: float32, 1 / scale_in, in a layer that reads float32.
        zero_side, scale_side: zero point of the residual or gate, and the size of one step of the residual.
        sixth: float32, 1 / (6 · scale_out), in a layer with a curve.
        addend: float32 per output channel, in a layer with `addend`; otherwise empty.
        table: int8, the result for each byte from 0 to 255, in a layer that looks up its results; otherwise empty.
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


def tap_triple_sums(weight: Array) -> Array:
    """Return the magnitudes of a depthwise layer's weights, HWIO, integers or not, added up by threes of taps: (threes, channels)."""
    taps = np.abs(weight.reshape(-1, weight.shape[-1]), dtype=np.float64)
    return np.asarray(np.add.reduceat(taps, range(0, len(taps), TAPS_TOGETHER)))


def short_multipliers(multiplier: Array) -> Array:
    """Return the nearest multiples of 1 / `MULTIPLIER_DENOMINATOR` from -1/3 to 1, float32; others would be inexact in use."""
    whole = MULTIPLIER_DENOMINATOR
    parts = np.clip(np.rint(multiplier.astype(np.float64) * whole), 128 - whole // 3, whole)
    return np.asarray((parts / whole).astype(np.float32))
