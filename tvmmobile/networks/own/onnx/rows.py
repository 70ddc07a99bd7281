"""Rules by which each ONNX operator reads tensors with missing rows, see `onnx/varying.py`.

A rule appends the operator and says where its results have such rows; it returns `False` for what it cannot take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvmmobile.networks.own.onnx.tensors import attribute

if TYPE_CHECKING:
    from tvmmobile.networks.own.onnx.varying import Rewriting

#: Versions from which axes, and the bounds of a slice, are inputs: `Squeeze` and `ReduceSum`, other reductions, `Slice`.
_AXES_AS_INPUT, _REDUCED_AXES_AS_INPUT, _BOUNDS_AS_INPUT = 13, 18, 10


@dataclass(frozen=True)
class Rows:
    """The axis of a tensor along which only some places are there: the first ones, as many as the int64 tensor `count` `[1]` says."""

    axis: int
    count: str


Rule = Callable[["Rewriting", Any], bool]


def _passed_on(into: Rewriting, node: Any, axis: int, count: str) -> bool:
    """Append a node whose results have these rows."""
    into.append(node)
    for name in filter(None, node.output):
        if not 0 <= axis < len(into.shapes.get(name, ())):
            return False
        into.rows[name] = Rows(axis, count)
    return True


def _static(into: Rewriting, node: Any) -> bool:
    """Append a node whose results have all rows."""
    into.append(node)
    return True


def _known(into: Rewriting, names: Sequence[str]) -> bool:
    """Return whether the shapes of tensors are known."""
    return all(name in into.shapes for name in names if name)


def _by_element(into: Rewriting, node: Any) -> bool:
    names = [name for name in node.input if name]
    if not _known(into, names) or any(name in into.fewer and name not in into.rows for name in names):
        return False
    rank = max(len(into.shapes[name]) for name in names)
    found = {Rows(into.rows[name].axis + rank - len(into.shapes[name]), into.rows[name].count) for name in names if name in into.rows}
    return len(found) == 1 and all(_passed_on(into, node, rows.axis, rows.count) for rows in found)


def _gather(into: Rewriting, node: Any) -> bool:
    data, places = node.input
    if not _known(into, node.input):
        return False
    axis, inner = attribute(node, "axis", 0) % len(into.shapes[data]), len(into.shapes[places])
    own, chosen = into.rows.get(data), into.rows.get(places)
    if own is None or own.axis == axis:
        if own is not None and places in into.values and (into.values[places] < 0).any():
            return False  # counted from the last row that is there
        return _static(into, node) if chosen is None else _passed_on(into, node, axis + chosen.axis, chosen.count)
    return chosen is None and _passed_on(into, node, own.axis if own.axis < axis else own.axis + inner - 1, own.count)


def _gather_nd(into: Rewriting, node: Any) -> bool:
    data, places = node.input
    if not _known(into, node.input) or attribute(node, "batch_dims", 0):
        return False
    own, chosen, shape = into.rows.get(data), into.rows.get(places), into.shapes[places]
    if own is None or own.axis < shape[-1]:
        return _static(into, node) if chosen is None else chosen.axis < len(shape) - 1 and _passed_on(into, node, chosen.axis, chosen.count)
    return chosen is None and _passed_on(into, node, len(shape) - 1 + own.axis - shape[-1], own.count)


def _gather_elements(into: Rewriting, node: Any) -> bool:
    data, places = node.input
    if not _known(into, node.input):
        return False
    axis, own, chosen = attribute(node, "axis", 0) % len(into.shapes[data]), into.rows.get(data), into.rows.get(places)
    if own is not None and own.axis != axis and own != chosen:
        return False
    return _static(into, node) if chosen is None else _passed_on(into, node, chosen.axis, chosen.count)


def _slice(into: Rewriting, node: Any) -> bool:
    data = node.input[0]
    rows = into.rows.get(data)
    if rows is None:
        return _of_shape(into, node)
    bounds = _bounds(into, node, len(into.shapes[data]))
    if bounds is None:
        return False
    if rows.axis not in bounds:
        return _passed_on(into, node, rows.axis, rows.count)
    start, end, step = bounds[rows.axis]
    if start or step != 1 or end < 0:
        return False
    return _passed_on(
        into, node, rows.axis, rows.count if end >= into.shapes[data][rows.axis] else into.least(rows.count, into.constant([end]))
    )


def _bounds(into: Rewriting, node: Any, rank: int) -> dict[int, tuple[int, int, int]] | None:
    """Start, end and step of a slice, by axis; `None` where they are computed."""
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


def _axes(into: Rewriting, node: Any, since: int) -> list[int] | None:
    """Axes that an operator names; `None` where it names none."""
    if into.opset < since:
        return attribute(node, "axes")  # type: ignore[no-any-return]
    named = node.input[1] if len(node.input) > 1 else ""
    return into.values[named].reshape(-1).tolist() if named in into.values else None


def _squeeze(into: Rewriting, node: Any) -> bool:
    data = node.input[0]
    axes, rows = _axes(into, node, _AXES_AS_INPUT), into.rows.get(data)
    if axes is None or rows is None:
        return False
    gone = {axis % len(into.shapes[data]) for axis in axes}
    return rows.axis not in gone and _passed_on(into, node, rows.axis - sum(axis < rows.axis for axis in gone), rows.count)


def _unsqueeze(into: Rewriting, node: Any) -> bool:
    data = node.input[0]
    axes, rows = _axes(into, node, _AXES_AS_INPUT), into.rows.get(data)
    if axes is None or rows is None:
        return False
    rank = len(into.shapes[data]) + len(axes)
    left = [axis for axis in range(rank) if axis not in {axis % rank for axis in axes}]
    return _passed_on(into, node, left[rows.axis], rows.count)


def _transpose(into: Rewriting, node: Any) -> bool:
    rows = into.rows[node.input[0]]
    order = list(attribute(node, "perm", range(len(into.shapes[node.input[0]]))[::-1]))
    return _passed_on(into, node, order.index(rows.axis), rows.count)


def _reshape(into: Rewriting, node: Any) -> bool:
    """Append a `Reshape`, `Flatten` or `Expand` that keeps the axis's extent and the product of those in front of it."""
    data = node.input[0]
    if data not in into.rows:
        return _of_shape(into, node)
    wanted = into.values.get(node.input[1]) if node.op_type == "Reshape" else None
    if wanted is not None and node.input[1] not in into.fewer and (wanted > 0).all():
        return _static(into, node)  # that many are there in any case
    rows, shape = into.rows[data], into.shapes[data]
    made = into.shapes.get(node.output[0]) or into.inferred(node, into.values)[node.output[0]][1]
    if made is None:
        return False
    if node.op_type == "Expand":
        axes: Iterator[int] = iter([rows.axis + len(made) - len(shape)])
    else:
        before = math.prod(shape[: rows.axis])
        axes = (axis for axis in range(len(made)) if math.prod(made[:axis]) == before and made[axis] == shape[rows.axis])
    axis = next(axes, None)
    return axis is not None and made[axis] == shape[rows.axis] and _passed_on(into, node, axis, rows.count)


def _of_shape(into: Rewriting, node: Any) -> bool:
    """A result whose extent is a number of rows."""
    if any(name in into.rows and name not in into.fewer for name in node.input):
        return False
    counts = {into.fewer[name][1] for name in node.input if name in into.fewer}
    less = into.inferred(node, into.values | {name: value for name, (value, _) in into.fewer.items()})
    into.append(node)
    for name in node.output:
        shapes = into.shapes.get(name), less[name][1]
        if None in shapes or len(counts) > 1:
            return False
        if shapes[0] != shapes[1]:
            into.rows[name] = Rows(differing(*shapes), next(iter(counts)))  # type: ignore[arg-type]
    return True


def differing(one: Sequence[int], other: Sequence[int]) -> int:
    """The first axis along which two shapes differ."""
    return next((axis for axis, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)


def _concat(into: Rewriting, node: Any) -> bool:
    from onnx import helper

    if not _known(into, node.input):
        return False
    axis = attribute(node, "axis") % len(into.shapes[node.input[0]])
    found = {into.rows[name] for name in node.input if name in into.rows}
    if all(rows.axis != axis for rows in found):
        return len(found) == 1 and all(_passed_on(into, node, rows.axis, rows.count) for rows in found)
    if any(rows.axis != axis for rows in found):
        return False
    extents = tuple((into.rows[name].count if name in into.rows else "", into.shapes[name][axis]) for name in node.input)
    places = into.joined_places(extents)
    joined = into.emit("Concat", node.input, axis=axis)
    chosen = helper.make_node("Gather", [joined, places], node.output, node.name, axis=axis)
    return _passed_on(into, chosen, axis, into.rows[places].count)


def _split(into: Rewriting, node: Any) -> bool:
    rows, rank = into.rows.get(node.input[0]), len(into.shapes[node.input[0]])
    return rows is not None and attribute(node, "axis", 0) % rank != rows.axis and _passed_on(into, node, rows.axis, rows.count)


def _along_axis(default: int) -> Rule:
    """The rule for an operator along one axis that keeps all extents; missing rows come last, or are the smallest."""

    def rule(into: Rewriting, node: Any) -> bool:
        data = node.input[0]
        rows = into.rows.get(data)
        if rows is None:
            return False
        backwards = bool(attribute(node, "reverse", 0))
        named = into.values.get(node.input[1]) if node.op_type == "CumSum" else attribute(node, "axis", default)
        if named is None:
            return False
        if int(named) % len(into.shapes[data]) == rows.axis and (node.op_type != "CumSum" or backwards):
            node.input[0] = into.without_absent(data, 0.0 if backwards else -math.inf)
        return _passed_on(into, node, rows.axis, rows.count)

    return rule


def _extreme(into: Rewriting, node: Any) -> bool:
    """`ArgMax` and `ArgMin`."""
    data = node.input[0]
    rows, rank, keeps = into.rows[data], len(into.shapes[data]), attribute(node, "keepdims", 1)
    axis = attribute(node, "axis", 0) % rank
    if axis == rows.axis:
        node.input[0] = into.without_absent(data, -math.inf if node.op_type == "ArgMax" else math.inf)
        return not attribute(node, "select_last_index", 0) and _static(into, node)
    return _passed_on(into, node, rows.axis if keeps or axis > rows.axis else rows.axis - 1, rows.count)


def _top_k(into: Rewriting, node: Any) -> bool:
    data, number = node.input[0], into.values.get(node.input[1]) if len(node.input) > 1 else None
    if data not in into.rows or number is None:
        return _of_shape(into, node) if data not in into.rows else False
    rows, shape, count = into.rows[data], into.shapes[data], int(number.reshape(-1)[0])
    if attribute(node, "axis", -1) % len(shape) != rows.axis:
        return _passed_on(into, node, rows.axis, rows.count)
    if node.input[1] in into.fewer and count != shape[rows.axis]:
        return False
    node.input[0] = into.without_absent(data, -math.inf if attribute(node, "largest", 1) else math.inf)
    return _passed_on(into, node, rows.axis, into.least(rows.count, into.constant([count])))


def _reduction(neutral: float | None) -> Rule:
    """The rule for a reduction, which puts its neutral element in place of missing rows."""

    def rule(into: Rewriting, node: Any) -> bool:
        data = node.input[0]
        if data not in into.rows:
            return False
        rows, rank, keeps = into.rows[data], len(into.shapes[data]), attribute(node, "keepdims", 1)
        since = _AXES_AS_INPUT if node.op_type == "ReduceSum" else _REDUCED_AXES_AS_INPUT
        named = _axes(into, node, since)
        if named is None and len(node.input) > 1:
            return False
        axes = range(rank) if not named else [axis % rank for axis in named]
        if rows.axis not in axes:
            return _passed_on(into, node, rows.axis if keeps else rows.axis - sum(axis < rows.axis for axis in axes), rows.count)
        if neutral is None:
            return False
        node.input[0] = into.without_absent(data, neutral)
        return _static(into, node)

    return rule


def _product(into: Rewriting, node: Any) -> bool:
    """`MatMul` and `Gemm` of rows with a matrix, which compute each row by itself."""
    data, other, *rest = node.input
    if data not in into.rows or any(name in into.rows for name in (other, *rest)) or not _known(into, node.input):
        return False
    rows, rank = into.rows[data], len(into.shapes[data])
    if rows.axis == rank - 1 or attribute(node, "transA", 0) or len(into.shapes[other]) > rank:
        return False
    return _passed_on(into, node, rows.axis, rows.count)


#: Operators that compute each element from those at its place.
_ELEMENT_WISE = (
    "Abs Acos Add And Asin Atan Cast Ceil Clip Cos Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity "
    "IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin "
    "Softplus Softsign Sqrt Sub Sum Tan Tanh ThresholdedRelu Where Xor"
)
#: By operator.
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENT_WISE.split(), _by_element),
    **dict.fromkeys(("ArgMax", "ArgMin"), _extreme),
    **dict.fromkeys(("Expand", "Flatten", "Reshape"), _reshape),
    **dict.fromkeys(("Gemm", "MatMul"), _product),
    **dict.fromkeys(("LogSoftmax", "Softmax"), _along_axis(-1)),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare"), _reduction(0.0)),
    "Concat": _concat,
    "ConstantOfShape": _of_shape,
    "CumSum": _along_axis(0),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Range": _of_shape,
    "ReduceLogSumExp": _reduction(-math.inf),
    "ReduceMax": _reduction(-math.inf),
    "ReduceMean": _reduction(None),
    "ReduceMin": _reduction(math.inf),
    "ReduceProd": _reduction(1.0),
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "TopK": _top_k,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
