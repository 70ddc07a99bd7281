"""Recurrent layers over a whole sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tvmmobile.graph.layers.kind import ConvertingLayer
from tvmmobile.graph.needs import SHAPE
from tvmmobile.graph.parameters import Array, LayerParameters

#: Number of gates of each cell. They follow each other: an LSTM's input, forget, new and output gate, a GRU's reset, update and new gate.
#: `gru` resets the product of the state (as PyTorch does), `gru_reset_first` the state itself (arXiv 1406.1078).
GATES = {"lstm": 4, "gru": 3, "gru_reset_first": 3, "rnn_tanh": 1, "rnn_relu": 1}
#: The order of the steps; `both` has a state, weights and results for each.
FORWARD, BACKWARD, BOTH = "forward", "backward", "both"


@dataclass(frozen=True)
class Recurrent(ConvertingLayer):
    """Computes hidden states (steps, sequences, directions · units) from the product of its input with weights, (steps, sequences,
    directions · gates · units).

    Weights (directions, units, gates · units) and biases (directions, gates · units) are those of the state's product.

    Attributes:
        cell: one of `GATES`.
        steps, sequences, units: number of each; sequences are independent of each other.
        direction: `FORWARD`, `BACKWARD` or `BOTH`.
        initial: true if the initial hidden states, and an LSTM's initial memories, are inputs (directions, sequences, units); otherwise
            they are 0.
        memory: true if an LSTM's final memories follow in the output as one more step.
    """

    cell: str = field(metadata=SHAPE)
    steps: int = field(metadata=SHAPE)
    sequences: int = field(metadata=SHAPE)
    units: int = field(metadata=SHAPE)
    direction: str = field(default=FORWARD, metadata=SHAPE)
    initial: bool = field(default=False, metadata=SHAPE)
    memory: bool = field(default=False, metadata=SHAPE)
    kind: ClassVar[str] = "recurrent"

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 1 + (self.direction == BOTH)

    @property
    def gates(self) -> int:
        """Gates of the cell."""
        return GATES[self.cell]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(steps, sequences, directions · gates · units)."""
        return (self.steps, self.sequences, self.directions * self.gates * self.units)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(steps, plus one with memories; sequences; directions · units)."""
        return (self.steps + self.memory, self.sequences, self.directions * self.units)

    @property
    def state_shape(self) -> tuple[int, ...]:
        """(directions, sequences, units)."""
        return (self.directions, self.sequences, self.units)

    @property
    def side_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the initial states."""
        return dict.fromkeys(states_of(self.cell), self.state_shape) if self.initial else {}

    @property
    def constants(self) -> int:
        """Number of weights and biases."""
        return self.directions * (self.units + 1) * self.gates * self.units

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return self.steps * self.sequences * self.directions * self.gates * self.units**2

    @property
    def name(self) -> str:
        """Canonical name."""
        parts = [f"{self.steps}x{self.sequences}x{self.units}", *[self.direction] * (self.direction != FORWARD)]
        return "_".join([self.cell, *parts, *["initial"] * self.initial, *["memory"] * self.memory, *self._stored_name()])

    def compute(self, data: Array, constants: LayerParameters, side: Mapping[str, Array]) -> Array:
        """Compute the layer step by step, because PyTorch's own layers include no GRU that resets the state first."""
        import torch

        output = np.empty((self.steps + self.memory, self.sequences, self.directions, self.units), data.dtype)
        given = torch.from_numpy(data).reshape(self.steps, self.sequences, self.directions, -1)
        for direction in range(self.directions):
            zeros = np.zeros(self.state_shape, data.dtype)
            states = [torch.from_numpy(side.get(name, zeros)[direction]) for name in states_of(self.cell)]
            weight, bias = (torch.from_numpy(array[direction]) for array in (constants.weight, constants.bias))
            backward = self.direction == BACKWARD or direction == 1
            for step in reversed(range(self.steps)) if backward else range(self.steps):
                states = _next(self.cell, given[step, :, direction], states, weight, bias)
                output[step, :, direction] = states[0].numpy()
            if self.memory:
                output[-1, :, direction] = states[-1].numpy()
        return output.reshape(self.output_shape)

    def random_parameters(self, generator: np.random.Generator, dtype: np.dtype[Any]) -> LayerParameters:
        shape = (self.directions, self.units, self.gates * self.units)
        weight, bias = generator.normal(0.0, 1 / np.sqrt(self.units), shape), generator.normal(-0.5, 0.5, (shape[0], shape[2]))
        return LayerParameters(weight.astype(dtype), bias.astype(dtype))


def _next(cell: str, given: Any, states: Sequence[Any], weight: Any, bias: Any) -> list[Any]:
    """Return the states after a step, from those before it."""
    hidden, units = states[0], weight.shape[0]
    if cell == "gru_reset_first":
        both = (given + hidden @ weight + bias)[:, : 2 * units].sigmoid()
        reset, update = both.split(units, 1)
        new = (given[:, 2 * units :] + (reset * hidden) @ weight[:, 2 * units :] + bias[2 * units :]).tanh()
        return [new + update * (hidden - new)]
    product = hidden @ weight + bias
    if cell == "gru":
        reset, update = (given + product)[:, : 2 * units].sigmoid().split(units, 1)
        new = (given[:, 2 * units :] + reset * product[:, 2 * units :]).tanh()
        return [new + update * (hidden - new)]
    if cell == "lstm":
        into, forget, new, out = (given + product).split(units, 1)
        memory = forget.sigmoid() * states[1] + into.sigmoid() * new.tanh()
        return [out.sigmoid() * memory.tanh(), memory]
    return [(given + product).tanh() if cell == "rnn_tanh" else (given + product).relu()]


def states_of(cell: str) -> tuple[str, ...]:
    """Return the names of the states of a cell."""
    return ("hidden", "memory") if cell == "lstm" else ("hidden",)
