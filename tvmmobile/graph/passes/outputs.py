"""The tensors that `main` returns, each in a variable of its own: torch.export returns even a single one in a tuple."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from tvmmobile.graph.bindings import bindings_of, results_of, returned, values_of
from tvmmobile.graph.expressions import constant, shape_of, viewed
from tvmmobile.system.errors import UserError


def separate_outputs(module: Any) -> Any:
    """Make `main` return variables, not one that holds a tuple, so that none of them is fused with its other readers.

    Raises:
        UserError: the network returns something other than tensors.
    """
    main = module["main"]
    if isinstance(main.ret_ty, relax.TensorType):
        return module
    fields = main.ret_ty.fields if isinstance(main.ret_ty, tvm.ir.TupleType) else []
    if not fields or not all(isinstance(field, relax.TensorType) for field in fields):
        raise UserError("the network does not return tensors.", "Wrap it in a module that returns the tensors you want.")
    (result,) = results_of(main)
    values = values_of(main)
    whole = values[result]
    while isinstance(whole, relax.Var):
        whole = values[whole]
    parts = whole.fields if isinstance(whole, relax.Tuple) else [relax.TupleGetItem(result, place) for place in range(len(fields))]
    return _returning(module, list(parts))


def copied_outputs(module: Any) -> Any:
    """Copy outputs of `main` that show an input, a constant or another output: each output has its own memory."""
    main = module["main"]
    values = values_of(main)
    bases = set(main.params)
    results: list[Any] = []
    for result in results_of(main):
        base = result
        while (source := viewed(values.get(base))) is not None:
            base = source
        fixed = values.get(base, base)
        if isinstance(fixed, tvm.ir.GenericConst):
            result = constant(fixed.value.numpy().reshape(shape_of(result)))
        copy = not isinstance(result, relax.Var) or base in bases
        results.append(relax.op.broadcast_to(result, result.ty.shape) if copy else result)
        bases.add(base)
    return module if all(new.same_as(old) for new, old in zip(results, results_of(main), strict=True)) else _returning(module, results)


def _returning(module: Any, results: list[Any]) -> Any:
    """Return the module with these expressions as results of `main`, computed behind all else; a tuple of them is left out."""
    main, builder = module["main"], relax.BlockBuilder()
    before = results_of(main)
    with builder.function("main", list(main.params)):
        with builder.dataflow():
            for binding in bindings_of(main):
                if not (binding.var in before and isinstance(binding.value, relax.Tuple)):
                    builder.emit_normalized(relax.VarBinding(binding.var, binding.value))
            outputs = [result if result in before else builder.emit_output(result) for result in results]
        builder.emit_func_output(returned(outputs))
    module = tvm.IRModule(dict(module.functions_items()), attrs=module.attrs)
    module["main"] = builder.get()["main"]
    return module
