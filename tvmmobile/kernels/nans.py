"""Makes NaNs and infinities behave as in PyTorch: FMAX and FMIN return NaN if an operand is NaN.

TVM compares and selects instead, which loses a NaN in one of the operands; LLVM makes FMAXNM of that or, if both may be NaN, two
instructions.
"""

from __future__ import annotations

import math
from typing import Any


def propagate_nans() -> Any:
    """Return a pass that replaces floating-point maximum and minimum by LLVM's intrinsics for those of IEEE 754-2019."""
    import tvm
    from tvm import tirx
    from tvm_ffi import structural_map

    replacements = [(tirx.Max, _replaced_by("llvm.maximum")), (tirx.Min, _replaced_by("llvm.minimum"))]

    @tvm.tirx.transform.prim_func_pass(opt_level=0)  # type: ignore[untyped-decorator]
    def replace(function: Any, _module: Any, _context: Any) -> Any:
        return function.with_body(structural_map(function.body, replacements, order="post"))

    return replace


def _replaced_by(intrinsic: str) -> Any:
    from tvm import tirx

    def replaced(extremum: Any) -> Any:
        kind = str(extremum.ty.dtype)
        return tirx.call_llvm_pure_intrin(kind, intrinsic, extremum.a, extremum.b) if kind.startswith("float") else extremum

    return replaced


def begin_with_infinity() -> Any:
    """Return a pass that makes maximum and minimum reductions start with an infinity, instead of TVM's largest finite number."""
    import tvm
    from tvm import tirx
    from tvm_ffi import structural_map, structural_walk

    def started(store: Any, extrema: list[Any]) -> Any:
        first = store.value
        if not isinstance(first, tirx.FloatImm) or abs(first.value) != float(tirx.max_value(first.ty.dtype).value):
            return store
        if not any(store.buffer.same_as(buffer) for buffer in extrema):
            return store
        return tirx.BufferStore(store.buffer, tirx.FloatImm(first.ty.dtype, math.copysign(math.inf, first.value)), store.indices)

    @tvm.tirx.transform.prim_func_pass(opt_level=0)  # type: ignore[untyped-decorator]
    def replace(function: Any, _module: Any, _context: Any) -> Any:
        extrema: list[Any] = []

        def note(store: Any) -> None:
            if isinstance(store.value, tirx.Max | tirx.Min):
                extrema.append(store.buffer)

        structural_walk(function.body, (tirx.BufferStore, note))
        if not extrema:
            return function
        return function.with_body(structural_map(function.body, (tirx.BufferStore, lambda store: started(store, extrema)), order="post"))

    return replace
