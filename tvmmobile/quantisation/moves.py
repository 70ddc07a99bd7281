"""Gives tensors with the same numbers in other places one scale, so that integers move unchanged."""

from __future__ import annotations

from typing import Any

from tvmmobile.graph.stages import stages_of
from tvmmobile.quantisation.flow import Flow, FlowStep
from tvmmobile.quantisation.integers import has_integers


def read_as_integers(flow: Flow) -> set[int]:
    """Return the steps that a layer which `has_integers` reads, perhaps through moves."""
    found: set[int] = set()
    integers = {step.number for step in flow.steps if has_integers(step)}
    moving = {step.number for step in flow.steps if only_moves(step)}
    for step in reversed(flow.steps):
        if any(reader in integers or (reader in moving and reader in found) for reader in flow.readers.get(step.number, ())):
            found.add(step.number)
    return found


def joined_scales(flow: Flow) -> dict[int, int]:
    """Map each tensor's number, also the input's, to that of the tensor whose scale it shares.

    Tensors share one scale if they are joined, cut, moved or compared on their way to a layer that `has_integers`. Tensors missing from the
    map have a scale of their own.
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
    """Return whether an opaque step only returns numbers that it reads, chosen by comparisons at most."""
    from tvm import tirx

    if step.function is None or not all(isinstance(source, int) for source in step.sources):
        return False
    stages = stages_of(step.function)
    return stages is not None and all(stage.join in ("", "Max") and _is_load(stage.value, tirx, bool(stage.join)) for stage in stages)


def _is_load(value: Any, tirx: Any, padded: bool) -> bool:
    """Return whether an expression is one of several loads, or a pool's number for missing pixels."""
    import tvm

    if isinstance(value, tirx.Select):
        return all(_is_load(part, tirx, padded) for part in (value.true_value, value.false_value))
    if isinstance(value, tvm.ir.Call) and str(getattr(value.op, "name", "")).endswith("if_then_else"):
        return all(_is_load(part, tirx, padded) for part in value.args[1:])
    return isinstance(value, tvm.ir.TensorLoad) or (padded and isinstance(value, tirx.FloatImm))
