"""Who reads what in a Relax function."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any


def bindings_of(function: Any) -> list[Any]:
    """All bindings, in order of execution."""
    return [binding for block in function.body.blocks for binding in block.bindings]


def readers_of(function: Any) -> dict[Any, list[Any]]:
    """For each variable those that are computed from it, as often as they read it; `None` for the result of the function."""
    readers: dict[Any, list[Any]] = defaultdict(list)
    for binding in bindings_of(function):
        for variable in _variables(binding.value):
            readers[variable].append(binding.var)
    for variable in _variables(function.body.body):
        readers[variable].append(None)
    return readers


def _variables(value: Any) -> Iterator[Any]:
    """Variables that an expression reads."""
    from tvm import relax

    if isinstance(value, relax.Var):
        yield value
    elif isinstance(value, relax.TupleGetItem):
        yield from _variables(value.tuple_value)
    else:
        for part in (*getattr(value, "args", ()), *getattr(value, "fields", ())):
            yield from _variables(part)
