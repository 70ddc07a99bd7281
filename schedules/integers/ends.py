"""The prologue and epilogue of int8 kernels (`graph.integers`): constants, initial values of 32-bit sums, and their requantisation.

Sums are requantised in vector registers. Adding 1.5 · 2^23 to a number below 2^22 rounds it to an integer, ties to even, which is then in
the low bits of the float: this is the only rounding, and one addition converts in either direction. Zero points and initial values are part
of the addend. Results that fit in 16 bits are narrowed by taking their low halves; others, in layers whose sums are converted, are narrowed
with saturation after a subtraction, which takes twice as many instructions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from tvmmobile.graph.integers import TABLE, IntegerParameters, is_bounded
from tvmmobile.graph.layers import Array, IntegerLayer, Layer, LayerParameters
from tvmmobile.schedules.emit.kernel import Buffer, Expr
from tvmmobile.schedules.emit.vectors import ROUNDER
from tvmmobile.schedules.integers.kernel import HALF_VECTOR_BYTES, LANES, ROUNDER_BITS, VECTOR_BYTES, IntegerKernel
from tvmmobile.schedules.integers.lookup import MOST_TOGETHER, lookup, symbol_of
from tvmmobile.schedules.space import round_up

#: Indices into the argument `numbers`, which holds the per-tensor constants.
_ROUNDER_OUT, _OFFSET, _LOW, _HIGH, _ZERO_IN, _OFFSET_IN, _PER_SCALE, _COUNT = range(8)
#: Additional indices, for layers with a residual, a curve or a gate.
_OFFSET_SIDE, _SCALE_SIDE, _SIXTH, _HALF, _WHOLE, _COUNT_WITH_STEPS = range(_COUNT, _COUNT + 6)


def has_steps(layer: IntegerLayer) -> bool:
    """Return whether a layer has steps after scaling its sums: a curve or a residual."""
    return bool(layer.curve) or layer.residual


def constant_shapes(layer: IntegerLayer) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays of `pack_constants`, by the name of the kernel's argument."""
    padded = (round_up(layer.output_shape[-1], LANES),)
    added = {"origin": padded} if scales_sums_at_once(layer) else {"addend": padded} if layer.integers.addend else {}
    table = {"table": (TABLE,)} if layer.looks_up else {}
    return {"bias": padded, "multiplier": padded, **added, "numbers": (_COUNT_WITH_STEPS if _has_more(layer) else _COUNT,), **table}


def scales_sums_at_once(layer: IntegerLayer) -> bool:
    """Return whether sums are multiplied without removing `ROUNDER`, whose bits they include."""
    return layer.scales_at_once and not layer.converts_sums


def _has_more(layer: IntegerLayer) -> bool:
    """Return whether a layer's kernels read the additional `numbers`."""
    return has_steps(layer) or layer.has_gate


def pack_constants(layer: Layer, parameters: LayerParameters) -> list[Array]:
    """Return a layer's constants in the order of `constant_shapes`.

    These are biases (plus the bits of `ROUNDER` if sums are not converted); multipliers; addends, if any, or `origin`, which compensates
    for the bits of `ROUNDER` in scaled sums; `numbers`; and the table of a layer that uses a lookup.
    """
    assert isinstance(layer, IntegerLayer) and isinstance(parameters, IntegerParameters)
    assert is_bounded(parameters) <= layer.integers.bounded
    bias = parameters.bias.astype(np.int64) + (0 if layer.converts_sums else ROUNDER_BITS)
    padding = (0, round_up(len(bias), LANES) - len(bias))
    numbers = np.zeros(constant_shapes(layer)["numbers"], np.int32)
    numbers[_ROUNDER_OUT] = _bits(ROUNDER + parameters.zero_out)
    numbers[_LOW], numbers[_HIGH] = parameters.low, parameters.high
    numbers[_OFFSET] = ROUNDER_BITS - parameters.zero_out
    numbers[_ZERO_IN], numbers[_OFFSET_IN] = parameters.zero_in, ROUNDER_BITS - parameters.zero_in
    numbers[_PER_SCALE] = _bits(parameters.per_scale_in)
    if _has_more(layer):
        numbers[_OFFSET_SIDE] = _bits(ROUNDER + parameters.zero_side)
        sixth = np.float32(parameters.sixth)
        numbers[_SCALE_SIDE], numbers[_SIXTH] = _bits(parameters.scale_side), _bits(sixth)
        numbers[_HALF], numbers[_WHOLE] = _bits(np.float32(3) * sixth), _bits(np.float32(6) * sixth)
    multiplier, added = np.pad(parameters.multiplier, padding), list[Array]()
    if scales_sums_at_once(layer):
        added = [(ROUNDER + parameters.zero_out - ROUNDER * multiplier.astype(np.float64)).astype(np.float32)]
    elif layer.integers.addend:
        added = [np.pad(parameters.addend, padding)]
    return [np.pad(bias.astype(np.int32), padding), multiplier, *added, numbers, *([parameters.table] if layer.looks_up else [])]


def _bits(number: float | np.floating[Any]) -> np.int32:
    """Return the bits of a float32 number."""
    return np.float32(number).view(np.int32)


def bytes_of(sums: Sequence[Any]) -> int:
    """Return the size in bytes of the vector that up to four vectors of sums are narrowed to."""
    return VECTOR_BYTES if len(sums) > 2 else HALF_VECTOR_BYTES


@dataclass(frozen=True)
class IntegerEnds:
    """The initial values of sums, and their requantisation and stores.

    Attributes:
        buffers: buffers by argument name.
    """

    kernel: IntegerKernel
    layer: IntegerLayer
    buffers: Mapping[str, Buffer]

    @cached_property
    def _converts(self) -> bool:
        return self.layer.converts_sums

    def number(self, place: int, lanes: int, kind: str = "int32") -> Expr:
        """Return one of `numbers` broadcast to all lanes, cast to the integer type `kind`."""
        value = self.buffers["numbers"][place]
        return self.kernel.T.Broadcast(value if kind == "int32" else self.kernel.T.Cast(kind, value), lanes)

    def zero_in(self, lanes: int) -> Expr:
        """Return the zero point of the input in int8, broadcast to all lanes."""
        return self.number(_ZERO_IN, lanes, "int8")

    def begin(self, channel: Expr) -> Expr:
        """Return the initial values of four channels' sums."""
        return self.kernel.load(self.buffers["bias"], channel, LANES)

    def factor(self, channel: Expr, place: int) -> Expr:
        """Return the multipliers of the `place`-th vector of four channels from `channel` on."""
        return self.kernel.load(self.buffers["multiplier"], channel + LANES * place, LANES)

    def fill(self, sums: Buffer, pixels: int, channel: Expr, count: int, first: int = 0) -> None:
        """Initialise the sums [pixel][channel] of `pixels` pixels, from number `first` on, and `count` channels from `channel` on."""
        for place, j in itertools.product(range(first, first + pixels), range(0, count, LANES)):
            self.kernel.store(sums, self.begin(channel + j), place * count + j, LANES)

    def complete(self, sums: Buffer, pixel: int, count: int) -> list[Expr]:
        """Return a pixel's `count` sums as vectors of four channels."""
        return [self.kernel.load(sums, pixel * count + j, LANES) for j in range(0, count, LANES)]

    def store(self, pixels: Sequence[tuple[Sequence[Expr], Expr]], channel: Expr, count: int) -> None:
        """Store complete sums as results.

        Args:
            pixels: (sums as vectors of four channels, index of the first result in the output) for each pixel.
            channel, count: first channel, and number of channels that exist.
        """
        if self.layer.writes:
            for sums, target in pixels:
                for place, value in enumerate(sums):
                    scaled = self._real_result(value, channel, place)
                    self.kernel.store_part(self.buffers["output"], scaled, target + LANES * place, min(LANES, count - LANES * place))
            return
        flat = [(value, target, place) for sums, target in pixels for place, value in enumerate(sums)]
        vectors = [flat[first : first + 4] for first in range(0, len(flat), 4)]
        for sums, stored in zip(vectors, self._results(vectors, channel, count), strict=True):
            self._store(sums, stored, count)

    def _float(self, value: Expr) -> Expr:
        """Return four sums as floats."""
        T = self.kernel.T  # noqa: N806
        return T.Cast("float32x4", value) if self._converts else self.kernel.as_type("float32x4", value) - self.kernel.rounder()

    def _results(self, vectors: Sequence[Sequence[tuple[Expr, Expr, int]]], channel: Expr, count: int) -> Iterator[Expr]:
        """Yield one int8 vector per group of up to four vectors of sums (as for `_store`), looked up in the table if there is one."""
        narrowed = (self._narrowed(sums, channel, count) for sums in vectors)
        return iter(self._looked_up(list(narrowed), list(map(bytes_of, vectors)))) if self.layer.looks_up else narrowed

    def _store(self, sums: Sequence[tuple[Expr, Expr, int]], stored: Expr, count: int) -> None:
        """Emit the stores of an int8 vector `stored`.

        Args:
            sums: (sums, index of the pixel in the output, number of the pixel's vector) for each four bytes of the vector.
            count: channels that exist.
        """
        first = 0
        for number, (_, target, place) in enumerate(sums):
            if number + 1 < len(sums) and sums[number + 1][2] == place + 1:
                continue
            begin = sums[first][2]
            self._store_lanes(stored, bytes_of(sums), first, number + 1 - first, target + LANES * begin, count - LANES * begin)
            first = number + 1

    def _narrowed(self, sums: Sequence[tuple[Expr, Expr, int]], channel: Expr, count: int) -> Expr:
        """Return up to four vectors of sums (as for `_store`), requantised, in one int8 vector."""
        kernel, T = self.kernel, self.kernel.T  # noqa: N806
        scaled = []
        for value, target, place in sums:
            if has_steps(self.layer):
                at = target + LANES * place
                scaled.append(self._stepped(value, channel, place, at, min(LANES, count - LANES * place)))
            elif self.layer.integers.addend:
                scaled.append(kernel.as_type("int32x4", self._real_result(value, channel, place) + self._rounder()))
            elif scales_sums_at_once(self.layer):
                origin = kernel.load(self.buffers["origin"], channel + LANES * place, LANES)
                scaled.append(self._rounded(kernel.as_type("float32x4", value), self.factor(channel, place), origin))
            else:
                scaled.append(self._rounded(self._float(value), self.factor(channel, place)))
        if self._converts:
            narrowed = kernel.saturated(scaled, self.number(_OFFSET, LANES))
        else:  # the low half of `_OFFSET` is the negated zero point
            narrowed = kernel.shortened(scaled, self.number(_OFFSET, 2 * LANES, "int16") if self.layer.integers.addend else None)
        if self.layer.integers.bounded:
            low, high = (self.number(place, bytes_of(sums), "int8") for place in (_LOW, _HIGH))
            narrowed = T.min(T.max(narrowed, low), high)
        return T.bind(narrowed)

    def _looked_up(self, stored: Sequence[Expr], lanes: Sequence[int]) -> list[Expr]:
        """Return int8 vectors, of these numbers of lanes, looked up in the table."""
        kernel, T, results = self.kernel, self.kernel.T, list[Expr]()  # noqa: N806
        for first in range(0, len(stored), MOST_TOGETHER):
            batch = range(first, min(first + MOST_TOGETHER, len(stored)))
            acc = kernel.sums(LANES * len(batch))
            for place, n in enumerate(batch):
                whole = stored[n] if lanes[n] == VECTOR_BYTES else T.Shuffle([stored[n], stored[n]], list(range(VECTOR_BYTES)))
                kernel.store(acc, kernel.as_type("int32x4", whole), LANES * place, LANES)
            kernel.call(symbol_of(len(batch)), partial(lookup, len(batch)), (acc, 0), (self.buffers["table"], 0))
            for place, n in enumerate(batch):
                whole = T.bind(kernel.as_type("int8x16", kernel.load(acc, LANES * place, LANES)))
                results.append(whole if lanes[n] == VECTOR_BYTES else T.Shuffle([whole], list(range(HALF_VECTOR_BYTES))))
        return results

    def _rounder(self, overwritten: bool = False) -> Expr:
        """Return the constant whose addition rounds a float: `ROUNDER`, plus the zero point unless `_OFFSET` has it."""
        return self.kernel.rounder(overwritten) if self._converts or self.layer.integers.addend else self._real(_ROUNDER_OUT)

    def _rounded(self, values: Expr, factor: Expr, added: Expr = None) -> Expr:
        """Return `values * factor + added`, rounded once, as int32 bits; `added` is `_rounder` by default."""
        return self.kernel.as_type("int32x4", self.kernel.fused(values, factor, self._rounder(True) if added is None else added))

    def _real_result(self, value: Expr, channel: Expr, place: int) -> Expr:
        """Return four sums as scaled floats, plus their addends, if any; `channel` and `place` as for `factor`."""
        factor = self.factor(channel, place)
        if not self.layer.integers.addend:
            return self._float(value) * factor
        return self.kernel.fused(self._float(value), factor, self._addend(channel, place))

    def _addend(self, channel: Expr, place: int) -> Expr:
        """Return the addends of four channels; `channel` and `place` as for `factor`."""
        return self.kernel.load(self.buffers["addend"], channel + LANES * place, LANES)

    def _stepped(self, value: Expr, channel: Expr, place: int, target: Expr, count: int) -> Expr:
        """Return four sums after scaling, residual and curve, as int32 bits like `_rounded`; `count` of them are stored at `target`."""
        kernel, T, curve = self.kernel, self.kernel.T, self.layer.curve  # noqa: N806
        if self.layer.residual:
            residual = self._residual(target, count, self._addend(channel, place) if self.layer.integers.addend else None)
            x = kernel.fused(self._float(value), self.factor(channel, place), residual)
        else:
            x = self._real_result(value, channel, place)
        if not curve:
            return kernel.as_type("int32x4", x + self._rounder())
        x = T.bind(x)
        # Bits of positive floats compare as integers in the same order, and those of negative floats are negative.
        bits = kernel.as_type("int32x4", kernel.fused(x, self._real(_SIXTH), self._real(_HALF)))
        inside = T.min(T.max(bits, T.Broadcast(T.int32(0), LANES)), self.number(_WHOLE, LANES))
        inside = kernel.as_type("float32x4", inside)
        return self._rounded(x, inside) if curve == "hswish" else kernel.as_type("int32x4", inside + self._rounder())

    def _residual(self, target: Expr, count: int, addend: Expr) -> Expr:
        """Return four values of the residual (`count` of them exist) as floats, plus their addends, if any."""
        kernel, T, residual = self.kernel, self.kernel.T, self.buffers["residual"]  # noqa: N806
        if count < LANES:
            lanes = [residual[target + lane] if lane < count else T.int8(0) for lane in range(LANES)]
            stored = T.Shuffle(lanes, list(range(LANES)))
        else:
            stored = kernel.bytes_at(residual, target, LANES)
        side, scale = self.side(stored), self._real(_SCALE_SIDE)
        return side * scale if addend is None else kernel.fused(side, scale, addend)

    def side(self, stored: Expr) -> Expr:
        """Return four int8 values of the residual or gate minus their zero point, as floats."""
        bits = self.kernel.T.Cast("int32x4", stored) + self.kernel.T.Broadcast(self.kernel.T.int32(ROUNDER_BITS), LANES)
        return self.kernel.as_type("float32x4", bits) - self._real(_OFFSET_SIDE)

    def _real(self, place: int) -> Expr:
        """Return one of `numbers`, whose bits are a float, broadcast to all lanes."""
        return self.kernel.as_type("float32x4", self.number(place, LANES))

    def _store_lanes(self, stored: Expr, lanes: int, first: int, size: int, target: Expr, count: int) -> None:
        """Store `size` groups of four bytes of an int8 vector, from group `first` on; if `count` is less, only `count` bytes."""
        kernel, T, output = self.kernel, self.kernel.T, self.buffers["output"]  # noqa: N806
        if count < LANES * size:
            for lane in range(count):
                T.buffer_store(output, T.Shuffle([stored], [LANES * first + lane]), [target + lane])
        elif size == 1 and lanes > LANES:
            word = T.Shuffle([kernel.as_type(f"int32x{lanes // LANES}", stored)], [first])
            T.buffer_store(output, kernel.as_type("int8x4", word), [T.Ramp(target, 1, LANES)])
        else:
            part = stored if LANES * size == lanes else T.Shuffle([stored], list(range(LANES * first, LANES * (first + size))))
            T.buffer_store(output, part, [T.Ramp(target, 1, LANES * size)])

    def quantise(self, floats: Sequence[Expr]) -> Expr:
        """Return vectors of four input floats, quantised, in one int8 vector."""
        kernel = self.kernel
        scale = self._real(_PER_SCALE)
        return kernel.saturated([kernel.scaled(value, scale) for value in floats], self.number(_OFFSET_IN, LANES))


@contextmanager
def integer_body(kernel: IntegerKernel, layer: IntegerLayer, weight: int = 0, **tables: tuple[int, ...]) -> Iterator[IntegerEnds]:
    """Open the body of a layer's kernel; yield its ends, which have the buffers.

    Args:
        weight: size in bytes of the packed weights.
        tables: shapes of additional arguments, by name.
    """
    packed = {"weight": (weight,)} if weight else {}
    shapes = {"data": layer.input_shape, **layer.side_shapes, **packed, **constant_shapes(layer), **tables, "output": layer.output_shape}
    with kernel.named_body(**shapes) as buffers:
        yield IntegerEnds(kernel, layer, buffers)
