"""Converts ONNX's `LSTM`, `GRU` and `RNN` to a matrix product for all steps' inputs, followed by a recurrent layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.expressions import constant, numbers_of, shape_of
from tvmmobile.graph.layers.recurrent import BACKWARD, BOTH, FORWARD
from tvmmobile.graph.passes.recurrent_layers import last_hidden, recurrent_call
from tvmmobile.graph.unrolled_cells import CELL_ACTIVATIONS, STEP_OPERATORS, Cell, unrolled
from tvmmobile.networks.budget import MOST_OPERATORS
from tvmmobile.system.errors import UserError

#: Places of our gates among ONNX's: input, output, forget and new; update, reset and new.
_ORDER = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2], "RNN": [0]}
#: Places of our peepholes among ONNX's: input, output and forget.
_PEEPHOLES = [0, 2, 1]
_DIRECTIONS = {"forward": FORWARD, "reverse": BACKWARD, "bidirectional": BOTH}


def recurrent(kind: str, inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `LSTM`, `GRU` or `RNN`, in one direction or both, with initial states and without.

    Cells with peepholes, bounds, other activations or weights that are computed become straight lines of operators.

    Raises:
        ValueError: lengths are computed or differ, or activations are not supported.
        UserError: there are more steps than can be compiled one by one.
    """
    emit, op = relax.BlockBuilder.current().emit, relax.op
    operands: list[Any] = [*inputs, *[None] * (8 - len(inputs))]
    data, lengths, hidden, memory = operands[0], *operands[4:7]
    batch_first, direction = int(attrs.get("layout", 0)), _DIRECTIONS[attrs.get("direction", b"forward").decode()]
    if batch_first:
        data, hidden, memory = (value if value is None else emit(op.permute_dims(value, [1, 0, 2])) for value in (data, hidden, memory))
    steps, batch, _ = shape_of(data)
    if lengths is not None and not np.all(numbers_of(lengths) == steps):
        raise ValueError(f"{kind} with sequences of different or computed lengths is not supported")
    kernel, recurrence, bias, holes = (_weight(value) for value in (*operands[1:4], operands[7]))
    directions, rows, units = shape_of(operands[2])
    order, inner = (np.arange(len(gates) * units).reshape(-1, units)[gates].reshape(-1) for gates in (_ORDER[kind], _PEEPHOLES))
    holes = None if holes is None else _applied("take", holes, inner, 1)
    biases = np.zeros((directions, 2, rows), np.float32) if bias is None else _applied("reshape", bias, [directions, 2, rows])
    biases = _applied("take", biases, order, 2)
    weights = _applied("transpose", _applied("take", recurrence, order, 1), [0, 2, 1])
    cells = [
        _cell(kind, attrs, place, direction, _row(weights, place), _row(_row(biases, 1, 1), place), holes) for place in range(directions)
    ]
    # One product for the steps of both directions.
    columns = _applied("reshape", _applied("transpose", _applied("take", kernel, order, 1), [2, 0, 1]), [-1, directions * rows])
    product = emit(op.matmul(emit(op.reshape(data, [steps * batch, -1])), _expression(columns)))
    given = emit(op.reshape(emit(op.add(product, _expression(_applied("reshape", _row(biases, 0, 1), [-1])))), [steps, batch, -1]))
    zeros = constant(np.zeros((directions, batch, units), np.float32))
    states = [zeros if state is None else state for state in (hidden, memory)[: 1 + (kind == "LSTM")]]
    if all(cell.is_plain for cell in cells) and len({cell.kind for cell in cells}) == 1:
        weights, added = ([constant(getattr(cell, name)) for cell in cells] for name in ("weight", "bias"))
        every, *memories = recurrent_call(cells[0].kind, direction, given, weights, added, states)
    else:
        if steps * directions * STEP_OPERATORS > MOST_OPERATORS:
            raise UserError(f"the network has {kind} over {steps:,} steps, which are compiled one by one.", "Export it for fewer steps.")
        every, *memories = unrolled(cells, given, states, direction)
    sequence = emit(op.permute_dims(emit(op.reshape(every, [steps, batch, directions, units])), [0, 2, 1, 3]))
    outputs = [sequence, last_hidden(every, direction, units), *memories]
    if batch_first:
        outputs = [emit(op.permute_dims(one, [2, 0, 1, 3] if place == 0 else [1, 0, 2])) for place, one in enumerate(outputs)]
    count = attrs["tvm_custom"]["num_outputs"]
    return outputs[0] if count == 1 else relax.Tuple(outputs[:count])


def _cell(kind: str, attrs: dict[str, Any], place: int, direction: str, weight: Any, bias: Any, holes: Any) -> Cell:
    """Return the cell of one direction; raise `ValueError` for activations that are not supported."""
    own = {"LSTM": "lstm", "GRU": "gru" if attrs.get("linear_before_reset", 0) else "gru_reset_first", "RNN": "rnn_tanh"}[kind]
    usual = CELL_ACTIVATIONS[own]
    names = tuple(name.decode().lower() for name in attrs.get("activations") or ()) or usual * (1 + (direction == BOTH))
    if not set(names) <= {"sigmoid", "tanh", "relu"} or "activation_alpha" in attrs or "activation_beta" in attrs:
        raise ValueError(f"{kind} with activations {', '.join(names)} is not supported")
    curves = names[place * len(usual) : (place + 1) * len(usual)]
    if curves == CELL_ACTIVATIONS["rnn_relu"]:
        own = "rnn_relu"
    parts = None if holes is None else _row(holes, place)
    return Cell(own, weight, bias, curves, parts, float(attrs.get("clip", math.inf)), bool(attrs.get("input_forget", 0)))


def _weight(value: Any) -> Any:
    """Return a constant's array; a computed expression unchanged; `None` for an omitted or empty input."""
    return None if value is None or 0 in shape_of(value) else value if numbers_of(value) is None else numbers_of(value)


def _expression(value: Any) -> Any:
    return constant(value) if isinstance(value, np.ndarray) else value


def _row(value: Any, number: int, axis: int = 0) -> Any:
    """Return a slice at one place, without its axis."""
    return _applied("take", value, np.array(number), axis)


def _applied(step: str, value: Any, *arguments: Any) -> Any:
    """Rearrange an array at once, or an expression by an operator: `reshape`, `transpose` or `take`, with NumPy's arguments."""
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(getattr(value, step)(*arguments))
    operator = {"transpose": "permute_dims"}.get(step, step)
    return relax.BlockBuilder.current().emit(getattr(relax.op, operator)(value, *map(_expression, arguments)))
