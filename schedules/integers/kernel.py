"""Building blocks of int8 kernels (`graph.integers`): int8 in memory, and 32-bit sums in registers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.vectors import ROUNDER

#: 32-bit lanes per vector, bytes per vector, and bytes per half vector, the smallest group of channels in kernels that work per channel.
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

#: Names of constants that instructions overwrite, and LLVM functions that reload a vector at each call: of a constant, and of `ROUNDER`.
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

    On out-of-order cores with dot products, constants that an instruction overwrites are reloaded each time: LLVM would keep them in
    registers and copy them, and a copy takes an issue slot of the pipelines that multiply.

    Attributes:
        in_order: true if the core issues in order.
        has_pairs: true if the core has `SMMLA`.

    Args:
        reloads: false if constants that an instruction overwrites are never reloaded.
    """

    def __init__(self, task: Task, reloads: bool = True) -> None:
        super().__init__(task)
        sides = {name: "int8" for layer in task.region for name in layer.side_shapes}
        self._types = {**_TYPES, **sides, "data": task.storage[0].name, "output": task.storage[1].name}
        self._storage = {}
        self.in_order, self.has_pairs = task.machine.in_order, "matrix" in task.machine.has
        self._reloaded_names = _OVERWRITTEN if reloads and "dot" in task.machine.has and not self.in_order else ()
        self._reloaded: list[Buffer] = []

    @contextmanager
    def named_body(self, **shapes: tuple[int, ...]) -> Iterator[dict[str, Buffer]]:
        """Open the function; yield its buffers by argument name."""
        with super().named_body(**shapes) as buffers:
            self._reloaded = [buffers[name] for name in self._reloaded_names if name in buffers]
            yield buffers

    def load(self, buffer: Buffer, index: Expr, lanes: int = 0) -> Expr:
        """Return consecutive elements, reloaded at each use if the buffer's constants are overwritten."""
        if not any(buffer.same_as(reloaded) for reloaded in self._reloaded):
            return super().load(buffer, index, lanes)
        self._imported[_RELOAD] = _RELOADED
        return self.as_type(f"{buffer.dtype}x4", self.T.call_extern("int32x4", _RELOAD, buffer.access_ptr("r", offset=index)))

    def type_of(self, argument: str) -> str:
        """Return the TVM dtype of an argument's elements."""
        return self._types[argument]

    def sums(self, vectors: int) -> Buffer:
        """Return a buffer in registers of `vectors` vectors of four sums."""
        return self.accumulators(vectors * LANES)

    def bytes_at(self, buffer: Buffer, index: Expr, count: int = 16) -> Expr:
        """Return `count` consecutive bytes."""
        return buffer[self.T.Ramp(index, 1, count)] if count > 1 else buffer[index]

    def joined(self, *vectors: Expr, lanes: int) -> Expr:
        """Return the concatenation of vectors of `lanes` lanes each."""
        return vectors[0] if len(vectors) == 1 else self.T.Shuffle(list(vectors), list(range(len(vectors) * lanes)))

    def as_type(self, kind: str, value: Expr) -> Expr:
        """Reinterpret a value's bits as another type."""
        return self.T.reinterpret(kind, value)

    def long_product(self, left: Expr, right: Expr) -> Expr:
        """Return `SMULL`: eight int16 products of int8 values."""
        return self.intrinsic("int16x8", "aarch64.neon.smull.v8i16", left, right)

    def pairs(self, so_far: Expr, left: Expr, right: Expr) -> Expr:
        """Return `SMMLA`: 2 × 2 sums, plus the products of two rows of eight bytes of `left` with two rows of `right`, row-major."""
        return self.intrinsic("int32x4", "aarch64.neon.smmla.v4i32.v16i8", so_far, left, right)

    def rounder(self, overwritten: bool = False) -> Expr:
        """Return `ROUNDER` in four lanes; `overwritten` tells whether an instruction will overwrite its register."""
        if not (overwritten and self._reloaded_names):
            return self.T.Broadcast(self.T.float32(ROUNDER), LANES)
        self._imported[_RELOAD_ROUNDER] = _RELOADED_ROUNDER
        return self.T.call_extern("float32x4", _RELOAD_ROUNDER)

    def fused(self, left: Expr, right: Expr, added: Expr) -> Expr:
        """Return `left * right + added` of four floats, rounded once."""
        return self.intrinsic("float32x4", "fma.v4f32", left, right, added)

    def scaled(self, values: Expr, scale: Expr) -> Expr:
        """Return four floats times a scale, rounded to integers, as int32 plus the bits of `ROUNDER`."""
        return self.as_type("int32x4", self.fused(values, scale, self.rounder(True)))

    def saturated(self, scaled: Sequence[Expr], offset: Expr) -> Expr:
        """Return up to four vectors of `scaled` results minus `offset`, saturated to one int8 vector; an odd last vector is duplicated."""
        less = [self.intrinsic("int32x4", "aarch64.neon.sqsub.v4i32", vector, offset) for vector in _even(scaled)]
        halves = [self.intrinsic("int16x4", "aarch64.neon.sqxtn.v4i16", vector) for vector in less]
        return self._as_bytes([self.joined(*halves[place : place + 2], lanes=4) for place in range(0, len(halves), 2)])

    def shortened(self, scaled: Sequence[Expr], offset: Expr = None) -> Expr:
        """Return `saturated` for results that fit in 16 bits, with fewer instructions; `offset`, if any, has eight int16 lanes."""
        halves = [self.as_type("int16x8", vector) for vector in _even(scaled)]
        shorts = [self.T.Shuffle(halves[place : place + 2], list(range(0, 16, 2))) for place in range(0, len(halves), 2)]
        return self._as_bytes(shorts if offset is None else [short - offset for short in shorts])

    def _as_bytes(self, shorts: Sequence[Expr]) -> Expr:
        """Return one or two int16 vectors saturated to one int8 vector."""
        return self.joined(*(self.intrinsic("int8x8", "aarch64.neon.sqxtn.v8i8", short) for short in shorts), lanes=8)


def _even(vectors: Sequence[Expr]) -> Sequence[Expr]:
    """Return the vectors, with the last one duplicated if their number is odd."""
    return [*vectors, vectors[-1]] if len(vectors) % 2 else vectors
