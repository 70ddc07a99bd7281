"""Converts PyTorch's recurrent layers and cells, which its exporter would unroll, to products of the inputs and recurrent layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from tvm import relax

from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.layers.recurrent import BOTH, FORWARD
from tvmmobile.graph.passes.recurrent_layers import last_hidden, recurrent_call

_CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def recurrent_operators(program: Any) -> Iterator[Any]:
    """Yield operators that stay whole: used only in float32 and evaluation, with the program's own weights, and without projections."""
    own = {node for node in program.graph.nodes if node.op == "placeholder" and node.name not in program.graph_signature.user_inputs}
    found: dict[Any, bool] = {}
    for node in program.graph.nodes:
        name = getattr(node.target, "__name__", "")
        if node.op != "call_function" or name not in recurrent_converters():
            continue
        weights, regular = [weight for weight in node.args[2:6] if weight is not None], True
        if name.endswith(".input"):
            weights, (biases, layers, _, training, both) = node.args[2], node.args[3:8]
            regular = not training and len(weights) == layers * (1 + both) * (4 if biases else 2)
        plain = regular and all(weight in own and weight.meta["val"].dtype == torch.float32 for weight in weights)
        found[node.target] = found.get(node.target, True) and plain
    yield from (operator for operator, whole in found.items() if whole)


def recurrent_converters() -> dict[str, Callable[[Any, Any], Any]]:
    """Return converters as in `torch_operators`, by the operator's name and overload."""
    layers = {f"{cell}.input": partial(_layers, cell) for cell in _CELLS}
    return layers | {f"{cell}_cell.default": partial(_single, cell) for cell in _CELLS}


def _layers(cell: str, node: Any, importer: Any) -> Any:
    """Convert stacked layers to (outputs, final hidden states), and memories."""
    emit, op = importer.block_builder.emit, relax.op
    data, given, parameters, biases, layers, _, _, both, batch_first = importer.retrieve_args(node)
    states = list(given) if cell == "lstm" else [given]
    each, directions = (4 if biases else 2), 1 + both
    if batch_first:
        data = emit(op.permute_dims(data, [1, 0, 2]))
    ends: list[list[Any]] = []
    for number in range(layers):
        first = number * directions
        sets = [parameters[(first + place) * each : (first + place + 1) * each] for place in range(directions)]
        rows = [emit(op.strided_slice(state, [0], [first], [first + directions])) for state in states]
        data, *last = _layer(importer, cell, BOTH if both else FORWARD, data, sets, rows)
        ends.append(last)
    outputs = emit(op.permute_dims(data, [1, 0, 2])) if batch_first else data
    return relax.Tuple([outputs, *(emit(op.concat(list(parts), 0)) for parts in zip(*ends, strict=True))])


def _single(cell: str, node: Any, importer: Any) -> Any:
    emit, op = importer.block_builder.emit, relax.op
    data, given, *parameters = importer.retrieve_args(node)
    one_step = [emit(op.expand_dims(value, 0)) for value in (data, *(given if cell == "lstm" else [given]))]
    parameters = [value for value in parameters if value is not None]
    _, *ends = _layer(importer, cell, FORWARD, one_step[0], [parameters], one_step[1:])
    results = [emit(op.squeeze(end, [0])) for end in ends]
    return relax.Tuple(results) if cell == "lstm" else results[0]


def _layer(importer: Any, cell: str, direction: str, data: Any, sets: Sequence[Sequence[Any]], states: Sequence[Any]) -> tuple[Any, ...]:
    """Emit a layer; return the outputs of all steps and the final states.

    Args:
        sets: the weights of the input and of the state, and both biases or none, for each direction.
    """
    emit, op = importer.block_builder.emit, relax.op
    (steps, sequences, _), (rows, units) = shape_of(data), shape_of(sets[0][1])
    zeros = relax.const(np.zeros(rows, np.float32))

    def joined(place: int, axis: int) -> Any:
        parts = [one[place] if place < len(one) else zeros for one in sets]
        return parts[0] if len(parts) == 1 else emit(op.concat(parts, axis))

    flat = emit(op.reshape(data, [steps * sequences, -1]))
    product = emit(op.matmul(flat, emit(op.permute_dims(joined(0, 0)))))
    given = emit(op.reshape(emit(op.add(product, joined(2, 0))), [steps, sequences, -1]))
    weights = [emit(op.permute_dims(one[1])) for one in sets]
    biases = [one[3] if len(one) > 3 else zeros for one in sets]
    outputs, *memory = recurrent_call(cell, direction, given, weights, biases, states)
    return outputs, last_hidden(outputs, direction, units), *memory
