"""The prologue and epilogue of a register tile: initial values of accumulators, and the steps between the last product and the store."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from tvmmobile.graph.curves import CHANNEL, CURVES, GATE, TENSOR
from tvmmobile.graph.layers import Array, Clamp, Conv2d, Dense, LayerParameters, SumLayer
from tvmmobile.graph.layouts import channel_block, shuffle_of
from tvmmobile.graph.precision import INT8
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.vectors import Vectors
from tvmmobile.schedules.space import round_up

#: Most vectors that go through a long curve together: more would spill, since its constants need registers too.
AT_ONCE = 8
#: Name of the argument with the scales of int8 weights.
SCALE = "scale"
#: A compiler barrier: stores before it reach memory, and loads after it read memory.
BARRIER = """define internal void @tvmmobile_barrier(ptr %place) alwaysinline nounwind {
  call void asm sideeffect "", "r,~{memory}"(ptr %place)
  ret void
}
"""


@dataclass(frozen=True)
class Spot:
    """The part of a layer's output that one accumulator computes: a vector, or a single element.

    Attributes:
        channel: first channel of the vector.
        target: index in the output's buffer of the vector's first element.
        place: maps an activation with the output's extents to the index of the vector's first element there.
        lanes: lanes of the accumulator.
        count: lanes that hold output elements; the others are padding.
        lane: maps a lane to its index in the output's buffer, if lanes are not consecutive.
        taps: number of window positions that lie inside the input, perhaps found at run time; 0 where it is not needed.
    """

    channel: Expr
    target: Expr
    place: Callable[[Activation], Expr]
    lanes: int
    count: int
    lane: Callable[[int], Expr] | None = None
    taps: Expr = 0


def scattered(output: Activation, pixel: Expr, channel: Expr, lanes: int) -> Callable[[int], Expr] | None:
    """Return the function for `Spot.lane`; `None` if the lanes are consecutive in the output."""
    return None if output.holds_whole(lanes) else lambda lane: output.at(pixel, channel + lane)


def spot_at(target: Expr, pixel: Expr, channel: Expr, lanes: int, count: int) -> Spot:
    """Return the spot of consecutive channels of one pixel."""
    return Spot(channel, target, lambda tensor: tensor.at(pixel, channel), lanes, count)


def panel_spots(output: Activation, pixels: Sequence[Expr], channel: Expr, columns: int, lanes: int) -> list[Spot]:
    """Return the spots of `columns` channels from `channel` on, pixel after pixel; the last vector of a pixel may be partial."""
    spots = []
    for pixel, j in itertools.product(pixels, range(0, columns, lanes)):
        target = output.at(pixel, channel) + j if output.block == output.channels else output.at(pixel, channel + j)
        spot = spot_at(target, pixel, channel + j, lanes, min(lanes, columns - j))
        spots.append(replace(spot, lane=scattered(output, pixel, channel + j, lanes)))
    return spots


def k_blocks(layer: Conv2d, task: Task, depth: int, channels: int) -> tuple[int, ...]:
    """Return the choices of `k_block`, where 0 means all of K.

    Smaller blocks are offered only where partial sums can be stored to the output and loaded again as whole vectors.
    """
    in_block, shuffle = channel_block(layer.in_layout, layer.in_channels), shuffle_of(layer.out_layout)
    scattered_output = layer.out_layout == "NCHW" or (shuffle and shuffle[1] % task.lanes)
    if channels % task.lanes or layer.pieces or not task.keeps_sums or scattered_output:
        return (0,)
    return (0, *(k for k in (32, 64, 128, 256) if k < depth and (in_block % k == 0 or k % in_block == 0)))


def constant_shapes(layer: SumLayer, lanes: int = 1) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays of `pack_constants`, by the name of the kernel's argument."""
    names = ["bias", *(f"constant{number}" for number in range(layer.operands.count(CHANNEL)))]
    names += [SCALE] * (layer.weights == INT8.name)
    return dict.fromkeys(names, (round_up(layer.weight_shape[-1], lanes),))


def pack_constants(parameters: LayerParameters, lanes: int = 1) -> list[Array]:
    """Return the per-channel constants (bias, then operands), each zero-padded to whole vectors."""
    arrays = (parameters.bias, *parameters.operands)
    return [np.pad(array, (0, round_up(len(array), lanes) - len(array))) for array in arrays]


@dataclass(frozen=True)
class Ends(ABC):
    """The initial values of accumulators, and the steps before they are stored."""

    kernel: Kernel

    @property
    def begins_alike(self) -> bool:
        """True if a channel's accumulators have the same initial value for all pixels."""
        return True

    @abstractmethod
    def begin(self, spot: Spot) -> Expr:
        """Return the initial value of an accumulator."""

    def finish(self, value: Expr, spot: Spot) -> Expr:
        """Return the value to store for a complete sum: the sum itself by default."""
        return value

    def finished(self, _accumulators: Buffer, _spots: Sequence[Spot]) -> Buffer | None:
        """Return a buffer of finished values, one per spot, or `None` if `drain` is to call `finish` for each spot."""
        return None

    def accumulators(self, elements: int) -> Buffer:
        """Return a buffer of accumulators in registers."""
        return self.kernel.accumulators(elements)

    def fill(self, accumulators: Buffer, spots: Sequence[Spot], partial: Buffer | None = None) -> None:
        """Initialise the accumulators, from the partial sums in the output if `partial` is given."""
        for number, spot in enumerate(spots):
            value = self.begin(spot) if partial is None else self.kernel.load(partial, spot.target, spot.lanes)
            self.kernel.store(accumulators, value, number * spot.lanes, spot.lanes)

    def drain(self, accumulators: Buffer, spots: Sequence[Spot], output: Buffer, last: bool = True) -> None:
        """Store the accumulators: finished if `last`, else as partial sums."""
        finished = self.finished(accumulators, spots) if last else None
        for number, spot in enumerate(spots):
            value = self.kernel.load(accumulators if finished is None else finished, number * spot.lanes, spot.lanes)
            value = self.finish(value, spot) if last and finished is None else value
            if spot.lane is not None:
                for lane in range(spot.count):
                    self.kernel.store(output, self.kernel.T.Shuffle([value], [lane]), spot.lane(lane), 1)
            elif spot.count == spot.lanes:
                self.kernel.store(output, value, spot.target, spot.lanes)
            else:
                self.kernel.store_part(output, value, spot.target, spot.count)


@dataclass(frozen=True)
class Epilogue(Ends):
    """A layer's bias, residual and steps (`SumLayer.steps`).

    Attributes:
        buffers: buffers by argument name, those of `constant_shapes` and `side_shapes`.
    """

    layer: SumLayer
    buffers: Mapping[str, Buffer]

    @property
    def begins_alike(self) -> bool:
        """False with a residual, which differs by pixel; int8 weights with scales add it after the products."""
        return "residual" not in self.buffers or SCALE in self.buffers

    def begin(self, spot: Spot) -> Expr:
        """Return the bias, plus the residual if there is one; 0 where weights have scales, which apply to the sum before the bias."""
        return self.kernel.splat(self.kernel.number(0.0), spot.lanes) if SCALE in self.buffers else self._begun(spot)

    def _begun(self, spot: Spot) -> Expr:
        bias = self._constant("bias", spot)
        return bias + self._tensor("residual", spot) if "residual" in self.buffers else bias

    def finish(self, value: Expr, spot: Spot) -> Expr:
        """Return the sum after all steps; where weights have scales, the sum is scaled and the bias added first."""
        if SCALE in self.buffers:
            value = self.kernel.T.bind(self._begun(spot) + self._constant(SCALE, spot) * value)
        tensors = itertools.count()
        numbers = {CHANNEL: itertools.count(), TENSOR: tensors, GATE: tensors}
        long = [isinstance(step, str) and CURVES[step].long for step in self.layer.steps]
        for place, step in enumerate(self.layer.steps):
            if long[place] and any(long[:place]):
                # TVM's code generator expands a bound expression at each use of its name, which takes minutes for three curves.
                curved = self.kernel.accumulators(spot.lanes)
                self.kernel.store(curved, value, 0, spot.lanes)
                value = self.kernel.load(curved, 0, spot.lanes)
            value = self.kernel.T.bind(value) if place else value
            kinds = CURVES[step].operands if isinstance(step, str) else ()
            operands = [self._operand(kind, next(numbers[kind]), spot) for kind in kinds]
            value = self._step(step, value, operands, self.kernel.vectors(spot.lanes))
        return value

    def finished(self, accumulators: Buffer, spots: Sequence[Spot]) -> Buffer | None:
        """Spill all sums to memory before a long curve, then finish `AT_ONCE` vectors at a time.

        Return `None`, so that `drain` finishes each sum, if there is no long curve, if the sums are few, or if an operand is not a tensor.
        """
        curves = [CURVES[step] for step in self.layer.steps if isinstance(step, str)]
        equal_lanes = len({spot.lanes for spot in spots}) == 1
        only_tensors = {kind for curve in curves for kind in curve.operands} <= {TENSOR}
        if not any(curve.long for curve in curves) or not only_tensors or len(spots) <= AT_ONCE or not equal_lanes:
            return None
        lanes = spots[0].lanes
        waiting = self.kernel.accumulators(len(spots) * lanes)
        places = [number * lanes for number in range(len(spots))]
        for place in places:
            self.kernel.store(waiting, self.kernel.load(accumulators, place, lanes), place, lanes)
        for group in np.array_split(places, -(-len(places) // AT_ONCE)):
            # Without the barrier, LLVM would keep all sums in registers and spill the curve's values instead.
            self.kernel.call("tvmmobile_barrier", lambda: BARRIER, (waiting, 0))
            for place in map(int, group):
                self.kernel.store(waiting, self.finish(self.kernel.load(waiting, place, lanes), spots[place // lanes]), place, lanes)
        return waiting

    def _step(self, step: Clamp, value: Expr, operands: Sequence[Expr], vectors: Vectors) -> Expr:
        if isinstance(step, str):
            return CURVES[step].emit(vectors, value, *operands)
        return vectors.limited(value, *step)

    def _operand(self, kind: str, number: int, spot: Spot) -> Expr:
        if kind == CHANNEL:
            return self._constant(f"constant{number}", spot)
        name = f"operand{number}"
        return self._tensor(name, spot) if kind == TENSOR else self._of_channels(self.buffers[name], spot)

    def _of_channels(self, buffer: Buffer, spot: Spot) -> Expr:
        """Return the spot's channels of a tensor that has one value per channel."""
        return self._load(buffer, spot.channel, spot.count, spot.lanes)

    def _constant(self, name: str, spot: Spot) -> Expr:
        """Return the constants of the spot's channels; they are padded to whole vectors, except between groups."""
        grouped = isinstance(self.layer, Conv2d) and self.layer.groups > 1
        return self._load(self.buffers[name], spot.channel, spot.count if grouped else spot.lanes, spot.lanes)

    def _tensor(self, name: str, spot: Spot) -> Expr:
        """Return the spot's vector of a tensor with the output's extents, or of a channel slice of one (`SumLayer.added`)."""
        *pixels, channels = self.layer.plain_shape
        whole, first = self.layer.added or (channels, 0)
        tensor = Activation(self.buffers[name], math.prod(pixels), whole, whole)
        place = spot.place(tensor)
        return self._load(tensor.buffer, place + first if first else place, spot.count, spot.lanes)

    def _load(self, buffer: Buffer, index: Expr, count: int, lanes: int) -> Expr:
        return self.kernel.load(buffer, index, lanes) if count == lanes else self.kernel.load_part(buffer, index, count)


@contextmanager
def layer_body(kernel: Kernel, layer: Conv2d | Dense, weight: int, lanes: int = 1) -> Iterator[tuple[dict[str, Buffer], Epilogue]]:
    """Open the body of a kernel for one layer with `weight` packed weights; yield its arguments as flat buffers, and its epilogue."""
    packed = {"weight": (weight,), **constant_shapes(layer, lanes)}
    with kernel.named_body(data=layer.input_shape, **layer.side_shapes, **packed, output=layer.output_shape) as buffers:
        yield buffers, Epilogue(kernel, layer, buffers)
