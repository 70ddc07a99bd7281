"""Convolutions and matrix products without a bias get one of zeros: a layer has a bias, and in a kernel this one costs nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmmobile.graph.passes.dataflow import bindings_of, readers_of
from tvmmobile.graph.passes.rewriting import mutate_main


def zero_bias(module: Any) -> Any:
    """Add zeros to every convolution (NHWC) and matrix product with constant weights to which no bias is added."""
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    main = module["main"]
    values = {binding.var: binding.value for binding in bindings_of(main)}
    readers = readers_of(main)
    lacking = {
        variable: shape
        for variable, value in values.items()
        if (shape := _bias_shape(value)) and not any(_adds(values.get(reader), shape) for reader in readers[variable])
    }
    if not lacking:
        return module

    @mutator
    class Rewriter(PyExprMutator):  # type: ignore[misc]
        def visit_var_binding_(self, binding: Any) -> None:
            if binding.var not in lacking:
                super().visit_var_binding_(binding)
                return
            product = self.builder_.emit(self.visit_expr(binding.value))
            zeros = relax.const(np.zeros(lacking[binding.var], str(product.ty.dtype)))
            emit = self.builder_.emit if isinstance(binding.var, relax.DataflowVar) else self.builder_.emit_output
            self.set_var_remap(binding.var, emit(relax.op.add(product, zeros)))

    return mutate_main(module, Rewriter(module))


def _bias_shape(call: Any) -> tuple[int, ...]:
    """Of the bias that a convolution or a product with constant weights may have; empty for what is neither."""
    import tvm

    name = getattr(getattr(call, "op", None), "name", "")
    if name not in ("relax.nn.conv2d", "relax.matmul") or not isinstance(call.args[1], tvm.ir.GenericConst):
        return ()
    channels = int(call.ty.shape[-1])
    return (1, 1, 1, channels) if name == "relax.nn.conv2d" else (channels,)


def _adds(call: Any, shape: tuple[int, ...]) -> bool:
    """Whether it adds a constant of so many elements."""
    import tvm

    constants = [argument for argument in getattr(call, "args", ()) if isinstance(argument, tvm.ir.GenericConst)]
    name = getattr(getattr(call, "op", None), "name", "")
    return name == "relax.add" and any(constant.value.numpy().size == max(shape) for constant in constants)
