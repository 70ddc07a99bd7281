"""Kernels of scaled integers (`graph.integers`): bytes in memory, 32-bit sums in registers, and their requantisation at a tile's end.

Sums are requantised in vector registers. Adding 1.5 · 2^23 to a number below 2^22 rounds it to an integer, ties to even, which is then in
the low bits of the float: that is the only rounding, and it converts in both directions for the price of an addition. Zero points and the
sums' start values are part of the addend. Results that fit in 16 bits are narrowed by taking their low halves; others, in layers whose
sums are converted, are narrowed with saturation after a subtraction, which takes twice as many instructions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from tvmmobile.graph.integers import INTEGER_CURVES, LOOKUP, TABLE, IntegerParameters, is_bounded
from tvmmobile.graph.layers import Array, Gating, IntegerLayer, Layer, LayerParameters, Pool
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.vectors import ROUNDER
from tvmmobile.schedules.integers.lookup import MOST_TOGETHER, lookup, symbol_of
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to
from tvmmobile.schedules.template import Template, layer_of

#: Lanes of sums in a vector; bytes of a vector, and the fewest that kernels for channels compute together.
LANES, VECTOR_BYTES, HALF_VECTOR_BYTES = 4, 16, 8
#: The bits of `ROUNDER`.
ROUNDER_BITS = 0x4B400000
#: Needs that integer templates handle besides those they are made for.
INTEGERS = frozenset({"integers", "reads", "writes", "wide", "bounded", "addend", "threads"})
#: Further steps on sums that `IntegerEnds` can do where integers are written.
INTEGER_STEPS = frozenset({"residual", *(f"clamp={curve}" for curve in (*INTEGER_CURVES, LOOKUP))})
#: Indices into the argument `numbers`, which holds what does not depend on a channel.
_ROUNDER_OUT, _OFFSET, _LOW, _HIGH, _ZERO_IN, _OFFSET_IN, _PER_SCALE, _COUNT = range(8)
#: Further indices, for layers with a residual, a curve or a gate.
_OFFSET_SIDE, _SCALE_SIDE, _SIXTH, _HALF, _WHOLE, _COUNT_WITH_STEPS = range(_COUNT, _COUNT + 6)
_TYPES = {
    "weight": "int8",
    "bias": "int32",
    "multiplier": "float32",
    "origin": "float32",
    "addend": "float32",
    "numbers": "int32",
    "table": "int8",
    "steps": "int32",
}

#: Constants that instructions overwrite, and LLVM functions that load a vector wherever they are called: of a constant, and `ROUNDER`.
_OVERWRITTEN = ("bias", "origin", "addend")
_RELOAD, _RELOAD_ROUNDER = "tvmmobile_reload", "tvmmobile_reload_rounder"
_RELOADED = f"""define internal <4 x i32> @{_RELOAD}(ptr %place) alwaysinline nounwind {{
%value = load volatile <4 x i32>, ptr %place, align 16
ret <4 x i32> %value
}}
"""
_RELOADED_ROUNDER = f"""@tvmmobile_rounder = internal constant <4 x i32> <{", ".join([f"i32 {ROUNDER_BITS}"] * LANES)}>, align 16
define internal <4 x float> @{_RELOAD_ROUNDER}() alwaysinline nounwind {{
%value = load volatile <4 x float>, ptr @tvmmobile_rounder, align 16
ret <4 x float> %value
}}
"""


def is_integer_layer(task: Task, reads: tuple[str, ...] = ("",), writes: tuple[str, ...] = ("",)) -> bool:
    """Return whether a task is one integer layer that reads and writes integers, or one of the other types listed."""
    layer = task.region[0]
    if not (task.precision.is_integer and isinstance(layer, IntegerLayer)):
        return False
    if has_steps(layer) or layer.looks_up:
        writes = ("",)
    return layer.reads in reads and layer.writes in writes


def has_steps(layer: IntegerLayer) -> bool:
    """Return whether more happens to sums than scaling, with or without an addend."""
    return bool(layer.curve) or layer.residual


def constant_shapes(layer: IntegerLayer) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what `pack_constants` returns, by the kernel's argument."""
    padded = (round_up(layer.output_shape[-1], LANES),)
    added = {"origin": padded} if scales_sums_at_once(layer) else {"addend": padded} if layer.integers.addend else {}
    table = {"table": (TABLE,)} if layer.looks_up else {}
    return {"bias": padded, "multiplier": padded, **added, "numbers": (_COUNT_WITH_STEPS if _has_more(layer) else _COUNT,), **table}


def scales_sums_at_once(layer: IntegerLayer) -> bool:
    """Return whether sums are multiplied as they are, with the bits of `ROUNDER`."""
    return layer.scales_at_once and not layer.converts_sums


def _has_more(layer: IntegerLayer) -> bool:
    """Return whether a layer's kernels read more numbers than all kernels do."""
    return has_steps(layer) or layer.has_gate


def pack_constants(layer: Layer, parameters: LayerParameters) -> list[Array]:
    """Return a layer's constants in the order of `constant_shapes`.

    Biases begin at the bits of `ROUNDER` where sums are not converted. Multipliers follow, then addends, or what is added to products of
    sums with these bits, if the layer has any. `numbers` come next, and last the table of a layer that looks up.
    """
    assert isinstance(layer, IntegerLayer) and isinstance(parameters, IntegerParameters)
    assert is_bounded(parameters) <= layer.integers.bounded
    bias = parameters.bias.astype(np.int64) + (0 if layer.converts_sums else ROUNDER_BITS)
    rest = (0, round_up(len(bias), LANES) - len(bias))
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
    multiplier, added = np.pad(parameters.multiplier, rest), list[Array]()
    if scales_sums_at_once(layer):
        added = [(ROUNDER + parameters.zero_out - ROUNDER * multiplier.astype(np.float64)).astype(np.float32)]
    elif layer.integers.addend:
        added = [np.pad(parameters.addend, rest)]
    return [np.pad(bias.astype(np.int32), rest), multiplier, *added, numbers, *([parameters.table] if layer.looks_up else [])]


def _bits(number: float | np.floating[Any]) -> np.int32:
    """Return the bits of a float32 number."""
    return np.float32(number).view(np.int32)


class IntegerTemplate(Template):
    """The base class of templates for integer layers.

    Attributes:
        dot: true if it is for cores with SDOT; otherwise it is for those without.
    """

    version = 1
    handles = INTEGERS | INTEGER_STEPS
    dot: bool

    def suits(self, task: Task) -> bool:
        """Return whether the core has the instructions that the kernels consist of."""
        return ("dot" in task.machine.has) == self.dot

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return only what `pack_constants` does, for layers without weights."""
        return pack_constants(task.layer, parameters[0])

    def shortcuts(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[dict[str, float]]:
        """Return the shares of each layer's output channels that take each shortcut, from 0 to 1:

        `four_products`: products that are added by fours in 16 bits, of all products; only of templates that do so.
        `three_taps`: taps of depthwise channels that are added by threes; likewise.
        `unconverted`: sums below 2^22 that need no conversion to floats, and whose results fit in 16 bits.
        `scaled_at_once`: sums that are scaled, rounded and moved to the zero point by one instruction.
        """
        found = []
        for layer, constants in zip(task.region, parameters, strict=True):
            assert isinstance(layer, IntegerLayer)
            ends = {"unconverted": float(not layer.converts_sums), "scaled_at_once": float(scales_sums_at_once(layer))}
            found.append({**self.product_shortcuts(replace(task, region=(layer,)), knobs, constants.weight), **ends})
        return found

    def product_shortcuts(self, task: Task, knobs: Knobs, weight: Array) -> dict[str, float]:
        """Return the shortcuts of a single layer's products, see `shortcuts`."""
        return {}


class TileKnobs:
    """The knobs of register tiles that are pairs of a list, none larger than what they cut.

    Args:
        tiles: rows and columns of each.
        most: rows and columns that there are.
        names: names of the knobs.
    """

    def __init__(self, tiles: Sequence[tuple[int, int]], *most: int, names: tuple[str, str] = ("rows", "columns")) -> None:
        self.names = names
        sizes = [up_to(tuple(sorted(set(each))), extent) for each, extent in zip(zip(*tiles, strict=True), most, strict=True)]
        self.options = dict(zip(names, sizes, strict=True))
        self._kept = {(min(rows, sizes[0][-1]), min(columns, sizes[1][-1])) for rows, columns in tiles}

    def fits(self, knobs: Knobs) -> bool:
        """Return whether the list has a tile of these knobs."""
        return (knobs[self.names[0]], knobs[self.names[1]]) in self._kept


class IntegerChannels(IntegerTemplate):
    """The base class of templates for layers of one kind without weights, whose channels divide by 8.

    Attributes:
        kind: class of the layers.
        usual: the knob that a search begins with.

    Knobs:
        vectors: number of vectors of 16 channels that are computed together; a cache line is four.
    """

    handles = INTEGERS
    enough_trials = 4
    kind: type[Pool | Gating]
    usual: int

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not (isinstance(layer, self.kind) and is_integer_layer(task)) or layer.channels % HALF_VECTOR_BYTES:
            return None
        options = {"vectors": up_to((1, 2, 4), max(layer.channels // VECTOR_BYTES, 1))}
        return Space(self.name, self.version, options, lambda knobs: True, {"vectors": self.usual})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return pixels, channels, and how many of these are computed together."""
        layer = layer_of(task, self.kind)
        return [math.log2(layer.height * layer.width), math.log2(layer.channels), knobs["vectors"]]


class IntegerKernel(Kernel):
    """A kernel under construction whose vectors have 16 bytes, or four sums.

    On later cores that issue out of order, constants that an instruction overwrites are loaded into a register again each time: LLVM would
    keep and copy them, and a copy takes a slot of the pipelines that multiply.

    Attributes:
        in_order: true if the core issues in order.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        sides = {name: "int8" for layer in task.region for name in layer.side_shapes}
        self._types = {**_TYPES, **sides, "data": task.storage[0].name, "output": task.storage[1].name}
        self._storage = {}
        self.in_order = task.machine.in_order
        self._again = _OVERWRITTEN if "matrix" in task.machine.has and not self.in_order else ()
        self._loaded_again: list[Buffer] = []

    @contextmanager
    def named_body(self, **shapes: tuple[int, ...]) -> Iterator[dict[str, Buffer]]:
        """Open the function."""
        with super().named_body(**shapes) as buffers:
            self._loaded_again = [buffers[name] for name in self._again if name in buffers]
            yield buffers

    def load(self, buffer: Buffer, index: Expr, lanes: int = 0) -> Expr:
        """Return consecutive elements."""
        if not any(buffer.same_as(other) for other in self._loaded_again):
            return super().load(buffer, index, lanes)
        self._imported[_RELOAD] = _RELOADED
        return self.as_type(f"{buffer.dtype}x4", self.T.call_extern("int32x4", _RELOAD, buffer.access_ptr("r", offset=index)))

    def type_of(self, argument: str) -> str:
        """Return the type of an argument's elements."""
        return self._types[argument]

    def sums(self, vectors: int) -> Buffer:
        """Return registers for `vectors` vectors of four sums."""
        return self.accumulators(vectors * LANES)

    def bytes_at(self, buffer: Buffer, index: Expr, count: int = 16) -> Expr:
        """Return consecutive bytes."""
        return buffer[self.T.Ramp(index, 1, count)] if count > 1 else buffer[index]

    def joined(self, *vectors: Expr, lanes: int) -> Expr:
        """Return the vectors of equal length, one after another, as one."""
        return vectors[0] if len(vectors) == 1 else self.T.Shuffle(list(vectors), list(range(len(vectors) * lanes)))

    def as_type(self, kind: str, value: Expr) -> Expr:
        """Reinterpret a value's bits as another type."""
        return self.T.reinterpret(kind, value)

    def long_product(self, one: Expr, other: Expr) -> Expr:
        """Return eight products of 16 bits."""
        return self.intrinsic("int16x8", "aarch64.neon.smull.v8i16", one, other)

    def pairs(self, so_far: Expr, one: Expr, other: Expr) -> Expr:
        """Return the sums of each of two rows of eight bytes times each of another two: first with first, first with second, and so on."""
        return self.intrinsic("int32x4", "aarch64.neon.smmla.v4i32.v16i8", so_far, one, other)

    def rounder(self, overwritten: bool = False) -> Expr:
        """Return `ROUNDER` in four lanes; an instruction overwrites it or not."""
        if not (overwritten and self._again):
            return self.T.Broadcast(self.T.float32(ROUNDER), LANES)
        self._imported[_RELOAD_ROUNDER] = _RELOADED_ROUNDER
        return self.T.call_extern("float32x4", _RELOAD_ROUNDER)

    def fused(self, one: Expr, other: Expr, added: Expr) -> Expr:
        """Return one · other + added of four floats, rounded once."""
        return self.intrinsic("float32x4", "fma.v4f32", one, other, added)

    def scaled(self, values: Expr, scale: Expr) -> Expr:
        """Return four floats times a scale, rounded once: as int32, which are their sums with the bits of `ROUNDER`."""
        return self.as_type("int32x4", self.fused(values, scale, self.rounder(True)))

    def saturated(self, scaled: Sequence[Expr], offset: Expr) -> Expr:
        """Return up to four vectors of `scaled` numbers of any size, less an offset, as int8 in one vector; an odd one comes twice."""
        less = [self.intrinsic("int32x4", "aarch64.neon.sqsub.v4i32", vector, offset) for vector in _even(scaled)]
        halves = [self.intrinsic("int16x4", "aarch64.neon.sqxtn.v4i16", vector) for vector in less]
        return self._as_bytes([self.joined(*halves[place : place + 2], lanes=4) for place in range(0, len(halves), 2)])

    def shortened(self, scaled: Sequence[Expr], offset: Expr = None) -> Expr:
        """Narrow `scaled` numbers that fit in 16 bits to int8, like `saturated`; the offset, if any, is of eight int16."""
        halves = [self.as_type("int16x8", vector) for vector in _even(scaled)]
        shorts = [self.T.Shuffle(halves[place : place + 2], list(range(0, 16, 2))) for place in range(0, len(halves), 2)]
        return self._as_bytes(shorts if offset is None else [short - offset for short in shorts])

    def _as_bytes(self, shorts: Sequence[Expr]) -> Expr:
        """Return one or two vectors of int16 as int8, saturated, in one vector."""
        return self.joined(*(self.intrinsic("int8x8", "aarch64.neon.sqxtn.v8i8", short) for short in shorts), lanes=8)


def bytes_of(sums: Sequence[Any]) -> int:
    """Return the bytes of the vector that up to four vectors of sums become."""
    return VECTOR_BYTES if len(sums) > 2 else HALF_VECTOR_BYTES


def _even(vectors: Sequence[Expr]) -> Sequence[Expr]:
    """Return the vectors, the last one twice if they are odd in number."""
    return [*vectors, vectors[-1]] if len(vectors) % 2 else vectors


@dataclass(frozen=True)
class IntegerEnds:
    """The start values of sums, and how sums become stored results.

    Attributes:
        buffers: buffers by the kernel's arguments.
    """

    kernel: IntegerKernel
    layer: IntegerLayer
    buffers: Mapping[str, Buffer]

    @cached_property
    def _converts(self) -> bool:
        return self.layer.converts_sums

    def number(self, place: int, lanes: int, kind: str = "int32") -> Expr:
        """Return one of `numbers` in all lanes, as another type of integer if need be."""
        value = self.buffers["numbers"][place]
        return self.kernel.T.Broadcast(value if kind == "int32" else self.kernel.T.Cast(kind, value), lanes)

    def zero_in(self, lanes: int) -> Expr:
        """Return the zero point of the input, in bytes."""
        return self.number(_ZERO_IN, lanes, "int8")

    def begin(self, channel: Expr) -> Expr:
        """Return the start of four channels' sums."""
        return self.kernel.load(self.buffers["bias"], channel, LANES)

    def factor(self, channel: Expr, place: int) -> Expr:
        """Return the multipliers of a vector of four, counted from a channel on."""
        return self.kernel.load(self.buffers["multiplier"], channel + LANES * place, LANES)

    def fill(self, sums: Buffer, pixels: int, channel: Expr, count: int) -> None:
        """Begin the sums of some pixels for `count` channels from one on: pixel after pixel, channels together."""
        for place, j in itertools.product(range(pixels), range(0, count, LANES)):
            self.kernel.store(sums, self.begin(channel + j), place * count + j, LANES)

    def complete(self, sums: Buffer, pixel: int, count: int) -> list[Expr]:
        """Return a pixel's sums in the order of `fill`, in vectors of four."""
        return [self.kernel.load(sums, pixel * count + j, LANES) for j in range(0, count, LANES)]

    def store(self, pixels: Sequence[tuple[Sequence[Expr], Expr]], channel: Expr, count: int) -> None:
        """Store complete sums, from a channel on, of which `count` exist: for each pixel its vectors of four and where it is stored."""
        if self.layer.writes:
            for sums, target in pixels:
                for place, value in enumerate(sums):
                    scaled = self._real_result(value, channel, place)
                    self.kernel.store_part(self.buffers["output"], scaled, target + LANES * place, min(LANES, count - LANES * place))
            return
        every = [(value, target, place) for sums, target in pixels for place, value in enumerate(sums)]
        vectors = [every[first : first + 4] for first in range(0, len(every), 4)]
        for sums, stored in zip(vectors, self._results(vectors, channel, count), strict=True):
            self._store(sums, stored, count)

    def _float(self, value: Expr) -> Expr:
        """Return four sums as floats."""
        T = self.kernel.T  # noqa: N806
        return T.Cast("float32x4", value) if self._converts else self.kernel.as_type("float32x4", value) - self.kernel.rounder()

    def _results(self, vectors: Sequence[Sequence[tuple[Expr, Expr, int]]], channel: Expr, count: int) -> Iterator[Expr]:
        """Yield one vector of results for up to four vectors of sums each, with `_store`'s arguments; all are looked up together."""
        narrowed = (self._narrowed(sums, channel, count) for sums in vectors)
        return iter(self._looked_up(list(narrowed), list(map(bytes_of, vectors)))) if self.layer.looks_up else narrowed

    def _store(self, sums: Sequence[tuple[Expr, Expr, int]], stored: Expr, count: int) -> None:
        """Emit up to four vectors of sums as bytes, each with its pixel's target and its place there; a pixel's follow each other."""
        first = 0
        for number, (_, target, place) in enumerate(sums):
            if number + 1 < len(sums) and sums[number + 1][2] == place + 1:
                continue
            begin = sums[first][2]
            self._store_lanes(stored, bytes_of(sums), first, number + 1 - first, target + LANES * begin, count - LANES * begin)
            first = number + 1

    def _narrowed(self, sums: Sequence[tuple[Expr, Expr, int]], channel: Expr, count: int) -> Expr:
        """Return up to four vectors of sums as bytes in one vector, with `_store`'s arguments."""
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
        else:  # of `_OFFSET`, the low half is the zero point's
            narrowed = kernel.shortened(scaled, self.number(_OFFSET, 2 * LANES, "int16") if self.layer.integers.addend else None)
        if self.layer.integers.bounded:
            low, high = (self.number(place, bytes_of(sums), "int8") for place in (_LOW, _HIGH))
            narrowed = T.min(T.max(narrowed, low), high)
        return T.bind(narrowed)

    def _looked_up(self, stored: Sequence[Expr], lanes: Sequence[int]) -> list[Expr]:
        """Look up vectors of bytes in the table."""
        kernel, T, found = self.kernel, self.kernel.T, list[Expr]()  # noqa: N806
        for first in range(0, len(stored), MOST_TOGETHER):
            some = range(first, min(first + MOST_TOGETHER, len(stored)))
            acc = kernel.sums(LANES * len(some))
            for place, n in enumerate(some):
                whole = stored[n] if lanes[n] == VECTOR_BYTES else T.Shuffle([stored[n], stored[n]], list(range(VECTOR_BYTES)))
                kernel.store(acc, kernel.as_type("int32x4", whole), LANES * place, LANES)
            kernel.call(symbol_of(len(some)), partial(lookup, len(some)), (acc, 0), (self.buffers["table"], 0))
            for place, n in enumerate(some):
                whole = T.bind(kernel.as_type("int8x16", kernel.load(acc, LANES * place, LANES)))
                found.append(whole if lanes[n] == VECTOR_BYTES else T.Shuffle([whole], list(range(HALF_VECTOR_BYTES))))
        return found

    def _rounder(self, overwritten: bool = False) -> Expr:
        """Return the number that rounds another one when added to it: with the zero point, unless that is in `_OFFSET`."""
        return self.kernel.rounder(overwritten) if self._converts or self.layer.integers.addend else self._real(_ROUNDER_OUT)

    def _rounded(self, values: Expr, factor: Expr, added: Expr = None) -> Expr:
        """Return four floats times a factor, rounded once, as int32: their sums with the bits of `ROUNDER`, or of what is added."""
        return self.kernel.as_type("int32x4", self.kernel.fused(values, factor, self._rounder(True) if added is None else added))

    def _real_result(self, value: Expr, channel: Expr, place: int) -> Expr:
        """Return four sums of `factor`'s channels as floats, scaled, plus their addends, if any."""
        factor = self.factor(channel, place)
        if not self.layer.integers.addend:
            return self._float(value) * factor
        return self.kernel.fused(self._float(value), factor, self._addend(channel, place))

    def _addend(self, channel: Expr, place: int) -> Expr:
        """Return the addends of `factor`'s channels."""
        return self.kernel.load(self.buffers["addend"], channel + LANES * place, LANES)

    def _stepped(self, value: Expr, channel: Expr, place: int, target: Expr, count: int) -> Expr:
        """Return four sums of `factor`'s channels, of which so many are stored at a target, through residual and curve: scaled as
        `_rounded` has them.
        """
        kernel, T, curve = self.kernel, self.kernel.T, self.layer.curve  # noqa: N806
        if self.layer.residual:
            other = self._other(target, count, self._addend(channel, place) if self.layer.integers.addend else None)
            x = kernel.fused(self._float(value), self.factor(channel, place), other)
        else:
            x = self._real_result(value, channel, place)
        if not curve:
            return kernel.as_type("int32x4", x + self._rounder())
        x = T.bind(x)
        # As integers: those of positive floats are in the same order, and those of negative floats are negative.
        bits = kernel.as_type("int32x4", kernel.fused(x, self._real(_SIXTH), self._real(_HALF)))
        inside = T.min(T.max(bits, T.Broadcast(T.int32(0), LANES)), self.number(_WHOLE, LANES))
        inside = kernel.as_type("float32x4", inside)
        return self._rounded(x, inside) if curve == "hswish" else kernel.as_type("int32x4", inside + self._rounder())

    def _other(self, target: Expr, count: int, addend: Expr) -> Expr:
        """Return the four of the residual, of which so many exist, with their addends if there are any: what is added to products."""
        kernel, T, residual = self.kernel, self.kernel.T, self.buffers["residual"]  # noqa: N806
        if count < LANES:
            lanes = [residual[target + lane] if lane < count else T.int8(0) for lane in range(LANES)]
            stored = T.Shuffle(lanes, list(range(LANES)))
        else:
            stored = kernel.bytes_at(residual, target, LANES)
        side, scale = self.side(stored), self._real(_SCALE_SIDE)
        return side * scale if addend is None else kernel.fused(side, scale, addend)

    def side(self, stored: Expr) -> Expr:
        """Return four integers of the residual or gate less their zero point, as floats."""
        bits = self.kernel.T.Cast("int32x4", stored) + self.kernel.T.Broadcast(self.kernel.T.int32(ROUNDER_BITS), LANES)
        return self.kernel.as_type("float32x4", bits) - self._real(_OFFSET_SIDE)

    def _real(self, place: int) -> Expr:
        """Return one of `numbers` that is a float, in all lanes."""
        return self.kernel.as_type("float32x4", self.number(place, LANES))

    def _store_lanes(self, stored: Expr, lanes: int, first: int, size: int, target: Expr, count: int) -> None:
        """Store some groups of four bytes of a vector; `count` of them exist, or all."""
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
        """Return the vectors of four floats of the input as bytes."""
        kernel = self.kernel
        scale = self._real(_PER_SCALE)
        return kernel.saturated([kernel.scaled(value, scale) for value in floats], self.number(_OFFSET_IN, LANES))


@contextmanager
def integer_body(kernel: IntegerKernel, layer: IntegerLayer, weight: int = 0, **tables: tuple[int, ...]) -> Iterator[IntegerEnds]:
    """Emit the body of a kernel for one layer with so many bytes of weights, with its ends, which have its buffers; `tables` are the shapes
    of what else it reads.
    """
    packed = {"weight": (weight,)} if weight else {}
    shapes = {"data": layer.input_shape, **layer.side_shapes, **packed, **constant_shapes(layer), **tables, "output": layer.output_shape}
    with kernel.named_body(**shapes) as buffers:
        yield IntegerEnds(kernel, layer, buffers)
