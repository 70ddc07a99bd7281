"""A task's requirements of a template beyond its shape, derived from its fields so that none is forgotten."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from tvmmobile.graph.layouts import shuffle_of

#: Fields that every template reads to decide what it takes. Any other field is a need if it differs from its default.
SHAPE = frozenset(
    {
        *("height", "width", "channels", "in_channels", "out_channels", "in_features", "out_features"),
        *("kernel", "stride", "padding", "groups", "region"),
        *("out_height", "out_width", "method", "places", "epsilon"),
        *("heads", "queries", "keys", "depth", "width", "scale", "shapes", "query_place", "key_place", "value_place", "merged", "bias"),
        *("leading", "rows", "terms", "columns", "turned"),
        "dtype",  # `Precision.needs_on`
    }
)

#: Fields that name a precision; which one makes no difference to a template.
STORAGE = frozenset({"reads", "writes"})


def needs_of(value: Any) -> frozenset[str]:
    """The needs of a layer or task: one for each field outside `SHAPE` without a default, or with a value other than its default.

    A need is named after the field and, if the value is one choice or several, that too: `residual`, `in_layout=blocked`, `clamp=hswish`,
    `clamp` (bounds).
    """
    changed = ((name, found) for name, default in _fields(value.__class__) if (found := getattr(value, name)) != default)
    return frozenset(_need(name, part) for name, found in changed for part in (found if isinstance(found, tuple) and found else (found,)))


@functools.cache
def _fields(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Names and defaults of fields that tell values apart; the sentinel of a field without a default equals no value."""
    return tuple((field.name, field.default) for field in dataclasses.fields(kind) if field.compare and field.name not in SHAPE)


def _need(name: str, value: Any) -> str:
    if not isinstance(value, str) or name in STORAGE:
        return name
    if name.endswith("layout") and value.endswith("c"):
        return f"{name}={'shuffled' if shuffle_of(value) else 'blocked'}"
    return f"{name}={value}"
