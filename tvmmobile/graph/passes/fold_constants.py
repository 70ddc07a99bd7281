"""Evaluates operators whose arguments are all constant, with numpy.

Relax's own FoldConstant compiles every such operator for the host with LLVM: five seconds for a MobileNet, against milliseconds here. It
stays in the pipeline for operators that this pass does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmmobile.graph.expressions import constant, operator_of
from tvmmobile.graph.passes.rewriting import replace_values


def fold_constants(module: Any) -> Any:
    """Replace constant arithmetic and reshaping, and ranges of numbers, by their values in `main`."""
    return replace_values(module, _folded, in_turn=True)


def _folded(value: Any, values: Mapping[Any, Any]) -> Any:
    """Return the constant that an operator computes from constants; `None` for other values."""
    evaluate = _EVALUATORS.get(operator_of(value))
    arguments = [_known(values.get(argument, argument)) for argument in value.args] if evaluate else [None]
    if evaluate is None or any(argument is None for argument in arguments):
        return None
    return constant(np.asarray(evaluate(arguments, value.attrs), order="C"))


def _known(argument: Any) -> Any:
    """Return a constant's numbers, or a shape; `None` for computed values."""
    if isinstance(argument, tvm.ir.GenericConst):
        return argument.value.numpy()
    if isinstance(argument, tvm.tirx.FloatImm):
        return np.float32(argument.value)
    if isinstance(argument, tvm.tirx.IntImm):
        return int(argument.value)
    return [int(extent) for extent in argument.values] if isinstance(argument, relax.ShapeExpr) else None


def _without_attributes(function: Callable[..., Any]) -> Callable[[list[Any], Any], Any]:
    return lambda arguments, _: function(*arguments)


#: Operators on numbers, and how numpy computes them from their operands.
ARITHMETIC: dict[str, Callable[..., Any]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": lambda one, other: np.divide(one, other).astype(one.dtype),
    "relax.negative": np.negative,
    "relax.sqrt": np.sqrt,
}
_EVALUATORS: dict[str, Callable[[list[Any], Any], np.ndarray[Any, Any]]] = {
    **{operator: _without_attributes(function) for operator, function in ARITHMETIC.items()},
    "relax.arange": lambda a, attrs: np.arange(*a, dtype=str(attrs.dtype)),
    "relax.less_equal": lambda a, _: a[0] <= a[1],
    "relax.logical_and": lambda a, _: a[0] & a[1],
    "relax.where": lambda a, _: np.where(*a),
    "relax.rsqrt": lambda a, _: 1 / np.sqrt(a[0]),
    "relax.reshape": lambda a, _: a[0].reshape(a[1]),
    "relax.permute_dims": lambda a, attrs: np.transpose(a[0], None if attrs.axes is None else [int(axis) for axis in attrs.axes]),
    "relax.expand_dims": lambda a, attrs: np.expand_dims(a[0], tuple(int(axis) for axis in attrs.axis)),
}
