"""`Resize` and `Upsample` of ONNX in Relax: see `onnx/positions.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.expressions import numbers_of, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.networks.own.onnx.positions import CROP, NEAREST, PLACES, SIMPLE, ResizedAxis, ResizeMethod, outside, taps_along
from tvmmobile.networks.resizes import Rule, resized
from tvmmobile.system.errors import UserError

_MODES = ("nearest", "linear", "cubic")
_FIX = "Export it with constant sizes or factors, and with rules that ONNX Runtime computes."
_Attributes = dict[str, Any]


def resize(inputs: Sequence[Any], attrs: _Attributes, opset: int) -> Any:
    """Convert `Resize`, of opset 10 and later.

    Raises:
        UserError: it cannot be computed.
    """
    data, *others = inputs
    roi, scales, sizes = ([None, *others, None] if opset < 11 else [*others, None, None, None])[:3]
    operator = "Resize"
    shape, method = shape_of(data), _method(operator, attrs, opset)
    axes = _axes(operator, attrs, len(shape))
    factors, wanted = _numbers(operator, "scales", scales), _numbers(operator, "sizes", sizes)
    if (factors is None) == (wanted is None):
        raise _refused(operator, "has scales and sizes, or neither")
    extents = [shape[axis] for axis in axes]
    if wanted is not None:
        found = _of_sizes(operator, extents, wanted, _text(attrs, "keep_aspect_ratio_policy", "stretch"))
    else:
        assert factors is not None
        found = _of_factors(operator, extents, factors)
    regions = _numbers(operator, "roi", roi) if method.places == CROP else None
    return _resized(operator, data, method, dict(zip(axes, _with_regions(operator, found, regions), strict=True)), attrs)


def upsample(inputs: Sequence[Any], attrs: _Attributes, opset: int) -> Any:
    """Convert `Upsample`, of opset 7 to 9, which ONNX Runtime rounds as a `Resize` of opset 10.

    Raises:
        UserError: it cannot be computed.
    """
    data, scales = [*inputs, None][:2]
    operator, shape = "Upsample", shape_of(data)
    factors = _numbers(operator, "scales", scales) if scales is not None else attrs.get("scales")
    if factors is None:
        raise _refused(operator, "has no scales")
    if min(factors) < 1:
        raise _refused(operator, "has a scale below 1")
    found = _of_factors(operator, shape, np.asarray(factors))
    return _resized(operator, data, _method(operator, attrs, opset), dict(enumerate(found)), attrs)


def _refused(operator: str, why: str) -> UserError:
    return UserError(f"the network has {operator} that {why}, which is not supported.", _FIX)


def _text(attrs: _Attributes, name: str, default: str) -> str:
    value = attrs.get(name, default)
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _method(operator: str, attrs: _Attributes, opset: int) -> ResizeMethod:
    mode = _text(attrs, "mode", "nearest")
    mode = "linear" if mode == "bilinear" else mode  # as in opsets before 7
    old = opset < 11
    places = "asymmetric" if old else _text(attrs, "coordinate_transformation_mode", "half_pixel")
    nearest = SIMPLE if old else _text(attrs, "nearest_mode", "round_prefer_floor")
    for name, value, known in (
        ("mode", mode, _MODES),
        ("coordinate_transformation_mode", places, PLACES),
        ("nearest_mode", nearest, NEAREST),
    ):
        if value not in known:
            raise _refused(operator, f"has the {name} {value!r}")
    excludes, antialiased = bool(attrs.get("exclude_outside", 0)), bool(attrs.get("antialias", 0))
    if antialiased and mode == "nearest":
        raise _refused(operator, "has antialias with the mode nearest")
    if excludes and mode != "cubic" and not antialiased:
        raise _refused(operator, f"has exclude_outside with the mode {mode}")
    return ResizeMethod(mode, places, nearest, np.float32(attrs.get("cubic_coeff_a", -0.75)), excludes, antialiased)


def _axes(operator: str, attrs: _Attributes, rank: int) -> list[int]:
    """Return the axes that scales, sizes and regions are given for."""
    axes = [int(axis) for axis in attrs.get("axes") or range(rank)]
    if any(not -rank <= axis < rank for axis in axes) or len({axis % rank for axis in axes}) < len(axes):
        raise _refused(operator, f"has the axes {axes} of {rank} dimensions")
    return [axis % rank for axis in axes]


def _numbers(operator: str, name: str, value: Any) -> Array | None:
    """Return the numbers of a constant input; `None` for one that is missing or empty."""
    if isinstance(value, relax.ShapeExpr):
        return np.array([int(extent) for extent in value.values])
    if value is not None and numbers_of(value) is None:
        raise _refused(operator, f"computes its {name} from the input")
    array = np.zeros(0) if value is None else np.ravel(numbers_of(value))
    return array if array.size else None


def _of_factors(operator: str, extents: Sequence[int], factors: Array) -> list[ResizedAxis]:
    if len(factors) != len(extents) or not (np.isfinite(factors).all() and (np.asarray(factors) > 0).all()):
        raise _refused(operator, f"has {len(factors)} scales for {len(extents)} dimensions, or one that is not positive")
    scales = np.asarray(factors, np.float32)
    outputs = [int(factor * np.float32(extent)) for factor, extent in zip(scales, extents, strict=True)]
    if min(outputs) < 1:
        raise _refused(operator, "leaves no pixels")
    return [ResizedAxis(*axis) for axis in zip(extents, outputs, scales, strict=True)]


def _of_sizes(operator: str, extents: Sequence[int], sizes: Array, policy: str) -> list[ResizedAxis]:
    if len(sizes) != len(extents) or min(sizes) < 1:
        raise _refused(operator, f"has {len(sizes)} sizes for {len(extents)} dimensions, or one that is not positive")
    scales = [np.float32(size) / np.float32(extent) for size, extent in zip(sizes, extents, strict=True)]
    if policy != "stretch":
        if policy not in ("not_larger", "not_smaller"):
            raise _refused(operator, f"has the keep_aspect_ratio_policy {policy!r}")
        common = min(scales) if policy == "not_larger" else max(scales)
        scales = [common] * len(scales)
        sizes = np.array([int(np.floor(np.float64(common * np.float32(extent)) + 0.5)) for extent in extents])
        if min(sizes) < 1:
            raise _refused(operator, "leaves no pixels")
    return [ResizedAxis(extent, int(size), scale) for extent, size, scale in zip(extents, sizes, scales, strict=True)]


def _with_regions(operator: str, axes: list[ResizedAxis], regions: Array | None) -> list[ResizedAxis]:
    if regions is None:
        return axes
    if len(regions) != 2 * len(axes):
        raise _refused(operator, f"has {len(regions)} numbers in roi for {len(axes)} dimensions")
    begins, ends = np.asarray(regions, np.float32).reshape(2, -1)
    return [
        ResizedAxis(axis.inputs, axis.outputs, axis.factor, region)
        for axis, region in zip(axes, zip(begins, ends, strict=True), strict=True)
    ]


def _resized(operator: str, data: Any, method: ResizeMethod, axes: Mapping[int, ResizedAxis], attrs: _Attributes) -> Any:
    shape, kind = shape_of(data), str(data.ty.dtype)
    if all(axis.inputs == axis.outputs for axis in axes.values()):
        return data  # as ONNX Runtime does, whatever the factors
    if method.mode != "nearest" and not kind.startswith("float"):
        raise _refused(operator, f"has the mode {method.mode} for {kind}")
    taps = {number: taps_along(method, axis) for number, axis in axes.items()}
    more = {
        "cubic_alpha": float(method.cubic),
        "cubic_exclude": int(method.excludes),
        "extrapolation_value": float(attrs.get("extrapolation_value", 0.0)),
    }
    rounding = {"rounding_method": _text(attrs, "nearest_mode", "round_prefer_floor")} if method.mode == "linear" else {}
    rule = Rule(method.places, "" if method.mode == "linear" else "floor" if method.nearest == SIMPLE else method.nearest, more | rounding)
    result = resized(data, shape, taps, kind, rule)
    for number, axis in axes.items():
        beyond = outside(method, axis)
        if beyond is not None:
            places = beyond.reshape([-1 if place == number else 1 for place in range(len(shape))])
            result = relax.op.where(relax.const(places), relax.const(more["extrapolation_value"], kind), result)
    return result
