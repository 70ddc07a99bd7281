"""Lowers a network with integer layers to the form that the planner reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvmmobile.graph.composed import ComposedLayer, QuantisedLayer
from tvmmobile.graph.network import Network, names_of, read_network
from tvmmobile.graph.passes.pipeline import ComposedNetwork, lower_in_integers
from tvmmobile.quantisation.calibration import Accepts
from tvmmobile.quantisation.integers import IntegerNetwork


@dataclass(frozen=True, eq=False)
class LoweredNetwork:
    """A lowered network with integer layers.

    Attributes:
        network: the network as the planner reads it.
        integers: the same network, as computed exactly on the host.
        nodes: the node in `network` of each step that is still a layer there, by the step's number.
    """

    network: Network
    integers: IntegerNetwork
    nodes: Mapping[int, int]


def lower_quantised(integers: IntegerNetwork, composed: ComposedNetwork, wide: Network, accepts: Accepts) -> LoweredNetwork:
    """Lower a network whose integer layers have been chosen.

    Args:
        composed: the composed network that `wide` was read from.
        wide: the network in float32, whose nodes are the steps of `integers`.
        accepts: returns whether a template supports an integer layer.
    """
    names, quantised, floats = names_of(wide), dict[str, QuantisedLayer](), dict[str, ComposedLayer]()
    for step in integers.flow.steps:
        name, converted = names[step.number], integers.steps.get(step.number)
        if converted is not None:
            assert step.most is None, "kernels have one bound for all channels"
            written, scales = converted.written, tuple((scale.per_step, scale.zero) for scale in converted.scales)
            step_written, zero = (None, 0) if written is None else (written.step, written.zero)
            quantised[name] = QuantisedLayer(converted.layer, converted.parameters, step_written, scales, zero)
        elif name and step.parameters is not None:
            assert step.most is None
            floats[name] = ComposedLayer(step.layer, step.parameters)  # equalised if a neighbouring integer layer is
    network = read_network(*lower_in_integers(composed, quantised, floats, accepts))
    numbers = {name: number for number, name in enumerate(names) if name}
    return LoweredNetwork(network, integers, {numbers[name]: node for node, name in enumerate(names_of(network)) if name in numbers})
