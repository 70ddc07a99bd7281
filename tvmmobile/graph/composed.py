"""Layers with their constants, and the external calls that represent them in `main` until a plan chooses kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvmmobile.graph.expressions import operator_of
from tvmmobile.graph.integers import IntegerParameters
from tvmmobile.graph.layers import Conv2d, Layer, LayerParameters
from tvmmobile.graph.precision import FLOAT32

#: The beginning of the external functions' names.
EXTERNAL_PREFIX = "tvmmobile.layer."


@dataclass(frozen=True)
class ComposedLayer:
    """A layer found in the graph, with its constants and the name of its precision."""

    layer: Layer
    parameters: LayerParameters
    dtype: str = FLOAT32.name

    @property
    def copy(self) -> Conv2d | None:
        """The layer if it returns its input unchanged or adds its residual to it, in the same layout; otherwise `None`."""
        layer, weight, bias = self.layer, self.parameters.weight, self.parameters.bias
        if not (isinstance(layer, Conv2d) and layer.is_depthwise and layer.kernel == layer.stride == (1, 1)) or any(layer.padding):
            return None
        plain = not (layer.scaled or layer.steps) and layer.in_layout == layer.out_layout
        return layer if plain and bool((weight == 1).all()) and not bias.any() else None


@dataclass(frozen=True)
class QuantisedLayer:
    """A layer in integers.

    Attributes:
        layer: layer without bounds (curves stay); `reads` or `writes` is float32 where it rounds its input itself, or returns real numbers.
        parameters: constants of the layer.
        step: the difference between the real numbers of two neighbouring output integers; `None` if the output holds real numbers.
        inputs: the factor from real numbers to integers, and the zero point, for each tensor that it reads.
        zero: the output's zero point.
    """

    layer: Layer
    parameters: IntegerParameters
    step: float | None
    inputs: tuple[tuple[float, int], ...]
    zero: int


def external_name(value: Any) -> str | None:
    """Return the external function that a value calls for a layer; `None` for other values."""
    callee = value.args[0] if operator_of(value) == "relax.call_dps_packed" else None
    name = str(getattr(callee, "global_symbol", ""))
    return name if name.startswith(EXTERNAL_PREFIX) else None


def layer_call(
    layers: dict[str, ComposedLayer], composed: ComposedLayer, arguments: Sequence[Any], result: Any = None, name: str = ""
) -> Any:
    """Add a layer under a new name, or replace the layer called `name`; return its call, of type `result` (default: float32 of the layer's
    shape).
    """
    from tvm import relax

    name = name or f"{EXTERNAL_PREFIX}{len(layers)}"
    layers[name] = composed
    result = result or relax.TensorType(composed.layer.output_shape, FLOAT32.name)
    return relax.call_dps_packed(name, relax.Tuple(list(arguments)), out_ty=result)
