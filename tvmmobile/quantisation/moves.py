"""Tensors that hold the same numbers in other places have one scale, so that integers are moved as they are."""

from __future__ import annotations

from typing import Any

from tvmmobile.graph.stages import stages_of
from tvmmobile.quantisation.flow import Flow, FlowStep
from tvmmobile.quantisation.integers import has_integers


def read_as_integers(flow: Flow) -> set[int]:
    """Return the numbers of steps that a layer reads which `has_integers`, perhaps behind moves."""
    found: set[int] = set()
    integers = {step.number for step in flow.steps if has_integers(step)}
    moving = {step.number for step in flow.steps if only_moves(step)}
    for step in reversed(flow.steps):
        if any(reader in integers or (reader in moving and reader in found) for reader in flow.readers.get(step.number, ())):
            found.add(step.number)
    return found


def joined_scales(flow: Flow) -> dict[int, int]:
    """Map the numbers of tensors, the input's included, to that of a tensor with the same scale: of what is joined, cut, moved or compared
    on its way to a layer that `has_integers`, one stands for all. Tensors that are missing stand for themselves.
    """
    found: dict[int, int] = {}

    def first(number: int) -> int:
        return first(found[number]) if number in found else number

    read = read_as_integers(flow)
    for step in flow.steps:
        for source in step.sources if step.number in read and only_moves(step) else ():
            if isinstance(source, int) and first(source) != first(step.number):
                one, other = sorted((first(step.number), first(source)))
                found[other] = one
    return {number: first(number) for number in found}


def only_moves(step: FlowStep) -> bool:
    """Return whether each number that an opaque step returns is one of those that it reads, the same one of all smaller and larger ones."""
    from tvm import tirx

    if step.function is None or not all(isinstance(source, int) for source in step.sources):
        return False
    stages = stages_of(step.function)
    return stages is not None and all(stage.join in ("", "Max") and _is_load(stage.value, tirx, bool(stage.join)) for stage in stages)


def _is_load(value: Any, tirx: Any, padded: bool) -> bool:
    """Return whether an expression is one of several loads, or a number beside the pixels of a pool."""
    import tvm

    if isinstance(value, tirx.Select):
        return all(_is_load(part, tirx, padded) for part in (value.true_value, value.false_value))
    if isinstance(value, tvm.ir.Call) and str(getattr(value.op, "name", "")).endswith("if_then_else"):
        return all(_is_load(part, tirx, padded) for part in value.args[1:])
    return isinstance(value, tvm.ir.TensorLoad) or (padded and isinstance(value, tirx.FloatImm))
