"""Conversions to and from bfloat16 (the upper half of float32's bits), and matrix products with `BFMMLA`.

TVM has no arithmetic on bfloat16, so LLVM IR computes on its bits. TVM 0.27 does not declare `BFCVTN`, which LLVM emits for `fptrunc`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from tvmmobile.schedules.emit.vectors import vector_of

Expr = Any
Buffer = Any

#: LLVM IR that adds A (2 pixels × 4 K) · B (4 K × 2 channels) to 2 × 2 sums; all operands are row-major, B with a row per channel.
_PAIRS = """declare <4 x float> @llvm.aarch64.neon.bfmmla(<4 x float>, <8 x bfloat>, <8 x bfloat>)
define internal <4 x float> @tvmmobile_bfmmla(<4 x float> %sums, <8 x i16> %a, <8 x i16> %b) alwaysinline nounwind {
  %x = bitcast <8 x i16> %a to <8 x bfloat>
  %y = bitcast <8 x i16> %b to <8 x bfloat>
  %r = call <4 x float> @llvm.aarch64.neon.bfmmla(<4 x float> %sums, <8 x bfloat> %x, <8 x bfloat> %y)
  ret <4 x float> %r
}
"""


class OpenFunction(Protocol):
    """A function under construction, such as a `Kernel`, whose code may call functions in LLVM IR."""

    T: Any

    def result_of(self, kind: str, symbol: str, llvm: Callable[[], str], *arguments: Expr) -> Expr:
        """Return a call of a function in LLVM IR, see `Kernel`."""

    def at(self, index: Expr, lanes: int = 0) -> Expr:
        """Return the index of consecutive elements, see `Kernel`."""

    def is_narrow(self, buffer: Buffer) -> bool:
        """Return whether a buffer holds bfloat16, see `Kernel`."""


def _narrowing(lanes: int) -> str:
    """Return the LLVM IR that rounds `lanes` float32 values to bfloat16, ties to even."""
    wide, narrow, bits = (f"<{lanes} x {kind}>" if lanes > 1 else kind for kind in ("float", "bfloat", "i16"))
    return f"""define internal {bits} @tvmmobile_bfloats_{lanes}({wide} %x) alwaysinline nounwind {{
  %y = fptrunc {wide} %x to {narrow}
  %z = bitcast {narrow} %y to {bits}
  ret {bits} %z
}}
"""


def widened(value: Expr, lanes: int) -> Expr:
    """Return bfloat16 values as float32."""
    from tvm.tirx.script import builder as T  # noqa: N812

    bits = T.Cast(vector_of("uint32", lanes), T.reinterpret(vector_of("uint16", lanes), value))
    shift = T.uint32(16)
    return T.reinterpret(vector_of("float32", lanes), T.shift_left(bits, T.Broadcast(shift, lanes) if lanes > 1 else shift))


def narrowed(kernel: OpenFunction, value: Expr, lanes: int) -> Expr:
    """Return float32 or float16 values rounded to bfloat16."""
    return kernel.T.reinterpret(
        vector_of("bfloat16", lanes), _narrowed_bits(kernel, kernel.T.Cast(vector_of("float32", lanes), value), lanes)
    )


def _narrowed_bits(kernel: OpenFunction, value: Expr, lanes: int) -> Expr:
    return kernel.result_of(vector_of("uint16", lanes), f"tvmmobile_bfloats_{lanes}", lambda: _narrowing(lanes), value)


def bits_at(kernel: OpenFunction, buffer: Buffer, index: Expr, lanes: int) -> Expr:
    """Return `lanes` consecutive elements as the bits of bfloat16 values; elements of wider buffers are rounded."""
    value = buffer[kernel.at(index, lanes)]
    return kernel.T.reinterpret(f"uint16x{lanes}", value) if kernel.is_narrow(buffer) else _narrowed_bits(kernel, value, lanes)


def multiply_pairs(kernel: OpenFunction, sums: Expr, pixels: Expr, channels: Expr) -> Expr:
    """Return 2 × 2 sums plus the products of two pixels' four K values and two channels' four weights, both as bfloat16 bits."""
    return kernel.result_of("float32x4", "tvmmobile_bfmmla", lambda: _PAIRS, sums, pixels, channels)
