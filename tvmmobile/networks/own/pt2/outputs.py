"""Gives an exported program outputs that a library can return: booleans become bytes, and scalars get a dimension."""

from __future__ import annotations

import torch
from torch.export.graph_signature import OutputKind, TensorArgument


def give_plain_outputs(program: torch.export.ExportedProgram) -> None:
    """Turn boolean outputs of a program into uint8, 0 or 1, and scalar outputs into vectors of one element, in place."""
    graph, signature = program.graph, program.graph_signature
    (end,) = (node for node in graph.nodes if node.op == "output")
    returned = list(end.args[0])
    for place, (one, node) in enumerate(zip(signature.output_specs, returned, strict=True)):
        value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
        if one.kind != OutputKind.USER_OUTPUT or not isinstance(one.arg, TensorArgument) or not isinstance(value, torch.Tensor):
            continue
        with graph.inserting_before(end):
            if value.dtype == torch.bool:
                node, value = graph.call_function(torch.ops.aten._to_copy.default, (node,), {"dtype": torch.uint8}), value.to(torch.uint8)
                node.meta["val"] = value
            if not value.ndim:
                node = graph.call_function(torch.ops.aten.view.default, (node, [1]))
                node.meta["val"] = value.reshape(1)
        returned[place], one.arg = node, TensorArgument(node.name)
    end.args = (tuple(returned),)
