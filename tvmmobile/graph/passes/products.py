"""Moves transpositions next to the products of activations that read them, which can then transpose by themselves.

PyTorch's exporter puts views between them: `a @ b.transpose(-1, -2)` is a permutation, an expansion to the shape that it has, a reshape to
three dimensions, and a product.
"""

from __future__ import annotations

from typing import Any

from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.passes.rewriting import bindings_of, mutate_main


def swaps_beside_products(module: Any) -> Any:
    """Move permutations of the last two dimensions behind views of the others, where a `matmul` reads these."""
    import tvm
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    matmul = tvm.ir.Op.get("relax.matmul")
    # How many of the last dimensions each view may not change: a matrix's, or, of an expansion, all.
    kept = {"relax.reshape": 2, "relax.broadcast_to": 0}

    def of_activations(value: Any) -> bool:
        return getattr(value, "op", None) == matmul and not any(isinstance(operand, tvm.ir.GenericConst) for operand in value.args)

    if not any(of_activations(binding.value) for binding in bindings_of(module["main"])):
        return module

    @mutator
    class Rewriter(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            call = self.visit_expr_post_order(call)
            if not of_activations(call):
                return call
            operands = [self._beside(operand) for operand in call.args]
            same = all(new.same_as(old) for new, old in zip(operands, call.args, strict=True))
            return call if same else relax.op.matmul(*operands)

        def _beside(self, operand: Any) -> Any:
            source = operand
            while isinstance(source, relax.Var):
                value = self.lookup_binding(source)
                name = operator_of(value)
                if name == "relax.permute_dims" and source is not operand and swaps_last(value):
                    *leading, rows, columns = shape_of(operand)
                    viewed = self.builder_.emit(relax.op.reshape(value.args[0], [*leading, columns, rows]))
                    return self.builder_.emit(relax.op.permute_dims(viewed, [*range(len(leading)), len(leading) + 1, len(leading)]))
                # A reshape that keeps the matrices, or an expansion to the shape that is there already.
                if name not in kept or shape_of(value.args[0])[-kept[name] :] != shape_of(value)[-kept[name] :]:
                    break
                source = value.args[0]
            return operand

    return mutate_main(module, Rewriter(module))


def swaps_last(permutation: Any) -> bool:
    """Whether a `permute_dims` swaps the last two dimensions and no others."""
    rank, axes = len(shape_of(permutation)), permutation.attrs.axes
    return axes is not None and [int(axis) for axis in axes] == [*range(rank - 2), rank - 1, rank - 2]
