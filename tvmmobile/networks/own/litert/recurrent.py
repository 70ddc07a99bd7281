"""Translates LiteRT's LSTM over a sequence to ONNX's; its states begin with zeros in each call."""

from __future__ import annotations

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.networks.own.litert.reader import LiteRtOperator
from tvmmobile.networks.own.litert.translation import SIMPLER, Translation
from tvmmobile.system.errors import UserError

#: Places among the inputs: weights of the input and of the state, peepholes and biases, in LiteRT's order of gates (input, forget, new,
#: output; no peephole of new ones), projection, and norms.
_INPUT, _STATE, _HOLES, _BIASES, _PROJECTION, _NORMS = range(1, 5), range(5, 9), range(9, 12), range(12, 16), range(16, 18), range(20, 24)
#: ONNX's order among them: input, output, forget, new.
_GATES, _HOLE_GATES = (0, 3, 1, 2), (0, 2, 1)
_TANH = 4
#: Bound of each LSTM that TensorFlow converts from Keras, whose own has none: beyond it, the tanh of a memory is 1 in float32.
_KERAS_BOUND = 10.0


def sequence_lstm(into: Translation, operator: LiteRtOperator) -> None:
    """Append `UNIDIRECTIONAL_SEQUENCE_LSTM`, time or batch first."""
    numbers, options = operator.inputs, operator.options
    steps, bound = into.tensor(numbers[0]).shape[0 if options.timeMajor else 1], options.cellClip
    given = [place for place, number in enumerate(numbers) if number >= 0]
    beyond = {
        "coupled gates": not set(_INPUT) <= set(given),
        "a projection": bool(set(_PROJECTION) & set(given)),
        "norms": bool(set(_NORMS) & set(given)),
        "bounds": 0 < bound < min(steps, _KERAS_BOUND),  # a memory grows by at most 1 in each step
        f"activation {options.fusedActivationFunction}": options.fusedActivationFunction != _TANH,
    }
    if found := [name for name, has in beyond.items() if has]:
        raise UserError(f"the network has UNIDIRECTIONAL_SEQUENCE_LSTM with {', '.join(found)}, which is not supported.", SIMPLER)

    def joined(places: range, gates: tuple[int, ...]) -> Array:
        return np.concatenate([into.real_value(numbers[places[gate]]) for gate in gates])[None]

    weights, states = joined(_INPUT, _GATES), joined(_STATE, _GATES)
    biases = np.concatenate([joined(_BIASES, _GATES), np.zeros((1, states.shape[1]), np.float32)], 1)
    holes = [into.constant(joined(_HOLES, _HOLE_GATES))] if set(_HOLES) <= set(given) else []
    data = into.read(numbers[0], False)
    if not options.timeMajor:
        data = into.emit("Transpose", [data], perm=[1, 0, 2])
    constants = [into.constant(array) for array in (weights, states, biases)]
    missing = [""] * 3 if holes else []
    outputs = into.emit("LSTM", [data, *constants, *missing, *holes], hidden_size=states.shape[2])
    hidden = into.emit("Squeeze", [outputs, into.integers(1)])
    into.write(operator.outputs[0], hidden if options.timeMajor else into.emit("Transpose", [hidden], perm=[1, 0, 2]), False)
