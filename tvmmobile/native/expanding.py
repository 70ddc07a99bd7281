"""The tables from which `expand.h` expands weights that are stored in fewer bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tvmmobile.graph.layers import Array

if TYPE_CHECKING:
    from tvmmobile.native.layout import Expanded, Layout


def distinct(layout: Layout) -> list[Expanded]:
    """Return the weights that `init` expands for a set, each piece of memory once."""
    return list({each.place: each for each in layout.expanded.values()}.values())


def expansion_lines(prefix: str, layout: Layout) -> Iterator[str]:
    """Yield a set's expansions and the transforms that they refer to; an empty one if there are none."""
    every = distinct(layout)
    transforms = {id(each.expansion.transform): each.expansion.transform for each in every}
    names = {key: f"{prefix}transform{place}" for place, key in enumerate(transforms)}
    for key, transform in transforms.items():
        if transform is not None:
            yield f"static const float {names[key]}_rows[] = {{{_floats(transform.rows)}}};"
            yield f"static const float {names[key]}_factors[] = {{{_floats(transform.factors)}}};"
    yield f"static const Expansion {prefix}expansions[] = {{"
    yield from (f"    {{{_fields(each, names[id(each.expansion.transform)])}}}," for each in every)
    yield "};" if every else "    {0}};"


def _fields(each: Expanded, transform: str) -> str:
    """Return the fields of an `Expansion` as C."""
    expansion = each.expansion
    taps, depth, channels = expansion.stored.shape
    scales = 0 if each.scales is None else each.scales + 1
    tables, values = (
        ("0, 0", 0) if expansion.transform is None else (f"{transform}_rows, {transform}_factors", len(expansion.transform.rows))
    )
    numbers = f"{values}, {taps}, {depth}, {channels}, {expansion.width}, {expansion.k_block}, {expansion.parts}"
    return f"{each.place}, {each.stored}, {scales}, {tables}, {numbers}"


def _floats(values: Array) -> str:
    """Return numbers as C, to the bit."""
    return ", ".join(float(value).hex() for value in values.ravel())
