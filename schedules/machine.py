"""What AArch64 NEON offers a kernel, and the knob pruning that follows from it."""

from __future__ import annotations

#: float32 elements in a 128-bit vector register.
LANES = 4
#: Vector registers v0 to v31.
REGISTERS = 32
#: Independent accumulators that keep one FMA a cycle busy at the A72's latency of 7 cycles (3 when chained); measured, 12 suffice.
MIN_ACCUMULATORS = 12


def round_up(value: int, step: int) -> int:
    """`value` raised to a multiple of `step`."""
    return -(-value // step) * step


def up_to(options: tuple[int, ...], limit: int) -> tuple[int, ...]:
    """The options not above `limit`, or the smallest one if all are."""
    return tuple(option for option in options if option <= limit) or options[:1]


def waste(extent: int, tile: int) -> float:
    """Share of the last tile that is not used: 0 where the tile divides the extent."""
    return (round_up(extent, tile) - extent) / round_up(extent, tile)
