"""Rules by which each ONNX operator reads tensors with missing rows, see `onnx/missing_rows.py`.

A rule appends the operator and says where its results have such rows; it returns `False` for what it cannot take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from onnx import helper

from tvmmobile.networks.own.onnx.tensors import attribute
from tvmmobile.networks.own.onnx.varying_nodes import VaryingNodes, VaryingRows, differing

#: The version from which the bounds of a slice are inputs.
_BOUNDS_AS_INPUT = 10

Rule = Callable[[VaryingNodes, Any], bool]


def _follow(into: VaryingNodes, node: Any, names: Sequence[str]) -> dict[str, VaryingRows] | None:
    """Find results with missing rows, by the axis that shrinks with one row less of these operands; `None` if that is unknown."""
    counts, values, shapes = into.with_one_less(names)
    if len(counts) > 1:
        return None
    found = {}
    fewer = into.inferred(node, values, shapes)
    for name, (_, whole) in into.inferred(node, into.values, into.shapes).items():
        _, less = fewer[name]
        if whole is None or less is None or len(whole) != len(less):
            return None
        axes = differing(whole, less)
        if len(axes) > 1:
            return None
        if axes:
            found[name] = VaryingRows(axes[0], *counts)
    return found


def _passed_on(into: VaryingNodes, node: Any, found: Mapping[str, VaryingRows] | None) -> bool:
    if found is None:
        return False
    into.append(node)
    into.rows.update(found)
    return True


def _by_row(into: VaryingNodes, node: Any, names: Sequence[str] | None = None) -> bool:
    """Append a node that computes rows separately, or reads the rows of only these operands."""
    return _passed_on(into, node, _follow(into, node, node.input if names is None else names))


def _by_element(into: VaryingNodes, node: Any) -> bool:
    """Append a node that reads no values derived from numbers of rows."""
    return not any(name in into.fewer and name not in into.rows for name in node.input) and _by_row(into, node)


def _together(into: VaryingNodes, node: Any, number: float | None) -> bool:
    """Append a node that may combine its first operand's rows, where a fill value for the missing ones changes nothing."""
    data = node.input[0]
    found = _follow(into, node, [data]) if data in into.rows else None
    if found == {}:
        if number is None:
            return False
        node.input[0] = into.without_absent(data, number)
    return _passed_on(into, node, found)


def _from_the_end(into: VaryingNodes, places: str, column: int | None = None) -> bool:
    """Return whether constant places, or those in one column of them, are negative: rows are counted from the last one that is there."""
    known = into.values.get(places)
    return known is not None and bool(((known if column is None else known[..., column]) < 0).any())


def _gather(into: VaryingNodes, node: Any) -> bool:
    data, places = node.input
    own = into.rows.get(data)
    if own is not None and own.axis == attribute(node, "axis", 0) % len(into.shapes[data]):
        return not _from_the_end(into, places) and _by_row(into, node, [places])
    return (own is None or places not in into.rows) and _by_row(into, node)


def _gather_nd(into: VaryingNodes, node: Any) -> bool:
    data, places = node.input
    own, chosen, depth = into.rows.get(data), into.rows.get(places), into.shapes.get(places, [0])[-1]
    if attribute(node, "batch_dims", 0) or (chosen is not None and chosen.axis == len(into.shapes[places]) - 1):
        return False
    inside = own is None or own.axis < depth
    if inside and own is not None and _from_the_end(into, places, own.axis):
        return False
    return (inside or chosen is None) and _by_row(into, node, [places if inside else data])


def _gather_elements(into: VaryingNodes, node: Any) -> bool:
    data, places = node.input
    own, chosen = into.rows.get(data), into.rows.get(places)
    along = own is not None and own.axis == attribute(node, "axis", 0) % len(into.shapes[data])
    if (own is not None and own != chosen and not along) or (along and _from_the_end(into, places)):
        return False
    return _by_row(into, node, [places])


def _slice(into: VaryingNodes, node: Any) -> bool:
    data = node.input[0]
    rows = into.rows.get(data)
    if rows is None:
        return _by_row(into, node)
    bounds = _bounds(into, node, len(into.shapes[data]))
    if bounds is None:
        return False
    start, end, step = bounds.get(rows.axis, (0, math.inf, 1))
    if start or step != 1 or end < 0:
        return False
    count = rows.count if end >= into.shapes[data][rows.axis] else into.least(rows.count, into.constant([end]))
    return _passed_on(into, node, {node.output[0]: VaryingRows(rows.axis, count)})


def _bounds(into: VaryingNodes, node: Any, rank: int) -> dict[int, tuple[float, float, float]] | None:
    """Return a slice's start, end and step by axis; `None` if computed."""
    if into.opset < _BOUNDS_AS_INPUT:
        given: list[Any] = [attribute(node, name) for name in ("starts", "ends", "axes")]
    else:
        names = list(node.input[1:])
        if any(name and name not in into.values for name in names):
            return None
        given = [into.values[name].tolist() if name else None for name in names]
    starts, ends, axes, steps = [*given, None, None][:4]
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    return {axis % rank: bounds for axis, *bounds in zip(axes, starts, ends, steps, strict=True)}  # type: ignore[misc]


def _squeeze(into: VaryingNodes, node: Any) -> bool:
    return (attribute(node, "axes") is not None or len(node.input) > 1) and _by_element(into, node)


def _reshape(into: VaryingNodes, node: Any) -> bool:
    """Append a `Reshape`, `Flatten` or `Expand` that keeps the extents' product in front of the axis, and joins only those behind."""
    data = node.input[0]
    if data in into.fewer and data not in into.rows:
        return False
    wanted = into.values.get(node.input[1]) if node.op_type == "Reshape" else None
    if data in into.rows and wanted is not None and node.input[1] not in into.fewer and (wanted > 0).all():
        return _by_row(into, node, ())  # that many are always present
    if not _by_row(into, node) or data not in into.rows:
        return data not in into.rows
    (rows, shape), result = (into.rows[data], into.shapes[data]), into.rows.get(node.output[0])
    if result is None:
        return False
    joined, rest = divmod(into.shapes[node.output[0]][result.axis], shape[rows.axis])
    if node.op_type == "Expand" or rest:
        return (joined, rest) == (1, 0)
    if joined > 1:
        into.rows[node.output[0]] = VaryingRows(result.axis, into.times(rows.count, joined))
    return math.prod(into.shapes[node.output[0]][: result.axis]) == math.prod(shape[: rows.axis])


def _pad(into: VaryingNodes, node: Any) -> bool:
    """Append a `Pad` that fills rows up to a fixed number: the missing ones get its constant."""
    data, amounts, *given = node.input
    rows, less = into.rows.get(data), into.fewer.get(amounts)
    if rows is None or less is None or len(given) > 1 or attribute(node, "mode", b"constant") != b"constant":
        return False
    of, times = into.multiples.get(rows.count, (rows.count, 1))
    number, whole = into.values.get(given[0]) if given and given[0] else 0.0, into.values[amounts]
    grown = times * (np.arange(len(whole)) == len(into.shapes[data]) + rows.axis)
    if number is None or less[1] != of or (whole < 0).any() or not np.array_equal(less[0] - whole, grown):
        return False
    node.input[0], node.input[1] = into.without_absent(data, float(number)), into.constant(whole)
    return _passed_on(into, node, {})


def _concat(into: VaryingNodes, node: Any) -> bool:
    if any(name not in into.shapes for name in node.input):
        return False
    axis = attribute(node, "axis") % len(into.shapes[node.input[0]])
    along = {into.rows[name].axis == axis for name in node.input if name in into.rows}
    if along != {True}:
        return along == {False} and _by_row(into, node)
    extents = tuple((into.rows[name].count if name in into.rows else "", into.shapes[name][axis]) for name in node.input)
    places = into.joined_places(extents)
    joined = into.emit("Concat", node.input, axis=axis)
    chosen = helper.make_node("Gather", [joined, places], node.output, node.name, axis=axis)
    return _passed_on(into, chosen, {node.output[0]: VaryingRows(axis, into.rows[places].count)})


def _split(into: VaryingNodes, node: Any) -> bool:
    rows, rank = into.rows.get(node.input[0]), len(into.shapes[node.input[0]])
    return rows is not None and attribute(node, "axis", 0) % rank != rows.axis and _by_row(into, node)


def _along_axis(default: int, into: VaryingNodes, node: Any) -> bool:
    """Append an operator along one axis that keeps all extents; missing rows come last, or are the smallest."""
    data = node.input[0]
    rows, backwards = into.rows.get(data), bool(attribute(node, "reverse", 0))
    named = into.values.get(node.input[1]) if node.op_type == "CumSum" else attribute(node, "axis", default)
    if rows is None or named is None:
        return False
    if int(named) % len(into.shapes[data]) == rows.axis and (node.op_type != "CumSum" or backwards):
        node.input[0] = into.without_absent(data, 0.0 if backwards else -math.inf)
    return _passed_on(into, node, {node.output[0]: rows})


def _extreme(into: VaryingNodes, node: Any) -> bool:
    last = attribute(node, "select_last_index", 0)
    return _together(into, node, None if last else -math.inf if node.op_type == "ArgMax" else math.inf)


def _top_k(into: VaryingNodes, node: Any) -> bool:
    data, number = node.input[0], into.values.get(node.input[1]) if len(node.input) > 1 else None
    if data not in into.rows or number is None:
        return data not in into.rows and _by_row(into, node)
    rows, shape, count = into.rows[data], into.shapes[data], int(number.reshape(-1)[0])
    if attribute(node, "axis", -1) % len(shape) != rows.axis:
        return _passed_on(into, node, dict.fromkeys(node.output, rows))
    if node.input[1] in into.fewer and count != shape[rows.axis]:
        return False
    node.input[0] = into.without_absent(data, -math.inf if attribute(node, "largest", 1) else math.inf)
    return _passed_on(into, node, dict.fromkeys(node.output, VaryingRows(rows.axis, into.least(rows.count, into.constant([count])))))


def _product(into: VaryingNodes, node: Any) -> bool:
    """Append `MatMul` and `Gemm` of rows with a matrix, which compute rows separately."""
    data, *others = node.input
    if any(math.prod(into.shapes.get(name, ())[:-1]) != 1 for name in others[1:]):
        return False  # a bias for each row has as many as there may be
    return data in into.rows and not any(name in into.rows for name in others) and _by_row(into, node)


#: Operators that compute each element from those at its place.
_ELEMENT_WISE = (
    "Abs Acos Add And Asin Atan Cast Ceil Clip Cos Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity "
    "IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin "
    "Softplus Softsign Sqrt Sub Sum Tan Tanh ThresholdedRelu Where Xor"
)
#: Reductions, and what changes nothing in them; a mean has no such number.
_REDUCTIONS = {
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare"), 0.0),
    **dict.fromkeys(("ReduceLogSumExp", "ReduceMax"), -math.inf),
    "ReduceMean": None,
    "ReduceMin": math.inf,
    "ReduceProd": 1.0,
}
#: By operator.
RULES: Mapping[str, Rule] = {
    **dict.fromkeys((*_ELEMENT_WISE.split(), "Transpose", "Unsqueeze"), _by_element),
    **dict.fromkeys(("ArgMax", "ArgMin"), _extreme),
    **dict.fromkeys(("ConstantOfShape", "Range"), _by_row),
    **dict.fromkeys(("Expand", "Flatten", "Reshape"), _reshape),
    **dict.fromkeys(("Gemm", "MatMul"), _product),
    **dict.fromkeys(("LogSoftmax", "Softmax"), partial(_along_axis, -1)),
    **{name: partial(_together, number=number) for name, number in _REDUCTIONS.items()},
    "Concat": _concat,
    "CumSum": partial(_along_axis, 0),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "TopK": _top_k,
}
