"""Recurrent layers: a loop over the time steps, each a product of hidden states and packed weights, then the gates and new states."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.curves import CURVES
from tvmmobile.graph.layers import Array, LayerParameters, Recurrent
from tvmmobile.graph.layers.recurrent import BACKWARD, BOTH, states_of
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.epilogue import Ends, Spot
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel, share
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, good_tile, pack_panels, panels
from tvmmobile.schedules.emit.vectors import Vectors
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import STORAGE, THREADS, Template, layer_of


class StepwiseRecurrent(Template):
    """Accepts one recurrent layer. Threads share its directions and sequences.

    States and gates are zero-padded to whole vectors, and stay in L1.

    Knobs:
        rows: sequences per register tile.
        columns: gate elements per register tile.
        unroll: K steps (units of the state) per iteration of the product's loop.
        vectors: vectors of units whose gates are computed together.
    """

    name = "recurrent"
    version = 1
    handles = THREADS | STORAGE
    multiplies = True

    def _space(self, task: Task) -> Space | None:
        layer, lanes = task.region[0], task.lanes
        if not isinstance(layer, Recurrent) or task.precision.total != FLOAT32.name:
            return None
        units = round_up(layer.units, lanes)
        outputs = min(products_of(layer)) * units
        options = {
            "rows": tuple(rows for rows in range(1, 9) if layer.sequences % rows == 0),
            "columns": up_to((1, 2, 4, 6, 8, 10, 12, 16, 20, 24), outputs, lanes),
            "unroll": up_to((1, 2, 4), units, lanes),
            "vectors": up_to((1, 2), units // lanes),
        }

        def fits(knobs: Knobs) -> bool:
            return good_tile(task.machine, lanes, knobs["rows"], knobs["columns"], layer.sequences, outputs)

        return Space(self.name, self.version, options, fits, {"rows": 4, "columns": 8 * lanes, "unroll": lanes, "vectors": 1})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return extents, and the waste of the last panel."""
        layer = layer_of(task, Recurrent)
        extents = (layer.steps, layer.sequences, layer.units, layer.directions, layer.gates)
        return [*map(math.log2, extents), waste(layer.gates * round_up(layer.units, task.lanes), knobs["columns"])]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer, kernel, rows = layer_of(task, Recurrent), Kernel(task, knobs), knobs["rows"]
        units = round_up(layer.units, kernel.lanes)
        packed = {"weight": (layer.directions * layer.gates * units**2,), "bias": (layer.directions * layer.gates * units,)}
        shapes = {"data": layer.input_shape, **layer.side_shapes, **packed, "output": layer.output_shape}
        with kernel.named_body(**shapes) as buffers, kernel.team(task.threads) as thread:
            products = [kernel.scratch(rows * gates * units) for gates in products_of(layer)]
            states = kernel.scratch(rows * units), kernel.scratch(rows * units, totals=layer.cell == "lstm")
            blocks = layer.sequences // rows
            with kernel.span(*share(thread, task.threads, layer.directions * blocks)) as part:
                direction, block = (part // blocks, part % blocks) if layer.directions > 1 else (0, part)
                _Block(kernel, layer, knobs, buffers, products, *states, direction, block * rows).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the weights, packed in panels of `columns` for each direction and product, and the biases; units are zero-padded."""
        layer, (constants,) = layer_of(task, Recurrent), parameters
        padding = round_up(layer.units, task.lanes) - layer.units
        weight = constants.weight.reshape(layer.directions, layer.units, layer.gates, layer.units)
        weight = np.pad(weight, ((0, 0), (0, padding), (0, 0), (0, padding)))
        bias = np.pad(constants.bias.reshape(layer.directions, layer.gates, layer.units), ((0, 0), (0, 0), (0, padding)))
        pieces = []
        for direction in weight:
            parts = np.split(direction, np.cumsum(products_of(layer))[:-1], 1)
            pieces += [pack_panels(part.reshape(len(part), -1), knobs["columns"], task.lanes) for part in parts]
        return [np.concatenate(pieces), bias.reshape(-1)]


def products_of(layer: Recurrent) -> tuple[int, ...]:
    """Return the number of gates of each matrix product of a time step, in order of execution."""
    return (2, 1) if layer.cell == "gru_reset_first" else (layer.gates,)


@dataclass(frozen=True)
class _Biased(Ends):
    """Accumulators that are initialised with biases, from index `first` on."""

    bias: Buffer
    first: Expr

    def begin(self, spot: Spot) -> Expr:
        return self.kernel.load(self.bias, self.first + spot.channel, spot.lanes)


@dataclass(frozen=True)
class _Block:
    """Emits all time steps of a few sequences in one direction.

    Attributes:
        knobs: see `StepwiseRecurrent`.
        buffers: buffers by argument name.
        products: results of the matrix products of a time step, see `products_of`.
        hidden: hidden states, [sequence][unit].
        other: cell states of an LSTM, or a GRU's states after its reset, [sequence][unit].
        direction, first: index of the direction, and first sequence.
    """

    kernel: Kernel
    layer: Recurrent
    knobs: Knobs
    buffers: dict[str, Buffer]
    products: Sequence[Buffer]
    hidden: Buffer
    other: Buffer
    direction: Expr
    first: Expr

    @property
    def units(self) -> int:
        """Number of units, padded to whole vectors."""
        return round_up(self.layer.units, self.kernel.lanes)

    def emit(self) -> None:
        """Emit the initial states, all time steps, and the final cell states if the layer returns them."""
        layer, kernel, last = self.layer, self.kernel, self.layer.steps - 1
        for row, unit, have in self._vectors():
            self._begin(row, unit, have)
        with kernel.loop(layer.steps) as step:
            place = {BACKWARD: last - step, BOTH: step + self.direction * (last - 2 * step)}.get(layer.direction, step)
            self._multiply(0, self.hidden, step)
            if len(self.products) > 1:
                for row, unit, have in self._vectors():
                    self._reset(place, row, unit, have)
                self._multiply(1, self.other, step)
            for row, unit, have in self._vectors():
                self._advance(place, row, unit, have)
        if layer.memory:
            for row, unit, have in self._vectors():
                self._write(kernel.load(self.other, self._place(row, unit)), layer.steps, row, unit, have)

    def _vectors(self) -> Iterator[tuple[Expr, Expr, int]]:
        """Emit loops over the vectors of all states; yield (row, first unit, number of units) for each. Vectors of one loop body are
        independent.
        """
        kernel, lanes, count = self.kernel, self.kernel.lanes, self.knobs["vectors"]
        whole, rest = divmod(self.layer.units, lanes)
        with kernel.loop(self.knobs["rows"]) as row:
            if whole // count:
                with kernel.loop(whole // count) as step:
                    for number in range(count):
                        yield row, (step * count + number) * lanes, lanes
            for number in range(whole // count * count, whole):
                yield row, number * lanes, lanes
            if rest:
                yield row, whole * lanes, rest

    def _multiply(self, number: int, states: Buffer, step: Expr) -> None:
        """Emit one matrix product plus its biases; every other time step visits the panels in reverse, while the last ones are in cache."""
        kernel, layer, rows, units, lanes = self.kernel, self.layer, self.knobs["rows"], self.units, self.kernel.lanes
        gates = products_of(layer)
        before, columns = self.direction * layer.gates + sum(gates[:number]), gates[number] * units
        a, product = Activation(states, rows, units, units), Activation(self.products[number], rows, columns, columns)
        ends = _Biased(kernel, self.buffers["bias"], before * units)
        tile = MatmulTile(kernel, a, self.buffers["weight"], product, self.knobs["unroll"], ends)
        for panel in panels(columns, self.knobs["columns"], lanes):
            with kernel.loop(panel.count) as position:
                index = position + step % 2 * (panel.count - 1 - 2 * position)
                weights = (before * units + panel.channel + index * panel.width) * units
                tile.emit(0, 0, rows, panel, index, Extent(0, units, True, True), weights)

    def _begin(self, row: Expr, unit: Expr, have: int) -> None:
        """Initialise a vector of each state."""
        kernel, layer = self.kernel, self.layer
        source = (self.direction * layer.sequences + self.first + row) * layer.units + unit
        for name, buffer in zip(states_of(layer.cell), (self.hidden, self.other), strict=False):
            value = kernel.load_part(self.buffers[name], source, have) if layer.initial else kernel.splat(kernel.number(0.0))
            self._keep(buffer, kernel.T.bind(value), row, unit)

    def _reset(self, place: Expr, row: Expr, unit: Expr, have: int) -> None:
        """Compute a vector of the reset and update gates of a GRU that resets its states before the product, and the reset states."""
        kernel, v = self.kernel, self._arithmetic
        reset, update = (self._computed(v.sigmoid(self._gate(gate, place, row, unit, have))) for gate in range(2))
        self._keep(self.other, reset * self._wide(self.hidden, self._place(row, unit)), row, unit)
        kernel.store(self.products[0], kernel.vectors().cast(update), self._gate_place(0, 1, row, unit))

    def _advance(self, place: Expr, row: Expr, unit: Expr, have: int) -> None:
        """Compute a vector of this time step's states, and store it to the output."""
        cell, kernel, v = self.layer.cell, self.kernel, self._arithmetic

        def sigmoid(value: Expr) -> Expr:
            return self._computed(v.sigmoid(value))

        def tanh(value: Expr) -> Expr:
            return self._computed(CURVES["tanh"].emit(v, kernel.T.bind(value)))

        gates = [self._gate(number, place, row, unit, have) for number in range(self.layer.gates)]
        if cell == "lstm":
            into, forget, new, out = sigmoid(gates[0]), sigmoid(gates[1]), tanh(gates[2]), sigmoid(gates[3])
            memory = self._computed(forget * kernel.load(self.other, self._place(row, unit)) + into * new)
            kernel.store(self.other, memory, self._place(row, unit))
            hidden = out * tanh(memory)
        elif cell in ("rnn_tanh", "rnn_relu"):
            hidden = tanh(gates[0]) if cell == "rnn_tanh" else v.limited(gates[0], 0.0, None)
        else:
            before = self._wide(self.hidden, self._place(row, unit))
            if cell == "gru":
                reset, update = sigmoid(gates[0]), sigmoid(gates[1])
                new = tanh(self._given(2, place, row, unit, have) + reset * self._product(2, row, unit))
            else:
                update, new = self._wide(self.products[0], self._gate_place(0, 1, row, unit)), tanh(gates[2])
            hidden = new + update * (before - new)
        hidden = self._computed(hidden)
        self._keep(self.hidden, hidden, row, unit)
        self._write(hidden, place, row, unit, have)

    def _computed(self, value: Expr) -> Expr:
        """Return a value through a buffer in registers, so that it is computed once: TVM would expand a bound name at each use."""
        kernel = self.kernel
        registers = kernel.totals(kernel.lanes)
        kernel.store(registers, value, 0)
        return kernel.load(registers, 0)

    @property
    def _arithmetic(self) -> Vectors:
        return self.kernel.vectors_of_totals(self.kernel.lanes)

    def _place(self, row: Expr, unit: Expr) -> Expr:
        """Return the index of a state."""
        return row * self.units + unit

    def _gate_place(self, number: int, gate: int, row: Expr, unit: Expr) -> Expr:
        """Return the index of a gate's sum in one of the products."""
        return (row * products_of(self.layer)[number] + gate) * self.units + unit

    def _wide(self, buffer: Buffer, place: Expr) -> Expr:
        return self.kernel.widened(self.kernel.load(buffer, place), self.kernel.lanes)

    def _product(self, gate: int, row: Expr, unit: Expr) -> Expr:
        """Return a gate's product with the states."""
        first = products_of(self.layer)[0]
        number = int(gate >= first)
        return self._wide(self.products[number], self._gate_place(number, gate - number * first, row, unit))

    def _given(self, gate: int, place: Expr, row: Expr, unit: Expr, have: int) -> Expr:
        """Return a gate's product with the input, which an earlier layer computed."""
        layer, kernel = self.layer, self.kernel
        sequence = place * layer.sequences + self.first + row
        channel = ((sequence * layer.directions + self.direction) * layer.gates + gate) * layer.units + unit
        return kernel.widened(kernel.T.bind(kernel.load_part(self.buffers["data"], channel, have)), kernel.lanes)

    def _gate(self, gate: int, place: Expr, row: Expr, unit: Expr, have: int) -> Expr:
        """Return the argument of a gate's activation function."""
        return self._given(gate, place, row, unit, have) + self._product(gate, row, unit)

    def _keep(self, buffer: Buffer, value: Expr, row: Expr, unit: Expr) -> None:
        """Store a vector of a state."""
        kernel = self.kernel
        if not kernel.is_narrow(buffer):  # which `store` narrows
            value = Vectors(str(buffer.dtype), kernel.lanes, kernel.T.bind, False).cast(value)
        kernel.store(buffer, value, self._place(row, unit))

    def _write(self, value: Expr, place: Expr, row: Expr, unit: Expr, have: int) -> None:
        """Store a vector of states to a time step of the output."""
        kernel, layer = self.kernel, self.layer
        sequence = place * layer.sequences + self.first + row
        target = (sequence * layer.directions + self.direction) * layer.units + unit
        kernel.store_part(self.buffers["output"], kernel.T.bind(kernel.narrowed(value, kernel.lanes)), target, have)
