"""Facts about Relax expressions, and constants of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvmmobile.graph.precision import FLOAT32


def shape_of(value: Any) -> list[int]:
    """Return the extents of a tensor whose shape is known; none of a scalar."""
    return [int(extent) for extent in value.ty.shape]


def outermost_axis(shape: Sequence[int]) -> int:
    """Return the first axis with more than one place, or the last one."""
    return next((axis for axis, extent in enumerate(shape[:-1]) if extent > 1), len(shape) - 1)


def is_float32(value: Any) -> bool:
    """Return whether a tensor holds float32, which layers compute in before a network gets its precision."""
    return str(value.ty.dtype) == FLOAT32.name


def image_of(value: Any) -> tuple[int, int, int] | None:
    """Return height, width and channels of a tensor that holds one NHWC image in float32; `None` for others."""
    shape = shape_of(value)
    return (shape[1], shape[2], shape[3]) if len(shape) == 4 and shape[0] == 1 and is_float32(value) else None


def operator_of(value: Any) -> str:
    """Return the name of a call's operator, such as `relax.add`; empty for other expressions."""
    return str(getattr(getattr(value, "op", None), "name", ""))


def numbers_of(value: Any) -> Any:
    """Return the array that a constant holds; `None` for what is computed or omitted."""
    import tvm

    return value.value.numpy() if isinstance(value, tvm.ir.GenericConst) else None


def constant(array: Any) -> Any:
    """Return an array as a constant of its own type; Relax would make int32 of int64."""
    from tvm import relax

    return relax.const(array, str(array.dtype))
