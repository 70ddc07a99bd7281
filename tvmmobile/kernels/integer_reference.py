"""Computes reference outputs of integer layers, as docs/int8-arithmetic.md defines them, and draws random constants for them.

Layer kinds compute the sums (`IntegerLayer.integer_sums`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.integers import HIGHEST, LARGEST_UNSATURATED, LEAST_CONVERTED_SUM, LOWEST, TABLE, IntegerParameters, short_multipliers
from tvmmobile.graph.layers import Array, IntegerLayer, Layer
from tvmmobile.graph.precision import UINT8

#: Standard deviation of int8 weights that were scaled by the largest of a few hundred.
_WEIGHTS = 42.0


def random_integers(layer: Layer, generator: np.random.Generator) -> IntegerParameters:
    """Draw constants with random zero points, for which evenly spread inputs lead to outputs over the whole range of int8 and beyond.

    Bounds and sums comply with the layer's facts `bounded` and `wide`.
    """
    assert isinstance(layer, IntegerLayer)
    channels = layer.output_shape[-1]
    weight = np.rint(np.clip(generator.normal(0.0, _WEIGHTS, layer.weight_shape), -HIGHEST, HIGHEST)).astype(np.int8)
    zero_in, zero_out = (int(zero) for zero in generator.integers(LOWEST, HIGHEST + 1, 2))
    spread = 74.0 * np.sqrt(layer.terms) * (_WEIGHTS if weight.size else 1.0)
    bias = generator.normal(0.0, spread / 2, channels).astype(np.int32)
    if layer.has_gate:
        bias[:], spread = -zero_in, spread * 74.0
    # Most arguments of a curve are where it bends.
    reach = (2.0, 5.0) if layer.curve else (40.0, 120.0)
    multiplier = (generator.uniform(*reach, channels) / spread).astype(np.float32)
    bounds = sorted(int(bound) for bound in generator.integers(LOWEST, HIGHEST + 1, 2))
    bounds = bounds if layer.integers.bounded else [LOWEST, HIGHEST]
    found = IntegerParameters(
        weight,
        bias,
        multiplier=multiplier,
        zero_in=zero_in,
        zero_out=zero_out,
        low=bounds[0],
        high=bounds[1],
        per_scale_in=float(np.float32(generator.uniform(20.0, 60.0))),
        zero_side=int(generator.integers(LOWEST, HIGHEST + 1)) * bool(layer.side_shapes),
        scale_side=float(np.float32(generator.uniform(0.3, 1.2) / (100.0 if layer.curve else 1.0))) * layer.residual,
        sixth=float(np.float32(generator.uniform(5.0, 30.0))) * bool(layer.curve),
    )
    if layer.looks_up:
        found = replace(found, table=generator.integers(LOWEST, HIGHEST + 1, TABLE).astype(np.int8))
    if layer.integers.addend:
        found = replace(found, addend=(generator.uniform(-0.5, 0.5, channels) * multiplier).astype(np.float32))
    if not layer.converts_sums:
        room = LEAST_CONVERTED_SUM - 1 - (layer.largest_sums(found) - np.abs(bias))
        np.clip(bias, -room, room, out=bias, casting="unsafe")
        most = layer.largest_results(found).max() / LARGEST_UNSATURATED
        multiplier = (multiplier / max(most, 1.0)).astype(np.float32)
        multiplier = short_multipliers(multiplier) if layer.scales_at_once else multiplier
        found = replace(found, multiplier=multiplier, zero_out=zero_out if layer.integers.addend else zero_out // 2 * 2)
    return found


def quantise(data: Array, per_scale: float, zero: int) -> npt.NDArray[np.int8]:
    """Quantise float32 numbers to int8; infinities become the bounds.

    Args:
        per_scale: reciprocal of the scale.
        zero: zero point.
    """
    whole = np.rint(data.astype(np.float64) * np.float64(np.float32(per_scale)))
    stored: npt.NDArray[np.int8] = np.clip(whole + zero, LOWEST, HIGHEST).astype(np.int8)
    return stored


def signed(data: Array) -> npt.NDArray[np.int8]:
    """Convert uint8 to int8 by subtracting 128."""
    lower: npt.NDArray[np.int8] = np.bitwise_xor(data, np.uint8(128)).view(np.int8)
    return lower


def requantise(
    sums: npt.NDArray[np.int64], constants: IntegerParameters, curve: str = "", residual: Array | None = None
) -> npt.NDArray[np.int8]:
    """Requantise sums to int8.

    Args:
        curve: curve of `graph.integers.INTEGER_CURVES` to apply; "" for none.
        residual: int8 tensor to add.
    """
    numbers = sums.astype(np.float32)
    if curve or residual is not None or constants.addend.size:
        products = _curved(fused(numbers, constants.multiplier, _side(residual, constants)), curve, constants)
    else:
        products = numbers.astype(np.float64)
        products *= constants.multiplier.astype(np.float64)
    # In place: these arrays are larger than the caches.
    np.rint(products, out=products)
    products += constants.zero_out
    stored: npt.NDArray[np.int8] = np.clip(products, constants.low, constants.high, out=products).astype(np.int8)
    return constants.table[stored.view(np.uint8)] if constants.table.size else stored


def _side(residual: Array | None, constants: IntegerParameters) -> Array:
    """Return the number that is added to the product of sum and multiplier, float32."""
    addend = constants.addend if constants.addend.size else np.zeros(1, np.float32)
    if residual is None:
        return addend
    return fused(residual.astype(np.float32) - np.float32(constants.zero_side), np.float32(constants.scale_side), addend)


def _curved(x: Array, curve: str, constants: IntegerParameters) -> Array:
    """Apply a curve to x, float32; the result, before rounding, is exact in float64."""
    if not curve:
        return x.astype(np.float64)
    sixth = np.float32(constants.sixth)
    inside = np.clip(fused(x, sixth, np.float32(3) * sixth), np.float32(0), np.float32(6) * sixth).astype(np.float64)
    return np.asarray(inside * x.astype(np.float64) if curve == "hswish" else inside)


def fused(a: Array, b: Array | np.float32, c: Array | np.float32) -> Array:
    """Return a · b + c of float32 numbers, rounded once to float32.

    The product is exact in float64. The sum is rounded to odd in float64, so that rounding it to float32 gives the same result as rounding
    the exact sum (Boldo and Melquiond 2008, Emulation of FMA and correctly rounded sums).
    """
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = np.asarray(product + addend)
    back = total - product
    error = (product - (total - back)) + (addend - back)
    even = (total.view(np.int64) & 1) == 0
    return np.where((error != 0) & even, np.nextafter(total, np.copysign(np.inf, error)), total).astype(np.float32)


def compute_integers(layer: Layer, data: Array, constants: IntegerParameters, side: Mapping[str, Array] = MappingProxyType({})) -> Array:
    """Compute an integer layer's output: int8, or float32 if the layer writes that.

    Args:
        data: first input, in the type that the layer reads.
        side: int8 tensors of `side_shapes`, by name.
    """
    assert isinstance(layer, IntegerLayer)
    if reads := layer.reads:
        data = signed(data) if reads == UINT8.name else quantise(data, constants.per_scale_in, constants.zero_in)
    sums = layer.integer_sums(layer.whole(data, side), constants)
    if layer.has_gate:
        factors = side["gate"].astype(np.float32) - np.float32(constants.zero_side)
        constants = replace(constants, multiplier=factors * constants.multiplier)
    if layer.writes:
        return fused(sums.astype(np.float32), constants.multiplier, _side(None, constants))
    return requantise(sums, constants, layer.curve, side.get("residual")).reshape(-1, *layer.output_shape[1:])
