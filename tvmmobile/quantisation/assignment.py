"""Chooses each layer's precision by an integer programme: the fastest network whose predicted noise stays within a bound."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tvmmobile.system.integer_programme import Constraint, minimised

#: The layout that kernels of both precisions read and write: where activations have it, the precision may change.
SHARED = "NHWC"
#: Longest time for one programme. The solver then returns its best assignment, and how fast one could still be.
_TIME_LIMIT_S = 60.0


@dataclass(frozen=True)
class KernelSpan:
    """A kernel that may compute the steps `first` to `last` (inclusive), all in int8 or all in float32.

    Attributes:
        latency_us: recorded or estimated latency, in microseconds.
        before, after: layout of the activation in front of the kernel and behind it.
        estimated: true if the kernel has no record.
        stores: true if it computes in float32 and stores int8, because all readers want that.
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
    """A tensor that one step writes and others read. It is converted once for all readers whose precision differs.

    Attributes:
        producer: number of the step that writes it; -1 for an input of the network, which is in float32.
        readers: numbers of the steps that read it; the network's caller, who wants float32, counts as one past the last step.
        quantise_us, dequantise_us: latency of a conversion to int8, and to float32.
        noise: noise that its rounding adds to the network's output where the producer is in float32.
        absorbed: true if a producer in float32 stores int8 itself where all readers want that, so that its piece is one that `stores`.
        uncorrected: noise that a producer in int8 adds where a reader in float32 does not correct its mean error.
    """

    producer: int
    readers: tuple[int, ...]
    quantise_us: float = 0.0
    dequantise_us: float = 0.0
    noise: float = 0.0
    absorbed: bool = False
    uncorrected: float = 0.0

    def rounded(self, integers: Collection[int]) -> bool:
        """Return whether it is converted to int8 if these steps are in int8."""
        return self.producer not in integers and any(reader in integers for reader in self.readers)

    def noise_of(self, integers: Collection[int]) -> float:
        """Return its added noise if these steps are in int8."""
        if self.producer in integers:
            return self.uncorrected * any(reader not in integers for reader in self.readers)
        return self.noise * self.rounded(integers)

    def conversion_us(self, integers: Collection[int]) -> float:
        """Return the latency of its conversion, 0 if there is none."""
        floats = any(reader not in integers for reader in self.readers)
        if self.producer in integers:
            return self.dequantise_us * floats
        return self.quantise_us * (self.rounded(integers) and (floats or not self.absorbed))

    def stored(self, integers: Collection[int]) -> bool:
        """Return whether its producer computes in float32 but stores int8, if these steps are in int8."""
        return self.absorbed and self.producer not in integers and all(reader in integers for reader in self.readers)


@dataclass(frozen=True)
class Programme:
    """A network whose layers' precisions are to be chosen.

    An assignment takes as long as its cheapest cover by pieces and its conversions. Its noise is the sum of what each step in int8, and
    each tensor that is converted, adds alone.

    Attributes:
        steps: number of steps; pieces cover each in one precision or in both.
        noise: noise that each step adds to the network's output in int8, by its number; 0 where it is missing.
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
        integers: the numbers of the steps in int8.
        latency_us: the sum of its kernels' and conversions' latencies, in microseconds.
        noise: predicted, see `Programme`.
        estimated_us: part of the latency due to conversions, and to kernels without a record.
        bound_us: the certificate: no assignment of the programme with as little noise as was asked for is faster.
    """

    integers: frozenset[int]
    latency_us: float
    noise: float
    bound_us: float
    estimated_us: float = 0.0


def fastest(programme: Programme, most_noise: float = math.inf) -> Assignment | None:
    """Return the fastest assignment whose predicted noise is at most `most_noise`; `None` if there is none."""
    model = _Model(programme, most_noise)
    found = minimised(model.costs, len(programme.pieces), model.most, model.rows, _TIME_LIMIT_S, gap=0.0)
    if found is None:
        return None
    chosen = [piece for piece, used in zip(programme.pieces, found.chosen, strict=True) if used]
    integers = frozenset(number for piece in chosen if piece.integer for number in range(piece.first, piece.last + 1))
    estimates = [piece.latency_us for piece in chosen if piece.estimated]
    estimates += [tensor.conversion_us(integers) for tensor in programme.tensors]
    estimated_us = math.fsum(estimates)
    latency_us = math.fsum([estimated_us, *(piece.latency_us for piece in chosen if not piece.estimated)])
    bound_us = min(found.bound, latency_us)
    return Assignment(integers, latency_us, programme.noise_of(integers), bound_us, estimated_us)


class _Model:
    """A programme in the form of `minimised`. The first variables say which pieces are used, as a path from the network's input to
    its output; the others, which follow from them and need not be declared integers, say which tensors are converted.

    Attributes:
        costs, most: latency where a variable is 1, and its largest value, for each variable.
        rows: the constraints.
    """

    def __init__(self, programme: Programme, most_noise: float) -> None:
        self.costs = [piece.latency_us for piece in programme.pieces]
        self.rows: list[Constraint] = []
        #: By step the pieces in int8 that cover it, and those in float32 that end with it and store int8.
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
            self._constrain({one: share / most_noise for one, share in noise.items()}, -math.inf, 1.0)

    def _constrain(self, shares: Mapping[int, float], low: float, high: float) -> None:
        self.rows.append(Constraint(shares, low, high))

    def _cover(self, programme: Programme) -> None:
        """Add a constraint for each gap between steps: as many pieces of each layout end as begin there."""
        ends: dict[tuple[int, str, bool], dict[int, float]] = defaultdict(dict)
        for number, piece in enumerate(programme.pieces):
            for place, layout, sign in ((piece.first, piece.before, -1.0), (piece.last + 1, piece.after, 1.0)):
                # Other layouts than the shared one stay within a precision.
                ends[(place, layout, layout == SHARED or piece.integer)][number] = sign
        first, last = (0, SHARED, True), (programme.steps, SHARED, True)
        for end, signs in ends.items():
            total = float((end == last) - (end == first))
            self._constrain(signs, total, total)

    def _convert(self, tensor: StepOutput) -> tuple[int, int]:
        """Add variables for a tensor's conversions; return those that say whether it is read in float32, and whether it is rounded."""
        dequantised, rounded = self._variable(tensor.dequantise_us), self._variable(0.0 if tensor.absorbed else tensor.quantise_us)
        producer, readers = tensor.producer, tensor.readers
        for reader in readers:
            # At least 1 where the producer is in int8 and this reader is not; and the other way round.
            self._at_least(0.0, {producer: -1.0, reader: 1.0}, {dequantised: 1.0})
            self._at_least(0.0, {producer: 1.0, reader: -1.0}, {rounded: 1.0})
        if tensor.absorbed:
            converted, storing = self._variable(tensor.quantise_us), self._storing[producer]
            for reader in readers:
                self._at_least(0.0, {producer: 1.0, reader: -1.0}, dict.fromkeys([converted, *storing], 1.0))
                # Int8 is stored only where this reader wants it, ...
                self._at_least(0.0, {reader: 1.0}, dict.fromkeys(storing, -1.0))
            # ... and always where all readers do.
            self._at_least(1.0 - len(readers), {producer: 1.0, **dict.fromkeys(readers, -1.0)}, dict.fromkeys(storing, 1.0))
        return dequantised, rounded

    def _variable(self, cost: float) -> int:
        self.costs.append(cost)
        return len(self.costs) - 1

    def _at_least(self, low: float, steps: Mapping[int, float], variables: Mapping[int, float]) -> None:
        """Bound a sum from below: shares of variables, and of steps where they are in int8."""
        shares: dict[int, float] = defaultdict(float, variables)
        for step, share in steps.items():
            for piece in self._covering[step]:
                shares[piece] += share
        self._constrain(shares, low, math.inf)
