"""PyTorch → Relax: one function `main` from the model's NCHW float32 input to one tensor."""

from __future__ import annotations

import warnings
from typing import Any

from tvmmobile.errors import UserError


def import_torch(module: Any, input_shape: tuple[int, ...]) -> Any:
    """Export an eval-mode `torch.nn.Module` and import it with its weights as constants.

    Args:
        module: the network; its output is one tensor.
        input_shape: static NCHW shape with a batch of 1.

    Returns:
        A Relax IRModule.

    Raises:
        UserError: PyTorch cannot export the network, or Relax cannot import it.
    """
    import torch
    from tvm.relax.frontend.torch import from_exported_program

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (torch.zeros(input_shape),))
            return from_exported_program(program, keep_params_as_input=False)
    except (AssertionError, NotImplementedError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"the network cannot be imported: {reason}", "It must export with torch.export at a static shape.") from error
