"""Converts a network with composed layers to another precision.

Layers convert what they load and store themselves, where they read the network's input or write its output; only other operators are
given a conversion, which TVM fuses with them. Those that add up many elements do so in `Precision.total`. So do steps and layers whose
values the precision may be unable to hold, see `wide_values`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import tvm
from tvm import relax

from tvmmobile.graph.bindings import readers_of
from tvmmobile.graph.composed import ComposedLayer, external_name
from tvmmobile.graph.expressions import operator_of, shape_of, view_of, viewed
from tvmmobile.graph.layers import Layer, LayerParameters
from tvmmobile.graph.layers.kind import ConvertingLayer
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.rewriting import MainRewriter, rebuilt
from tvmmobile.graph.passes.wide_values import is_step, wide_values
from tvmmobile.graph.precision import FLOAT32, Precision, precision_named


def to_precision(
    precision: Precision,
    layers: dict[str, ComposedLayer],
    accepts: Callable[[Layer], bool],
    precisions: Mapping[str, Precision] = MappingProxyType({}),
    outside: Precision = FLOAT32,
) -> Callable[[Any], Any]:
    """Return the pass: `main` and the layers, by their external functions, compute in `precision`; input and output are in `outside`.

    Args:
        layers: changed along with `main`.
        accepts: returns whether some template takes a layer that converts what it reads or writes.
        precisions: layers in other precisions. Tensors that only they read are stored in these.
    """

    return lambda module: _PrecisionConversion(module["main"], precision, layers, accepts, precisions, outside).in_module(module)


class _PrecisionConversion(MainRewriter):
    """Rewrites `main` in another precision."""

    def __init__(
        self,
        main: Any,
        precision: Precision,
        layers: dict[str, ComposedLayer],
        accepts: Callable[[Layer], bool],
        precisions: Mapping[str, Precision],
        outside: Precision,
    ) -> None:
        super().__init__(main)
        self.precision, self.layers, self.accepts, self.outside = precision, layers, accepts, outside
        self.readers = readers_of(main)
        self.last = _last_steps(self.values, self.readers) if outside == FLOAT32 else frozenset()
        wide = wide_values(self.values, self.readers, layers, precision)
        self.total, self.wide = precision_named(precision.arithmetic.total), wide.variables
        self.precisions = {**precisions, **dict.fromkeys(wide.layers, self.total)}
        self.floats = {FLOAT32.name, precision.name, *(other.name for other in precisions.values())}
        #: Variables converted to another type.
        self.others: dict[tuple[Any, str], Any] = {}

    def parameter(self, given: Any) -> Any:
        """Return a parameter as the caller stores it."""
        floats = isinstance(given.ty, relax.TensorType) and given.ty.dtype == FLOAT32.name != self.outside.name
        return relax.Var(given.name, relax.TensorType(given.ty.shape, self.outside.name)) if floats else given

    def value(self, variable: Any, value: Any) -> Any:
        """Views and aliases keep the type."""
        source = viewed(value)
        if source is not None and source in self.replaced:
            return view_of(value, self.replaced[source])
        if operator_of(value) == "relax.call_tir":  # a function of fixed types, such as box selection
            return rebuilt(value, lambda part: self._as(part, str(part.ty.dtype)) if part in self.replaced else part)
        name = external_name(value)
        if name is not None:
            return self._layer(variable, value, name)
        own = self.precision.arithmetic
        if variable in self.wide:
            return self._summed(value, self.total) if has(value, Trait.SUM) else self._expression(value, self.total)
        return self._expression(value, self.outside if variable in self.last else own)

    def output(self, variable: Any) -> Any:
        """Return the output in the caller's type, converted before views so that the conversion may be fused with an operator."""
        base = viewed(self.values.get(variable))
        if base is None or self.replaced[variable].ty.dtype == self.outside.name:
            return self._as(variable, self.outside.name)
        return self.builder.emit(view_of(self.values[variable], self.output(base)))

    def _layer(self, variable: Any, call: Any, name: str) -> Any:
        """Return a layer's call: its first input and its output in the types that they have, if a template takes that."""
        found, own = self.layers[name], self.precisions.get(name, self.precision)
        data, *others = call.args[1].fields
        stored = self.total if variable in self.wide else self._read_as(variable) or self.precision
        layer = self._stored(found.layer, own, "reads", str(self.replaced[data].ty.dtype))
        layer = self._stored(layer, own, "writes", stored.name)
        first, last = layer.reads or own.name, layer.writes or own.name
        arguments = [self._as(data, first), *(self._as(other, own.name) for other in others)]
        self.layers[name] = ComposedLayer(layer, _constants(found.parameters, own), own.name)
        shape = shape_of(call)
        return relax.call_dps_packed(name, relax.Tuple(arguments), out_ty=relax.TensorType(shape, last))

    def _stored(self, layer: Layer, own: Precision, end: str, name: str) -> Layer:
        """Return the layer with another type of input or output, if a template takes that."""
        if not isinstance(layer, ConvertingLayer):
            return layer
        given: Any = {end: "" if name == own.name else name}
        changed = replace(layer, **given)
        return changed if self.accepts(changed) else layer

    def _read_as(self, variable: Any) -> Precision | None:
        """Return the precision that all readers of a variable, through views, need; `None` if they disagree."""
        wanted = {self._wanted_by(reader) for reader in self.readers[variable]}
        return wanted.pop() if len(wanted) == 1 else None

    def _wanted_by(self, reader: Any) -> Precision | None:
        if reader is None:
            return self.outside
        if viewed(self.values[reader]) is not None:
            return self._read_as(reader)
        return self.precisions.get(external_name(self.values[reader]) or "", self.precision)

    def _as(self, variable: Any, name: str) -> Any:
        """Return a variable of floats converted to this type; others unchanged."""
        found = self.replaced[variable]
        if not isinstance(found.ty, relax.TensorType) or str(found.ty.dtype) not in self.floats or found.ty.dtype == name:
            return found
        if (variable, name) not in self.others:
            self.others[variable, name] = self.builder.emit(relax.op.astype(found, name))
        return self.others[variable, name]

    def _expression(self, value: Any, precision: Precision) -> Any:
        """Return an expression of variables and constants in a precision."""
        return rebuilt(value, lambda part: self._leaf(part, precision), lambda attrs: _attributes(attrs, precision))

    def _summed(self, value: Any, precision: Precision) -> Any:
        """Return an operator that adds up many elements in a wider precision; TVM fuses conversions with sums, but not with means."""
        found = self._expression(value, precision)
        if operator_of(value) != "relax.mean":
            return found
        data, attrs = found.args[0], found.attrs
        total = self.builder.emit(relax.op.sum(data, attrs.axis, attrs.keepdims))
        share = math.prod(shape_of(value)) / math.prod(shape_of(value.args[0]))
        return relax.op.multiply(total, relax.const(share, precision.name))

    def _leaf(self, part: Any, precision: Precision) -> Any:
        """Return a variable or constant in a precision."""
        if isinstance(part, relax.Var):
            return self._as(part, precision.name)
        array = part.value.numpy()
        return relax.const(array, precision.name) if str(array.dtype) == FLOAT32.name else part


def _last_steps(values: Mapping[Any, Any], readers: Mapping[Any, Sequence[Any]]) -> frozenset[Any]:
    """Return the steps and concatenations behind the last layers, such as the decoding of boxes: pixels of a large image have too many
    digits for half precision, and Relax makes one kernel of these and the conversion of what they read.
    """
    found: set[Any] = set()
    for variable in reversed(values):
        if all(reader is None or reader in found for reader in readers[variable]):
            value = values[variable]
            if viewed(value) is not None or is_step(value):
                found.add(variable)
    return frozenset(found)


def _constants(given: LayerParameters, precision: Precision) -> LayerParameters:
    """Return the constants in a precision's arithmetic; integers, such as places, are unchanged."""
    weight, bias, *operands = (
        array.astype(precision.arithmetic.numpy) if array.dtype.kind == "f" else array
        for array in (given.weight, given.bias, *given.operands)
    )
    return LayerParameters(weight, bias, tuple(operands))


def _attributes(attrs: Any, precision: Precision) -> Any:
    """Return an operator's attributes, with `precision` for float32 in those that name a type."""
    types = {name: str(getattr(attrs, name, "")) for name in ("dtype", "out_dtype")}
    if FLOAT32.name not in types.values():
        return attrs
    kind = type(attrs).__tvm_ffi_type_info__
    fields = {entry.name: getattr(attrs, entry.name) for entry in kind.fields}
    return tvm.ir.make_node(kind.type_key, **fields | {name: precision.name for name, named in types.items() if named == FLOAT32.name})
