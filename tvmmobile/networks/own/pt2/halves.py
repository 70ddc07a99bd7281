"""Converts exported programs with float16, bfloat16 or float64 weights or inputs to float32.

As with ONNX files (`onnx/halves.py`), `--dtype` says what kernels compute in.
"""

from __future__ import annotations

from typing import Any

import torch

from tvmmobile.networks.frontend import export_torch
from tvmmobile.networks.own.pt2.calls import arguments


def in_float32(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return the program with float32 in place of other real numbers; itself, if it has no weights or inputs of such types.

    Buffers in float64, such as scales, change nothing by themselves.

    Raises:
        UserError: PyTorch cannot export the changed program.
    """
    halves = (torch.float16, torch.bfloat16)
    others = (*halves, torch.float64)
    inputs = [
        node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    ]
    stored = [*program.state_dict.values(), *program.constants.values()]
    weights = [*program.parameters(), *(value for value in inputs if isinstance(value, torch.Tensor))]
    half = any(isinstance(tensor, torch.Tensor) and tensor.dtype in halves for tensor in stored)
    if not half and not any(tensor.dtype in others for tensor in weights):
        return program
    module = program.module(check_guards=False).float()
    for part in module.modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor) and value.dtype in others:
                setattr(part, name, value.float())
    for node in module.graph.nodes:
        node.args, node.kwargs = (torch.fx.node.map_aggregate(given, lambda one: _real(one, others)) for given in (node.args, node.kwargs))
    module.recompile()
    examples = [torch.zeros(tuple(value.shape), dtype=_real(value.dtype, others)) for value in inputs]
    return export_torch(module, *arguments(program)(examples))


def _real(value: Any, others: tuple[Any, ...]) -> Any:
    """Return an argument with float32 for the other types."""
    return torch.float32 if isinstance(value, torch.dtype) and value in others else value
