"""Every channel of integers times a factor of its own (squeeze and excite): channels whose factors are in registers, pixel after pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tvmmobile.graph.layers import Gating
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Expr, Span, share
from tvmmobile.schedules.integers.integer import (
    INTEGERS,
    LANES,
    IntegerEnds,
    IntegerKernel,
    IntegerTemplate,
    integer_body,
    takes,
)
from tvmmobile.schedules.space import Knobs, Space, up_to
from tvmmobile.schedules.template import layer_of

#: Channels of a vector of bytes, and the fewest that are multiplied together.
VECTOR, EIGHT = 16, 8


@dataclass(frozen=True)
class _GateEnds(IntegerEnds):
    """Ends with multipliers that are known when the kernel runs.

    Attributes:
        factors: of each vector of four.
    """

    factors: tuple[Expr, ...] = ()

    def factor(self, channel: Expr, place: int) -> Expr:
        """The multipliers of a vector of four: the gate's."""
        return self.factors[place]


class IntegerGate(IntegerTemplate):
    """Takes one integer `Gating`, whose channels divide by 8. Threads share the pixels.

    Knobs:
        vectors: of 16 channels that are multiplied together; a cache line is four.
    """

    name = "integer_gate"
    handles = INTEGERS
    enough_trials = 4

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not (isinstance(layer, Gating) and takes(task)) or layer.channels % EIGHT:
            return None
        options = {"vectors": up_to((1, 2, 4), max(layer.channels // VECTOR, 1))}
        return Space(self.name, self.version, options, lambda knobs: True, {"vectors": 2})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Pixels, channels, and how many of these are multiplied together."""
        layer = layer_of(task, Gating)
        return [math.log2(layer.height * layer.width), math.log2(layer.channels), knobs["vectors"]]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer, kernel = layer_of(task, Gating), IntegerKernel(task)
        with integer_body(kernel, layer) as ends, kernel.team(task.threads) as thread:
            pixels, first = share(thread, task.threads, layer.height * layer.width), 0
            for lanes in (VECTOR * knobs["vectors"], VECTOR, EIGHT):
                count = (layer.channels - first) // lanes
                if count:
                    with kernel.loop(count) as group:
                        _emit_group(ends, pixels, first + group * lanes, lanes)
                first += count * lanes
        return kernel.finish()


def _emit_group(ends: IntegerEnds, pixels: Span, channel: Expr, lanes: int) -> None:
    """Emit `lanes` channels of some pixels."""
    kernel, T, data = ends.kernel, ends.kernel.T, ends.buffers["data"]  # noqa: N806
    gates = [kernel.bytes_at(ends.buffers["gate"], channel + j, LANES) for j in range(0, lanes, LANES)]
    factors = tuple(T.bind(ends.side(gate) * ends.factor(channel, place)) for place, gate in enumerate(gates))
    start = T.Broadcast(T.bind(ends.buffers["bias"][0]), EIGHT)  # the same for all channels
    channels = ends.layer.input_shape[-1]
    with kernel.span(*pixels) as pixel:
        place = pixel * channels + channel
        for first in range(0, lanes, VECTOR):
            size = min(VECTOR, lanes - first)
            sums = kernel.sums(size // LANES)
            for eight in range(0, size, EIGHT):
                short = T.Cast("int16x8", kernel.bytes_at(data, place + first + eight, EIGHT))
                kernel.store(sums, T.Cast("int32x8", short) + start, eight, EIGHT)
            every = ends.complete(sums, 0, size)
            part = _GateEnds(kernel, ends.layer, ends.buffers, factors[first // LANES :])
            part.store([(every, place + first)], channel + first, size)
