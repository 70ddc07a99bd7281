"""torch.export returns even a single tensor as a tuple; the library returns the tensor itself."""

from __future__ import annotations

from typing import Any

from tvmmobile.graph.passes.rewriting import rebind_main
from tvmmobile.system.errors import UserError


def unwrap_single_output(module: Any) -> Any:
    """Make `main` return its only result as a tensor; `UserError` for a network that returns several."""
    import tvm
    from tvm import relax

    main = module["main"]
    if isinstance(main.ret_ty, relax.TensorType):
        return module
    if not isinstance(main.ret_ty, tvm.ir.TupleType) or len(main.ret_ty.fields) != 1:
        raise UserError("the network does not return exactly one tensor.", "Wrap it in a module that returns the tensor you want.")
    result = main.body.body
    return rebind_main(module, lambda _, binding: binding.value.fields[0] if binding.var.same_as(result) else binding.value)
