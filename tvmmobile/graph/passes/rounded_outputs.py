"""Lets float32 layers store the integers that their readers need, so that no conversion follows them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tvmmobile.graph.bindings import bindings_of, results_of
from tvmmobile.graph.composed import ComposedLayer, QuantisedLayer, external_name
from tvmmobile.graph.curves import SCALED
from tvmmobile.graph.expressions import variables_of, viewed
from tvmmobile.graph.integers import HIGHEST, LOWEST
from tvmmobile.graph.layers import NO_CLAMP, Clamp, Conv2d, Dense, Layer, LayerParameters
from tvmmobile.graph.precision import FLOAT32, INT8


def roundings_of_readers(main: Any, quantised: Mapping[str, QuantisedLayer]) -> dict[Any, tuple[float, int]]:
    """Return `QuantisedLayer.inputs` of variables that only layers in `quantised` read, perhaps behind views, in the same integers."""
    wanted: dict[Any, set[tuple[float, int] | None]] = defaultdict(set)
    for result in results_of(main):
        wanted[result].add(None)
    for binding in reversed(bindings_of(main)):
        entry, source = quantised.get(external_name(binding.value) or ""), viewed(binding.value)
        if source is not None:
            wanted[source] |= wanted[binding.var]
        elif entry is not None and not entry.layer.reads:
            for read, rounding in zip(binding.value.args[1].fields, entry.inputs, strict=True):
                wanted[read].add(rounding)
        else:
            for read in variables_of(binding.value):
                wanted[read].add(None)
    found = {variable: next(iter(roundings)) for variable, roundings in wanted.items() if len(roundings) == 1}
    return {variable: rounding for variable, rounding in found.items() if rounding is not None}


def rounded_output(layer: Layer, parameters: LayerParameters, per_step: float, zero: int) -> ComposedLayer | None:
    """Return the layer with its output in int8: each number times `per_step`, rounded to the nearest integer, plus `zero`, and limited to
    int8; `None` for a layer without sums.

    If only the bounds of int8 follow the sums, weights and bias are in steps of the output, and kernels only round. Others scale their
    results.
    """
    if not isinstance(layer, Conv2d | Dense):
        return None
    if not layer.side_shapes and not layer.then and _ends_with_int8(layer.clamp, per_step, zero):
        weight = (parameters.weight.astype(np.float64) * per_step).astype(np.float32)
        bias = (parameters.bias.astype(np.float64) * per_step + zero).astype(np.float32)
        return ComposedLayer(replace(layer, clamp=NO_CLAMP, writes=INT8.name), LayerParameters(weight, bias), FLOAT32.name)
    scale, shift = (np.full_like(parameters.bias, value) for value in (per_step, zero))
    scaled = replace(parameters, operands=(*parameters.operands, scale, shift))
    return ComposedLayer(replace(layer, then=(*layer.then, SCALED), writes=INT8.name), scaled, FLOAT32.name)


def _ends_with_int8(clamp: Clamp, per_step: float, zero: int) -> bool:
    """Return whether a layer's bounds, as integers, lie at or beyond those of int8."""
    if isinstance(clamp, str):
        return False
    low, high = clamp
    below, above = (-np.inf if low is None else low), (np.inf if high is None else high)
    return bool(np.rint(below * per_step) + zero <= LOWEST and np.rint(above * per_step) + zero >= HIGHEST)
