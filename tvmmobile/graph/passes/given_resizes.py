"""Turns resizes with given pixels that no layer computes into one TIR function each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from tvm import te
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmmobile.graph.expressions import constant, operator_of, shape_of
from tvmmobile.graph.passes.rewriting import mutate_main
from tvmmobile.graph.taps import RESIZE, Taps, is_given, taps_of

#: Takes a function from a position along an axis to a value; returns the function from an output position to its value, by that axis's
#: tables.
_Along = Callable[[Callable[[Any], Any], Any, Sequence[Any]], Any]


def given_resizes(module: Any) -> Any:
    """Replace resizes whose pixels are given, which TVM cannot legalise."""

    @mutator
    class Rewriter(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            return _by_tables(self.builder_, call) if operator_of(call) == RESIZE and is_given(call) else call

    return mutate_main(module, Rewriter(module))


def _by_tables(builder: Any, call: Any) -> Any:
    """Return a call of a function that reads pixels and weights from tables and sums columns within rows."""
    data, layout, taps = call.args[0], str(call.attrs.layout), taps_of(call)
    axes, along = [layout.index(name) for name in "HW"], [_along(tap) for tap in taps]
    shape, kind = shape_of(call), str(data.ty.dtype)
    counts = [len(_tables(tap, kind)) for tap in taps]

    def compute(image: Any, *tables: Any) -> Any:
        of_rows, of_columns = tables[: counts[0]], tables[counts[0] :]

        def value(*place: Any) -> Any:
            def pixel(row: Any, column: Any) -> Any:
                return image(*(row if axis == axes[0] else column if axis == axes[1] else at for axis, at in enumerate(place)))

            def column(at: Any) -> Any:
                return along[0](lambda row: pixel(row, at), place[axes[0]], of_rows)

            return along[1](column, place[axes[1]], of_columns)

        return te.compute(shape, value, name="resize")

    tables = [constant(table) for tap in taps for table in _tables(tap, kind)]
    return builder.call_te(compute, data, *tables, primfunc_name_hint="resize2d")


def _tables(taps: Taps, kind: str) -> list[Any]:
    pixels = taps.pixels.astype("int32")
    return [pixels] if taps.copies else [pixels, taps.weights.astype(kind)]


def _along(taps: Taps) -> _Along:
    def copy(value: Callable[[Any], Any], place: Any, tables: Sequence[Any]) -> Any:
        return value(tables[0][place, 0])

    def between(value: Callable[[Any], Any], place: Any, tables: Sequence[Any]) -> Any:
        first, last = (value(tables[0][place, tap]) for tap in (0, 1))
        return first + (last - first) * tables[1][place, 1]

    def total(value: Callable[[Any], Any], place: Any, tables: Sequence[Any]) -> Any:
        return reduce(lambda one, other: one + other, [value(tables[0][place, tap]) * tables[1][place, tap] for tap in range(taps.count)])

    return copy if taps.copies else between if taps.is_linear else total
