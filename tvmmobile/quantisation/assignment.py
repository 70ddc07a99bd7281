"""Chooses each layer's precision by integer programming: the fastest network whose predicted noise stays within a bound."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tvmmobile.system.integer_programme import Constraint, minimised

#: The layout that kernels of both precisions read and write; the precision can change only where activations have it.
SHARED = "NHWC"
#: Time limit for solving one programme, in seconds; the solver then returns its best assignment so far, and a lower bound.
_TIME_LIMIT_S = 60.0


@dataclass(frozen=True)
class KernelSpan:
    """A kernel that may compute the steps `first` to `last` (inclusive), all in int8 or all in float32.

    Attributes:
        latency_us: recorded or estimated latency in microseconds.
        before, after: layouts of the kernel's input and output.
        estimated: true if the kernel has no record.
        stores: true if the kernel computes in float32 but stores int8, because all readers are in int8.
    """

    first: int
    last: int
    integer: bool
    latency_us: float
    before: str = SHARED
    after: str = SHARED
    estimated: bool = False
    stores: bool = False


@dataclass(frozen=True)
class StepOutput:
    """A tensor that one step writes and others read. It is converted once for all readers in the other precision.

    Attributes:
        producer: number of the step that writes the tensor; -1 for an input of the network, which is in float32.
        readers: numbers of the steps that read it; the caller, which reads outputs in float32, counts as one past the last step.
        quantise_us, dequantise_us: latencies in microseconds of a conversion to int8 and to float32.
        noise: noise that rounding the tensor adds to the network's output, if the producer is in float32.
        absorbed: true if a float32 producer stores int8 itself when all readers are in int8, with a piece that `stores`.
        uncorrected: noise that an int8 producer adds if a float32 reader does not correct its mean error.
    """

    producer: int
    readers: tuple[int, ...]
    quantise_us: float = 0.0
    dequantise_us: float = 0.0
    noise: float = 0.0
    absorbed: bool = False
    uncorrected: float = 0.0

    def rounded(self, integers: Collection[int]) -> bool:
        """Return whether the tensor is converted to int8 if the steps `integers` are in int8."""
        return self.producer not in integers and any(reader in integers for reader in self.readers)

    def noise_of(self, integers: Collection[int]) -> float:
        """Return the noise that the tensor adds if the steps `integers` are in int8."""
        if self.producer in integers:
            return self.uncorrected * any(reader not in integers for reader in self.readers)
        return self.noise * self.rounded(integers)

    def conversion_us(self, integers: Collection[int]) -> float:
        """Return the latency in microseconds of the tensor's conversion; 0 if it needs none."""
        floats = any(reader not in integers for reader in self.readers)
        if self.producer in integers:
            return self.dequantise_us * floats
        return self.quantise_us * (self.rounded(integers) and (floats or not self.absorbed))

    def stored(self, integers: Collection[int]) -> bool:
        """Return whether the producer computes in float32 but stores int8 if the steps `integers` are in int8."""
        return self.absorbed and self.producer not in integers and all(reader in integers for reader in self.readers)


@dataclass(frozen=True)
class Programme:
    """The integer programme that chooses the precisions of a network's layers.

    An assignment's latency is that of its cheapest cover by pieces, plus its conversions. Its noise is the sum of what each int8 step, and
    each converted tensor, adds alone.

    Attributes:
        steps: number of steps.
        pieces: kernels that may be used; they cover each step in one precision or in both.
        tensors: tensors between steps.
        noise: noise that each step adds to the network's output in int8, by its number; 0 if missing.
    """

    steps: int
    pieces: tuple[KernelSpan, ...]
    tensors: tuple[StepOutput, ...]
    noise: Mapping[int, float]

    def noise_of(self, integers: Collection[int]) -> float:
        """Return the predicted noise with these steps in int8."""
        return math.fsum([*(self.noise.get(number, 0.0) for number in integers), *(tensor.noise_of(integers) for tensor in self.tensors)])


@dataclass(frozen=True)
class Assignment:
    """The precisions of a network's layers.

    Attributes:
        integers: numbers of the steps in int8.
        latency_us: sum of the latencies of kernels and conversions, in microseconds.
        noise: predicted noise, see `Programme`.
        bound_us: lower bound on the latency, in microseconds, of all assignments within the requested noise.
        estimated_us: part of the latency due to conversions and to kernels without a record, in microseconds.
    """

    integers: frozenset[int]
    latency_us: float
    noise: float
    bound_us: float
    estimated_us: float = 0.0


def fastest(programme: Programme, most_noise: float = math.inf) -> Assignment | None:
    """Return the fastest assignment whose predicted noise is at most `most_noise`; `None` if there is none."""
    model = _Model(programme, most_noise)
    solution = minimised(model.costs, len(programme.pieces), model.most, model.rows, _TIME_LIMIT_S, gap=0.0)
    if solution is None:
        return None
    chosen = [piece for piece, used in zip(programme.pieces, solution.chosen, strict=True) if used]
    integers = frozenset(number for piece in chosen if piece.integer for number in range(piece.first, piece.last + 1))
    estimates = [piece.latency_us for piece in chosen if piece.estimated]
    estimates += [tensor.conversion_us(integers) for tensor in programme.tensors]
    estimated_us = math.fsum(estimates)
    latency_us = math.fsum([estimated_us, *(piece.latency_us for piece in chosen if not piece.estimated)])
    bound_us = min(solution.bound, latency_us)
    return Assignment(integers, latency_us, programme.noise_of(integers), bound_us, estimated_us)


class _Model:
    """A programme in the form that `minimised` takes.

    The first variables select the pieces, as a path from the network's input to its output. The others select the conversions of tensors;
    they follow from the first, so they need not be declared as integers.

    Attributes:
        costs, most: latency if the variable is 1, and largest value, of each variable.
        rows: constraints.
    """

    def __init__(self, programme: Programme, most_noise: float) -> None:
        self.costs = [piece.latency_us for piece in programme.pieces]
        self.rows: list[Constraint] = []
        #: By step, the int8 pieces that cover it, and the float32 pieces that end with it and store int8.
        self._covering: dict[int, list[int]] = defaultdict(list)
        self._storing: dict[int, list[int]] = defaultdict(list)
        noise: dict[int, float] = defaultdict(float)
        for number, piece in enumerate(programme.pieces):
            for step in range(piece.first, piece.last + 1) if piece.integer else ():
                self._covering[step].append(number)
                noise[number] += programme.noise.get(step, 0.0)
            if piece.stores:
                self._storing[piece.last].append(number)
        self._cover(programme)
        for tensor in programme.tensors:
            dequantised, rounded = self._convert(tensor)
            noise[dequantised] += tensor.uncorrected
            noise[rounded] += tensor.noise
        self.most = [float(noise[number] <= most_noise) for number in range(len(self.costs))]
        if 0 < most_noise < math.inf:
            self._constrain({variable: share / most_noise for variable, share in noise.items()}, -math.inf, 1.0)

    def _constrain(self, shares: Mapping[int, float], low: float, high: float) -> None:
        self.rows.append(Constraint(shares, low, high))

    def _cover(self, programme: Programme) -> None:
        """Add a constraint for each position between steps and each layout: as many chosen pieces end as begin there."""
        ends: dict[tuple[int, str, bool], dict[int, float]] = defaultdict(dict)
        for number, piece in enumerate(programme.pieces):
            for place, layout, sign in ((piece.first, piece.before, -1.0), (piece.last + 1, piece.after, 1.0)):
                # Kernels of different precisions meet only in the shared layout.
                ends[(place, layout, layout == SHARED or piece.integer)][number] = sign
        first, last = (0, SHARED, True), (programme.steps, SHARED, True)
        for end, signs in ends.items():
            total = float((end == last) - (end == first))
            self._constrain(signs, total, total)

    def _convert(self, tensor: StepOutput) -> tuple[int, int]:
        """Add variables for a tensor's conversions; return those for whether it is dequantised and whether it is rounded."""
        dequantised, rounded = self._variable(tensor.dequantise_us), self._variable(0.0 if tensor.absorbed else tensor.quantise_us)
        producer, readers = tensor.producer, tensor.readers
        for reader in readers:
            # `dequantised` is at least 1 if the producer is in int8 and this reader is not; `rounded`, if it is the other way round.
            self._at_least(0.0, {producer: -1.0, reader: 1.0}, {dequantised: 1.0})
            self._at_least(0.0, {producer: 1.0, reader: -1.0}, {rounded: 1.0})
        if tensor.absorbed:
            converted, storing = self._variable(tensor.quantise_us), self._storing[producer]
            for reader in readers:
                self._at_least(0.0, {producer: 1.0, reader: -1.0}, dict.fromkeys([converted, *storing], 1.0))
                # The producer stores int8 only if this reader is in int8, ...
                self._at_least(0.0, {reader: 1.0}, dict.fromkeys(storing, -1.0))
            # ... and always if all readers are.
            self._at_least(1.0 - len(readers), {producer: 1.0, **dict.fromkeys(readers, -1.0)}, dict.fromkeys(storing, 1.0))
        return dequantised, rounded

    def _variable(self, cost: float) -> int:
        self.costs.append(cost)
        return len(self.costs) - 1

    def _at_least(self, low: float, steps: Mapping[int, float], variables: Mapping[int, float]) -> None:
        """Add the constraint that a sum is at least `low`: coefficients of variables, plus coefficients of the steps that are in int8."""
        shares: dict[int, float] = defaultdict(float, variables)
        for step, share in steps.items():
            for piece in self._covering[step]:
                shares[piece] += share
        self._constrain(shares, low, math.inf)
