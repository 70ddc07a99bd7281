"""Converts layers of a composed float32 network to scaled integers (`graph.integers`).

Layers that read the network's input round it, and those that write its output return float32, if kernels can. A layer that stays in
float32 stores what integer layers behind it read, if its kernel can; else there is a conversion between them, which TVM fuses with other
operators. A gate left in float32 is a product again, which no template takes by itself there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.bindings import readers_of
from tvmmobile.graph.composed import ComposedLayer, QuantisedLayer, external_name
from tvmmobile.graph.expressions import operator_of, shape_of, view_of, viewed
from tvmmobile.graph.integers import HIGHEST, LOWEST
from tvmmobile.graph.layers import Gating, Layer, Rounding, shift_of
from tvmmobile.graph.passes.rewriting import rebuilt
from tvmmobile.graph.passes.rounded_outputs import rounded_output, roundings_of_readers
from tvmmobile.graph.passes.roundings import RoundingFinder, chooses_numbers, moved_variables
from tvmmobile.graph.precision import FLOAT32, INT8


def to_integers(
    layers: dict[str, ComposedLayer], quantised: Mapping[str, QuantisedLayer], accepts: Callable[[Layer], bool]
) -> Callable[[Any], Any]:
    """Return the pass: layers named in `quantised`, by their external functions, compute in integers, all others in float32.

    Args:
        layers: changed along with `main`.
        accepts: returns whether some template takes a layer in float32 that stores integers.
    """

    def convert(module: Any) -> Any:
        converted = _IntegerConversion(module["main"], quantised, layers, accepts).in_module(module)
        layers.update({name: ComposedLayer(entry.layer, entry.parameters, INT8.name) for name, entry in quantised.items()})
        return converted

    return convert


@dataclass(frozen=True)
class _IntegerRange:
    """The range of a variable's integers and of their sources: `step` is the real difference of two neighbours, `zero` represents 0,
    `low` and `high` are bounds; unsigned integers are `shift` higher.
    """

    step: float
    zero: int
    low: int = LOWEST
    high: int = HIGHEST
    shift: int = 0


class _IntegerConversion(RoundingFinder):
    """Rewrites `main` so that some of its variables become integers."""

    def __init__(
        self, main: Any, quantised: Mapping[str, QuantisedLayer], layers: dict[str, ComposedLayer], accepts: Callable[[Layer], bool]
    ) -> None:
        super().__init__(main)
        self.quantised, self.layers, self.accepts = quantised, layers, accepts
        self.wanted = roundings_of_readers(main, quantised)
        self.readers = readers_of(main)
        self.roundings = {name: found.layer for name, found in layers.items() if isinstance(found.layer, Rounding)}
        self.gates = {name for name, found in layers.items() if isinstance(found.layer, Gating)} - quantised.keys()
        #: Scale and bounds of each variable that holds integers, and its value in float32 where something reads that.
        self.stored: dict[Any, _IntegerRange] = {}
        self.reals: dict[Any, Any] = {}
        #: The rounding that is still due of each variable that holds float32 instead, or unsigned integers.
        self.unrounded: dict[Any, _IntegerRange] = {}
        #: Integers made of float32.
        self.integers: dict[tuple[Any, _IntegerRange], Any] = {}
        #: Variables with the integers of a layer, which does the rounding that reads it.
        self.of_layers: set[Any] = set()

    def value(self, variable: Any, value: Any) -> Any:
        """Views and aliases keep integers."""
        source = viewed(value)
        if source is not None and source in self.replaced:
            for known in (self.stored, self.unrounded):
                if source in known:
                    known[variable] = known[source]
            if source in self.of_layers:
                self.of_layers.add(variable)
            return view_of(value, self.replaced[source])
        name = external_name(value) or ""
        if name in self.roundings:
            return self._rounding(variable, value.args[1].fields[0], self.roundings[name])
        if name in self.gates:
            return relax.op.multiply(*map(self._real, value.args[1].fields))
        entry = self.quantised.get(name)
        if entry is not None:
            return self._layer(variable, value, entry)
        if (moved := self._moved(variable, value)) is not None or (moved := self._leaving(value)) is not None:
            return moved
        rounded = self._rounded_output(variable, name)
        return rebuilt(value, self._leaf) if rounded is None else self._storing(variable, value, rounded)

    def output(self, variable: Any) -> Any:
        """Return the output in float32."""
        return self._real(variable)

    def _leaf(self, part: Any) -> Any:
        """Return a variable in float32, or a constant."""
        return self._real(part) if part in self.replaced else part

    def _moved(self, variable: Any, value: Any) -> Any:
        """Return a move of numbers of one grid, as integers; `None` for another expression. Those that are still to be rounded are rounded
        first.
        """
        moves = operator_of(value) == "relax.permute_dims" or chooses_numbers(value)
        parts = moved_variables(value) if moves else []
        known = [self.stored.get(part) or self.unrounded.get(part) for part in parts]
        grids = [grid for grid in known if grid is not None]
        if not grids:
            return None
        if len(grids) < len(parts) or not all(_on_one_grid(grid, grids[0]) for grid in grids):
            return self._joined(variable, value, parts)
        self.stored[variable] = replace(grids[0], low=min(grid.low for grid in grids), high=max(grid.high for grid in grids), shift=0)
        integers = {part: self._integers(part, 1 / grids[0].step, grids[0].zero) for part in parts}
        return rebuilt(value, lambda part: integers.get(part, part))

    def _joined(self, variable: Any, value: Any, parts: list[Any]) -> Any:
        """Return the concatenation of numbers of several grids on the one to which all its readers round it; `None` if there is none.

        Layers can round their results to that grid themselves, and readers can read the parts.
        """
        readers = [self.roundings.get(external_name(self.values.get(reader)) or "") for reader in self.readers[variable]]
        wanted = {None if reader is None else (reader.step, reader.zero, reader.low, reader.high) for reader in readers}
        if operator_of(value) != "relax.concat" or len(wanted) != 1 or (grid := wanted.pop()) is None or grid[2:] != (LOWEST, HIGHEST):
            return None
        found = _IntegerRange(*grid)
        integers = {part: self._on_grid(part, found) for part in parts}
        self.stored[variable] = found
        return rebuilt(value, lambda part: integers.get(part, part))

    def _leaving(self, value: Any) -> Any:
        """Return the integers of a network output that has them already; `None` for another expression."""
        found = self.leaving(value)
        stored = None if found is None else self.stored.get(found.source)
        if found is None or stored is None or not _holds(stored, found.layer):
            return None
        integers, op = self.replaced[found.source], relax.op
        if str(value.ty.dtype) == INT8.name:
            return integers
        wide = self.builder.emit(op.astype(integers, "int16"))
        return op.astype(self.builder.emit(op.add(wide, relax.const(shift_of(value.ty.dtype), "int16"))), str(value.ty.dtype))

    def _rounding(self, variable: Any, source: Any, layer: Rounding) -> Any:
        """Return the integers that a layer has rounded or the input holds; else the real numbers, which readers round."""
        stored = self.stored.get(source)
        if stored is not None and (source in self.of_layers or _holds(stored, layer)):
            self.stored[variable] = stored
            return self.replaced[source]
        if layer.stored:
            known = self.stored if layer.stored == INT8.name else self.unrounded
            known[variable] = _IntegerRange(layer.step, layer.zero, shift=shift_of(layer.stored))
            return self.replaced[source]
        self.unrounded[variable] = _IntegerRange(layer.step, layer.zero, layer.low, layer.high)
        return self._real(source)

    def _layer(self, variable: Any, call: Any, entry: QuantisedLayer) -> Any:
        """Return the call of an integer layer."""
        data, *others = call.args[1].fields
        first, *rest = entry.inputs
        if entry.layer.reads:
            arguments = [self.replaced[data] if data in self.unrounded else self._real(data)]
        else:
            arguments = [self._integers(data, *first)]
        arguments += [self._integers(other, *rounding) for other, rounding in zip(others, rest, strict=True)]
        if entry.step is not None:
            self.stored[variable] = _IntegerRange(entry.step, entry.zero)
            self.of_layers.add(variable)
        kind = FLOAT32.name if entry.step is None else INT8.name
        shape = shape_of(call)
        return relax.call_dps_packed(external_name(call), relax.Tuple(arguments), out_ty=relax.TensorType(shape, kind))

    def _rounded_output(self, variable: Any, name: str) -> ComposedLayer | None:
        """Return a float32 layer with the output type that its readers need; `None` if that is float32, or no kernel stores it."""
        if variable not in self.wanted or name not in self.layers:
            return None
        found = rounded_output(self.layers[name].layer, self.layers[name].parameters, *self.wanted[variable])
        return found if found is not None and self.accepts(found.layer) else None

    def _storing(self, variable: Any, call: Any, found: ComposedLayer) -> Any:
        """Return the call of a float32 layer that stores integers."""
        per_scale, zero = self.wanted[variable]
        self.stored[variable] = _IntegerRange(1 / per_scale, zero)
        self.layers[external_name(call) or ""] = found
        arguments = relax.Tuple(list(map(self._leaf, call.args[1].fields)))
        return relax.call_dps_packed(external_name(call), arguments, out_ty=relax.TensorType(shape_of(call), INT8.name))

    def _integers(self, variable: Any, per_scale: float, zero: int) -> Any:
        """Return a variable as the integers that a layer reads."""
        wanted = _IntegerRange(1 / per_scale, zero)
        if variable not in self.stored:
            return self._rounded(self.replaced[variable], per_scale, self.unrounded.get(variable, wanted))
        if _on_one_grid(self.stored[variable], wanted):
            return self.replaced[variable]
        return self._rounded(self._real(variable), per_scale, wanted)

    def _on_grid(self, variable: Any, grid: _IntegerRange) -> Any:
        """Return a variable as integers of a grid, after a rounding to another grid that it may still need."""
        due = self.unrounded.get(variable)
        if due is None or _on_one_grid(due, grid):
            return self._integers(variable, 1 / grid.step, grid.zero)
        return self._rounded(self._real(variable), 1 / grid.step, grid)

    def _rounded(self, source: Any, per_scale: float, stored: _IntegerRange) -> Any:
        """Return a new variable, float32 or unsigned, as integers."""
        key = (source, stored)
        if key not in self.integers:
            emit, op = self.builder.emit, relax.op
            if stored.shift:
                wide = emit(op.astype(source, "int16"))
                self.integers[key] = emit(op.astype(emit(op.subtract(wide, relax.const(stored.shift, "int16"))), INT8.name))
                return self.integers[key]
            rounded = emit(op.round(emit(op.multiply(source, _number(per_scale)))))
            moved = emit(op.add(rounded, _number(stored.zero)))
            above = emit(op.maximum(moved, relax.const(float(stored.low), FLOAT32.name)))
            self.integers[key] = emit(op.astype(emit(op.minimum(above, relax.const(float(stored.high), FLOAT32.name))), INT8.name))
        return self.integers[key]

    def _real(self, variable: Any) -> Any:
        """Return a variable in float32."""
        stored = self.stored.get(variable) or self.unrounded.get(variable)
        if stored is None:
            return self.replaced[variable]
        if variable not in self.reals:
            integers = self._integers(variable, float(np.float32(1 / stored.step)), stored.zero)
            emit, op = self.builder.emit, relax.op
            centred = emit(op.subtract(emit(op.astype(integers, FLOAT32.name)), _number(stored.zero)))
            self.reals[variable] = emit(op.multiply(centred, _number(stored.step)))
        return self.reals[variable]


def _holds(stored: _IntegerRange, layer: Rounding) -> bool:
    """Return whether a rounding changes nothing about integers."""
    bounds = stored.low >= layer.low and stored.high <= layer.high
    return bounds and (np.float32(stored.step), stored.zero) == (np.float32(layer.step), layer.zero)


def _on_one_grid(one: _IntegerRange, other: _IntegerRange) -> bool:
    return (np.float32(1 / one.step), one.zero) == (np.float32(1 / other.step), other.zero)


def _number(value: float) -> Any:
    """Return a constant that is an argument of the kernel, not part of it: conversions of one shape are one task, whatever the scales."""
    return relax.const(np.array([value], np.float32), FLOAT32.name)
