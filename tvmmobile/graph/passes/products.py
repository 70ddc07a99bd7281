"""Moves transpositions next to the products of activations that read them, which can then transpose by themselves.

PyTorch's exporter puts views between them: `a @ b.transpose(-1, -2)` is a permutation, an expansion to the shape that it has, a reshape to
three dimensions, and a product.
"""

from __future__ import annotations

import math
from typing import Any

from tvmmobile.graph.access import Access
from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.rewriting import bindings_of, mutate_main


def swaps_beside_products(module: Any) -> Any:
    """Make permutations and views that swap the last two dimensions a single swap, where a `matmul` reads the result."""
    import tvm
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    matmul = tvm.ir.Op.get("relax.matmul")

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
            chain: list[Any] = []
            source, found = operand, None
            while isinstance(source, relax.Var) and _only_moves(value := self.lookup_binding(source)):
                chain.insert(0, value)
                source = value.args[0]
                found = source if _swaps_matrices(source, chain) else found
            if found is None or (len(chain) == 1 and swaps_last(chain[0])):
                return operand
            *leading, rows, columns = shape_of(operand)
            viewed = self.builder_.emit(relax.op.reshape(found, [*leading, columns, rows]))
            return self.builder_.emit(relax.op.permute_dims(viewed, [*range(len(leading)), len(leading) + 1, len(leading)]))

    return mutate_main(module, Rewriter(module))


def _only_moves(value: Any) -> bool:
    """Return whether a value is a view or a permutation of all elements of another tensor."""
    moves = has(value, Trait.RESHAPE) or operator_of(value) == "relax.permute_dims"
    return moves and math.prod(shape_of(value)) == math.prod(shape_of(value.args[0]))


def _swaps_matrices(source: Any, chain: list[Any]) -> bool:
    """Return whether a chain of views only swaps the dimensions of matrices that lie in a tensor in order."""
    access = Access.through(shape_of(source), chain)
    if access is None or len(access.dimensions) < 2 or 1 in access.shape[-2:]:
        return False
    *leading, rows, columns = range(len(access.dimensions))
    return access.permute([*leading, columns, rows]).in_order(Access.of(shape_of(source)))


def swaps_last(permutation: Any) -> bool:
    """Return whether a `permute_dims` swaps the last two dimensions and no others."""
    rank, axes = len(shape_of(permutation)), permutation.attrs.axes
    return axes is not None and [int(axis) for axis in axes] == [*range(rank - 2), rank - 1, rank - 2]
