"""Replaces element-wise steps from int8 to int8, such as an activation that a file quantises, by lookups in a table of 256 bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.expressions import numbers_of, operator_of, shape_of
from tvmmobile.graph.integers import HIGHEST, LOWEST
from tvmmobile.graph.passes.fold_constants import ARITHMETIC
from tvmmobile.graph.passes.rewriting import rebound_main, with_main
from tvmmobile.graph.precision import INT8

#: Fewest operations that a lookup replaces: fewer are as fast, because they are computed in vectors. On a Cortex-A76, a lookup takes
#: 1.5 cycles, and the 24 operations of a hard swish and its roundings, in four kernels, took 6.8 for each number (modelled).
FEWEST = 12
#: Operations that a function counts as, such as `exp`.
_OF_FUNCTION = 6
_ERF = np.vectorize(math.erf, otypes=[np.float32])
#: Operators of one number each, and how numpy computes them: in float32, as other runtimes do, so that ties are rounded alike. The
#: result then gets the operator's type.
_EVALUATORS: dict[str, Callable[..., Any]] = {
    **ARITHMETIC,
    "relax.astype": lambda x: x,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
    "relax.round": np.round,
    "relax.abs": np.abs,
    "relax.square": np.square,
    "relax.power": np.float_power,
    "relax.exp": np.exp,
    "relax.erf": _ERF,
    "relax.tanh": np.tanh,
    "relax.sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relax.nn.relu": lambda x: np.maximum(x, 0),
}
_FUNCTIONS = {f"relax.{name}" for name in ("exp", "erf", "tanh", "sigmoid", "sqrt", "power")}


@dataclass(frozen=True)
class _Steps:
    """The values of a variable as a function of int8 numbers.

    Attributes:
        source: variable with these numbers.
        values: the function's value for each, from the lowest.
        operations: number of operations that compute it.
    """

    source: Any
    values: np.ndarray[Any, Any]
    operations: int


def lookup_tables(module: Any) -> Any:
    """Let `main` look up what many element-wise operators make of int8 numbers, where the result is int8, too."""
    main = module["main"]
    steps = {given: _every(given) for given in main.params if _is_int8(given)}

    def value_of(builder: Any, binding: Any) -> Any:
        variable, value = binding.var, binding.value
        is_name = isinstance(value, relax.Var)
        found = steps.get(value) if is_name else _steps(value, steps)
        if found is None:
            if _is_int8(variable):
                steps[variable] = _every(variable)
            return value
        steps[variable] = found
        pays = _is_int8(variable) and found.operations >= FEWEST and not is_name
        return _lookup(builder, found) if pays else value

    return with_main(module, rebound_main(main, value_of))


def _is_int8(variable: Any) -> bool:
    return str(getattr(variable.ty, "dtype", "")) == INT8.name


def _every(variable: Any) -> _Steps:
    """Return a variable as a function of itself."""
    return _Steps(variable, np.arange(LOWEST, HIGHEST + 1, dtype=np.int8), 0)


def _steps(value: Any, steps: dict[Any, _Steps]) -> _Steps | None:
    """Return an element-wise operator's result as a function of int8 numbers; `None` for other values."""
    operator = operator_of(value)
    if operator not in _EVALUATORS:
        return None
    known = [steps.get(argument) for argument in value.args]
    operands = {id(found): found for found in known if found is not None}.values()  # each once, as in a square
    source = next((found.source for found in operands), None)
    if source is None or any(not found.source.same_as(source) for found in operands) or shape_of(value) != shape_of(source):
        return None
    arguments = [_number(argument) if found is None else found.values for argument, found in zip(value.args, known, strict=True)]
    if any(argument is None for argument in arguments):
        return None
    with np.errstate(all="ignore"):
        values = _EVALUATORS[operator](*arguments).astype(str(value.ty.dtype))
    own = _OF_FUNCTION if operator in _FUNCTIONS else 1
    return _Steps(source, values, own + sum(found.operations for found in operands))


def _number(argument: Any) -> Any:
    """Return a constant of one element as a scalar; `None` for other arguments."""
    numbers = numbers_of(argument)
    return None if numbers is None or numbers.size != 1 else numbers.reshape(())[()]


def _lookup(builder: Any, found: _Steps) -> Any:
    """Return the lookups; the table begins with the value for 0, so that the bits of an int8 number are its place."""
    op, table = relax.op, np.roll(found.values, LOWEST)
    places = builder.emit(op.astype(found.source, "uint8"))
    return builder.normalize(op.take(relax.const(table, INT8.name), places, axis=0))
