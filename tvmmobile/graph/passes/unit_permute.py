"""A permutation that moves only axes of length 1 is a reshape, and reshapes of reshapes are one, which costs nothing at run time."""

from __future__ import annotations

from typing import Any

from tvmmobile.graph.passes.rewriting import mutate_functions


def unit_permute_to_reshape(module: Any) -> Any:
    """Rewrite such `permute_dims`, for instance the one between the global pool and the classifier."""
    import tvm
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    permute, reshape = tvm.ir.Op.get("relax.permute_dims"), tvm.ir.Op.get("relax.reshape")

    @mutator
    class Rewriter(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            call = self.visit_expr_post_order(call)
            if call.op == reshape:
                inner = self.lookup_binding(call.args[0]) if isinstance(call.args[0], relax.Var) else None
                if isinstance(inner, relax.Call) and inner.op == reshape:
                    return relax.op.reshape(inner.args[0], call.args[1])
            if call.op != permute or call.attrs.axes is None:
                return call
            shape = [int(extent) for extent in call.args[0].ty.shape]
            axes = [int(axis) for axis in call.attrs.axes]
            long_axes = [axis for axis in axes if shape[axis] != 1]
            if long_axes != sorted(long_axes):
                return call
            return relax.op.reshape(call.args[0], [shape[axis] for axis in axes])

    return mutate_functions(module, Rewriter(module))
