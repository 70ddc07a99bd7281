"""Rewrites quantised networks of PyTorch's PT2E flow in ordinary operators, as `onnx/quantised.py` does for ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch._export.utils import get_buffer, get_lifted_tensor_constant, get_param, is_buffer, is_lifted_tensor_constant, is_param

from tvmmobile.networks.quantised import WeightScales
from tvmmobile.system.errors import UserError

#: The library of operators, and those of it that are known.
LIBRARY = "quantized_decomposed"
OPERATORS = frozenset({"quantize_per_tensor.default", "dequantize_per_tensor.default", "dequantize_per_channel.default"})


def register_operators() -> None:
    """Register the operators with PyTorch that it and torchao define for quantising."""
    import torch.ao.quantization.fx._decomposed  # noqa: F401


def without_integer_weights(program: torch.export.ExportedProgram) -> WeightScales | None:
    """Give a program real numbers for weights that are integers, in place; return their scales, `None` without an operator of the library.

    Raises:
        UserError: a scale is not a positive number.
    """
    nodes = [node for node in program.graph.nodes if str(node.target).startswith(f"{LIBRARY}.")]
    if not nodes:
        return None
    held, scales = _constants(program), WeightScales()
    for node in nodes:
        integers, *numbers = (held.get(getattr(argument, "name", ""), argument) for argument in node.args[:4])
        if isinstance(numbers[0], float | torch.Tensor) and not (_array(numbers[0]) > 0).all():
            raise UserError(f"the network has a scale that is not a positive number ({node.name}).", "Quantise it again.")
        if node.target.__name__.startswith("dequantize") and isinstance(integers, torch.Tensor):
            axis = int(numbers[2]) if "per_channel" in node.target.__name__ else 0
            real = torch.from_numpy(scales.dequantise(_array(integers), _array(numbers[0]), _array(numbers[1]), axis))
            _replace(program, node, real)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return scales


def _replace(program: torch.export.ExportedProgram, node: Any, value: torch.Tensor) -> None:
    """Replace the value of the constant that a node reads, and let the node's readers read it."""
    (constant,) = node.all_input_nodes[:1]
    signature = program.graph_signature
    name = next(
        names[constant.name]
        for names in (signature.inputs_to_parameters, signature.inputs_to_buffers, signature.inputs_to_lifted_tensor_constants)
        if constant.name in names
    )
    values = program.state_dict if name in program.state_dict else program.constants
    values[name] = value
    constant.meta["val"] = constant.meta["val"].to(value.dtype)
    node.replace_all_uses_with(constant)


def _constants(program: torch.export.ExportedProgram) -> dict[str, Any]:
    """Return parameters, buffers and other tensors of a program, by the name of the node that stands for them."""
    found: dict[str, Any] = {}
    for node in program.graph.nodes:
        for known, get in ((is_param, get_param), (is_buffer, get_buffer), (is_lifted_tensor_constant, get_lifted_tensor_constant)):
            if node.op == "placeholder" and known(program, node):
                found[node.name] = get(program, node)
    return found


def _array(value: Any) -> Any:
    return np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
