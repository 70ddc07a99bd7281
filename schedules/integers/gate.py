"""Int8 activations times a factor per channel (squeeze-and-excite): the factors of a few channels stay in registers over all pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvmmobile.graph.layers import Gating
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Expr, Span, parts_of, share
from tvmmobile.schedules.integers.ends import IntegerEnds, integer_body
from tvmmobile.schedules.integers.kernel import HALF_VECTOR_BYTES, LANES, VECTOR_BYTES, IntegerKernel
from tvmmobile.schedules.integers.template import IntegerChannels
from tvmmobile.schedules.space import Knobs
from tvmmobile.schedules.template import layer_of


@dataclass(frozen=True)
class _GateEnds(IntegerEnds):
    """Ends whose multipliers are computed at run time.

    Attributes:
        factors: multipliers of each vector of four channels.
    """

    factors: tuple[Expr, ...] = ()

    def factor(self, channel: Expr, place: int) -> Expr:
        """Return the multipliers of the `place`-th vector of four channels, which include the gate."""
        return self.factors[place]


class IntegerGate(IntegerChannels):
    """Accepts one int8 `Gating` whose channels are a multiple of 8. Threads share the pixels."""

    name = "integer_gate"
    kind, usual = Gating, 2

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer, kernel = layer_of(task, Gating), IntegerKernel(task)
        with integer_body(kernel, layer) as ends, kernel.team(task.threads) as thread:
            pixels = share(thread, task.threads, layer.height * layer.width)
            for lanes, count, first in parts_of(layer.channels, VECTOR_BYTES * knobs["vectors"], VECTOR_BYTES, HALF_VECTOR_BYTES):
                with kernel.pieces(first, count, lanes) as channel:
                    _emit_group(ends, pixels, channel, lanes)
        return kernel.finish()


def _emit_group(ends: IntegerEnds, pixels: Span, channel: Expr, lanes: int) -> None:
    """Emit `lanes` channels, from `channel` on, of the pixels [first, end)."""
    kernel, T, data = ends.kernel, ends.kernel.T, ends.buffers["data"]  # noqa: N806
    gates = [kernel.bytes_at(ends.buffers["gate"], channel + j, LANES) for j in range(0, lanes, LANES)]
    factors = tuple(T.bind(ends.side(gate) * ends.factor(channel, place)) for place, gate in enumerate(gates))
    start = T.Broadcast(T.bind(ends.buffers["bias"][0]), HALF_VECTOR_BYTES)  # the same for all channels
    channels = ends.layer.input_shape[-1]
    with kernel.span(*pixels) as pixel:
        place = pixel * channels + channel
        for first in range(0, lanes, VECTOR_BYTES):
            size = min(VECTOR_BYTES, lanes - first)
            sums = kernel.sums(size // LANES)
            for eight in range(0, size, HALF_VECTOR_BYTES):
                short = T.Cast("int16x8", kernel.bytes_at(data, place + first + eight, HALF_VECTOR_BYTES))
                kernel.store(sums, T.Cast("int32x8", short) + start, eight, HALF_VECTOR_BYTES)
            complete = ends.complete(sums, 0, size)
            part = _GateEnds(kernel, ends.layer, ends.buffers, factors[first // LANES :])
            part.store([(complete, place + first)], channel + first, size)
