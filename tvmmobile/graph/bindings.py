"""The bindings of a Relax function: what it computes, from what, and what it returns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tvmmobile.graph.expressions import variables_of


def bindings_of(function: Any) -> list[Any]:
    """Return all bindings, in order of execution."""
    return [binding for block in function.body.blocks for binding in block.bindings]


def values_of(function: Any) -> dict[Any, Any]:
    """Return the value of each variable that a function binds, in order of execution."""
    return {binding.var: binding.value for binding in bindings_of(function)}


def readers_of(function: Any) -> dict[Any, list[Any]]:
    """Return for each variable the variables computed from it, once per read; `None` stands for the result of the function."""
    readers: dict[Any, list[Any]] = defaultdict(list)
    for binding in bindings_of(function):
        for variable in variables_of(binding.value):
            readers[variable].append(binding.var)
    for variable in variables_of(function.body.body):
        readers[variable].append(None)
    return readers


def results_of(function: Any) -> tuple[Any, ...]:
    """Return the variables that a function returns, in order."""
    from tvm import relax

    result = function.body.body
    return tuple(result.fields) if isinstance(result, relax.Tuple) else (result,)


def returned(results: Sequence[Any]) -> Any:
    """Return the value of a function with these results."""
    from tvm import relax

    return results[0] if len(results) == 1 else relax.Tuple(list(results))
