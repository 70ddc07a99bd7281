"""Names an integer network's layers by their external functions, for the graph pass and the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvmmobile.graph.composed import ComposedLayer, QuantisedLayer
from tvmmobile.quantisation.integers import IntegerNetwork


@dataclass(frozen=True, eq=False)
class NamedLayers:
    """Layers by the names of their external functions, for `passes.pipeline.lower_in_integers`.

    Attributes:
        quantised: layers in integers.
        floats: layers that stay in float32, equalised as their neighbours are.
    """

    quantised: dict[str, QuantisedLayer]
    floats: dict[str, ComposedLayer]


def named_layers(network: IntegerNetwork, names: Sequence[str]) -> NamedLayers:
    """Return the layers of a network by name.

    Args:
        names: names of the steps' external functions, by number; "" for an opaque one.
    """
    found = NamedLayers({}, {})
    for step in network.flow.steps:
        name, integers = names[step.number], network.steps.get(step.number)
        if integers is not None:
            assert step.most is None, "kernels have one bound for all channels"
            written = integers.written
            found.quantised[name] = QuantisedLayer(
                integers.layer,
                integers.parameters,
                None if written is None else written.step,
                tuple((scale.per_step, scale.zero) for scale in integers.scales),
                0 if written is None else written.zero,
            )
        elif name and step.parameters is not None:
            assert step.most is None
            found.floats[name] = ComposedLayer(step.layer, step.parameters)
    return found
