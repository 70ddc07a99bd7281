"""Helpers for knobs: sizes in whole tiles, and the values that a limit leaves."""

from __future__ import annotations


def round_up(value: int, step: int) -> int:
    """`value` raised to a multiple of `step`."""
    return -(-value // step) * step


def up_to(options: tuple[int, ...], limit: int, each: int = 1) -> tuple[int, ...]:
    """The options, each times `each`, that are not above `limit`, or the smallest one if all are."""
    return tuple(option * each for option in options if option * each <= limit) or (options[0] * each,)


def waste(extent: int, tile: int) -> float:
    """Share of the last tile that is not used: 0 where the tile divides the extent."""
    return (round_up(extent, tile) - extent) / round_up(extent, tile)
