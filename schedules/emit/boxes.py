"""Splits a tensor's index space into boxes in which each condition of a stage is constant: the parts of a concatenation, or the interior
and the border of a pad.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.stages import Expr, Stage, loads_of

#: Most cuts of a dimension, and most boxes; conditions that change more often stay in the kernel.
MOST_CUTS = 256
#: A dimension's part: first index, and number of indices.
Span = tuple[int, int]


def boxes_of(stage: Stage) -> Iterator[tuple[Span, ...]]:
    """Yield the boxes that cover a stage's tensor, in order; the whole tensor if there would be more than `MOST_CUTS`."""
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
    """Return an expression's integer comparisons that load nothing; each minimum or maximum counts as a comparison of its operands."""
    from tvm import tirx
    from tvm_ffi import structural_walk

    comparisons: list[Expr] = []
    structural_walk(value, ((tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.EQ, tirx.NE), comparisons.append))
    structural_walk(value, ((tirx.Max, tirx.Min), lambda node: comparisons.append(node.a < node.b) if _is_integer(node) else None))
    return [comparison for comparison in comparisons if _is_integer(comparison.a) and not loads_of(comparison)]


def _is_integer(value: Expr) -> bool:
    return str(value.ty.dtype) in ("int32", "int64")


def _numbers(value: Expr, values_of: Mapping[Any, npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
    """Evaluate an expression with NumPy, given the values of variables; return `None` if it has other variables or operators."""
    from tvm import tirx

    if isinstance(value, tirx.IntImm):
        return np.array(int(value.value))
    if isinstance(value, tirx.Var):
        return values_of.get(value)
    if isinstance(value, tirx.Cast):
        return _numbers(value.value, values_of)
    function = _FUNCTIONS.get(type(value).__name__)
    if function is None:
        return None
    left, right = _numbers(value.a, values_of), _numbers(value.b, values_of)
    return None if left is None or right is None else np.asarray(function(left, right))


#: NumPy functions by the name of the `tirx` class.
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
