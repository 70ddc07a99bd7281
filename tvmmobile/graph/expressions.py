"""Relax expressions: what they are, and constants of arrays."""

from __future__ import annotations

from typing import Any


def shape_of(value: Any) -> list[int]:
    """The extents of a tensor whose shape is known; none of a scalar."""
    return [int(extent) for extent in value.ty.shape]


def operator_of(value: Any) -> str:
    """The name of a call's operator, such as `relax.add`; empty for other expressions."""
    return str(getattr(getattr(value, "op", None), "name", ""))


def constant(array: Any) -> Any:
    """An array as a constant of its own type; Relax would make int32 of int64."""
    from tvm import relax

    return relax.const(array, str(array.dtype))
