"""clip and relu become maximum and minimum: clip has no layout inference, and one form is enough for the patterns that follow."""

from __future__ import annotations

from typing import Any


def clamp_to_min_max(module: Any) -> Any:
    """Rewrite `relax.clip(x, lo, hi)` and `relax.nn.relu(x)` in every function."""
    import tvm
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    clip, relu = tvm.ir.Op.get("relax.clip"), tvm.ir.Op.get("relax.nn.relu")

    @mutator
    class Rewriter(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            call = self.visit_expr_post_order(call)
            if call.op == clip:
                data, low, high = call.args
                return self._bounded(data, _number(low), _number(high))
            if call.op == relu:
                return self._bounded(call.args[0], 0.0, None)
            return call

        def _bounded(self, data: Any, low: float, high: float | None) -> Any:
            raised = relax.op.maximum(data, relax.const(low, "float32"))
            if high is None:
                return raised
            return relax.op.minimum(self.builder_.emit(raised), relax.const(high, "float32"))

    rewriter = Rewriter(module)
    for variable, function in module.functions_items():
        if isinstance(function, relax.Function):
            rewriter.builder_.update_func(variable, rewriter.visit_expr(function))
    return rewriter.builder_.get()


def _number(value: Any) -> float:
    inner = value.value
    return float(getattr(inner, "value", inner))
