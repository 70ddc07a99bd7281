"""Finds roundings to 8-bit integers in a network that was quantised before its import, from the operators that importers write for them:

    (min(max(round(x / step) + zero, low), high) - zero) · step

where `clip` may take the place of both bounds. What dequantises an input of integers counts as one: its numbers are rounded already.
Roundings to integers of more bits stay what they are, arithmetic in float32.
`simpler_roundings` is for a network as imported, `compose_roundings` for one whose layers are composed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmmobile.graph.bindings import readers_of
from tvmmobile.graph.composed import ComposedLayer, layer_call
from tvmmobile.graph.expressions import operator_of, shape_of, variables_of, viewed
from tvmmobile.graph.integers import HIGHEST, LOWEST
from tvmmobile.graph.layers import NO_PARAMETERS, Conv2d, Layer, Rounding, shift_of
from tvmmobile.graph.passes.rewriting import MainRewriter
from tvmmobile.graph.precision import FLOAT32, INT8, UINT8
from tvmmobile.graph.taps import RESIZE

#: Operators that only move numbers.
_MOVING = {"relax.reshape", "relax.permute_dims", "relax.squeeze", "relax.expand_dims", "relax.flatten", "relax.nn.batch_flatten"}
#: Operators whose results hold only numbers that they read.
_CHOOSING = {"relax.concat", "relax.strided_slice", "relax.nn.max_pool2d", RESIZE}
_Bounds = tuple[float, float]


@dataclass(frozen=True)
class _SourceRounding:
    """A rounding, and the variable that it rounds."""

    source: Any
    layer: Rounding


def simpler_roundings(accepts: Callable[[Layer], bool]) -> Callable[[Any], Any]:
    """Return the pass that reduces the roundings of an imported NCHW module, all of which have bounds of int8.

    A clip right before a rounding becomes part of it, if only roundings read it. The second of two roundings to the same integers is
    dropped, even if numbers are moved, chosen or clipped in between. A sum of two rounded tensors becomes a depthwise convolution of one,
    with weights of 1, that adds the other, if `accepts` such a layer.
    """
    return lambda module: _RoundingSimplifier(module["main"], accepts).in_module(module, canonical=True)


def is_sum(layer: Layer) -> bool:
    """Return whether a layer is a sum that `simpler_roundings` turned into a layer for integers."""
    return isinstance(layer, Conv2d) and layer == _sum_layer(layer.height, layer.width, layer.in_channels)


def _sum_layer(height: int, width: int, channels: int) -> Conv2d:
    return Conv2d(height, width, channels, channels, groups=channels, residual=True)


def compose_roundings(layers: dict[str, ComposedLayer]) -> Callable[[Any], Any]:
    """Return the pass that makes roundings calls of external functions, which it adds to `layers`."""
    return lambda module: _RoundingComposer(module["main"], layers).in_module(module, canonical=True)


class RoundingFinder(MainRewriter):
    """Rewrites `main` and keeps track of the variables that hold rounded numbers.

    Attributes:
        found: rounding of each old variable that holds rounded numbers.
    """

    def __init__(self, main: Any) -> None:
        super().__init__(main)
        self.found: dict[Any, _SourceRounding] = {}

    def rounding(self, variable: Any, value: Any) -> _SourceRounding | None:
        """Return the tensor that an expression rounds, or the parameter of integers that it dequantises; `None` for others."""
        product, step = self._operands(value, "multiply")
        if step is not None and (entered := self._entered(variable, product, step)) is not None:
            return entered
        difference, zero = self._operands(product, "subtract")
        found = self._placed(difference)
        return None if found is None or (step, zero) != (found.layer.step, found.layer.zero) else found

    def leaving(self, value: Any) -> _SourceRounding | None:
        """Return the rounding whose integers an output of the network holds; `None` for other expressions. Its zero point is int8's."""
        stored = str(value.ty.dtype) if self._argument(value, "astype") is not None else ""
        return self._placed(value.args[0], shift_of(stored)) if stored in (INT8.name, UINT8.name) else None

    def _placed(self, variable: Any, above: int = 0) -> _SourceRounding | None:
        """Return the rounding whose integers a variable holds in float32, all of them `above` those of int8; `None` for other variables."""
        source, bounds = self.clipped(variable)
        rounded, shift = self._operands(source, "add")
        data, step = self._operands(self._argument(rounded, "round"), "divide")
        if data is None or step is None or shift is None:
            return None
        zero, low, high = (float(number - above) for number in (shift, *bounds))
        if not (zero.is_integer() and low.is_integer() and high.is_integer()) or low < LOWEST or high > HIGHEST:
            return None
        return _SourceRounding(data, Rounding(tuple(shape_of(variable)), step, int(zero), int(low), int(high)))

    def _entered(self, variable: Any, product: Any, step: float) -> _SourceRounding | None:
        """Return a parameter of integers that is dequantised by a step."""
        integers, zero = self._operands(product, "subtract")
        parameter = self._argument(product if zero is None else integers, "astype")
        if parameter is None or not any(parameter.same_as(param) for param in self.main.params):
            return None
        stored, place = str(parameter.ty.dtype), zero or 0.0
        if stored not in (INT8.name, UINT8.name) or not place.is_integer():
            return None
        layer = Rounding(tuple(shape_of(variable)), step, int(place) - shift_of(stored), LOWEST, HIGHEST, stored)
        return _SourceRounding(parameter, layer)

    def clipped(self, variable: Any) -> tuple[Any, _Bounds]:
        """Return a clip's input and its bounds; for other variables, themselves and infinite bounds."""
        low, high = -np.inf, np.inf
        while True:
            value: Any = self.values.get(variable)
            if (argument := self._argument(value, "clip")) is not None:
                numbers = [float(getattr(one.value, "value", one.value)) for one in value.args[1:]]
                variable, low, high = argument, max(low, numbers[0]), min(high, max(numbers))
            elif (argument := self._argument(value, "nn.relu")) is not None:
                variable, low = argument, max(low, 0.0)
            elif (found := self._operands(variable, "maximum"))[1] is not None:
                variable, low = found[0], max(low, found[1])
            elif (found := self._operands(variable, "minimum"))[1] is not None:
                variable, high = found[0], min(high, found[1])
            else:
                return variable, (low, high)

    def _argument(self, value: Any, operator: str) -> Any:
        """Return the first argument of an operator's call, or of the call that a variable holds; `None` for other values."""
        call = self.values.get(value, value)
        return call.args[0] if operator_of(call) == f"relax.{operator}" else None

    def _operands(self, value: Any, operator: str) -> tuple[Any, float | None]:
        """Return an operator's variable and its constant number; `None` twice for other values."""
        value = self.values.get(value, value)
        if self._argument(value, operator) is None:
            return None, None
        data, number = value.args
        known = isinstance(number, tvm.ir.GenericConst) and number.value.numpy().size == 1
        return (data, float(number.value.numpy().item())) if known else (None, None)


def _pads_zeros(value: Any) -> bool:
    """Return whether a value pads a tensor with zeros, which every rounding keeps."""
    return operator_of(value) == "relax.nn.pad" and value.attrs.pad_mode == "constant" and not float(value.attrs.pad_value)


def chooses_numbers(value: Any) -> bool:
    """Return whether a value joins or cuts tensors, or takes some of a tensor's numbers, as a max pool does."""
    operator = operator_of(value)
    return operator in _CHOOSING and (operator != RESIZE or value.attrs.method == "nearest_neighbor")


def moved_variables(value: Any) -> list[Any]:
    """Return the variables that a move of numbers reads; none if it joins them with constants, which are not on their grid."""
    joined = getattr(value.args[0], "fields", ())
    return [] if any(isinstance(part, tvm.ir.GenericConst) for part in joined) else list(variables_of(value))


class _RoundingSimplifier(RoundingFinder):
    def __init__(self, main: Any, accepts: Callable[[Layer], bool]) -> None:
        super().__init__(main)
        self.accepts, self.readers = accepts, readers_of(main)
        #: Variables that are rounded.
        self.sources = {found.source for variable, value in self.values.items() if (found := self.rounding(variable, value)) is not None}
        #: Roundings that were emitted already: new variable and rounding.
        self.emitted: dict[tuple[Any, Rounding], Any] = {}

    def value(self, variable: Any, value: Any) -> Any:
        """Return the rounding if it is needed, a sum as a convolution, or the old value."""
        found = self.rounding(variable, value)
        if found is None:
            made = self._sum(variable, value)
            return self._rounded_parts(variable, value) if made is None else made
        if found.layer.stored:
            self.found[variable] = found
            return self.rebuild(value)
        rounded = all(operator_of(self.values.get(reader)) == "relax.divide" for reader in self.readers[found.source])
        source, (low, high) = self.clipped(found.source) if rounded else (found.source, (-np.inf, np.inf))
        layer = _bounded(found.layer, low, high)
        before = self._moved(source)
        if before is not None and _same_integers(before.layer, layer):
            # A tensor that is rounded already stays so; narrower bounds become those of the rounding itself, which is repeated.
            if before.layer.low >= layer.low and before.layer.high <= layer.high:
                self.found[variable] = _SourceRounding(source, before.layer)
                return self.replaced[source]
            layer = replace(layer, low=max(layer.low, before.layer.low), high=min(layer.high, before.layer.high))
            source = before.source if source in self.found and self.found[source] == before else source
        self.found[variable] = _SourceRounding(source, layer)
        return self._emitted(self.replaced[source], layer)

    def _rounded_parts(self, variable: Any, value: Any) -> Any:
        """Return the old value; if it only joins or chooses numbers of one grid, repeat their rounding after it for its readers."""
        rebuilt = self.rebuild(value)
        parts = list(map(self._moved, moved_variables(value))) if chooses_numbers(value) else []
        grids = [part.layer for part in parts if part is not None]
        if not grids or len(grids) < len(parts) or not all(_same_integers(grid, grids[0]) for grid in grids):
            return rebuilt
        low, high = min(grid.low for grid in grids), max(grid.high for grid in grids)
        layer = replace(grids[0], shape=tuple(shape_of(variable)), low=low, high=high, stored="")
        self.found[variable] = _SourceRounding(variable, layer)
        return self._emitted(self.builder.emit(rebuilt), layer)

    def _moved(self, variable: Any) -> _SourceRounding | None:
        """Return the rounding whose numbers a variable holds, perhaps in other places; `None` for others."""
        while variable not in self.found:
            value: Any = self.values.get(variable)
            if operator_of(value) not in _MOVING and viewed(value) is None and not _pads_zeros(value):
                return None
            variable = value if viewed(value) is value else value.args[0]
        return self.found[variable]

    def _emitted(self, source: Any, layer: Rounding) -> Any:
        """Return a new variable with rounded numbers."""
        key = (source, replace(layer, shape=()))
        if key not in self.emitted:
            emit, op = self.builder.emit, relax.op
            number = {name: relax.const(float(getattr(layer, name)), FLOAT32.name) for name in ("step", "zero", "low", "high")}
            moved = emit(op.add(emit(op.round(emit(op.divide(source, number["step"])))), number["zero"]))
            bounded = emit(op.minimum(emit(op.maximum(moved, number["low"])), number["high"]))
            self.emitted[key] = emit(op.multiply(emit(op.subtract(bounded, number["zero"])), number["step"]))
        return self.emitted[key]

    def _sum(self, variable: Any, value: Any) -> Any:
        """Return the convolution in place of a sum of two rounded tensors that is itself rounded; `None` for others."""
        if operator_of(value) != "relax.add" or not self._only_rounded(variable):
            return None
        shapes = [shape_of(operand) for operand in value.args]
        if any(operand not in self.found for operand in value.args) or shapes[0] != shapes[1] or len(shapes[0]) != 4:
            return None
        _, channels, height, width = shapes[0]
        if not self.accepts(_sum_layer(height, width, channels)):
            return None
        ones = relax.const(np.ones((channels, 1, 1, 1), FLOAT32.numpy))
        first, second = (self.replaced[operand] for operand in value.args)
        return relax.op.add(self.builder.emit(relax.op.nn.conv2d(first, ones, groups=channels)), second)

    def _only_rounded(self, variable: Any) -> bool:
        """Return whether only one rounding reads a variable, perhaps through clips."""
        while len(self.readers[variable]) == 1 and variable not in self.sources:
            variable = self.readers[variable][0]
            if variable is None or self.clipped(variable)[0] is variable:
                return False
        return len(self.readers[variable]) == 1


def _bounded(layer: Rounding, low: float, high: float) -> Rounding:
    """Return a rounding merged with the clip before it: rounding keeps order, so bounds may be rounded."""
    bounds = [float(np.clip(np.rint(bound / np.float32(layer.step)) + layer.zero, layer.low, layer.high)) for bound in (low, high)]
    return replace(layer, low=int(bounds[0]), high=int(bounds[1]))


def _same_integers(one: Rounding, other: Rounding) -> bool:
    return (one.step, one.zero) == (other.step, other.zero)


class _RoundingComposer(RoundingFinder):
    def __init__(self, main: Any, layers: dict[str, ComposedLayer]) -> None:
        super().__init__(main)
        self.layers = layers

    def value(self, variable: Any, value: Any) -> Any:
        """Return a call for a rounding, or the old value. The network's input is permuted before it is rounded: a layer reads integers."""
        found = self.rounding(variable, value)
        if found is not None:
            self.found[variable] = found
            return self._call(variable, self.replaced[found.source], found.layer)
        before = self.found.get(self._argument(value, "permute_dims"))
        if before is None or not any(before.source.same_as(parameter) for parameter in self.main.params):
            return self.rebuild(value)
        moved = self.builder.emit(relax.op.permute_dims(self.replaced[before.source], value.attrs.axes))
        return self._call(variable, moved, replace(before.layer, shape=tuple(shape_of(variable))))

    def _call(self, variable: Any, source: Any, layer: Rounding) -> Any:
        return layer_call(self.layers, ComposedLayer(layer, NO_PARAMETERS), [source], variable.ty)
