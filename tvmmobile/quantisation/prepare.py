"""Quantises a network from calibration data for the planner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from tvmmobile.graph.layers import Array, IntegerLayer, Layer
from tvmmobile.graph.network import Float32Layer, Network, read_network
from tvmmobile.graph.passes.pipeline import ComposedNetwork, lower_in_nhwc
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.graph.tasks import Task
from tvmmobile.quantisation.calibration import Accepts, CalibrationSamples, Method
from tvmmobile.quantisation.flow import Flow, FlowStep, flow_of
from tvmmobile.quantisation.integers import reads_input
from tvmmobile.quantisation.lowering import LoweredNetwork, lower_quantised
from tvmmobile.quantisation.methods import MethodTrials, best_method, with_seven_bit_weights
from tvmmobile.quantisation.mixed import Decision, Mixed
from tvmmobile.schedules import all_templates, template_for

#: Most samples on which several outputs are compared in size.
_WEIGHTED = 8
#: Reason of layers that no int8 kernel supports.
_NO_KERNEL = "no int8 kernel"
#: Reason of layers whose int8 kernel would be slower.
_FASTER = "faster in float32"


@dataclass(frozen=True, eq=False)
class CalibratedNetwork(LoweredNetwork):
    """A network quantised from calibration data, and the decision that led to it."""

    decision: Decision


def prepare_calibrated(
    composed: ComposedNetwork,
    samples: CalibrationSamples,
    task_of: Callable[[tuple[Layer, ...]], Task],
    choose: Callable[[Network, Flow, Method, Accepts], Mixed],
) -> CalibratedNetwork:
    """Quantise a network, except layers that no int8 kernel supports or that are faster in float32.

    Args:
        samples: calibration data.
        task_of: returns the task of a region's layers.
        choose: quantises a float32 network, given its flow, the method, and the test of layers that may be in integers.
    """

    def task(layer: Layer) -> Task:
        return task_of((layer,))

    @cache
    def accepts(layer: Layer) -> bool:
        return template_for(task(layer)) is not None and not is_faster_in_floats(task(layer))

    wide = read_network(*lower_in_nhwc(composed))
    flow = flow_of(wide).weighted(*samples.some(_WEIGHTED).all())
    trials = MethodTrials(flow, samples, accepts)
    method = with_seven_bit_weights(trials, best_method(trials), lambda layer, weight: _gains_by_smaller_weights(task(layer), weight))
    mixed = choose(wide, flow, method, accepts)
    lowered = lower_quantised(mixed.network, composed, wide, accepts)
    network, reasons = lowered.network, mixed.decision.float32_reasons
    floats = tuple(
        Float32Layer(node, network.nodes[node].layer.name, reasons.get(number) or _left_out(flow.steps[number], task))
        for number, node in lowered.nodes.items()
        if number not in mixed.network.steps
    )
    return CalibratedNetwork(replace(network, float32_layers=floats), mixed.network, lowered.nodes, mixed.decision)


def _left_out(step: FlowStep, task: Callable[[Layer], Task]) -> str:
    """Return why a layer stays in float32 that was not chosen for it."""
    layer = step.layer
    if isinstance(layer, IntegerLayer):
        layer = layer.as_integers(FLOAT32.name * reads_input(step), "")
    return _FASTER if is_faster_in_floats(task(layer)) else _NO_KERNEL


def is_faster_in_floats(task: Task) -> bool:
    """Return whether an integer layer's kernel is slower than its float32 kernel."""
    return any(template.faster_in_floats(task) for template in all_templates())


def _gains_by_smaller_weights(task: Task, weight: Array) -> bool:
    """Return whether an integer layer's kernel is faster with the smaller weights of `integer_step`'s `seven_bits`."""
    return any(template.gains_by_smaller_weights(task, weight) for template in all_templates())
