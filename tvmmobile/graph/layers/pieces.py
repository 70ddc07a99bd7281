"""Inputs whose channels come from several tensors."""

from __future__ import annotations

from tvmmobile.graph.layouts import activation_shape


def pieces_name(sources: tuple[int, ...], pieces: tuple[tuple[int, int, int], ...]) -> list[str]:
    """The part of a layer's name, see `Conv2d.sources`; empty where the input is one tensor."""
    cuts = "-".join(".".join(map(str, piece)) for piece in pieces)
    return [f"of{'.'.join(map(str, sources))}_cut{cuts}"] if pieces else []


def other_sources(height: int, width: int, sources: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors after the first of which an input is composed."""
    return {f"source{number}": activation_shape("NHWC", height, width, sources[number]) for number in range(1, len(sources))}
