"""Global average pool in int8: 16-bit sums of as many pixels as fit, which are added to 32-bit sums."""

from __future__ import annotations

from typing import Any

from tvmmobile.graph.layers import Pool
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr, parts_of
from tvmmobile.schedules.integers.ends import IntegerEnds, integer_body
from tvmmobile.schedules.integers.kernel import HALF_VECTOR_BYTES, LANES, VECTOR_BYTES, IntegerKernel
from tvmmobile.schedules.integers.template import IntegerChannels
from tvmmobile.schedules.space import Knobs
from tvmmobile.schedules.template import layer_of

#: Number of int8 values whose sum always fits in 16 bits.
_SHORT = 255


class IntegerPool(IntegerChannels):
    """Accepts one int8 global average pool, NHWC, whose channels are a multiple of 8. Threads share the channels."""

    name = "integer_pool"
    kind, usual = Pool, 4

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Pool)
        kernel = IntegerKernel(task)
        with integer_body(kernel, layer) as ends:
            for size, count, first in parts_of(layer.channels, VECTOR_BYTES * knobs["vectors"], VECTOR_BYTES, HALF_VECTOR_BYTES):
                lanes = min(size, VECTOR_BYTES)
                with kernel.T.parallel(0, count) if task.threads > 1 and count > 1 else kernel.loop(count) as group:
                    _emit_group(ends, layer, first + group * size, lanes, size // lanes)
        return kernel.finish()


def _emit_group(ends: IntegerEnds, layer: Pool, channel: Expr, lanes: int, vectors: int) -> None:
    """Emit the means of one group of channels."""
    kernel, T, pixels = ends.kernel, ends.kernel.T, layer.height * layer.width  # noqa: N806
    sums = kernel.sums(vectors * lanes // LANES)
    ends.fill(sums, 1, channel, vectors * lanes)
    short = T.alloc_buffer((vectors * lanes,), "int16", scope="local", annotations={"disable_lower_builtin": True})
    whole, rest = divmod(pixels, _SHORT)

    def add(start: Expr, count: int) -> None:
        _add_pixels(ends, layer, short, start, count, channel, (lanes, vectors))
        for place in range(0, vectors * lanes, HALF_VECTOR_BYTES):
            wide = T.Cast("int32x8", short[T.Ramp(place, 1, HALF_VECTOR_BYTES)])
            kernel.store(sums, kernel.load(sums, place, HALF_VECTOR_BYTES) + wide, place, HALF_VECTOR_BYTES)

    if whole:
        with kernel.loop(whole) as part:
            add(part * _SHORT, _SHORT)
    if rest:
        add(whole * _SHORT, rest)
    ends.store([(ends.complete(sums, 0, vectors * lanes), channel)], channel, vectors * lanes)


def _add_pixels(ends: IntegerEnds, layer: Pool, short: Buffer, start: Expr, count: int, channel: Expr, size: tuple[int, int]) -> None:
    """Set the 16-bit sums to those of `count` pixels from pixel `start` on; `size` is (lanes per vector, vectors)."""
    kernel, T, (lanes, vectors) = ends.kernel, ends.kernel.T, size  # noqa: N806

    def pixel(number: Expr, first: bool) -> None:
        for vector in range(vectors):
            stored = kernel.bytes_at(ends.buffers["data"], (start + number) * layer.channels + channel + vector * lanes, lanes)
            value, place = T.Cast(f"int16x{lanes}", stored), T.Ramp(vector * lanes, 1, lanes)
            T.buffer_store(short, value if first else short[place] + value, [place])

    pixel(0, True)
    if count > 1:
        with kernel.loop(count - 1) as number:
            pixel(number + 1, False)
