"""Facts about Relax expressions, and constants of arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tvmmobile.graph.parameters import Array
from tvmmobile.graph.precision import FLOAT32

#: The operator whose result is its first argument with another shape; it costs nothing at run time.
VIEW = "relax.reshape"
#: The axes of an image from channels first to channels last, and back.
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def shape_of(value: Any) -> list[int]:
    """Return the extents of a tensor with a known shape; a scalar has none."""
    return [int(extent) for extent in value.ty.shape]


def outermost_axis(shape: Sequence[int]) -> int:
    """Return the first axis with more than one place, or the last one."""
    return next((axis for axis, extent in enumerate(shape[:-1]) if extent > 1), len(shape) - 1)


def is_float32(value: Any) -> bool:
    """Return whether a tensor holds float32, the type of layers before a network gets its precision."""
    return str(value.ty.dtype) == FLOAT32.name


def image_of(value: Any) -> tuple[int, int, int] | None:
    """Return height, width and channels of a tensor that holds one NHWC image in float32; `None` for others."""
    shape = shape_of(value)
    return (shape[1], shape[2], shape[3]) if len(shape) == 4 and shape[0] == 1 and is_float32(value) else None


def operator_of(value: Any) -> str:
    """Return the name of a call's operator, such as `relax.add`; empty for other expressions."""
    return str(getattr(getattr(value, "op", None), "name", ""))


def numbers_of(value: Any) -> Any:
    """Return a constant's array; `None` for a computed or omitted value."""
    import tvm

    return value.value.numpy() if isinstance(value, tvm.ir.GenericConst) else None


def constant(array: Any) -> Any:
    """Return an array as a constant of its own type; Relax would turn int64 into int32."""
    from tvm import relax

    return relax.const(array, str(array.dtype))


def variables_of(value: Any) -> Iterator[Any]:
    """Yield variables that an expression reads."""
    from tvm import relax

    if isinstance(value, relax.Var):
        yield value
    elif isinstance(value, relax.TupleGetItem):
        yield from variables_of(value.tuple_value)
    else:
        for part in (*getattr(value, "args", ()), *getattr(value, "fields", ())):
            yield from variables_of(part)


def viewed(value: Any) -> Any:
    """Return the variable or constant that a view or an alias shows; `None` for other values."""
    from tvm import relax

    if isinstance(value, relax.Var):
        return value
    return value.args[0] if operator_of(value) == VIEW else None


def view_of(value: Any, source: Any) -> Any:
    """Return the same view or alias of another source."""
    from tvm import relax

    return source if isinstance(value, relax.Var) else relax.Call(value.op, [source, *value.args[1:]], value.attrs)


def permutation_source(value: Any, axes: Sequence[int]) -> Any:
    """Return the variable that a permutation with these axes reads; `None` for other values."""
    if operator_of(value) != "relax.permute_dims" or value.attrs.axes is None:
        return None
    return value.args[0] if tuple(map(int, value.attrs.axes)) == tuple(axes) else None


def swaps_last(permutation: Any) -> bool:
    """Return whether a `permute_dims` swaps the last two dimensions and no others."""
    rank, axes = len(shape_of(permutation)), permutation.attrs.axes
    return axes is not None and [int(axis) for axis in axes] == [*range(rank - 2), rank - 1, rank - 2]


def constant_of(value: Any, values: Mapping[Any, Any]) -> Array | None:
    """Return the numbers of a constant or a view of one; `None` for computed values.

    Args:
        values: values of variables.
    """
    import tvm

    value = values.get(value, value)
    if operator_of(value) == VIEW and isinstance(value.args[0], tvm.ir.GenericConst):
        return np.asarray(value.args[0].value.numpy().reshape(shape_of(value)))
    return np.asarray(value.value.numpy()) if isinstance(value, tvm.ir.GenericConst) else None


def holds(constant: Any, number: float) -> bool:
    """Return whether a constant equals that number up to rounding; zero must match exactly, since `log(x + 1e-12)` is finite."""
    value = constant.value.numpy()
    return value.size == 1 and math.isclose(float(value.item()), number, rel_tol=1e-6)
