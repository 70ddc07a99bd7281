"""Kernels of scaled integers (`graph.integers`): bytes in memory, and 32-bit sums in registers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.vectors import ROUNDER

#: Lanes of sums in a vector; bytes of a vector, and the fewest that kernels for channels compute together.
LANES, VECTOR_BYTES, HALF_VECTOR_BYTES = 4, 16, 8
#: The bits of `ROUNDER`.
ROUNDER_BITS = 0x4B400000
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


def _even(vectors: Sequence[Expr]) -> Sequence[Expr]:
    """Return the vectors, the last one twice if they are odd in number."""
    return [*vectors, vectors[-1]] if len(vectors) % 2 else vectors
