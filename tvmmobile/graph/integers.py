"""Layers of scaled integers (precision `int8`): their constants, and facts about their arithmetic.

A stored integer q stands for the real number scale · (q - zero). Per channel, a layer computes

    out = limit(rint(float32(bias + Σ data · weight) · multiplier) + zero_out, low, high)

`docs/int8-arithmetic.md` defines every step, bit for bit; `kernels/integers.py` computes it in NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from tvmmobile.graph.curves import CURVES
from tvmmobile.graph.layers import NO_CLAMP, Array, Clamp, Conv2d, Gating, Layer, LayerParameters, Pool, SumLayer

_Layer = TypeVar("_Layer", bound=Layer)
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


def terms(layer: Layer) -> int:
    """Return products, or pixels of a pool, that each sum of a layer has."""
    if isinstance(layer, Pool):
        return layer.height * layer.width
    if isinstance(layer, Gating):
        return 1
    return math.prod(layer.weight_shape[:-1]) if isinstance(layer, SumLayer) else 0


def largest_sums(layer: Layer, parameters: IntegerParameters) -> Array:
    """Return a bound of each channel's |sum|, int64 per output channel: over all inputs, and attained but for the sign of zero."""
    if isinstance(layer, Pool | Gating):
        products = np.full(layer.channels, terms(layer), np.int64)
    else:
        products = np.abs(parameters.weight.astype(np.int64)).reshape(-1, parameters.weight.shape[-1]).sum(0)
    return np.abs(parameters.bias.astype(np.int64)) + -LOWEST * products


def is_wide(layer: Layer, parameters: IntegerParameters) -> bool:
    """Decide a layer's `wide`: true if a sum may reach 2^22, or a scaled sum leave 16 bits, and kernels depend on it; or if the layer needs
    an addend and has none.
    """
    if terms(layer) > NARROW_TERMS:
        return False
    if not layer.integers.addend and rounds_otherwise(layer, parameters):
        return True
    sums = largest_sums(layer, parameters)
    results = largest_results(layer, parameters) * (not layer.writes)
    return bool((sums >= NARROW).any() or (results > SHORT).any())


def is_bounded(parameters: IntegerParameters) -> bool:
    """Decide a layer's `bounded`: true if its output has tighter bounds than int8."""
    return (parameters.low, parameters.high) != (LOWEST, HIGHEST)


def rounds_otherwise(layer: Layer, parameters: IntegerParameters) -> bool:
    """Return whether multipliers that are not short, or an odd zero point, change results of kernels that do not convert a layer's sums.

    They do not in a layer with an addend.
    """
    odd = not layer.writes and bool(parameters.zero_out % 2)
    return odd or (scales_at_once(layer) and bool((short_multipliers(parameters.multiplier) != parameters.multiplier).any()))


def scales_at_once(layer: Layer) -> bool:
    """Return whether kernels that leave a layer's sums unconverted need short multipliers: it has no more steps, and writes integers."""
    return not (isinstance(layer, Gating) or layer.writes or curve_of(layer) or adds(layer) or layer.integers.addend)


def with_facts(layer: _Layer, **facts: bool) -> _Layer:
    """Return an integer layer with some facts replaced."""
    given: Any = {"integers": replace(layer.integers, **facts)}
    return replace(layer, **given)


def is_depthwise(layer: Layer) -> bool:
    """Return whether a layer has one filter per channel, whose taps `together` judges."""
    return isinstance(layer, Conv2d) and layer.is_depthwise


def together(weight: Array) -> Array:
    """Return the magnitudes of a depthwise layer's weights, HWIO, integers or not, added up by threes of taps: (threes, channels)."""
    taps = np.abs(weight.reshape(-1, weight.shape[-1]), dtype=np.float64)
    return np.asarray(np.add.reduceat(taps, range(0, len(taps), THREE)))


def short_multipliers(multiplier: Array) -> Array:
    """Return the nearest multipliers that are multiples of 1 / `PARTS`, float32, from -1/3 to 1: others are inexact where they are used."""
    parts = np.clip(np.rint(multiplier.astype(np.float64) * PARTS), 128 - PARTS // 3, PARTS)
    return np.asarray((parts / PARTS).astype(np.float32))


def curve_of(layer: Layer) -> str:
    """Return the curve that an integer layer computes; "" for none."""
    clamp = layer.clamp if isinstance(layer, SumLayer) else ""
    return clamp if isinstance(clamp, str) and clamp != LOOKUP else ""


def looks_up(layer: Layer) -> bool:
    """Return whether an integer layer looks up its results."""
    return isinstance(layer, SumLayer) and layer.clamp == LOOKUP


def integer_clamp(clamp: Clamp) -> Clamp:
    """Return the clamp of a layer in integers whose clamp in float32 this is: bounds are values."""
    return LOOKUP if clamp in LOOKED_UP else clamp if isinstance(clamp, str) else NO_CLAMP


def adds(layer: Layer) -> bool:
    """Return whether a layer adds another tensor to its sums."""
    return isinstance(layer, Conv2d) and layer.residual


def largest_results(layer: Layer, parameters: IntegerParameters) -> Array:
    """Return a bound of each channel's |q|, float64 per output channel."""
    x = largest_sums(layer, parameters) * np.abs(parameters.multiplier.astype(np.float64))
    x = x * (HIGHEST - LOWEST) if isinstance(layer, Gating) else x + (HIGHEST - LOWEST) * abs(parameters.scale_side)
    x = x + np.abs(parameters.addend) if layer.integers.addend else x
    factor = 6 * abs(parameters.sixth)
    curve = curve_of(layer)
    return np.asarray(x * factor if curve == "hswish" else np.full_like(x, factor) if curve else x)


def converts_sums(layer: Layer) -> bool:
    """Return whether kernels of a layer convert its sums to floats."""
    return terms(layer) > NARROW_TERMS or layer.integers.wide
