"""Evaluates operators whose arguments are all constant, with numpy.

Relax's own FoldConstant compiles every such operator for the host with LLVM: five seconds for a MobileNet, against milliseconds here. It
remains in the pipeline for whatever this one does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tvmmobile.graph.expressions import constant
from tvmmobile.graph.passes.rewriting import mutate_functions


def fold_constants(module: Any) -> Any:
    """Replace constant arithmetic and reshaping, and ranges of numbers, by their values."""
    import tvm
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    @mutator
    class Folder(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            call = self.visit_expr_post_order(call)
            evaluate = _EVALUATORS.get(getattr(call.op, "name", ""))
            if evaluate is None:
                return call
            arguments = []
            for argument in call.args:
                if isinstance(argument, relax.Var):
                    bound = self.lookup_binding(argument)
                    argument = argument if bound is None else bound
                if isinstance(argument, tvm.ir.GenericConst):
                    arguments.append(argument.value.numpy())
                elif isinstance(argument, tvm.tirx.FloatImm):
                    arguments.append(np.float32(argument.value))
                elif isinstance(argument, tvm.tirx.IntImm):
                    arguments.append(int(argument.value))
                elif isinstance(argument, relax.ShapeExpr):
                    arguments.append([int(extent) for extent in argument.values])
                else:
                    return call
            return constant(np.ascontiguousarray(evaluate(arguments, call.attrs)))

    return mutate_functions(module, Folder(module))


def _axes(attrs: Any) -> list[int] | None:
    return None if attrs.axes is None else [int(axis) for axis in attrs.axes]


def _expand(data: np.ndarray[Any, Any], attrs: Any) -> np.ndarray[Any, Any]:
    return np.expand_dims(data, tuple(int(axis) for axis in attrs.axis))


_EVALUATORS: dict[str, Callable[[list[Any], Any], np.ndarray[Any, Any]]] = {
    "relax.arange": lambda a, attrs: np.arange(*a, dtype=str(attrs.dtype)),
    "relax.add": lambda a, _: a[0] + a[1],
    "relax.subtract": lambda a, _: a[0] - a[1],
    "relax.multiply": lambda a, _: a[0] * a[1],
    "relax.divide": lambda a, _: np.divide(a[0], a[1]).astype(a[0].dtype),
    "relax.negative": lambda a, _: -a[0],
    "relax.less_equal": lambda a, _: a[0] <= a[1],
    "relax.logical_and": lambda a, _: a[0] & a[1],
    "relax.where": lambda a, _: np.where(*a),
    "relax.sqrt": lambda a, _: np.sqrt(a[0]),
    "relax.rsqrt": lambda a, _: 1 / np.sqrt(a[0]),
    "relax.reshape": lambda a, _: a[0].reshape(a[1]),
    "relax.permute_dims": lambda a, attrs: np.transpose(a[0], _axes(attrs)),
    "relax.expand_dims": lambda a, attrs: _expand(a[0], attrs),
}
