"""Replaces operators by TIR functions: TVM's, but for `argmax` and `argmin`, which return -1 there where all numbers are infinite, and for
lookups of bytes, which become one function with the operators around them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax, te, tirx

from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.operators import INJECTIVE

_Pair = tuple[Any, Any]
#: Number of values of a byte.
_BYTES = 256


def legalize(module: Any) -> Any:
    """Replace all operators of a module by TIR functions."""
    own = {
        "relax.argmax": _legalization("argmax", tirx.GT, -math.inf),
        "relax.argmin": _legalization("argmin", tirx.LT, math.inf),
        "relax.take": _lookup,
    }
    return relax.transform.LegalizeOps(own)(module)


def _legalization(name: str, beats: Callable[[Any, Any], Any], worst: float) -> Callable[[Any, Any], Any]:
    """Return what makes a call a TIR function."""
    best = te.comm_reducer(
        lambda first, second: _better(beats, first, second), lambda place, number: _none(place, number, worst), name=name
    )

    def places(data: Any, axis: Any, kept: bool) -> Any:
        shape = [int(extent) for extent in data.shape]
        over = range(len(shape)) if axis is None else [int(axis) % len(shape)]
        inner = {place: te.reduce_axis((0, shape[place]), f"k{place}") for place in over}
        outer = [1 if place in inner else extent for place, extent in enumerate(shape) if kept or place not in inner]

        def found(*indices: Any) -> Any:
            others = iter(index for place, index in enumerate(indices) if not kept or place not in inner)
            at = [inner[place] if place in inner else next(others) for place in range(len(shape))]
            number: Any = 0
            for place, row in inner.items():
                number = number * shape[place] + row
            return best((tirx.Cast("int64", number), data(*at)), axis=[*inner.values()])

        return te.compute(outer, found, name=f"{name}_with_values")[0]

    def replaced(builder: Any, call: Any) -> Any:
        return builder.call_te(places, call.args[0], call.attrs.axis, bool(call.attrs.keepdims), primfunc_name_hint=name)

    return replaced


def _lookup(builder: Any, call: Any) -> Any:
    """Return what makes a call a TIR function, from a table's value for each byte to others by TVM's rule."""
    table, places = call.args
    if str(places.ty.dtype) != "uint8" or shape_of(table) != [_BYTES]:
        return tvm.ir.Op.get("relax.take").get_attr("FLegalize")(builder, call)

    def looked_up(table: Any, places: Any) -> Any:
        return te.compute(places.shape, lambda *at: table[tirx.Cast("int32", places(*at))], name="lookup")

    return builder.call_te(looked_up, table, places, primfunc_name_hint="lookup", primfunc_attrs={"op_pattern": INJECTIVE})


def _better(beats: Callable[[Any, Any], Any], first: _Pair, second: _Pair) -> _Pair:
    """Return the place and number of a NaN, or else of the number that beats the other; of equal ones, the first."""
    (place, number), (other, rival) = first, second
    stays = tirx.any(beats(number, rival), tirx.all(number.equal(rival), place < other), tirx.isnan(number))
    return tirx.Select(stays, place, other), tirx.Select(stays, number, rival)


def _none(place: str, number: str, worst: float) -> _Pair:
    """Return a place and a number that lose against all others."""
    limit = tirx.min_value if worst < 0 else tirx.max_value
    return tirx.max_value(place), tirx.const(worst, number) if str(number).startswith("float") else limit(number)
