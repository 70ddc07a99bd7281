"""clip and relu become maximum and minimum: clip has no layout inference, and one form is enough for the patterns that follow.

A bound of infinity, which PyTorch's decompositions leave, is none.
"""

from __future__ import annotations

import math
from typing import Any

from tvmmobile.graph.passes.rewriting import mutate_functions
from tvmmobile.graph.precision import FLOAT32


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
            bounds = [(relax.op.maximum, low)] if low > -math.inf else []
            bounds += [(relax.op.minimum, high)] if high is not None and high < math.inf else []
            for number, (operator, bound) in enumerate(bounds):
                # The last operator becomes the value of the binding that is visited: a variable there would stop layouts.
                data = operator(self.builder_.emit(data) if number else data, relax.const(bound, FLOAT32.name))
            return data

    return mutate_functions(module, Rewriter(module))


def _number(value: Any) -> float:
    inner = value.value
    return float(getattr(inner, "value", inner))
