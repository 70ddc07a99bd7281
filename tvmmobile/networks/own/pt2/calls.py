"""Calls exported programs with arrays alone: their inputs may lie in lists and dictionaries or have keywords, and numbers and `None` among
inputs are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export.graph_signature import ConstantArgument, InputKind

from tvmmobile.networks.frontend import Compute, by_torch


def arguments(program: torch.export.ExportedProgram) -> Callable[[Sequence[torch.Tensor]], tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return a function from a program's input tensors, in order, to the arguments and keywords of a call."""
    inputs = [one.arg for one in program.graph_signature.input_specs if one.kind == InputKind.USER_INPUT]
    spec = program.call_spec.in_spec

    def nested(tensors: Sequence[torch.Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        left = iter(tensors)
        leaves = [one.value if isinstance(one, ConstantArgument) else next(left) for one in inputs]
        args, keywords = torch.utils._pytree.tree_unflatten(leaves, spec)
        return args, keywords

    return nested


def runner(program: torch.export.ExportedProgram) -> Compute:
    """Return what computes a program's output tensors in PyTorch."""
    module, nested = program.module(check_guards=False), arguments(program)

    def call(*tensors: torch.Tensor) -> Any:
        args, keywords = nested(tensors)
        return module(*args, **keywords)

    return by_torch(call)


def without_constants(program: torch.export.ExportedProgram) -> None:
    """Remove inputs and outputs that are not tensors, such as `None` and numbers, from a program's graph and signature, in place."""
    graph, signature = program.graph, program.graph_signature
    (end,) = (node for node in graph.nodes if node.op == "output")
    returned = zip(signature.output_specs, end.args[0], strict=True)
    kept = [(one, value) for one, value in returned if not isinstance(one.arg, ConstantArgument)]
    end.args = (tuple(value for _, value in kept),)
    signature.output_specs[:] = [one for one, _ in kept]
    constant = {one.arg.name for one in signature.input_specs if isinstance(one.arg, ConstantArgument)}
    for node in [node for node in graph.nodes if node.op == "placeholder" and node.name in constant and not node.users]:
        graph.erase_node(node)
    signature.input_specs[:] = [one for one in signature.input_specs if not isinstance(one.arg, ConstantArgument)]
