"""Unrolls ONNX's `LSTM`, `GRU` and `RNN` into a matrix product for the inputs of all steps, and one of the state for each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.expressions import constant, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.networks.budget import MOST_OPERATORS
from tvmmobile.system.errors import UserError

#: Operators that a step adds at least, for the budget.
_STEP_OPERATORS = 8
#: Activations by name, as operators of Relax.
_CURVES = {"sigmoid": "sigmoid", "tanh": "tanh", "relu": "nn.relu"}


def recurrent(kind: str) -> Callable[[Sequence[Any], dict[str, Any], int], Any]:
    """Return the converter of `LSTM`, `GRU` or `RNN`, in one direction or both, with initial states and without.

    The converter raises `ValueError` for weights or lengths that are computed, lengths that differ, and activations that are not supported,
    and `UserError` for more steps than can be compiled.
    """
    gates, curves = {"LSTM": (4, "sigmoid tanh tanh"), "GRU": (3, "sigmoid tanh"), "RNN": (1, "tanh")}[kind]

    def convert(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
        from tvm import relax

        emit, op = relax.BlockBuilder.current().emit, relax.op
        operands: list[Any] = [*inputs, *[None] * (8 - len(inputs))]
        data, lengths, hidden, memory = operands[0], *operands[4:7]
        batch_first, direction = int(attrs.get("layout", 0)), attrs.get("direction", b"forward").decode()
        if batch_first:
            data, hidden, memory = (value if value is None else emit(op.permute_dims(value, [1, 0, 2])) for value in (data, hidden, memory))
        steps, batch, _ = shape_of(data)
        if lengths is not None and not (_numbers(lengths, "lengths") == steps).all():
            raise ValueError(f"{kind} with sequences of different lengths is not supported")
        kernel, recurrence, bias, holes = (_numbers(value, "weights") for value in (*operands[1:4], operands[7]))
        directions, units = recurrence.shape[0], recurrence.shape[2]
        if steps * directions * _STEP_OPERATORS > MOST_OPERATORS:
            raise UserError(f"the network has {kind} over {steps:,} steps, which are compiled one by one.", "Export it for fewer steps.")
        names = [name.lower() for name in _texts(attrs.get("activations"))] or curves.split() * directions
        if not set(names) <= _CURVES.keys() or "activation_alpha" in attrs or "activation_beta" in attrs:
            raise ValueError(f"{kind} with activations {', '.join(names)} is not supported")
        bias = np.zeros((directions, 2 * gates * units), np.float32) if bias.size == 0 else bias
        rows, results = emit(op.reshape(data, [steps * batch, -1])), []
        for place in range(directions):
            many = len(names) // directions
            cell = _Cell(
                kind,
                kernel[place],
                recurrence[place],
                bias[place].reshape(2, -1),
                holes[place].reshape(3, units) if holes.size else None,
                names[place * many : (place + 1) * many],
                float(attrs.get("clip", math.inf)),
                bool(attrs.get("input_forget", 0)),
                bool(attrs.get("linear_before_reset", 0)),
            )
            zeros = constant(np.zeros((directions, batch, units), np.float32))
            given = [emit(op.strided_slice(zeros if value is None else value, [0], [place], [place + 1])) for value in (hidden, memory)]
            states = [emit(op.reshape(value, [batch, units])) for value in given]
            results.append(cell.unrolled(rows, steps, batch, states, direction == "reverse" or place == 1))
        every = [op.concat([states[0] for states in found], 0) for found, _ in results]
        whole = [emit(op.reshape(one, [steps, 1, batch, units])) for one in every]
        outputs = [whole[0] if directions == 1 else emit(op.concat(whole, 1))]
        for which in range(2 if kind == "LSTM" else 1):
            last = [emit(op.reshape(states[which], [1, batch, units])) for _, states in results]
            outputs.append(last[0] if directions == 1 else emit(op.concat(last, 0)))
        if batch_first:
            outputs = [emit(op.permute_dims(one, [2, 0, 1, 3] if place == 0 else [1, 0, 2])) for place, one in enumerate(outputs)]
        count = attrs["tvm_custom"]["num_outputs"]
        return outputs[0] if count == 1 else relax.Tuple(outputs[:count])

    return convert


def _numbers(value: Any, what: str) -> Array:
    """Return what a constant holds, or an empty array where it is omitted; raises `ValueError` if it is computed."""
    import tvm

    if value is None:
        return np.zeros(0, np.float32)
    if not isinstance(value, tvm.ir.GenericConst):
        raise ValueError(f"{what} that are computed are not supported")
    return np.asarray(value.value.numpy())


def _texts(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values or ()]


@dataclass(frozen=True)
class _Cell:
    """One direction of a recurrent layer.

    Attributes:
        kind: LSTM, GRU or RNN.
        kernel, recurrence: weights of the input and of the state, a row for each unit of each gate.
        bias: of both.
        holes: an LSTM's peepholes of its input, output and forget gate.
        curves: activations, in ONNX's order.
        clip: the largest magnitude of what activations read.
        coupled: an LSTM's forget gate is one less its input gate.
        linear_first: a GRU multiplies the state with its weights before it resets it.
    """

    kind: str
    kernel: Array
    recurrence: Array
    bias: Array
    holes: Array | None
    curves: Sequence[str]
    clip: float
    coupled: bool
    linear_first: bool

    def unrolled(self, rows: Any, steps: int, batch: int, states: Sequence[Any], backwards: bool) -> tuple[list[list[Any]], list[Any]]:
        """Emit all steps; returns the states after each, in the order of the input, and those after the last one.

        Args:
            rows: the inputs of all steps, one below the other.
            states: the initial ones.
            backwards: begin with the last step.
        """
        from tvm import relax

        units = self.recurrence.shape[1]
        current = list(states)
        added = self.bias.sum(0)
        if self.kind == "GRU" and self.linear_first:
            added[2 * units :] = self.bias[0, 2 * units :]
        given = self._product(rows, self.kernel, added)
        found: list[list[Any]] = [[]] * steps
        step = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.kind]
        for place in reversed(range(steps)) if backwards else range(steps):
            part = given if steps == 1 else _emit(relax.op.strided_slice(given, [0], [place * batch], [(place + 1) * batch]))
            current = step(part, *current)
            found[place] = current
        return found, current

    def _product(self, data: Any, weight: Array, bias: Array | None = None) -> Any:
        from tvm import relax

        product = _emit(relax.op.matmul(data, constant(np.ascontiguousarray(weight.T))))
        return product if bias is None else _emit(relax.op.add(product, constant(bias)))

    def _curve(self, value: Any, place: int, clipped: bool = True) -> Any:
        from tvm import relax

        if clipped and math.isfinite(self.clip):
            value = _emit(relax.op.clip(value, -self.clip, self.clip))
        called = _CURVES[self.curves[place]]
        return _emit(relax.op.nn.relu(value) if called == "nn.relu" else getattr(relax.op, called)(value))

    def _gates(self, value: Any, count: int) -> list[Any]:
        from tvm import relax

        parts = _emit(relax.op.split(value, count, 1))
        return [_emit(relax.TupleGetItem(parts, place)) for place in range(count)]

    def _rnn(self, given: Any, hidden: Any, _memory: Any) -> list[Any]:
        from tvm import relax

        return [self._curve(_emit(relax.op.add(given, self._product(hidden, self.recurrence))), 0), None]

    def _lstm(self, given: Any, hidden: Any, memory: Any) -> list[Any]:
        from tvm import relax

        add, multiply = relax.op.add, relax.op.multiply
        into, out, forget, new = self._gates(_emit(add(given, self._product(hidden, self.recurrence))), 4)

        def seen(gate: Any, place: int, state: Any) -> Any:
            return gate if self.holes is None else _emit(add(gate, multiply(state, constant(self.holes[place]))))

        into = self._curve(seen(into, 0, memory), 0)
        forget = _emit(relax.op.subtract(relax.const(1.0), into)) if self.coupled else self._curve(seen(forget, 2, memory), 0)
        memory = _emit(add(multiply(forget, memory), multiply(into, self._curve(new, 1))))
        return [_emit(multiply(self._curve(seen(out, 1, memory), 0), self._curve(memory, 2, clipped=False))), memory]

    def _gru(self, given: Any, hidden: Any, _memory: Any) -> list[Any]:
        from tvm import relax

        add, multiply, units = relax.op.add, relax.op.multiply, self.recurrence.shape[1]
        inputs = self._gates(given, 3)
        if self.linear_first:
            bias = self.bias[1].copy()
            bias[: 2 * units] = 0
            states = self._gates(self._product(hidden, self.recurrence, bias), 3)
        else:
            states = self._gates(self._product(hidden, self.recurrence[: 2 * units]), 2)
        update, reset = (self._curve(_emit(add(inputs[place], states[place])), 0) for place in range(2))
        if self.linear_first:
            state = multiply(reset, states[2])
        else:
            state = self._product(_emit(multiply(reset, hidden)), self.recurrence[2 * units :])
        new = self._curve(_emit(add(inputs[2], state)), 1)
        kept = multiply(update, relax.op.subtract(hidden, new))
        return [_emit(add(new, kept)), None]


def _emit(value: Any) -> Any:
    from tvm import relax

    return relax.BlockBuilder.current().emit(value)
