"""Gives tensors whose elements are only moved one scale, so that integers move unchanged."""

from __future__ import annotations

from typing import Any

from tvmmobile.graph.stages import stages_of
from tvmmobile.quantisation.flow import Flow, FlowStep
from tvmmobile.quantisation.integers import has_integers


def read_as_integers(flow: Flow) -> set[int]:
    """Return the numbers of steps whose output an integer layer (`has_integers`) reads, directly or through moves."""
    read: set[int] = set()
    integers = {step.number for step in flow.steps if has_integers(step)}
    moving = {step.number for step in flow.steps if only_moves(step)}
    for step in reversed(flow.steps):
        if any(reader in integers or (reader in moving and reader in read) for reader in flow.readers.get(step.number, ())):
            read.add(step.number)
    return read


def joined_scales(flow: Flow) -> dict[int, int]:
    """Map the number of each tensor, including the input, to that of the tensor whose scale it shares.

    Tensors share a scale if they are concatenated, split, moved or compared on their way to an integer layer (`has_integers`). Tensors
    missing from the map have a scale of their own.
    """
    parents: dict[int, int] = {}

    def root(number: int) -> int:
        return root(parents[number]) if number in parents else number

    read = read_as_integers(flow)
    for step in flow.steps:
        for source in step.sources if step.number in read and only_moves(step) else ():
            if isinstance(source, int) and root(source) != root(step.number):
                parent, child = sorted((root(step.number), root(source)))
                parents[child] = parent
    return {number: root(number) for number in parents}


def only_moves(step: FlowStep) -> bool:
    """Return whether each output element of an opaque step is an input element, or the maximum of several."""
    from tvm import tirx

    if step.function is None or not all(isinstance(source, int) for source in step.sources):
        return False
    stages = stages_of(step.function)
    return stages is not None and all(stage.join in ("", "Max") and _is_load(stage.value, tirx, bool(stage.join)) for stage in stages)


def _is_load(value: Any, tirx: Any, padded: bool) -> bool:
    """Return whether an expression is a load, a choice between loads, or, if `padded`, a pool's constant for padding."""
    import tvm

    if isinstance(value, tirx.Select):
        return all(_is_load(part, tirx, padded) for part in (value.true_value, value.false_value))
    if isinstance(value, tvm.ir.Call) and str(getattr(value.op, "name", "")).endswith("if_then_else"):
        return all(_is_load(part, tirx, padded) for part in value.args[1:])
    return isinstance(value, tvm.ir.TensorLoad) or (padded and isinstance(value, tirx.FloatImm))
