"""Tensors that a library keeps between calls: an output of the network is an input of its next call."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tvmmobile.networks.frontend import Array
from tvmmobile.networks.models.spec import ModelSpec, OwnSpec
from tvmmobile.networks.signature import INPUT_NAME, OUTPUT_NAME, Port, named
from tvmmobile.system.errors import UserError

#: Behind the name of a variable in that of the output with its next value.
NEXT = "/next"
_Any = TypeVar("_Any")


@dataclass(frozen=True)
class State:
    """A tensor that is kept.

    Attributes:
        input, output: numbers of the network's input that reads it, and of the output that writes the next one.
        port: the input.
    """

    input: int
    output: int
    port: Port


def states_of(spec: ModelSpec, given: Sequence[str]) -> tuple[State, ...]:
    """Return the tensors that `--stateful` names, each as `INPUT=OUTPUT`, or as `NAME` if its output is `NAME/next`.

    Raises:
        UserError: there is no such input or output, one is named twice, they differ in shape or type, or no other ones are left.
    """
    states = tuple(_state(spec, text) for text in given)
    for kind, ports, numbers in (
        ("input", spec.takes, [state.input for state in states]),
        ("output", spec.returns, [state.output for state in states]),
    ):
        if twice := {ports[number].name for number in numbers if numbers.count(number) > 1}:
            raise UserError(f"--stateful names the {kind} {min(twice)!r} twice.", "Name each once.")
        if len(numbers) == len(ports):
            raise UserError(f"--stateful leaves {spec.variant} without an {kind}.", f"Leave out --stateful for one of its {kind}s.")
    return states


def _state(spec: ModelSpec, text: str) -> State:
    name, _, following = text.partition("=")
    source = _found(spec.takes, name, text, "input")
    target = _found(spec.returns, following or f"{name}{NEXT}", text, "output")
    port, other = spec.takes[source], spec.returns[target]
    if (port.shape, port.dtype) != (other.shape, other.dtype):
        raise UserError(f"--stateful {text} pairs {port} with {other}.", "Name an input and an output of the same shape and type.")
    return State(source, target, port)


def _found(ports: Sequence[Port], name: str, text: str, kind: str) -> int:
    names = [port.name for port in ports]
    if name not in names:
        remedy = f"Give --stateful INPUT=OUTPUT; the {kind}s are: {', '.join(names)}."
        raise UserError(f"the network has no {kind} {name!r} for --stateful {text}.", remedy)
    return names.index(name)


def inputs_but(states: Sequence[State], values: Sequence[_Any]) -> tuple[_Any, ...]:
    """Return the values, one per input, that callers pass."""
    return _but({state.input for state in states}, values)


def outputs_but(states: Sequence[State], values: Sequence[_Any]) -> tuple[_Any, ...]:
    """Return the values, one per output, that callers get."""
    return _but({state.output for state in states}, values)


def with_states(states: Sequence[State], given: Sequence[Array]) -> tuple[Array, ...]:
    """Return all inputs of a network, given those passed to a library that was just reset."""
    kept = {state.input: np.full(state.port.shape, state.port.zero, state.port.dtype) for state in states}
    rest = iter(given)
    return tuple(kept[number] if number in kept else next(rest) for number in range(len(given) + len(kept)))


def _but(numbers: Collection[int], values: Sequence[_Any]) -> tuple[_Any, ...]:
    return tuple(value for number, value in enumerate(values) if number not in numbers)


def without_states(spec: ModelSpec, states: Sequence[State]) -> ModelSpec:
    """Return the network as the callers of its library see it."""
    if not states:
        return spec
    assert isinstance(spec, OwnSpec)
    takes, returns = inputs_but(states, spec.takes), outputs_but(states, spec.returns)
    return OwnSpec.of(spec.name, spec.contents, named(takes, INPUT_NAME), named(returns, OUTPUT_NAME))
