"""ONNX's `LSTM`, `GRU` and `RNN`: a matrix product for the inputs of all steps, and a recurrent layer behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tvmmobile.graph.expressions import constant, numbers_of, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.layers.recurrent import BACKWARD, BOTH, FORWARD
from tvmmobile.graph.passes.recurrent_layers import last_hidden, recurrent_call
from tvmmobile.graph.unrolled_cells import CELL_ACTIVATIONS, STEP_OPERATORS, Cell, unrolled
from tvmmobile.networks.budget import MOST_OPERATORS
from tvmmobile.system.errors import UserError

#: Places of our gates among ONNX's: input, output, forget and new; update, reset and new.
_ORDER = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2], "RNN": [0]}
_DIRECTIONS = {"forward": FORWARD, "reverse": BACKWARD, "bidirectional": BOTH}


def recurrent(kind: str) -> Callable[[Sequence[Any], dict[str, Any], int], Any]:
    """Return the converter of `LSTM`, `GRU` or `RNN`, in one direction or both, with initial states and without.

    Cells with peepholes, bounds or other activations become straight lines of operators.

    The converter raises `ValueError` for weights or lengths that are computed, lengths that differ, and activations that are not supported,
    and `UserError` for more steps than can be compiled one by one.
    """

    def convert(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
        from tvm import relax

        emit, op = relax.BlockBuilder.current().emit, relax.op
        operands: list[Any] = [*inputs, *[None] * (8 - len(inputs))]
        data, lengths, hidden, memory = operands[0], *operands[4:7]
        batch_first, direction = int(attrs.get("layout", 0)), _DIRECTIONS[attrs.get("direction", b"forward").decode()]
        if batch_first:
            data, hidden, memory = (value if value is None else emit(op.permute_dims(value, [1, 0, 2])) for value in (data, hidden, memory))
        steps, batch, _ = shape_of(data)
        if lengths is not None and not (_numbers(lengths, "lengths") == steps).all():
            raise ValueError(f"{kind} with sequences of different lengths is not supported")
        kernel, recurrence, bias, holes = (_numbers(value, "weights") for value in (*operands[1:4], operands[7]))
        directions, rows, units = recurrence.shape
        biases = np.zeros((directions, 2, rows), np.float32) if bias.size == 0 else bias.reshape(directions, 2, rows)
        biases = _ordered(biases, kind, units)
        cells = [
            _cell(kind, attrs, place, direction, _ordered(recurrence[place].T, kind, units), biases[place, 1], holes)
            for place in range(directions)
        ]
        # One product for the steps of both directions.
        columns = np.concatenate([_ordered(one.T, kind, units) for one in kernel], 1)
        product = emit(op.matmul(emit(op.reshape(data, [steps * batch, -1])), constant(columns)))
        given = emit(op.reshape(emit(op.add(product, constant(biases[:, 0].reshape(-1)))), [steps, batch, -1]))
        zeros = constant(np.zeros((directions, batch, units), np.float32))
        states = [zeros if state is None else state for state in (hidden, memory)[: 1 + (kind == "LSTM")]]
        if all(cell.is_plain for cell in cells) and len({cell.kind for cell in cells}) == 1:
            weights, added = ([constant(getattr(cell, name)) for cell in cells] for name in ("weight", "bias"))
            every, *memories = recurrent_call(cells[0].kind, direction, given, weights, added, states)
        else:
            if steps * directions * STEP_OPERATORS > MOST_OPERATORS:
                raise UserError(
                    f"the network has {kind} over {steps:,} steps, which are compiled one by one.", "Export it for fewer steps."
                )
            every, *memories = unrolled(cells, given, states, direction)
        sequence = emit(op.permute_dims(emit(op.reshape(every, [steps, batch, directions, units])), [0, 2, 1, 3]))
        outputs = [sequence, last_hidden(every, direction, units), *memories]
        if batch_first:
            outputs = [emit(op.permute_dims(one, [2, 0, 1, 3] if place == 0 else [1, 0, 2])) for place, one in enumerate(outputs)]
        count = attrs["tvm_custom"]["num_outputs"]
        return outputs[0] if count == 1 else relax.Tuple(outputs[:count])

    return convert


def _cell(kind: str, attrs: dict[str, Any], place: int, direction: str, weight: Array, bias: Array, holes: Array) -> Cell:
    """The cell of one direction; raises `ValueError` for activations that are not supported."""
    own = {"LSTM": "lstm", "GRU": "gru" if attrs.get("linear_before_reset", 0) else "gru_reset_first", "RNN": "rnn_tanh"}[kind]
    usual = CELL_ACTIVATIONS[own]
    names = tuple(name.decode().lower() for name in attrs.get("activations") or ()) or usual * (1 + (direction == BOTH))
    if not set(names) <= {"sigmoid", "tanh", "relu"} or "activation_alpha" in attrs or "activation_beta" in attrs:
        raise ValueError(f"{kind} with activations {', '.join(names)} is not supported")
    curves = names[place * len(usual) : (place + 1) * len(usual)]
    if curves == CELL_ACTIVATIONS["rnn_relu"]:
        own = "rnn_relu"
    # ONNX's peepholes are of the input, the output and the forget gate.
    parts = holes[place].reshape(3, -1)[[0, 2, 1]] if holes.size else None
    return Cell(own, weight, bias, curves, parts, float(attrs.get("clip", math.inf)), bool(attrs.get("input_forget", 0)))


def _ordered(array: Array, kind: str, units: int) -> Array:
    """The last axis with the gates in our order."""
    gates = array.reshape(*array.shape[:-1], -1, units)[..., _ORDER[kind], :]
    return np.ascontiguousarray(gates.reshape(array.shape))


def _numbers(value: Any, what: str) -> Array:
    """Return what a constant holds, or an empty array where it is omitted; raises `ValueError` if it is computed."""
    numbers = np.zeros(0, np.float32) if value is None else numbers_of(value)
    if numbers is None:
        raise ValueError(f"{what} that are computed are not supported")
    return np.asarray(numbers)
