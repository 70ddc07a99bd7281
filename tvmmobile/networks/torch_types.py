"""Converts operands of PyTorch's operators to the type that it computes in: TVM's importer takes that of the first tensor."""

from __future__ import annotations

from typing import Any

import torch

#: Operators that convert their operands, beside pointwise ones.
_CONVERTING = {"cat", "sum", "prod", "cumsum"}
#: Operands that are masks, by operator.
_MASKS = {"where": 0, "masked_fill": 1}
#: Operators whose second operand is multiplied by `alpha`.
_SUMS = {"add", "sub"}
#: Operators that mean the same of two masks as arithmetic, which TVM's kernels have only for numbers.
_OF_MASKS = {
    **dict.fromkeys(("mul", "minimum"), torch.ops.aten.logical_and.default),
    **dict.fromkeys(("add", "maximum"), torch.ops.aten.logical_or.default),
}


def with_conversions(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Make conversions between types, and factors `alpha` of sums, operators of their own, in place; return the program."""
    for node in list(program.graph.nodes):
        if isinstance(node.target, torch._ops.OpOverload) and isinstance(node.meta.get("val"), torch.Tensor):
            with program.graph.inserting_before(node):
                _multiply_alpha(node)
                _convert(node)
    program.graph_module.recompile()
    return program


def _multiply_alpha(node: Any) -> None:
    if (alpha := node.kwargs.get("alpha", 1)) != 1 and node.target.overloadpacket.__name__ in _SUMS:
        first, second = node.args[:2]
        is_tensor = isinstance(second, torch.fx.Node)
        product = _inserted(node, torch.ops.aten.mul.Tensor, (second, alpha), {}) if is_tensor else second * alpha
        node.args, node.kwargs = (first, product), {}


def _convert(node: Any) -> None:
    packet = node.target.overloadpacket.__name__
    if torch.Tag.pointwise not in node.target.tags and packet not in _CONVERTING:
        return
    mask = node.args[_MASKS[packet]] if packet in _MASKS else None
    operands = [operand for operand in node.all_input_nodes if operand is not mask and isinstance(operand.meta.get("val"), torch.Tensor)]
    kind = node.meta["val"].dtype
    if kind == torch.bool and packet in _OF_MASKS and all(isinstance(operand, torch.fx.Node) for operand in node.args):
        node.target = _OF_MASKS[packet]
    elif kind == torch.bool and packet not in _CONVERTING:  # a comparison
        numbers = [operand.meta["val"] if isinstance(operand, torch.fx.Node) else operand for operand in node.args[:2]]
        if len(numbers) < 2 or any(number is None for number in numbers):
            return
        kind = torch.result_type(*numbers)
    for operand in operands:
        if operand.meta["val"].dtype != kind:
            node.replace_input_with(operand, _inserted(node, torch.ops.aten._to_copy.default, (operand,), {"dtype": kind}))


def _inserted(node: Any, operator: Any, operands: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    """Return a new node before another one, from the same line of the user's program."""
    inserted = node.graph.call_function(operator, operands, settings)
    values = [operand.meta["val"] if hasattr(operand, "meta") else operand for operand in operands]
    inserted.meta = {**node.meta, "val": operator(*values, **settings)}
    return inserted
