"""The sigmoid of a concatenation of layers' outputs, as the last step of each of these layers: class scores of detectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tvmmobile.graph.expressions import operator_of
from tvmmobile.graph.layers import Conv2d, Layer
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.compose_layers import ComposedLayer, external_name
from tvmmobile.graph.passes.rewriting import readers_of, replace_values

_SIGMOID = "sigmoid"


def split_steps(accepts: Callable[[Layer], bool], layers: dict[str, ComposedLayer]) -> Callable[[Any], Any]:
    """The pass, where each part is, perhaps moved, a layer's output that nothing else reads; it changes `layers`."""

    def split(module: Any) -> Any:
        readers = readers_of(module["main"])

        def replacement(value: Any, values: Any) -> Any:
            joined = value.args[0] if operator_of(value) == f"relax.{_SIGMOID}" else None
            if operator_of(values.get(joined)) != "relax.concat" or len(readers[joined]) > 1:
                return None
            names = [layer_of(part, values) for part in getattr(values[joined].args[0], "fields", (None,))]
            if not all(names):
                return None
            layers.update({name: _with_sigmoid(layers[name]) for name in names})
            return joined

        def layer_of(part: Any, values: Any) -> str:
            """The layer whose output a part is; "" where there is none that can compute the step."""
            while len(readers[part]) == 1 and has(values.get(part), Trait.MOVE):
                part = values[part].args[0]
            name = external_name(values.get(part)) or ""
            found = layers.get(name)
            if found is None or len(readers[part]) > 1 or not isinstance(found.layer, Conv2d) or found.layer.steps:
                return ""
            return name if accepts(_with_sigmoid(found).layer) else ""

        return replace_values(module, replacement)

    return split


def _with_sigmoid(found: ComposedLayer) -> ComposedLayer:
    assert isinstance(found.layer, Conv2d)
    return replace(found, layer=replace(found.layer, clamp=_SIGMOID))
