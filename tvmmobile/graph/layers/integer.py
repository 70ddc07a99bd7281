"""Layers that may be computed in integers, with the default answers for every kind; `graph.integers` defines the arithmetic."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.integers import (
    HIGHEST,
    LARGEST_UNSATURATED,
    LEAST_CONVERTED_SUM,
    LOWEST,
    NARROW_TERMS,
    IntegerParameters,
    short_multipliers,
)
from tvmmobile.graph.layers.kind import NO_FACTS, ConvertingLayer, IntegerFacts
from tvmmobile.graph.parameters import Array

#: Largest integer up to which float32 represents every integer exactly.
_EXACT = 1 << 24


@dataclass(frozen=True, kw_only=True)
class IntegerLayer(ConvertingLayer):
    """A layer that may be computed in integers; then it has `integers`.

    Attributes:
        residual: a tensor of the output's extents is added to the sums.
        has_gate: true if each sum is multiplied by its channel's factor, from another input.
        can_write_floats: true if its integer kernel may write float32.
    """

    integers: IntegerFacts = NO_FACTS
    # Not dataclass fields: no types.
    residual = has_gate = False

    def _stored_name(self) -> list[str]:
        return super()._stored_name() + [self.integers.name] * bool(self.integers.name)

    @property
    @abstractmethod
    def terms(self) -> int:
        """Number of products, or pooled pixels, in each sum."""

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weights, output channels last; (0,) without weights."""
        return (0,)

    @property
    def has_weights(self) -> bool:
        """True if sums add products with weights; false if they add numbers of the input."""
        return math.prod(self.weight_shape) > 0

    @property
    def curve(self) -> str:
        """The curve that an integer kernel computes; "" for none."""
        return ""

    @property
    def looks_up(self) -> bool:
        """True if an integer kernel looks up its results."""
        return False

    @property
    def can_write_floats(self) -> bool:
        """True if an integer kernel may write float32."""
        return False

    @property
    def scales_at_once(self) -> bool:
        """True if kernels that do not convert sums need short multipliers: the layer has no further steps and writes integers."""
        return not (self.has_gate or self.writes or self.curve or self.residual or self.integers.addend)

    @property
    def converts_sums(self) -> bool:
        """True if kernels convert sums to floats."""
        return self.terms > NARROW_TERMS or self.integers.wide

    def has_integer_form(self, curves: Collection[str]) -> bool:
        return True

    def as_integers(self, reads: str, writes: str) -> Self:
        """Return the layer of an integer kernel that stores its first input and its output in these precisions."""
        stored: Any = {"reads": reads, "writes": writes}
        return replace(self, **stored)

    def with_facts(self, **facts: bool) -> Self:
        """Return the layer with some facts replaced."""
        given: Any = {"integers": replace(self.integers, **facts)}
        return replace(self, **given)

    def term_scale(self, side: float) -> float:
        """Return the weight of each term in a sum without weights, in steps of the first input; `side` is the other input's scale."""
        return 1.0

    def weight_sums(self, weight: Array) -> npt.NDArray[np.int64]:
        """Return the sum of each output channel's weights, which are integers; without weights, the number of terms."""
        return np.full(self.output_shape[-1], self.terms, np.int64)

    @abstractmethod
    def integer_products(self, data: npt.NDArray[np.int8], parameters: IntegerParameters) -> Array:
        """Compute sums without their bias, channels last, as integers or as floats in which every partial sum is exact.

        Args:
            data: one image or several, as the layer reads it; `whole` if that comes from several tensors.
        """

    def integer_sums(self, data: npt.NDArray[np.int8], parameters: IntegerParameters) -> npt.NDArray[np.int64]:
        """Compute sums with their bias, exactly, channels last; see `integer_products`."""
        sums: npt.NDArray[np.int64] = self.integer_products(data, parameters).astype(np.int64)
        sums += parameters.bias.astype(np.int64)
        return sums

    def whole(self, data: Array, side: Mapping[str, Array]) -> Array:
        """Return the first input as one tensor."""
        return data

    def largest_sums(self, parameters: IntegerParameters) -> npt.NDArray[np.int64]:
        """Return a bound on |sum| for each output channel over all inputs; it is attained, apart from the sign of zero."""
        products = self.weight_sums(np.abs(parameters.weight.astype(np.int64)))
        bound: npt.NDArray[np.int64] = np.abs(parameters.bias.astype(np.int64)) + -LOWEST * products
        return bound

    def largest_results(self, parameters: IntegerParameters) -> npt.NDArray[np.float64]:
        """Return a bound on |q| for each output channel."""
        x: Array = self.largest_sums(parameters) * np.abs(parameters.multiplier.astype(np.float64))
        x = x * (HIGHEST - LOWEST) if self.has_gate else x + (HIGHEST - LOWEST) * abs(parameters.scale_side)
        x = x + np.abs(parameters.addend) if self.integers.addend else x
        factor = 6 * abs(parameters.sixth)
        return np.asarray(x * factor if self.curve == "hswish" else np.full_like(x, factor) if self.curve else x)

    def rounds_otherwise(self, parameters: IntegerParameters) -> bool:
        """Return whether multipliers that are not short, or an odd zero point, change the results of kernels that do not convert sums. In a
        layer with an addend they never do.
        """
        odd = not self.writes and bool(parameters.zero_out % 2)
        return odd or (self.scales_at_once and bool((short_multipliers(parameters.multiplier) != parameters.multiplier).any()))

    def is_wide(self, parameters: IntegerParameters) -> bool:
        """Decide the layer's `wide`: true if a sum may reach 2^22 or a scaled sum exceed 16 bits, where kernels depend on it, or if the
        layer needs an addend and has none.
        """
        if self.terms > NARROW_TERMS:
            return False
        if not self.integers.addend and self.rounds_otherwise(parameters):
            return True
        results = self.largest_results(parameters) * (not self.writes)
        return bool((self.largest_sums(parameters) >= LEAST_CONVERTED_SUM).any() or (results > LARGEST_UNSATURATED).any())


def exact_floats(weight: Array, direct: bool) -> type[np.floating[Any]]:
    """Return the floating-point type that represents all sums of products of int8 data with these weights exactly. It is float32 only for
    `direct` sums, which may be added in any order; other sums may be of transformed values.
    """
    magnitudes = np.abs(weight, dtype=np.float64).reshape(-1, weight.shape[-1]).sum(0)
    return np.float32 if direct and bool(-LOWEST * magnitudes.max(initial=0.0) <= _EXACT) else np.float64
