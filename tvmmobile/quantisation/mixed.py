"""Quantises a network except layers in float32: those that the user names, and the cheapest others that an accuracy limit needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.quantisation.assignment import Assignment, KernelSpan, Programme, fastest
from tvmmobile.quantisation.calibration import Accepts, CalibrationSamples, Method, observe, quantised
from tvmmobile.quantisation.flow import Flow
from tvmmobile.quantisation.integers import IntegerNetwork
from tvmmobile.quantisation.kept import keepable
from tvmmobile.quantisation.limit import Limit
from tvmmobile.quantisation.noise import added_noise
from tvmmobile.quantisation.programme import Costs, programme_of
from tvmmobile.system.errors import UserError

#: Most samples with which networks are compared.
_COMPARED = 128
#: Most samples with which single layers are measured, and most elements of all their tensors, or of the compared outputs.
_MOST_IMAGES_PER_LAYER, _MOST_ELEMENTS = 8, 64_000_000
#: Most assignments of precisions that are measured.
_ROUNDS = 10
#: Noise bounds within this factor count as equal; a lower bound counts as at least `_NOISE_FLOOR` of the upper one.
_CLOSE, _NOISE_FLOOR = 1.01, 1e-4


@dataclass(frozen=True)
class FoundAssignment:
    """An assignment that `--max-drop` found.

    Attributes:
        predicted: the assignment with its latency, and a lower bound on the latency of all assignments within `most_noise`.
        most_noise: bound on predicted noise with which it was found, relative to the output's power.
        predicted_noise: noise predicted before the measurement, relative to the output's power: the sum of what each layer adds alone,
            corrected by networks measured earlier.
        noise: noise measured on calibration data, relative to the output's power.
        plain_us: predicted latency with all possible layers in int8.
        rounds: number of rounds until it was found.
    """

    predicted: Assignment
    most_noise: float
    predicted_noise: float
    noise: float
    plain_us: float
    rounds: int


def decibels_below(noise: float) -> float | None:
    """Convert noise relative to the signal's power to decibels below the signal; `None` for no noise."""
    return round(-10 * math.log10(noise), 2) if noise else None


@dataclass(frozen=True)
class Decision:
    """Choices of quantisation that are expensive to make.

    Attributes:
        method: method of quantisation.
        float32_reasons: reason of each layer chosen for float32, by its number.
        found: assignment of the integer programme; `None` if it was not needed.
    """

    method: Method
    float32_reasons: Mapping[int, str]
    found: FoundAssignment | None = None


@dataclass(frozen=True, eq=False)
class Mixed:
    """A network with integer and float32 layers, and the decision that led to it."""

    network: IntegerNetwork
    decision: Decision


def quantise_within(
    flow: Flow,
    samples: CalibrationSamples,
    method: Method,
    accepts: Accepts,
    float32_reasons: dict[int, str],
    limit: Limit | None,
    pricing: Callable[[IntegerNetwork], Costs],
) -> Mixed:
    """Quantise a network except the layers in `float32_reasons` and those that are not accepted. If the limit is not met, 7-bit weights get
    8 bits; if that is not enough, an integer programme chooses the further layers whose float32 kernels cost least.

    Args:
        pricing: returns the costs of the layers of a network that has all possible layers in integers.

    Raises:
        UserError: the limit is not met even with all these layers in float32.
    """
    observed = observe(flow, samples, method.equalise)
    network = quantised(observed, method, accepts, float32_reasons)
    if limit is None:
        return Mixed(network, Decision(method, float32_reasons))
    compared = _Comparison(flow, samples.some(_most_compared(flow)), limit)
    outputs = compared.outputs(network)
    if compared.holds_for(outputs):
        return Mixed(network, Decision(method, float32_reasons))
    if method.seven_bit_steps:
        return quantise_within(flow, samples, replace(method, seven_bit_steps=frozenset()), accepts, float32_reasons, limit, pricing)
    free = {step.number for step in keepable(flow) if step.number in network.steps}
    if not compared.holds(quantised(observed, method, accepts, [*float32_reasons, *free])):
        raise UserError(
            f"--max-drop {limit} cannot be met, even with every possible layer in float32.",
            "Give another limit, or leave out --dtype int8.",
        )
    most = max(1, min(_MOST_IMAGES_PER_LAYER, _MOST_ELEMENTS // sum(math.prod(step.layer.output_shape) for step in flow.steps)))
    programme = programme_of(network, pricing(network), added_noise(network, samples.some(most).batches(), method.correct), free)

    def network_of(assignment: Assignment) -> IntegerNetwork:
        return quantised(observed, method, accepts, [*float32_reasons, *(free - assignment.integers)])

    best, found = _fastest_within(programme, compared, network_of, compared.noise(outputs))
    return Mixed(
        best,
        Decision(method, float32_reasons | dict.fromkeys(sorted(free & (free - found.predicted.integers)), f"--max-drop {limit}"), found),
    )


def _most_compared(flow: Flow) -> int:
    """Return the most samples with which networks are compared: fewer than `_COMPARED` if the output is large, such as a segmentation."""
    return max(1, min(_COMPARED, _MOST_ELEMENTS // flow.output_elements))


class _Comparison:
    """Compares networks with float32 on calibration data."""

    def __init__(self, flow: Flow, data: CalibrationSamples, limit: Limit) -> None:
        self.limit, self._data = limit, data
        self._expected = self._joined(flow.outputs)

    def outputs(self, network: IntegerNetwork) -> Array:
        """Return a network's outputs, with one row for each sample."""
        return self._joined(network.outputs)

    def _joined(self, outputs: Callable[..., Array]) -> Array:
        """Return the outputs of all batches, with one row for each sample, even if the network's output has no batch dimension."""
        return np.concatenate([outputs(*batch).reshape(len(batch[0]), -1) for batch in self._data.batches()])

    def holds(self, network: IntegerNetwork) -> bool:
        """Return whether a network meets the limit."""
        return self.holds_for(self.outputs(network))

    def holds_for(self, outputs: Array) -> bool:
        """Return whether outputs, as of `outputs`, meet the limit."""
        return self.limit.holds(outputs, self._expected, self._data.labels)

    def noise(self, outputs: Array) -> float:
        """Return the power of the outputs' error, relative to that of the float32 outputs."""
        power = float(np.square(self._expected, dtype=np.float64).sum())
        return float(np.square(outputs.astype(np.float64) - self._expected).sum()) / power if power else math.inf


def _fastest_within(
    programme: Programme, compared: _Comparison, network_of: Callable[[Assignment], IntegerNetwork], int8: float
) -> tuple[IntegerNetwork, FoundAssignment]:
    """Return the fastest assignment that meets the limit among the programme's solutions for different noise bounds, and its network.

    The programme adds up the noise that each layer adds alone; the network's noise differs from this sum. Predictions are therefore
    multiplied by the ratio of the two in the most similar network measured so far, at first the one with all possible layers in int8. If a
    measurement disagrees with its prediction, the programme is solved again with the corrected bound. For limits in percent, the noise
    bound is bisected. With all possible layers in float32, the limit is met.

    Args:
        network_of: quantises the network as assigned.
        int8: measured noise with all possible layers in int8.
    """
    plain = fastest(programme)
    least = fastest(replace(programme, pieces=_floats(programme)))
    assert plain is not None and least is not None
    predictor = _NoisePredictor()
    predictor.learn(plain.noise, int8)
    holding, failing = least.noise, plain.noise
    decibels = compared.limit.unit == "dB"
    most_noise = 10 ** (-compared.limit.value / 10)
    bound = predictor.sum_of(most_noise) if decibels else _between(holding, failing)
    best: tuple[IntegerNetwork, FoundAssignment] | None = None
    measured: dict[frozenset[int], tuple[bool, float]] = {}
    for rounds in range(1, _ROUNDS + 1):
        assignment = fastest(programme, min(bound, failing)) or least
        if assignment.integers not in measured:
            predicted = predictor.noise_of(assignment.noise)
            network = network_of(assignment)
            outputs = compared.outputs(network)
            measured[assignment.integers] = holds, noise = compared.holds_for(outputs), compared.noise(outputs)
            if holds and (best is None or assignment.latency_us < best[1].predicted.latency_us):
                best = network, FoundAssignment(assignment, predictor.noise_of(bound), predicted, noise, plain.latency_us, rounds)
            predictor.learn(assignment.noise, noise)
        if measured[assignment.integers][0]:
            holding = max(holding, bound)
        else:
            failing = min(failing, assignment.noise)
        if failing <= holding * _CLOSE:
            break
        bound = predictor.sum_of(most_noise) if decibels else _between(holding, failing)
        if not holding * _CLOSE < bound < failing / _CLOSE:
            bound = _between(holding, failing)
    if best is None:
        predicted = predictor.noise_of(least.noise)
        network = network_of(least)
        noise = compared.noise(compared.outputs(network))
        best = network, FoundAssignment(least, predicted, predicted, noise, plain.latency_us, _ROUNDS)
    return best


class _NoisePredictor:
    """Predicts a network's noise from the sum of what each layer adds alone, by the ratio of the two in the nearest measured network."""

    def __init__(self) -> None:
        #: The sum and the measured noise of each measured network.
        self._measured: list[tuple[float, float]] = []

    def learn(self, total: float, noise: float) -> None:
        """Add a measured network; one without noise is ignored."""
        if total > 0 and 0 < noise < math.inf:
            self._measured.append((total, noise))

    def noise_of(self, total: float) -> float:
        """Predict the noise of a network with this sum."""
        return total * self._nearest(total, 0, 1)

    def sum_of(self, noise: float) -> float:
        """Return the sum for which this noise is predicted."""
        return noise * self._nearest(noise, 1, 0)

    def _nearest(self, value: float, given: int, requested: int) -> float:
        """Return the ratio of the requested to the given quantity in the network whose given quantity is nearest to `value`, the latest
        of equally near ones; quantities are places in the pairs of `_measured`.
        """
        if not self._measured or not value:
            return 1.0
        nearest = min(reversed(self._measured), key=lambda pair: abs(math.log(pair[given] / value)))
        return nearest[requested] / nearest[given]


def _floats(programme: Programme) -> tuple[KernelSpan, ...]:
    """Return a programme's pieces without the integer kernels of steps that can be in float32."""
    floats = {step for piece in programme.pieces if not piece.integer for step in range(piece.first, piece.last + 1)}
    return tuple(piece for piece in programme.pieces if not piece.integer or floats.isdisjoint(range(piece.first, piece.last + 1)))


def _between(low: float, high: float) -> float:
    """Return the geometric mean of two bounds, of which the lower one may be 0."""
    return math.sqrt(max(low, high * _NOISE_FLOOR) * high)
