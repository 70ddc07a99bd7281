"""Turns importers' calls of recurrent layers into layers, or into straight lines of operators where no template takes them.

An importer emits a call of an external function that is named after the cell and the direction, `recurrent_call`. It is not compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmmobile.graph.bindings import bindings_of, readers_of
from tvmmobile.graph.composed import ComposedLayer, layer_call
from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.layers import Layer, LayerParameters, Recurrent
from tvmmobile.graph.layers.recurrent import BACKWARD, BOTH, states_of
from tvmmobile.graph.passes.fold_constants import fold_constants
from tvmmobile.graph.passes.fold_rest import fold_rest
from tvmmobile.graph.passes.rewriting import MainRewriter
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.graph.unrolled_cells import CELL_ACTIVATIONS, Cell, unrolled
from tvmmobile.system.errors import UserError

#: Before the cell and the direction in the names of external functions.
_PREFIX = "tvmmobile.recurrent."


def recurrent_call(
    cell: str, direction: str, data: Any, weights: Sequence[Any], biases: Sequence[Any], states: Sequence[Any]
) -> tuple[Any, ...]:
    """Emit a recurrent layer.

    Args:
        cell, direction, data: see `Recurrent`.
        weights, biases: constants of the products of each direction's states, (units, gates · units) and (gates · units).
        states: initial states, in the order of `states_of`; none for zeros.

    Returns:
        The hidden states of all steps, (steps, sequences, directions · units), and an LSTM's memories of the end, (directions, sequences,
        units).
    """
    emit = relax.BlockBuilder.current().emit
    (steps, sequences, _), units, directions = shape_of(data), shape_of(weights[0])[0], len(weights)
    shapes = [(steps, sequences, directions * units), (directions, sequences, units)][: len(states_of(cell))]
    types = [relax.TensorType(shape, FLOAT32.name) for shape in shapes]
    arguments = relax.Tuple([data, *weights, *biases, *states])
    call = emit(relax.call_dps_packed(f"{_PREFIX}{cell}.{direction}", arguments, out_ty=types if len(types) > 1 else types[0]))
    return tuple(emit(relax.TupleGetItem(call, place)) for place in range(2)) if len(types) > 1 else (call,)


def last_hidden(outputs: Any, direction: str, units: int) -> Any:
    """Emit the final hidden states, (directions, sequences, units), from those of all steps."""
    emit, op = relax.BlockBuilder.current().emit, relax.op
    steps = shape_of(outputs)[0]
    if direction != BOTH:
        last = 0 if direction == BACKWARD else steps - 1
        return outputs if steps == 1 else emit(op.strided_slice(outputs, [0], [last], [last + 1]))
    ends = [
        emit(op.strided_slice(outputs, [0, 2], [step, first], [step + 1, first + units])) for step, first in ((steps - 1, 0), (0, units))
    ]
    return emit(op.concat(ends, 0))


def recurrent_macs(value: Any) -> int:
    """Return the multiply-adds of an importer's call; 0 for other values."""
    layer = _layer_of(value)
    return 0 if layer is None else layer.macs


def recurrent_layers(accepts: Callable[[Layer], bool], layers: dict[str, ComposedLayer]) -> Callable[[Any], Any]:
    """Return the pass that replaces importers' calls: by layers that are accepted, which it adds to `layers`, or by operators."""

    def compose(module: Any) -> Any:
        if not any(_layer_of(binding.value) for binding in bindings_of(module["main"])):
            return module
        for transform in (relax.transform.DeadCodeElimination(), fold_constants, fold_rest):
            module = transform(module)  # PyTorch's weights are turned and joined, and its states of the beginning made
        return _RecurrentReplacement(module["main"], accepts, layers).in_module(module)

    return compose


def _layer_of(value: Any) -> Recurrent | None:
    """Return the layer of an importer's call, with its initial states, if any, and without memories in its output."""
    if operator_of(value) != "relax.call_dps_packed" or not str(getattr(value.args[0], "global_symbol", "")).startswith(_PREFIX):
        return None
    cell, direction = value.args[0].global_symbol.removeprefix(_PREFIX).split(".")
    data, weight, *others = value.args[1].fields
    steps, sequences, _ = shape_of(data)
    layer = Recurrent(cell, steps, sequences, shape_of(weight)[0], direction)
    return replace(layer, initial=len(others) >= 2 * layer.directions)


class _RecurrentReplacement(MainRewriter):
    """Rewrites `main` so that importers' calls become recurrent layers, or operators where no template takes them.

    Attributes:
        results: results of each importer's call.
    """

    def __init__(self, main: Any, accepts: Callable[[Layer], bool], layers: dict[str, ComposedLayer]) -> None:
        super().__init__(main)
        self.accepts, self.layers, self.readers = accepts, layers, readers_of(main)
        self.results: dict[Any, tuple[Any, ...]] = {}

    def value(self, variable: Any, value: Any) -> Any:
        """Return a result of a layer, or the old value."""
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in self.results:
            return self.results[value.tuple_value][value.index]
        rebuilt = self.rebuild(value)
        layer = _layer_of(value)
        if layer is None:
            return rebuilt
        memory = any(getattr(self.values.get(reader), "index", 0) == 1 for reader in self.readers[variable])
        self.results[variable] = self._layer(replace(layer, memory=memory), list(map(self._known, rebuilt.args[1].fields)))
        return self.results[variable][0]

    def _known(self, value: Any) -> Any:
        """Return the constant that a variable stands for, or the variable."""
        bound = self.builder.lookup_binding(value) if isinstance(value, tvm.ir.Var) else None
        return bound if isinstance(bound, tvm.ir.GenericConst) else value

    def _layer(self, layer: Recurrent, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Emit a layer; return the results of the importer's call."""
        data, count, op = arguments[0], layer.directions, relax.op
        given, states = arguments[1 : 1 + 2 * count], arguments[1 + 2 * count :]
        if not all(isinstance(one, tvm.ir.GenericConst) for one in given):
            raise UserError(
                f"the network has a recurrent layer ({layer.name}) whose weights it computes.", "Export it with constant weights."
            )
        weights, biases = ([one.value.numpy() for one in part] for part in (given[:count], given[count:]))
        if all(isinstance(state, tvm.ir.GenericConst) and not state.value.numpy().any() for state in states):
            layer, states = replace(layer, initial=False), []
        if not self.accepts(layer):
            cells = [Cell(layer.cell, *both, CELL_ACTIVATIONS[layer.cell]) for both in zip(weights, biases, strict=True)]
            return unrolled(cells, data, states, layer.direction)
        composed = ComposedLayer(layer, LayerParameters(np.stack(weights), np.stack(biases)))
        result = self.builder.emit(layer_call(self.layers, composed, [data, *states]))
        if not layer.memory:
            return (result,)
        outputs, memory = (
            self.builder.emit(op.strided_slice(result, [0], [first], [last]))
            for first, last in ((0, layer.steps), (layer.steps, layer.steps + 1))
        )
        memory = self.builder.emit(op.reshape(memory, [layer.sequences, layer.directions, layer.units]))
        return outputs, memory if layer.directions == 1 == layer.sequences else self.builder.emit(op.permute_dims(memory, [1, 0, 2]))
