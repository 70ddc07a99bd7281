"""Finds the layers that a network can keep in float32, and those that the user names."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

from tvmmobile.graph.layers import Rounding
from tvmmobile.quantisation.flow import Flow, FlowStep
from tvmmobile.system.errors import UserError


def chosen_layers(flow: Flow, patterns: Collection[str]) -> dict[int, str]:
    """Find the layers that `--keep` names by number or by name in the float32 network; `*` matches anything.

    Returns:
        The reason to keep each layer in float32, by its number.

    Raises:
        UserError: a pattern matches no layer.
    """
    reasons: dict[int, str] = {}
    for pattern in patterns:
        matching = [step for step in keepable(flow) if pattern == str(step.number) or fnmatchcase(step.layer.name, pattern)]
        if not matching:
            first = next(keepable(flow), None)
            example = f" Its first layer is {first.number}, {first.layer.name}." if first else ""
            raise UserError(
                f"--keep {pattern} matches no layer of the network.", f"Give a layer's number or name; * matches anything.{example}"
            )
        reasons |= {step.number: f"--keep {pattern}" for step in matching}
    return reasons


def keepable(flow: Flow) -> Iterator[FlowStep]:
    """Yield the steps that can be kept in float32; a gate becomes a product there."""
    return (step for step in flow.steps if step.parameters is not None and not isinstance(step.layer, Rounding))
