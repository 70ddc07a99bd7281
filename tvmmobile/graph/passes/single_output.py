"""torch.export returns a tuple even of one tensor; the library returns the tensor itself."""

from __future__ import annotations

from typing import Any

from tvmmobile.system.errors import UserError


def unwrap_single_output(module: Any) -> Any:
    """Make `main` return its only result as a tensor.

    Raises:
        UserError: the network returns several tensors.
    """
    import tvm
    from tvm import relax

    main = module["main"]
    if isinstance(main.ret_ty, relax.TensorType):
        return module
    if not isinstance(main.ret_ty, tvm.ir.TupleType) or len(main.ret_ty.fields) != 1:
        raise UserError("the network does not return exactly one tensor.", "Wrap it in a module that returns the tensor you want.")
    builder = relax.BlockBuilder()
    result = main.body.body
    with builder.function("main", list(main.params)):
        with builder.dataflow():
            for block in main.body.blocks:
                for binding in block.bindings:
                    if binding.var.same_as(result):
                        output = builder.emit_output(binding.value.fields[0])
                    else:
                        builder.emit_normalized(binding)
        builder.emit_func_output(output)
    module = tvm.IRModule(dict(module.functions_items()), attrs=module.attrs)
    module["main"] = builder.get()["main"]
    return module
