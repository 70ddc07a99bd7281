"""Finds the values of a network that a precision may be unable to hold although the network's inputs and outputs fit.

These are sums, powers that are added up, what is computed from either without another layer in between, and steps with a constant that
the precision would make 0 or infinite, such as in `log(x + 1e-9)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.composed import ComposedLayer, external_name
from tvmmobile.graph.expressions import operator_of, viewed
from tvmmobile.graph.layers import Array, Conv2d, MeanPool, Pool, Softmax, SumLayer
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.rewriting import rebuilt
from tvmmobile.graph.precision import FLOAT32, Precision, precision_named

_POWERS = ("relax.power", "relax.square", "relax.exp")
_SQUARES = ("square", "relu_square")


@dataclass(frozen=True)
class WideValues:
    """Values of `main` to store, and layers to compute, in `Precision.total`.

    Attributes:
        variables: the values' variables.
        layers: external functions of the layers that compute them, or that read masks of large numbers.
    """

    variables: frozenset[Any] = frozenset()
    layers: frozenset[str] = frozenset()


def wide_values(
    values: Mapping[Any, Any], readers: Mapping[Any, Sequence[Any]], layers: Mapping[str, ComposedLayer], precision: Precision
) -> WideValues:
    """Find the values that `precision` may be unable to hold; none if it adds up in itself.

    Args:
        values, readers: those of `main`, see `graph.bindings`.
    """
    own = precision.arithmetic
    return WideValues() if precision_named(own.total) == own else _Search(values, readers, layers, own).found()


def is_step(value: Any) -> bool:
    """Return whether an operator computes or moves single elements, so that Relax fuses it with its neighbours."""
    return operator_of(value) == "relax.concat" or has(value, Trait.ELEMENT_WISE) or has(value, Trait.MOVE)


class _Search:
    """Looks at the values of `main`, one after another."""

    def __init__(
        self, values: Mapping[Any, Any], readers: Mapping[Any, Sequence[Any]], layers: Mapping[str, ComposedLayer], precision: Precision
    ) -> None:
        self.values, self.readers, self.layers, self.precision = values, readers, layers, precision
        self.wide: set[Any] = set()

    def found(self) -> WideValues:
        """Return what a search in the order of execution finds."""
        names: set[str] = set()
        for variable, value in self.values.items():
            name = external_name(value)
            if name is not None:
                data, *others = value.args[1].fields
                wide = self._is_wide_layer(variable, self.layers[name], data, others)
                names |= {name} if wide or (isinstance(self.layers[name].layer, Softmax) and data in self.wide) else set()
            else:
                wide = self._is_wide_operator(variable, value)
            self.wide |= {variable} if wide else set()
        return WideValues(frozenset(self.wide), frozenset(names))

    def _is_wide_operator(self, variable: Any, value: Any) -> bool:
        """Return whether the value of an operator outside layers is wide."""
        source = viewed(value)
        if source is not None:
            return source in self.wide
        if has(value, Trait.SUM):
            return True
        if not is_step(value) or operator_of(value) == "relax.call_tir":
            return False
        if has(value, Trait.ELEMENT_WISE) and all(self._is_sum(reader) for reader in self.readers[variable]):
            return True
        return self._has_wide_operand(value) or (_is_power(value) and self._is_summed(variable))

    def _is_sum(self, reader: Any) -> bool:
        """Return whether a reader is an operator that adds up elements; `None` stands for the network's output."""
        return reader is not None and has(self.values[reader], Trait.SUM)

    def _has_wide_operand(self, value: Any) -> bool:
        """Return whether an expression reads a wide value, or has a constant that would become 0 or infinite."""
        parts: list[Any] = []
        rebuilt(value, lambda part: parts.append(part) or part)  # type: ignore[func-returns-value]
        return any(self._is_lost(part.value.numpy()) if hasattr(part, "value") else part in self.wide for part in parts)

    def _is_wide_layer(self, variable: Any, found: ComposedLayer, data: Any, others: list[Any]) -> bool:
        """Return whether the value of a layer is wide."""
        if data in self.wide and (_is_mean(found) or _is_copy(found)):
            return True
        if self._is_power_layer(found, data, others) and self._is_summed(variable):
            return True
        return self._has_lost_constant(found) and self._has_step(variable)

    def _is_power_layer(self, found: ComposedLayer, data: Any, others: list[Any]) -> bool:
        """Return whether a layer squares its sums, or multiplies what it reads by the same tensor or a power."""
        steps = found.layer.steps if isinstance(found.layer, SumLayer) else ()
        return any(step in _SQUARES for step in steps) or ("times" in steps and (data in others or data in self.wide))

    def _has_lost_constant(self, found: ComposedLayer) -> bool:
        """Return whether a bound or operand of a layer's steps, or the constant that a copy adds, would become 0 or infinite."""
        if not isinstance(found.layer, SumLayer):
            return False
        bounds = [bound for step in found.layer.steps if isinstance(step, tuple) for bound in step if bound is not None]
        added = [found.parameters.bias] if _is_copy(found) else []
        return any(map(self._is_lost, (*(np.array(bound, np.float32) for bound in bounds), *added, *found.parameters.operands)))

    def _has_step(self, variable: Any) -> bool:
        """Return whether a step other than a move computes with a variable, directly or through views."""
        read = {reader: self.values[reader] for reader in self.readers[variable] if reader is not None}
        return any(self._has_step(reader) if _is_move(value) else is_step(value) for reader, value in read.items())

    def _is_summed(self, variable: Any) -> bool:
        """Return whether all readers of a variable add up its elements, or raise these and move them in front of such sums."""
        readers = self.readers[variable]
        return bool(readers) and all(reader is not None and self._sums(reader, variable) for reader in readers)

    def _sums(self, reader: Any, variable: Any) -> bool:
        value, name = self.values[reader], external_name(self.values[reader])
        if name is None:
            return self._is_sum(reader) or ((_is_move(value) or _is_power(value)) and self._is_summed(reader))
        if value.args[1].fields[0] != variable:
            return False
        found = self.layers[name]
        power = _is_copy(found) and isinstance(found.layer, SumLayer) and "times" in found.layer.steps
        return _is_mean(found) or (power and self._is_summed(reader))

    def _is_lost(self, exact: Array) -> bool:
        """Return whether rounding to the precision makes an array 0, or some of its numbers infinite."""
        if str(exact.dtype) != FLOAT32.name:
            return False
        with np.errstate(over="ignore"):
            stored = exact.astype(self.precision.numpy)
        return bool((exact.any() and not stored.any()) or (np.isfinite(exact) & ~np.isfinite(stored)).any())


def _is_move(value: Any) -> bool:
    return viewed(value) is not None or has(value, Trait.MOVE)


def _is_power(value: Any) -> bool:
    """Return whether a step raises numbers, or multiplies computed ones."""
    factors = value.args if operator_of(value) == "relax.multiply" else ()
    return operator_of(value) in _POWERS or (bool(factors) and not any(hasattr(factor, "value") for factor in factors))


def _is_even(found: ComposedLayer) -> bool:
    """Return whether a convolution has one weight for all terms of its sums."""
    layer, weight = found.layer, found.parameters.weight
    alone = isinstance(layer, Conv2d) and (layer.is_depthwise or layer.out_channels == 1)
    return alone and weight.size > 0 and bool((weight == weight.flat[0]).all())


def _is_mean(found: ComposedLayer) -> bool:
    """Return whether a layer returns means, over pixels or channels."""
    return isinstance(found.layer, Pool | MeanPool) or (_is_even(found) and isinstance(found.layer, SumLayer) and found.layer.terms > 1)


def _is_copy(found: ComposedLayer) -> bool:
    """Return whether a layer applies steps to what it reads; see `passes.standalone_steps`."""
    return _is_even(found) and isinstance(found.layer, SumLayer) and found.layer.terms == 1
