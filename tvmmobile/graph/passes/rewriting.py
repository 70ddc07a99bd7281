"""Reading `main` by who reads what, and rewriting it by pattern or by mutator."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
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


def rewrite_main(module: Any, pattern: Any, replacement: Callable[[Any, Any], Any]) -> Any:
    """The module with `main` rewritten.

    Args:
        pattern: of `tvm.relax.dpl`.
        replacement: from a matched expression, and what each part of the pattern matched, to what takes its place; or to it itself.
    """
    from tvm.relax.dpl import rewrite_call

    module = module.clone()
    module["main"] = rewrite_call(pattern, replacement, module["main"])
    return module


def mutate_main(module: Any, mutator: Any) -> Any:
    """The module with `main` as a `PyExprMutator` made for this module leaves it, and with the functions it added."""
    name = next(variable for variable in module.get_global_vars() if variable.name_hint == "main")
    mutator.builder_.update_func(name, mutator.visit_expr(module[name]))
    return mutator.builder_.get()


def holds(constant: Any, number: float) -> bool:
    """Whether a constant is that number and nothing else."""
    value = constant.value.numpy()
    return value.size == 1 and math.isclose(float(value.item()), number, rel_tol=1e-6, abs_tol=0.0 if number else 1e-12)
