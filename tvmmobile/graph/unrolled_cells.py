"""Unrolls recurrent layers without a kernel of their own into straight lines of operators, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.expressions import constant, shape_of
from tvmmobile.graph.layers.recurrent import BACKWARD, GATES, states_of

#: Operators that a step adds at least.
STEP_OPERATORS = 8
#: Activations of each cell: of its gates, and of what follows them.
CELL_ACTIVATIONS = {
    "lstm": ("sigmoid", "tanh", "tanh"),
    "gru": ("sigmoid", "tanh"),
    "gru_reset_first": ("sigmoid", "tanh"),
    "rnn_tanh": ("tanh",),
    "rnn_relu": ("relu",),
}


@dataclass(frozen=True)
class Cell:
    """One direction of a recurrent layer.

    Attributes:
        kind: one of `GATES`, which has the order of the gates.
        weight: weights of the hidden state, (units, gates · units): an array, or an expression if computed, as are `bias` and `holes`.
        bias: bias of its product, (gates · units).
        curves: activations, as in `CELL_ACTIVATIONS`.
        holes: an LSTM's peepholes of its input, forget and output gate, (3 · units).
        clip: the largest magnitude of what activations of gates read.
        coupled: an LSTM's forget gate is one less its input gate.
    """

    kind: str
    weight: Any
    bias: Any
    curves: tuple[str, ...]
    holes: Any = None
    clip: float = math.inf
    coupled: bool = False

    @property
    def is_plain(self) -> bool:
        """True for a cell that `graph.layers.Recurrent` supports."""
        known = isinstance(self.weight, np.ndarray) and isinstance(self.bias, np.ndarray)
        return known and self.curves == CELL_ACTIVATIONS[self.kind] and self.holes is None and math.isinf(self.clip) and not self.coupled

    def step(self, given: Any, states: Sequence[Any]) -> list[Any]:
        """Emit a step; return its states.

        Args:
            given: the product of its input, (sequences, gates · units).
            states: those before it, each (sequences, units).
        """
        hidden = states[0]
        if self.kind == "lstm":
            return self._lstm(_emit("add", given, self._product(hidden)), hidden, states[1])
        if not self.kind.startswith("gru"):
            return [self._curve(_emit("add", given, self._product(hidden)), 0)]
        inputs, first = _split(given, 3), self.kind == "gru_reset_first"
        products = _split(self._product(hidden, 0, 2 if first else 3), 2 if first else 3)
        reset, update = (self._curve(_emit("add", inputs[gate], products[gate]), 0) for gate in range(2))
        product = self._product(_emit("multiply", reset, hidden), 2, 3) if first else _emit("multiply", reset, products[2])
        new = self._curve(_emit("add", inputs[2], product), 1)
        return [_emit("add", new, _emit("multiply", update, _emit("subtract", hidden, new)))]

    def _lstm(self, gates: Any, hidden: Any, memory: Any) -> list[Any]:
        into, forget, new, out = _split(gates, 4)

        def seen(gate: Any, place: int, state: Any) -> Any:
            return gate if self.holes is None else _emit("add", gate, _emit("multiply", state, _gates(self.holes, state, place, place + 1)))

        into = self._curve(seen(into, 0, memory), 0)
        forget = _emit("subtract", constant(np.float32(1.0)), into) if self.coupled else self._curve(seen(forget, 1, memory), 0)
        memory = _emit("add", _emit("multiply", forget, memory), _emit("multiply", into, self._curve(new, 1)))
        return [_emit("multiply", self._curve(seen(out, 2, memory), 0), self._curve(memory, 2, clipped=False)), memory]

    def _product(self, state: Any, first: int = 0, last: int | None = None) -> Any:
        """Return the product of a state for some gates, with their biases."""
        last = GATES[self.kind] if last is None else last
        return _emit("add", _emit("matmul", state, _gates(self.weight, state, first, last)), _gates(self.bias, state, first, last))

    def _curve(self, value: Any, place: int, clipped: bool = True) -> Any:
        if clipped and math.isfinite(self.clip):
            value = _emit("clip", value, -self.clip, self.clip)
        return _emit(self.curves[place], value)


def unrolled(cells: Sequence[Cell], data: Any, states: Sequence[Any], direction: str) -> tuple[Any, ...]:
    """Emit all steps of the cells, one for each direction; arguments and results are those of `recurrent_call`."""
    steps, sequences, _ = shape_of(data)
    units = shape_of(data)[-1] // len(cells) // GATES[cells[0].kind]
    zeros = constant(np.zeros((len(cells), sequences, units), np.float32))
    hidden: list[list[Any]] = [[] for _ in range(steps)]
    memories: list[Any] = []
    for number, (cell, rows) in enumerate(zip(cells, _split(data, len(cells), 2), strict=True)):
        current = [_row(state, number, [sequences, units]) for state in states or [zeros] * len(states_of(cell.kind))]
        backward = direction == BACKWARD or number == 1
        for step in reversed(range(steps)) if backward else range(steps):
            current = cell.step(_row(rows, step, [sequences, -1]), current)
            hidden[step].append(current[0])
        memories += current[1:]
    outputs = _stacked([found[0] if len(found) == 1 else _emit("concat", found, 1) for found in hidden], [sequences, -1])
    return (outputs, _stacked(memories, [sequences, units])) if memories else (outputs,)


def _row(value: Any, number: int, shape: Sequence[int]) -> Any:
    """Emit one place of the first dimension in a given shape."""
    part = value if shape_of(value)[0] == 1 else _emit("strided_slice", value, [0], [number], [number + 1])
    return _emit("reshape", part, shape)


def _gates(value: Any, state: Any, first: int, last: int) -> Any:
    """Emit the part of a weight's last axis for some gates, each as wide as the state."""
    units = shape_of(state)[-1]
    if isinstance(value, np.ndarray):
        return constant(np.ascontiguousarray(value[..., first * units : last * units]))
    return _emit("strided_slice", value, [len(shape_of(value)) - 1], [first * units], [last * units])


def _stacked(parts: Sequence[Any], shape: Sequence[int]) -> Any:
    """Emit a tensor with another leading dimension."""
    return _emit("reshape", parts[0] if len(parts) == 1 else _emit("concat", parts, 0), [len(parts), *shape])


def _split(value: Any, count: int, axis: int = 1) -> list[Any]:
    from tvm import relax

    if count == 1:
        return [value]
    emit = relax.BlockBuilder.current().emit
    parts = emit(relax.op.split(value, count, axis))
    return [emit(relax.TupleGetItem(parts, place)) for place in range(count)]


def _emit(operator: str, *operands: Any) -> Any:
    from tvm import relax

    function = getattr(relax.op.nn if operator == "relu" else relax.op, operator)
    return relax.BlockBuilder.current().emit(function(*operands))
