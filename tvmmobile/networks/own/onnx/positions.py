"""Computes the input pixels of ONNX's `Resize` and `Upsample` along one axis as ONNX Runtime does: in float32 and in its order of
operations, since rounding decides which of two pixels is nearest. ONNX Runtime leaves an axis with factor 1 unchanged, whatever the rules
say, and in the nearest mode of older operators rounds as before opset 11.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.layers import Array
from tvmmobile.graph.taps import Taps, between, copied

_Floats = npt.NDArray[np.float32]
_ONE, _HALF = np.float32(1), np.float32(0.5)
#: ONNX Runtime's `round_prefer_ceil` takes for a half what is so near to one; other modes do not.
_ABOUT_HALF = np.float64(1e-6)
#: `nearest_mode` of operators that have none: towards zero, but up where an axis becomes shorter.
SIMPLE = "simple"
CROP = "tf_crop_and_resize"


@dataclass(frozen=True)
class ResizedAxis:
    """One axis that is resized.

    Attributes:
        inputs, outputs: pixels.
        factor: outputs for each input, not rounded.
        region: beginning and end of the part that `tf_crop_and_resize` takes, as shares of the input.
    """

    inputs: int
    outputs: int
    factor: np.float32
    region: tuple[np.float32, np.float32] = (np.float32(0), _ONE)


@dataclass(frozen=True)
class ResizeMethod:
    """The rules by which positions become sums of pixels.

    Attributes:
        mode: `nearest`, `linear` or `cubic`.
        places: `coordinate_transformation_mode`.
        nearest: `nearest_mode`, or `SIMPLE`.
        cubic: `cubic_coeff_a`.
        excludes: `exclude_outside`.
        antialiased: `antialias`.
    """

    mode: str
    places: str
    nearest: str = "round_prefer_floor"
    cubic: np.float32 = np.float32(-0.75)  # noqa: RUF009
    excludes: bool = False
    antialiased: bool = False


def positions(places: str, axis: ResizedAxis) -> _Floats:
    """Return the position of each output pixel in the input, in pixels; raise `KeyError` for an unknown rule."""
    if axis.factor == 1:
        return np.arange(axis.outputs, dtype=np.float32)
    return np.asarray(_PLACES[places](np.arange(axis.outputs, dtype=np.float32), axis), np.float32)


def _half_pixel(x: _Floats, axis: ResizedAxis) -> _Floats:
    return (x + _HALF) / axis.factor - _HALF


def _symmetric(x: _Floats, axis: ResizedAxis) -> _Floats:
    """Return positions in double precision where ONNX Runtime's literals are."""
    adjustment = np.float32(axis.outputs) / (axis.factor * np.float32(axis.inputs))
    offset = np.float32(axis.inputs) / np.float32(2) * (_ONE - adjustment)
    return (np.float64(offset) + (x.astype(np.float64) + 0.5) / np.float64(axis.factor) - 0.5).astype(np.float32)


def _crop(x: _Floats, axis: ResizedAxis) -> _Floats:
    (begin, end), last = axis.region, np.float32(axis.inputs - 1)
    if axis.outputs == 1:
        return np.full_like(x, 0.5 * float(begin + end) * float(last))
    return begin * last + (x * (end - begin) * last) / np.float32(axis.outputs - 1)


_PLACES: dict[str, Callable[[_Floats, ResizedAxis], _Floats]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": lambda x, axis: _half_pixel(x, axis) if axis.outputs > 1 else 0 * x,
    "align_corners": lambda x, axis: x * np.float32(axis.inputs - 1) / np.float32(axis.outputs - 1) if axis.outputs > 1 else 0 * x,
    "asymmetric": lambda x, axis: x / axis.factor,
    "tf_half_pixel_for_nn": lambda x, axis: (x + _HALF) / axis.factor,
    CROP: _crop,
}
PLACES = tuple(_PLACES)


def _halves_up(x: Array) -> Array:
    """Round halves away from zero, in double precision, in which the sum is exact."""
    rounded: Array = np.trunc(x.astype(np.float64) + np.copysign(0.5, x))
    return rounded


_NEAREST: dict[str, Callable[[Array, ResizedAxis], Array]] = {
    SIMPLE: lambda x, axis: np.ceil(x) if axis.factor < 1 else np.trunc(x),
    "round_prefer_floor": lambda x, axis: np.where(x == np.trunc(x) + _HALF, np.floor(x), _halves_up(x)),  # positive halves towards zero
    "round_prefer_ceil": lambda x, axis: _halves_up(x + np.copysign(_ABOUT_HALF, x)),
    "floor": lambda x, axis: np.floor(x),
    "ceil": lambda x, axis: np.ceil(x),
}
NEAREST = tuple(_NEAREST)


def outside(method: ResizeMethod, axis: ResizedAxis) -> Array | None:
    """Return the output pixels outside the input, which have a value of their own; `None` if there are none."""
    if method.places != CROP:
        return None
    found = positions(method.places, axis)
    beyond = (found < 0) | (found > axis.inputs - 1)
    return beyond if beyond.any() else None


def taps_along(method: ResizeMethod, axis: ResizedAxis) -> Taps:
    """Return the weighted input pixels of each output pixel; raise `KeyError` for an unknown rule."""
    if method.antialiased:
        return _antialiased(method, axis)
    found = positions(method.places, axis)
    if method.mode == "nearest":
        return copied(np.clip(_NEAREST[method.nearest](found, axis), 0, axis.inputs - 1))
    if method.mode == "linear":
        inside = np.clip(found, 0, np.float32(axis.inputs - 1))
        first = np.floor(inside)
        return between(first, inside - first, axis.inputs)
    first = np.floor(found)
    weights = np.stack(_cubic(found - first, method.cubic), 1)
    pixels = first.astype(np.int64)[:, None] + np.arange(-1, 3)
    if method.excludes:
        weights = np.where((pixels >= 0) & (pixels < axis.inputs), weights, np.float32(0))
        weights = weights / weights.sum(1, keepdims=True, dtype=np.float32)
    return Taps(np.clip(pixels, 0, axis.inputs - 1), weights.astype(np.float32)).without_zeros()


def _cubic(share: _Floats, a: np.float32) -> list[_Floats]:
    """Return the weights of two pixels before and two after a position, by R. Keys, Cubic convolution interpolation (1981)."""
    two, three, four, five, eight = map(np.float32, (2, 3, 4, 5, 8))

    def near(x: _Floats) -> _Floats:
        return ((a + two) * x - (a + three)) * x * x + _ONE

    def far(x: _Floats) -> _Floats:
        return ((a * x - five * a) * x + eight * a) * x - four * a

    return [far(share + _ONE), near(share), near(_ONE - share), far(two - share)]


def _antialiased(method: ResizeMethod, axis: ResizedAxis) -> Taps:
    """Return a filter as wide as an output pixel where an axis becomes shorter; weights outside go to the border pixel unless excluded."""
    if axis.inputs == axis.outputs or axis.factor == 1:  # ONNX Runtime copies then
        return copied(np.arange(axis.inputs))
    step = _ONE / axis.factor
    reach = np.float32(1 if method.mode == "linear" else 2) * max(step, _ONE)
    window = 2 * math.ceil(reach) + 1
    centres = _HALF + positions(method.places, axis)
    first = np.floor(centres - reach + _HALF).astype(np.int64)
    counts = np.clip(np.floor(centres + reach + _HALF).astype(np.int64) - first, 0, window)
    pixels = first[:, None] + np.arange(window)
    distances = (pixels.astype(np.float32) - centres[:, None] + _HALF) * (_ONE / step if step >= 1 else _ONE)
    weights = np.where(np.arange(window) < counts[:, None], _filter(method, np.abs(distances)), np.float32(0))
    if method.excludes:
        weights = np.where((pixels >= 0) & (pixels < axis.inputs), weights, np.float32(0))
    total = weights.sum(1, keepdims=True, dtype=np.float32)
    return Taps(np.clip(pixels, 0, axis.inputs - 1), (weights / np.where(total == 0, _ONE, total)).astype(np.float32)).without_zeros()


def _filter(method: ResizeMethod, x: _Floats) -> _Floats:
    if method.mode == "linear":
        shares: _Floats = np.maximum(_ONE - x, np.float32(0))
        return shares
    _, near, _, _ = _cubic(x, method.cubic)
    _, _, _, far = _cubic(np.float32(2) - x, method.cubic)
    return np.where(x < 1, near, np.where(x < 2, far, np.float32(0)))
