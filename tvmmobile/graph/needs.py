"""A task's requirements of a template beyond its shape, derived from its fields so that none is forgotten.

Each field declares whether it is part of the shape:

    height: int = field(metadata=SHAPE)
    stride: tuple[int, int] = field(default=(1, 1), metadata=SHAPE)
    residual: bool = False

Every template that takes such layers reads `height` and `stride`; only templates that declare `residual` see layers that have one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from tvmmobile.graph.layouts import shuffle_of

#: Metadata of a field that every template for its class reads to decide what it takes. Any other field is a need.
SHAPE: Mapping[str, bool] = MappingProxyType({"shape": True})

#: Fields that name a precision; templates do not depend on which one.
STORAGE = frozenset({"reads", "writes"})


def needs_of(value: Any) -> frozenset[str]:
    """Return the needs of a layer or task: one for each field besides the shape that has no default or differs from it.

    A need is named after the field and, if the value is one choice or several, that too: `residual`, `in_layout=blocked`, `clamp=hswish`,
    `clamp` (bounds). A field of facts, such as `integers`, has their needs.
    """
    found: set[str] = set()
    for name, default in _fields(value.__class__):
        own = getattr(value, name)
        if dataclasses.is_dataclass(own):
            found |= needs_of(own)
        elif own != default:
            found |= {_need(name, part) for part in (own if isinstance(own, tuple) and own else (own,))}
    return frozenset(found)


@functools.cache
def shape_of(kind: Any) -> frozenset[str]:
    """Return the names of a class's shape fields.

    Templates recognise layers by `isinstance`, so a template for a kind of layer also sees its subclasses. It does not know the fields that
    a subclass adds or defines anew, so these are needs, whatever their metadata.
    """
    shape: set[str] = set()
    for owner, fields in _definitions(kind):
        extends_kind = any(_is_kind(base) for base in owner.__mro__[1:])
        shape -= fields.keys()
        shape |= {name for name, field in fields.items() if field.metadata.get("shape") and not extends_kind}
    return frozenset(shape)


@functools.cache
def _fields(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Return the fields of a class that may be needs, each with the value that templates assume.

    That value is the default where the field first appears. The sentinel of a field without a default equals no value.
    """
    first: dict[str, Any] = {}
    for _, fields in _definitions(kind):
        first = {name: field.default for name, field in fields.items()} | first
    return tuple((field.name, first[field.name]) for field in dataclasses.fields(kind) if field.name not in shape_of(kind))


def _definitions(kind: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the dataclasses that a class consists of, bases first, each with the fields that it defines itself."""
    known: set[int] = set()
    for owner in reversed(kind.__mro__):
        own = dataclasses.fields(owner) if "__dataclass_fields__" in vars(owner) else ()
        fields = {field.name: field for field in own if id(field) not in known}
        known |= set(map(id, fields.values()))
        yield owner, fields


def _is_kind(owner: Any) -> bool:
    """Return whether templates may take layers of a class: these have a name, other bases are parts of layers."""
    return hasattr(owner, "name") and not getattr(owner.name, "__isabstractmethod__", False)


def _need(name: str, value: Any) -> str:
    if not isinstance(value, str) or name in STORAGE:
        return name
    if name.endswith("layout") and value.endswith("c"):
        return f"{name}={'shuffled' if shuffle_of(value) else 'blocked'}"
    return f"{name}={value}"
