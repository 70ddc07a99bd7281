"""A composed float32 network with some of its layers in scaled integers (`graph.integers`).

What reads the network's input rounds it, and what writes the output returns float32, where kernels can. Between an integer layer and one
that stays in float32 stands a conversion, which TVM fuses with other operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.integers import HIGHEST, LOWEST, IntegerParameters
from tvmmobile.graph.layers import Layer
from tvmmobile.graph.passes.compose_layers import ComposedLayer, external_name
from tvmmobile.graph.passes.rewriting import MainRewriter, rebuilt, view_of, viewed
from tvmmobile.graph.precision import FLOAT32, INT8


@dataclass(frozen=True)
class QuantisedLayer:
    """A layer in integers.

    Attributes:
        layer: without bounds (curves stay); `reads` and `writes` say float32 where it rounds its input itself, or returns real numbers.
        parameters: its constants.
        step: the difference of the real numbers that two neighbouring integers of the output stand for; `None` for real numbers.
        inputs: for each tensor that it reads what real numbers are multiplied by to become integers, and the zero point.
    """

    layer: Layer
    parameters: IntegerParameters
    step: float | None
    inputs: tuple[tuple[float, int], ...]


def to_integers(layers: dict[str, ComposedLayer], quantised: Mapping[str, QuantisedLayer]) -> Callable[[Any], Any]:
    """The pass: layers with an entry in `quantised`, by the name of their external function, compute in integers, all others in float32.

    Args:
        layers: changed along with `main`.
    """

    def convert(module: Any) -> Any:
        main = _Rewriting(module["main"], quantised).rewritten()
        layers.update({name: ComposedLayer(entry.layer, entry.parameters, INT8.name) for name, entry in quantised.items()})
        module = module.clone()
        module["main"] = main
        return module

    return convert


class _Rewriting(MainRewriter):
    """`main` while some of its variables become integers."""

    def __init__(self, main: Any, quantised: Mapping[str, QuantisedLayer]) -> None:
        super().__init__(main)
        self.quantised = quantised
        #: The layer whose integers a variable holds, and the same in float32 where something reads that.
        self.made_by: dict[Any, QuantisedLayer] = {}
        self.reals: dict[Any, Any] = {}

    def value(self, variable: Any, value: Any) -> Any:
        """Views and aliases keep integers."""
        source = viewed(value)
        if source is not None and source in self.replaced:
            if source in self.made_by:
                self.made_by[variable] = self.made_by[source]
            return view_of(value, self.replaced[source])
        entry = self.quantised.get(external_name(value) or "")
        return rebuilt(value, self._leaf) if entry is None else self._layer(variable, value, entry)

    def output(self, variable: Any) -> Any:
        """Float32."""
        return self._real(variable)

    def _leaf(self, part: Any) -> Any:
        """A variable in float32; constants are."""
        return self._real(part) if part in self.replaced else part

    def _layer(self, variable: Any, call: Any, entry: QuantisedLayer) -> Any:
        """The call of an integer layer."""
        from tvm import relax

        data, *others = call.args[1].fields
        first, *rest = entry.inputs
        arguments = [self._real(data) if getattr(entry.layer, "reads", "") else self._integers(data, *first)]
        arguments += [self._integers(other, *rounding) for other, rounding in zip(others, rest, strict=True)]
        if entry.step is not None:
            self.made_by[variable] = entry
        kind = FLOAT32.name if entry.step is None else INT8.name
        shape = [int(extent) for extent in call.ty.shape]
        return relax.call_dps_packed(external_name(call), relax.Tuple(arguments), out_ty=relax.TensorType(shape, kind))

    def _integers(self, variable: Any, per_scale: float, zero: int) -> Any:
        """A variable as the integers that a layer reads."""
        from tvm import relax

        found = self.replaced[variable]
        if variable in self.made_by:
            return found
        emit, op = self.builder.emit, relax.op
        rounded = emit(op.round(emit(op.multiply(found, _number(per_scale)))))
        moved = emit(op.add(rounded, _number(zero)))
        above = emit(op.maximum(moved, relax.const(float(LOWEST), FLOAT32.name)))
        return emit(op.astype(emit(op.minimum(above, relax.const(float(HIGHEST), FLOAT32.name))), INT8.name))

    def _real(self, variable: Any) -> Any:
        """A variable in float32."""
        from tvm import relax

        entry = self.made_by.get(variable)
        if entry is None:
            return self.replaced[variable]
        if variable not in self.reals:
            assert entry.step is not None
            emit, op = self.builder.emit, relax.op
            wide = emit(op.astype(self.replaced[variable], FLOAT32.name))
            centred = emit(op.subtract(wide, _number(entry.parameters.zero_out)))
            self.reals[variable] = emit(op.multiply(centred, _number(entry.step)))
        return self.reals[variable]


def _number(value: float) -> Any:
    """A constant that is an argument of the kernel, not part of it: conversions of one shape are one task, whatever the scales."""
    from tvm import relax

    return relax.const(np.array([value], np.float32), FLOAT32.name)
