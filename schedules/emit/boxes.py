"""The places of a tensor in boxes, in each of which every condition of a stage either holds or does not: the parts of a concatenation, the
inside and the border of a pad.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.stages import Expr, Stage, loads_of

#: Where a dimension is cut at most; conditions that change more often stay in the kernel.
MOST_CUTS = 256
#: A dimension's part: first place, and number of places.
Span = tuple[int, int]


def boxes_of(stage: Stage) -> Iterator[tuple[Span, ...]]:
    """Yield the boxes that cover a stage's tensor, in order; the whole tensor where there would be too many."""
    spans = [_spans(variable, extent, stage.value) for variable, extent in stage.places]
    whole = [[(0, extent)] for _, extent in stage.places]
    yield from itertools.product(*(spans if np.prod([len(parts) for parts in spans]) <= MOST_CUTS else whole))


def _spans(variable: Any, extent: int, value: Expr) -> list[Span]:
    cuts = {0, extent}
    for condition in _conditions(value):
        holds = _numbers(condition, {variable: np.arange(extent)})
        if holds is None or holds.ndim == 0:
            continue
        changes = (np.flatnonzero(holds[1:] != holds[:-1]) + 1).tolist()
        if len(changes) <= MOST_CUTS:
            cuts.update(changes)
    ordered = sorted(cuts)
    return [(first, end - first) for first, end in itertools.pairwise(ordered)]


def _conditions(value: Expr) -> list[Expr]:
    """Return an expression's comparisons of places; minima and maxima compare two."""
    from tvm import tirx
    from tvm_ffi import structural_walk

    found: list[Expr] = []
    structural_walk(value, ((tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.EQ, tirx.NE), found.append))
    structural_walk(value, ((tirx.Max, tirx.Min), lambda one: found.append(one.a < one.b) if _is_integer(one) else None))
    return [one for one in found if _is_integer(one.a) and not loads_of(one)]


def _is_integer(value: Expr) -> bool:
    return str(value.ty.dtype) in ("int32", "int64")


def _numbers(value: Expr, known: Mapping[Any, npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
    """Return an expression's values; `None` where it has other variables or operators."""
    from tvm import tirx

    if isinstance(value, tirx.IntImm):
        return np.array(int(value.value))
    if isinstance(value, tirx.Var):
        return known.get(value)
    if isinstance(value, tirx.Cast):
        return _numbers(value.value, known)
    function = _FUNCTIONS.get(type(value).__name__)
    if function is None:
        return None
    one, other = _numbers(value.a, known), _numbers(value.b, known)
    return None if one is None or other is None else np.asarray(function(one, other))


#: By the name of a class of `tirx`.
_FUNCTIONS = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "FloorDiv": np.floor_divide,
    "FloorMod": np.mod,
    "Max": np.maximum,
    "Min": np.minimum,
    "LT": np.less,
    "LE": np.less_equal,
    "GT": np.greater,
    "GE": np.greater_equal,
    "EQ": np.equal,
    "NE": np.not_equal,
}
