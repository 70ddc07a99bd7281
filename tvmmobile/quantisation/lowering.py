"""Lowers a network with layers in integers to the form that the planner reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvmmobile.graph.composed import ComposedLayer, QuantisedLayer
from tvmmobile.graph.network import Network, names_of, read_network
from tvmmobile.graph.passes.pipeline import ComposedNetwork, lower_in_integers
from tvmmobile.quantisation.calibration import Accepts
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


@dataclass(frozen=True, eq=False)
class LoweredNetwork:
    """A network with layers in integers.

    Attributes:
        network: the network as the planner reads it.
        integers: the same network in exact integers on the host.
        nodes: the node of each float32 step that is still a layer, by the step's number.
    """

    network: Network
    integers: IntegerNetwork
    nodes: Mapping[int, int]


def lower_quantised(integers: IntegerNetwork, composed: ComposedNetwork, wide: Network, accepts: Accepts) -> LoweredNetwork:
    """Lower a network whose integer layers are chosen.

    Args:
        wide: the network in float32, whose nodes are the steps of `integers`.
        accepts: returns whether some template takes an integer layer.
    """
    names = names_of(wide)
    layers = named_layers(integers, names)
    network = read_network(*lower_in_integers(composed, layers.quantised, layers.floats, accepts))
    numbers = {name: number for number, name in enumerate(names) if name}
    return LoweredNetwork(network, integers, {numbers[name]: node for node, name in enumerate(names_of(network)) if name in numbers})


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
