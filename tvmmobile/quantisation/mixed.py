"""Keeps layers in float32: those that the user names, and the cheapest others with which an accuracy limit is met."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from tvmmobile.graph.layers import Array, Rounding
from tvmmobile.graph.network import INPUT
from tvmmobile.quantisation.assignment import Assignment, KernelSpan, Programme, StepOutput, fastest
from tvmmobile.quantisation.calibration import Accepts, Images, Method, observe, quantised
from tvmmobile.quantisation.flow import Flow, FlowStep
from tvmmobile.quantisation.integers import IntegerNetwork
from tvmmobile.quantisation.moves import only_moves
from tvmmobile.quantisation.noise import AddedNoise, added_noise
from tvmmobile.system.errors import UserError

#: Most images on which networks are compared.
_COMPARED = 128
#: Most images on which single layers are measured, and most numbers in all their tensors, or in the outputs that are compared.
_MOST_IMAGES_PER_LAYER, _MOST_ELEMENTS = 8, 64_000_000
#: Most assignments that are measured.
_ROUNDS = 10
#: Noise bounds within this factor count as equal; a lower bound counts as at least `_NOISE_FLOOR` of the upper one.
_CLOSE, _NOISE_FLOOR = 1.01, 1e-4
_LIMIT = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)(dB|%)")


@dataclass(frozen=True)
class Limit:
    """The limit of an integer network's error against float32 on calibration data.

    Attributes:
        value: the least signal-to-noise ratio; or the most top-1 that may be lost, in points, where classes are known, or else the most
            inputs that may get another class, in percent.
        unit: `dB` or `%`.
    """

    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"

    def holds(self, outputs: Array, expected: Array, labels: Sequence[int] = ()) -> bool:
        """Return whether the outputs of a batch are close enough.

        Args:
            labels: the class of each input, if that is known.
        """
        if self.unit == "%":
            count = len(expected)
            ours, theirs = (some.reshape(count, -1).argmax(1) for some in (outputs, expected))
            worse = int((theirs == labels).sum()) - int((ours == labels).sum()) if labels else int((ours != theirs).sum())
            return 100 * worse / count <= self.value
        noise = float(np.square(outputs.astype(np.float64) - expected).sum())
        return noise * 10 ** (self.value / 10) <= float(np.square(expected, dtype=np.float64).sum())


def limit_of(given: str, data: str = "") -> Limit:
    """Parse `--max-drop`, such as `30dB` or `1%`; raise `UserError` for anything else, and say what a share means for `--calibrate`."""
    found = _LIMIT.fullmatch(given)
    if found is None:
        raise UserError(
            f"--max-drop {given} is neither a signal-to-noise ratio nor a share of the data.",
            f"Give a ratio such as 30dB, or a share such as 1%: {_share_of(data)}.",
        )
    return Limit(float(found[1]), found[2])


def _share_of(data: str) -> str:
    """Return what a share means for calibration data, whose labels are the names of folders within a folder."""
    folders = os.path.isdir(data) and any(path.is_dir() for path in Path(data).glob("*"))
    if folders:
        return f"points of top-1, if the folders in {data} name the network's classes; else inputs that may get another class"
    where = f"{data} has no class folders, so it counts" if data else "without class folders it counts"
    return f"{where} inputs that may get another class than in float32"


def chosen_layers(flow: Flow, patterns: Collection[str]) -> dict[int, str]:
    """Find the layers that `--keep` names by number or by name in the float32 network; `*` matches anything.

    Returns:
        The reason to keep each layer, by its number.

    Raises:
        UserError: a pattern matches none.
    """
    found: dict[int, str] = {}
    for pattern in patterns:
        fitting = [step for step in _keepable(flow) if pattern == str(step.number) or fnmatchcase(step.layer.name, pattern)]
        if not fitting:
            first = next(_keepable(flow), None)
            example = f" Its first layer is {first.number}, {first.layer.name}." if first else ""
            raise UserError(
                f"--keep {pattern} matches no layer of the network.", f"Give a layer's number or name; * matches anything.{example}"
            )
        found |= {step.number: f"--keep {pattern}" for step in fitting}
    return found


def _keepable(flow: Flow) -> Iterator[FlowStep]:
    """Return the steps that can be computed in float32; a gate becomes a product there."""
    return (step for step in flow.steps if step.parameters is not None and not isinstance(step.layer, Rounding))


@dataclass(frozen=True, eq=False)
class Costs:
    """Latencies of layers in int8 and in float32; tensors are numbered by the step that writes them.

    Attributes:
        pieces: the kernels that may compute each step, in each precision that it may have; see `Programme`.
        quantise_us, dequantise_us: latencies of conversions to int8 and to float32; 0 where a tensor is missing.
    """

    pieces: tuple[KernelSpan, ...]
    quantise_us: Mapping[int, float] = field(default_factory=dict)
    dequantise_us: Mapping[int, float] = field(default_factory=dict)


#: Returns the costs of layers for a network with all possible layers in integers.
Pricing = Callable[[IntegerNetwork], Costs]


def unit_costs(network: IntegerNetwork) -> Costs:
    """Return costs of 1 for each layer in float32 and of 0 for all else: the cheapest assignment keeps the fewest layers."""
    numbers = [step.number for step in network.flow.steps]
    return Costs(tuple(KernelSpan(number, number, integer, float(not integer)) for number in numbers for integer in (True, False)))


@dataclass(frozen=True)
class FoundAssignment:
    """An assignment that `--max-drop` found.

    Attributes:
        predicted: the assignment with its latency, and a lower bound on the latency of all assignments within `most_noise`.
        most_noise: bound on predicted noise with which it was found, as a share of the output's power.
        predicted_noise: noise predicted before the measurement, as such a share: the sum of what its layers add alone, corrected by
            networks measured earlier.
        noise: noise measured on calibration data, as such a share.
        plain_us: predicted latency with all possible layers in int8.
        rounds: number of assignments that were measured.
        programme: programme that it solves.
    """

    predicted: Assignment
    most_noise: float
    predicted_noise: float
    noise: float
    plain_us: float
    rounds: int
    programme: Programme = field(repr=False)


def decibels_below(noise: float) -> float | None:
    """Return how far noise is below the signal, given as a share of its power, in decibels; `None` if there is none."""
    return round(-10 * math.log10(noise), 2) if noise else None


@dataclass(frozen=True)
class Decision:
    """The results of quantisation that take long to find.

    Attributes:
        method: options of quantisation.
        float32_reasons: reason for float32, by the number of each layer chosen for it.
        found: assignment of the integer programme; `None` where it was not needed.
    """

    method: Method
    float32_reasons: Mapping[int, str]
    found: FoundAssignment | None = None


@dataclass(frozen=True, eq=False)
class Mixed:
    """A network in integers and float32, with the decision that made it."""

    network: IntegerNetwork
    decision: Decision


#: Chooses the layers that are in integers, as `quantise_within` does.
Quantiser = Callable[[Flow, Images, Method, Accepts, dict[int, str], Limit | None, Pricing], Mixed]


def quantise_within(
    flow: Flow,
    images: Images,
    method: Method,
    accepts: Accepts,
    float32_reasons: dict[int, str],
    limit: Limit | None,
    pricing: Pricing = unit_costs,
) -> Mixed:
    """Quantise a network except the layers in `float32_reasons`, those that are not accepted, and, if the limit needs them, others that
    an integer programme chooses for their low cost. Before that, weights get all their bits.

    Raises:
        UserError: float32 in every layer that can have it does not meet the limit.
    """
    observed = observe(flow, images, method.equalise)
    network = quantised(observed, method, accepts, float32_reasons)
    if limit is None:
        return Mixed(network, Decision(method, float32_reasons))
    compared = _Comparison(flow, images.some(_most_compared(flow)), limit)
    outputs = compared.outputs(network)
    if compared.holds_for(outputs):
        return Mixed(network, Decision(method, float32_reasons))
    if method.seven_bit_steps:
        return quantise_within(flow, images, replace(method, seven_bit_steps=frozenset()), accepts, float32_reasons, limit, pricing)
    free = {step.number for step in _keepable(flow) if step.number in network.steps}
    if not compared.holds(quantised(observed, method, accepts, [*float32_reasons, *free])):
        raise UserError(
            f"--max-drop {limit} cannot be met, even with every possible layer in float32.",
            "Give another limit, or leave out --dtype int8.",
        )
    most = max(1, min(_MOST_IMAGES_PER_LAYER, _MOST_ELEMENTS // sum(math.prod(step.layer.output_shape) for step in flow.steps)))
    programme = programme_of(network, pricing(network), added_noise(network, images.some(most).batches(), method.correct), free)

    def tried(assignment: Assignment) -> IntegerNetwork:
        return quantised(observed, method, accepts, [*float32_reasons, *(free - assignment.integers)])

    best, found = _fastest_within(programme, compared, tried, compared.noise(outputs))
    return Mixed(
        best,
        Decision(method, float32_reasons | dict.fromkeys(sorted(free & (free - found.predicted.integers)), f"--max-drop {limit}"), found),
    )


def _most_compared(flow: Flow) -> int:
    """Return the most images on which networks are compared: fewer than `_COMPARED` where the output is large, as of a segmentation."""
    return max(1, min(_COMPARED, _MOST_ELEMENTS // math.prod(flow.steps[-1].layer.output_shape)))


def programme_of(network: IntegerNetwork, costs: Costs, noise: AddedNoise, free: Collection[int]) -> Programme:
    """Return the programme of a network with all possible layers in integers; those in `free` may be in float32 too."""
    flow = network.flow
    count = len(flow.steps)
    moving = {step.number for step in flow.steps if step.number not in network.steps and only_moves(step)}

    def readers(number: int) -> Iterator[int]:
        """Yield the steps that read a tensor, directly or after moves, which keep its precision; the caller is one past the last."""
        for reader in dict.fromkeys(flow.readers.get(number, ())):
            yield from readers(reader) if reader in moving else (reader,)
        if any(isinstance(result, int) and result == number for result in flow.results):
            yield count

    def allowed(piece: KernelSpan) -> bool:
        steps = range(piece.first, piece.last + 1)
        return all(step in network.steps if piece.integer else step in free or step not in network.steps for step in steps)

    pieces = list(filter(allowed, costs.pieces))
    absorbed = {piece.last for piece in pieces if piece.stores}
    tensors = [
        StepOutput(
            number,
            tuple(dict.fromkeys(readers(number))),
            costs.quantise_us.get(number, 0.0),
            costs.dequantise_us.get(number, 0.0),
            noise.tensors.get(number, 0.0),
            number in absorbed,
            noise.biases.get(number, 0.0),
        )
        for number in (INPUT, *(step.number for step in flow.steps if step.number not in moving))
    ]
    covered = {step for piece in pieces for step in range(piece.first, piece.last + 1)}
    pieces += [KernelSpan(number, number, number in network.steps, 0.0) for number in range(count) if number not in covered]
    return Programme(count, tuple(pieces), tuple(tensors), noise.steps)


class _Comparison:
    """The calibration data on which networks are compared with float32."""

    def __init__(self, flow: Flow, data: Images, limit: Limit) -> None:
        self.limit, self._data = limit, data
        self._expected = self._joined(flow.outputs)

    def outputs(self, network: IntegerNetwork) -> Array:
        """Return a network's outputs."""
        return self._joined(network.outputs)

    def _joined(self, outputs: Callable[[Array], Array]) -> Array:
        """Return the outputs for all inputs, one a row: networks whose output has no batch dimension return a batch's in one."""
        return np.concatenate([outputs(batch).reshape(len(batch), -1) for batch in self._data.batches()])

    def holds(self, network: IntegerNetwork) -> bool:
        """Return whether the limit holds."""
        return self.holds_for(self.outputs(network))

    def holds_for(self, outputs: Array) -> bool:
        """Return whether the limit holds for these outputs."""
        return self.limit.holds(outputs, self._expected, self._data.labels)

    def noise(self, outputs: Array) -> float:
        """Return the noise of outputs, as a share of their power."""
        power = float(np.square(self._expected, dtype=np.float64).sum())
        return float(np.square(outputs.astype(np.float64) - self._expected).sum()) / power if power else math.inf


def _fastest_within(
    programme: Programme, compared: _Comparison, network_of: Callable[[Assignment], IntegerNetwork], int8: float
) -> tuple[IntegerNetwork, FoundAssignment]:
    """Return the fastest assignment that meets the limit among those that the programme finds for different noise bounds.

    The programme adds up the noise that layers add alone; the network's noise differs from this sum. Predictions are therefore corrected by
    the ratio of both in the most similar network measured so far, which at first is the one with all possible layers in int8. When a
    measurement disagrees with its prediction, it corrects the next one, and the programme is solved again. Limits other than noise are
    bisected. With all possible layers in float32, the limit is met.

    Args:
        int8: measured noise with all possible layers in int8.
    """
    plain = fastest(programme)
    least = fastest(replace(programme, pieces=_floats(programme)))
    assert plain is not None and least is not None
    corrected = _NoisePredictor()
    corrected.learn(plain.noise, int8)
    holding, failing = least.noise, plain.noise
    decibels = compared.limit.unit == "dB"
    wanted = 10 ** (-compared.limit.value / 10)
    bound = corrected.sum_of(wanted) if decibels else _between(holding, failing)
    best: tuple[IntegerNetwork, FoundAssignment] | None = None
    measured: dict[frozenset[int], tuple[bool, float]] = {}
    for rounds in range(1, _ROUNDS + 1):
        assignment = fastest(programme, min(bound, failing)) or least
        if assignment.integers not in measured:
            predicted = corrected.noise_of(assignment.noise)
            network = network_of(assignment)
            outputs = compared.outputs(network)
            measured[assignment.integers] = holds, noise = compared.holds_for(outputs), compared.noise(outputs)
            if holds and (best is None or assignment.latency_us < best[1].predicted.latency_us):
                best = (
                    network,
                    FoundAssignment(assignment, corrected.noise_of(bound), predicted, noise, plain.latency_us, rounds, programme),
                )
            corrected.learn(assignment.noise, noise)
        if measured[assignment.integers][0]:
            holding = max(holding, bound)
        else:
            failing = min(failing, assignment.noise)
        if failing <= holding * _CLOSE:
            break
        bound = corrected.sum_of(wanted) if decibels else _between(holding, failing)
        if not holding * _CLOSE < bound < failing / _CLOSE:
            bound = _between(holding, failing)
    if best is None:
        predicted = corrected.noise_of(least.noise)
        network = network_of(least)
        noise = compared.noise(compared.outputs(network))
        best = network, FoundAssignment(least, predicted, predicted, noise, plain.latency_us, _ROUNDS, programme)
    return best


class _NoisePredictor:
    """Predicts noise from the sum of what each layer adds alone, by the ratio of the two in the nearest measured network."""

    def __init__(self) -> None:
        #: Each network's sum and measured noise.
        self._known: list[tuple[float, float]] = []

    def learn(self, total: float, noise: float) -> None:
        """Note the noise of a network; a network without noise is ignored."""
        if total > 0 and 0 < noise < math.inf:
            self._known.append((total, noise))

    def noise_of(self, total: float) -> float:
        """Predict the noise of a network from the sum."""
        return total * self._nearest(total, 0, 1)

    def sum_of(self, noise: float) -> float:
        """Return the sum with which a network can be expected to have this noise."""
        return noise * self._nearest(noise, 1, 0)

    def _nearest(self, value: float, measured: int, requested: int) -> float:
        """Return the requested ratio of the nearest measured network, the latest of equally near ones."""
        if not self._known or not value:
            return 1.0
        near = min(reversed(self._known), key=lambda one: abs(math.log(one[measured] / value)))
        return near[requested] / near[measured]


def _floats(programme: Programme) -> tuple[KernelSpan, ...]:
    """Return the pieces of a programme with every possible step in float32."""
    floats = {step for piece in programme.pieces if not piece.integer for step in range(piece.first, piece.last + 1)}
    return tuple(piece for piece in programme.pieces if not piece.integer or floats.isdisjoint(range(piece.first, piece.last + 1)))


def _between(low: float, high: float) -> float:
    """Return the geometric mean of two bounds, of which the lower one may be 0."""
    return math.sqrt(max(low, high * _NOISE_FLOOR) * high)
