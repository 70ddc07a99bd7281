"""Replaces element-wise steps from int8 to int8, such as an activation that a file quantises, by lookups in a table of 256 bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.composed import ComposedLayer, layer_call
from tvmmobile.graph.expressions import numbers_of, operator_of, shape_of
from tvmmobile.graph.integers import HIGHEST, LOOKUP, LOWEST, TABLE, IntegerParameters
from tvmmobile.graph.layers import Layer, SumLayer
from tvmmobile.graph.passes.fold_constants import ARITHMETIC
from tvmmobile.graph.passes.layer_passes import LayerGraph, layer_pass
from tvmmobile.graph.passes.rewriting import rebound_main, with_main
from tvmmobile.graph.precision import INT8

#: Fewest operations that a lookup replaces: fewer are as fast, because they are computed in vectors. On a Cortex-A76, a lookup takes
#: 1.5 cycles, and the 24 operations of a hard swish and its roundings, in four kernels, took 6.8 for each number (modelled).
FEWEST = 12
#: Operations that a function counts as, such as `exp`.
_OF_FUNCTION = 6
_EVERY = np.arange(LOWEST, HIGHEST + 1, dtype=np.int8)
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


def lookup_tables(accepts: Callable[[Layer], bool], layers: Mapping[str, ComposedLayer]) -> Callable[[Any], Any]:
    """Return the pass that lets `main` look up what element-wise operators make of int8 numbers, where the result is int8, too.

    Args:
        accepts, layers: those of `looked_up_results`, which makes lookups part of the layer before: few operations are worth one then.
    """

    def run(module: Any) -> Any:
        main = module["main"]
        graph = LayerGraph(main, accepts, dict(layers))
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
            pays = _is_int8(variable) and not is_name and found.operations >= (1 if _looking_up(graph, found.source) else FEWEST)
            return _lookup(builder, found) if pays else value

        return with_main(module, rebound_main(main, value_of))

    return run


@layer_pass
def looked_up_results(graph: LayerGraph, variable: Any) -> Mapping[Any, Any]:
    """Let an integer layer whose results are only read to look up others do that itself."""
    lookup: Any = graph.values[variable]
    table = numbers_of(lookup.args[0]) if operator_of(lookup) == "relax.take" else None
    if table is None or table.dtype != INT8.name or table.shape != (TABLE,):
        return {}
    places = lookup.args[1]
    source = graph.values[places].args[0] if operator_of(graph.values.get(places)) == "relax.astype" else None
    found = _looking_up(graph, source)
    if found is None or not graph.read_once(places):
        return {}
    assert isinstance(found.parameters, IntegerParameters)
    low, high = found.parameters.low, found.parameters.high
    results = np.roll(table, -LOWEST)[np.clip(_EVERY, low, high) - LOWEST]
    parameters = replace(found.parameters, table=np.roll(results, LOWEST), low=LOWEST, high=HIGHEST)
    composed = replace(found, parameters=parameters)
    return {variable: layer_call(graph.layers, composed, graph.inputs(source), variable.ty, graph.name(source))}


def _looking_up(graph: LayerGraph, variable: Any) -> ComposedLayer | None:
    """Return the integer layer that computes a variable, with lookups of its results, if it has a single reader and some template takes
    it; its table is missing.
    """
    found = graph.layer(variable)
    if found is None or found.dtype != INT8.name or not isinstance(found.layer, SumLayer) or not graph.read_once(variable):
        return None
    if found.layer.steps or found.layer.writes:
        return None
    layer = replace(found.layer.with_clamp(LOOKUP), integers=replace(found.layer.integers, bounded=False))
    return replace(found, layer=layer) if graph.accepts(layer) else None


def _is_int8(variable: Any) -> bool:
    return str(getattr(variable.ty, "dtype", "")) == INT8.name


def _every(variable: Any) -> _Steps:
    """Return a variable as a function of itself."""
    return _Steps(variable, _EVERY, 0)


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
