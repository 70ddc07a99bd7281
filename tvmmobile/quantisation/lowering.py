"""A network in integers as the graph pass and the manifest want it: by the names of external functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvmmobile.graph.layers import LayerParameters
from tvmmobile.graph.passes.to_integers import QuantisedLayer
from tvmmobile.quantisation.integers import IntegerNetwork


@dataclass(frozen=True, eq=False)
class NamedLayers:
    """What `passes.pipeline.finish_integers` takes.

    Attributes:
        quantised: layers in integers.
        changed: constants of layers that stay in float32, equalised as their neighbours are.
    """

    quantised: dict[str, QuantisedLayer]
    changed: dict[str, LayerParameters]


def named_layers(network: IntegerNetwork, names: Sequence[str]) -> NamedLayers:
    """The layers of a network.

    Args:
        names: of the steps' external functions, by number; "" for an opaque one.
    """
    found = NamedLayers({}, {})
    for step in network.flow.steps:
        name, integers = names[step.number], network.steps.get(step.number)
        if integers is not None:
            assert integers.most is None, "kernels have one bound for all channels"
            written = integers.written
            found.quantised[name] = QuantisedLayer(integers.layer, integers.parameters, None if written is None else written.step)
        elif name and step.parameters is not None:
            found.changed[name] = step.parameters
    return found
