"""A job's network in the form that the planner reads, in its precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile.graph.composed import ComposedLayer
from tvmmobile.graph.integers import HIGHEST, LOWEST, SEVEN_BITS
from tvmmobile.graph.layers import Array, IntegerLayer, Layer, SumLayer
from tvmmobile.graph.network import Float32Layer, Network, names_of, read_network
from tvmmobile.graph.passes.pipeline import ComposedNetwork, compose, compose_quantised, lower_in_integers, lower_in_nhwc, lower_to_kernels
from tvmmobile.graph.passes.roundings import is_sum
from tvmmobile.graph.precision import FLOAT32, INT8, Precision, precision_named
from tvmmobile.graph.small_weights import fits, rounded
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels import elementary
from tvmmobile.kernels.simulation import layers_to_keep
from tvmmobile.networks.frontend import Imported
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.quantised import WeightScales
from tvmmobile.networks.states import inputs_but, with_states
from tvmmobile.pipeline.job import VariantJob, template_accepts
from tvmmobile.pipeline.precision_costs import layer_costs
from tvmmobile.quantisation.calibration import best_method, with_seven_bit_weights
from tvmmobile.quantisation.data import CalibrationData, check_values
from tvmmobile.quantisation.flow import FlowStep, flow_of
from tvmmobile.quantisation.given import unfit_weights, with_stored_scales
from tvmmobile.quantisation.integers import IntegerNetwork, IntegerStep, reads_input
from tvmmobile.quantisation.lowering import named_layers
from tvmmobile.quantisation.mixed import FoundAssignment, Quantiser, chosen_layers, decibels_below, quantise_within
from tvmmobile.quantisation.scales import Scale
from tvmmobile.schedules import all_templates
from tvmmobile.system.errors import UserError

_REFERENCE_SEED = 20170417  # the day arXiv 1704.04861 was submitted; any fixed number would do
#: Seed of the images that reveal which layers must stay in float32.
_SEEDS = (_REFERENCE_SEED, _REFERENCE_SEED + 1)
#: Calibration data on which the manifest's signal-to-noise ratios are measured.
_RATIO_IMAGES = 8
#: Reason for layers that no int8 kernel takes.
_NO_KERNEL = "no int8 kernel"
#: Reason for layers that an int8 kernel would slow down.
_FASTER = "faster in float32"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network for the planner.

    Attributes:
        inputs: inputs of the library's reference outputs.
        integers: the network in exact integers on the host, if that is what the library computes.
        details: the manifest's entries on how numbers are stored.
    """

    network: Network
    inputs: tuple[Array, ...]
    integers: IntegerNetwork | None = None
    details: dict[str, Any] = field(default_factory=dict)


def prepared(imported: Imported, job: VariantJob, dump_dir: Path | None, quantise: Quantiser = quantise_within) -> Prepared:
    """Prepare a job's network; raise `UserError` where it, or its calibration data, cannot be used.

    Args:
        quantise: chooses the integer layers of a network that is calibrated here.
    """
    elementary.register()  # constants are folded identically in every build of a process
    precision, outside = job.options.precision, job.options.io_precision

    def accepts(layer: Layer) -> bool:
        return not (precision.is_integer and layer.apart_in_integers) and _is_composed(layer, job, precision)

    inputs = with_states(job.states, inputs_but(job.states, _noise(imported.spec, _REFERENCE_SEED)))
    if precision.is_integer and imported.scales is not None:
        if imported.spec.input_shape[0] != 1:
            raise _unfit_for_integers(imported.spec, "a batch of 1")
        return _as_given(imported, imported.scales, job, inputs, dump_dir)
    composed = compose(imported.module, accepts, dump_dir, whole_chains=precision.is_integer)
    if job.calibration is not None:
        _check_quantised(imported.spec)
        return _quantised(composed, job, job.calibration, imported.spec.returns[0].classes, quantise)
    if precision.bytes >= FLOAT32.bytes:
        module, layers = lower_to_kernels(composed, precision, outside=outside)
        return Prepared(read_network(module, _with_small_weights(layers, job)), inputs)
    wide = read_network(*lower_to_kernels(composed))
    images, names = [_noise(imported.spec, seed) for seed in _SEEDS], names_of(wide)
    float32_layers = layers_to_keep(wide, images, precision, job.options.max_error)
    apart = {names[node]: precision_named(precision.single) for node in single_term_layers(wide, images, precision)}
    apart |= {names[one.node]: FLOAT32 for one in float32_layers}
    network = replace(read_network(*lower_to_kernels(composed, precision, apart, outside)), float32_layers=float32_layers)
    return Prepared(network, inputs, None, _float32_entry(float32_layers))


def _is_composed(layer: Layer, job: VariantJob, precision: Precision) -> bool:
    """Return whether a template takes a layer as networks in a precision have it."""
    wanted = layer.composed_as(precision)
    return wanted is not None and template_accepts(replace(job.task((layer,)), dtype=wanted.name))


def _with_small_weights(layers: Mapping[str, ComposedLayer], job: VariantJob) -> Mapping[str, ComposedLayer]:
    """Return a float32 network's layers with weights as the job stores them, rounded to that, where a kernel takes them."""
    name = job.options.weights
    if name == FLOAT32.name:
        return layers

    def stored(found: ComposedLayer) -> ComposedLayer:
        weight = found.parameters.weight
        if not isinstance(found.layer, SumLayer) or not fits(weight, name):
            return found
        layer = found.layer.with_weights(name)
        if not template_accepts(job.task((layer,))):
            return found
        return replace(found, layer=layer, parameters=replace(found.parameters, weight=rounded(weight, name)))

    return {key: stored(found) for key, found in layers.items()}


def single_term_layers(network: Network, images: Sequence[tuple[Array, ...]], precision: Precision) -> list[int]:
    """Return the nodes of the layers that `Precision.single` is for."""
    layers = {node: found.layer for node, found in enumerate(network.nodes)}
    found = [node for node, one in layers.items() if one.summed_channels % precision.group]
    if not found:
        return []
    unfit = {one.node for one in layers_to_keep(network, images, precision_named(precision.single))}
    return [node for node in found if node not in unfit]


def _noise(spec: ModelSpec, seed: int) -> tuple[Array, ...]:
    """Return inputs of noise, see `Port.noise`."""
    generator = np.random.default_rng(seed)
    return tuple(port.noise(generator) for port in spec.takes)


def _check_quantised(spec: ModelSpec) -> None:
    """Raise `UserError` for what cannot be quantised: calibration data are values of one input, and errors those of one output."""
    ports = (*spec.takes, *spec.returns)
    if len(ports) > 2 or any(port.dtype != FLOAT32.name for port in ports) or spec.input_shape[0] != 1:
        raise _unfit_for_integers(spec, f"one input of a batch of 1 and one output in {FLOAT32.name}")


def _unfit_for_integers(spec: ModelSpec, wanted: str) -> UserError:
    there = "; ".join(map(str, (*spec.takes, *spec.returns)))
    return UserError(f"{INT8.name} is for networks with {wanted}, not {there}.", "Leave out --dtype.")


def _float32_entry(layers: Sequence[Float32Layer]) -> dict[str, Any]:
    return {"float32_layers": [asdict(layer) for layer in layers]} if layers else {}


def _quantised(composed: ComposedNetwork, job: VariantJob, data: CalibrationData, classes: int, quantise: Quantiser) -> Prepared:
    """Quantise a network of that many classes, except layers that no kernel takes or that are faster in float32."""
    images = replace(data.images(), labels=data.labels(classes))
    check_values(data, images)

    def task(layer: Layer) -> Task:
        return job.task((layer,))

    @cache
    def accepts(layer: Layer) -> bool:
        return template_accepts(task(layer)) and not is_faster_in_floats(task(layer))

    wide = read_network(*lower_in_nhwc(composed))
    flow = flow_of(wide)
    method = best_method(flow, images, accepts)
    method = with_seven_bit_weights(flow, images, method, accepts, lambda layer, weight: gains_by_smaller_weights(task(layer), weight))
    pricing = partial(layer_costs, job, composed, wide, accepts)
    mixed = quantise(flow, images, method, accepts, chosen_layers(flow, job.options.keep), job.options.limit(), pricing)
    integers, decision = mixed.network, mixed.decision
    method = decision.method
    names = names_of(wide)
    layers = named_layers(integers, names)
    network = read_network(*lower_in_integers(composed, layers.quantised, layers.floats, accepts))
    nodes = {name: node for node, name in enumerate(names_of(network)) if name}

    def why(name: str) -> str:
        number = names.index(name)
        return decision.float32_reasons.get(number) or _left_out(flow.steps[number], task)

    floats = tuple(Float32Layer(node, network.nodes[node].layer.name, why(name)) for name, node in nodes.items() if name in layers.floats)
    ratios = integers.signal_to_noise_db(images.some(_RATIO_IMAGES).batches(), integers.flow)
    found = {
        "calibration": data.given,
        "inputs": images.count,
        "ranges": method.ranges,
        "equalised": method.equalise,
        "corrected": method.correct,
        "labelled": bool(images.labels),
        **({} if decision.found is None else {"max_drop": _drop(str(job.options.max_drop), decision.found)}),
        "layers": [
            {**_scales(step, nodes[names[number]], network), "narrow": number in method.seven_bit_steps, **_quality(ratios[number])}
            for number, step in integers.steps.items()
        ],
    }
    details = {"quantisation": found, **_float32_entry(floats)}
    return Prepared(replace(network, float32_layers=floats), (images.read([0]),), integers, details)


def _drop(limit: str, found: FoundAssignment) -> dict[str, Any]:
    """Return the manifest's entry on the layers that `--max-drop` keeps in float32: predicted latencies, and noise below the output."""
    predicted = found.predicted
    return {
        "limit": limit,
        "latency_us": round(predicted.latency_us, 1),
        "no_other_below_us": round(predicted.bound_us, 1),
        "estimated_us": round(predicted.estimated_us, 1),
        "int8_us": round(found.plain_us, 1),
        "predicted_db": decibels_below(found.predicted_noise),
        "measured_db": decibels_below(found.noise),
        "bound_db": decibels_below(found.most_noise),
        "tried": found.rounds,
    }


def _left_out(step: FlowStep, task: Callable[[Layer], Task]) -> str:
    """Return the reason why a layer that nobody asked to keep in float32 is there."""
    layer = step.layer
    if isinstance(layer, IntegerLayer):
        layer = layer.as_integers(FLOAT32.name * reads_input(step), "")
    return _FASTER if is_faster_in_floats(task(layer)) else _NO_KERNEL


def is_faster_in_floats(task: Task) -> bool:
    """Return whether an integer layer's kernel takes longer than one in float32."""
    return any(template.faster_in_floats(task) for template in all_templates())


def gains_by_smaller_weights(task: Task, weight: Array) -> bool:
    """Return whether an integer layer's kernel is faster if its weights are as small as `integer_step` makes them."""
    return any(template.gains_by_smaller_weights(task, weight) for template in all_templates())


def _as_given(
    imported: Imported,
    scales: WeightScales,
    job: VariantJob,
    inputs: tuple[Array, ...],
    dump_dir: Path | None,
) -> Prepared:
    """Prepare a network that its file has quantised; `inputs` are the library's reference."""

    def accepts(layer: Layer) -> bool:
        return template_accepts(job.task((layer,)))

    def composes(layer: Layer) -> bool:
        return accepts(layer) if is_sum(layer) else _is_composed(layer, job, job.options.precision)

    def least(layer: Layer) -> int:
        exact = "dot" in job.task((layer,)).machine.has and not layer.is_depthwise  # others add two products in 16 bits
        return LOWEST if exact else -HIGHEST

    def accepts_sums(found: ComposedLayer) -> bool:
        weight, returns_floats = found.parameters.weight, dict[str, Any](writes=FLOAT32.name)
        return accepts(replace(found.layer, **returns_floats)) and not unfit_weights(weight, scales.of(weight), least(found.layer))

    composed = compose_quantised(imported.module, accepts, composes, accepts_sums, dump_dir)
    wide = read_network(*lower_in_nhwc(composed))
    flow, names = flow_of(wide), names_of(wide)
    found = with_stored_scales(flow, scales.of, accepts, least, chosen_layers(flow, job.options.keep))
    if not found.network.steps:
        return _in_floats(imported, job, inputs, _commonest(found.floats), dump_dir)
    lowered = named_layers(found.network, names)
    network = read_network(*lower_in_integers(composed, lowered.quantised, lowered.floats, accepts))
    nodes = {name: node for node, name in enumerate(names_of(network)) if name}
    floats = tuple(
        Float32Layer(nodes[names[number]], flow.steps[number].layer.name, why)
        for number, why in found.floats.items()
        if names[number] in nodes  # a gate in float32 is a product again
    )
    entries = [_scales(step, nodes[names[number]], network) for number, step in found.network.steps.items()]
    details = {"quantisation": {"calibration": None, "layers": entries}, **_float32_entry(floats)}
    return Prepared(replace(network, float32_layers=floats), inputs, found.network, details)


def _in_floats(imported: Imported, job: VariantJob, inputs: tuple[Array, ...], why: str, dump_dir: Path | None) -> Prepared:
    """Prepare a quantised network of which no int8 kernel takes a layer, for a reason: all of it is in float32, where layers have more
    forms.
    """

    def accepts(layer: Layer) -> bool:
        return _is_composed(layer, job, FLOAT32)

    network = read_network(*lower_to_kernels(compose(imported.module, accepts, dump_dir)))
    in_float32 = [(number, node) for number, node in enumerate(network.nodes) if node.dtype == FLOAT32.name]
    floats = tuple(Float32Layer(number, node.layer.name, why) for number, node in in_float32)
    details = {"quantisation": {"calibration": None, "layers": []}, **_float32_entry(floats)}
    return Prepared(replace(network, float32_layers=floats), inputs, None, details)


def _commonest(reasons: Mapping[int, str]) -> str:
    """Return the reason that most layers have."""
    return max(reasons.values(), key=list(reasons.values()).count, default="there is none")


def _quality(ratio: float) -> dict[str, Any]:
    """Return the manifest's signal-to-noise ratio of a layer's output, with the error of all layers before it."""
    return {"signal_to_noise_db": round(ratio, 1) if math.isfinite(ratio) else None}


def _scales(step: IntegerStep, node: int, network: Network) -> dict[str, Any]:
    """Return the manifest's entry for an integer layer: its node here and its number in float32, the scales and zero points of what it
    reads and writes, and its weights' scales and bits.
    """
    weight = step.parameters.weight
    return {
        "node": node,
        "number": step.step.number,
        "layer": network.nodes[node].layer.name,
        "kind": network.nodes[node].layer.kind,
        "channels": network.nodes[node].layer.output_shape[-1],
        "dtype": INT8.name,
        "reads": _scale(step.read),
        **({} if step.side is None else {"adds": _scale(step.side)}),
        "writes": None if step.written is None else _scale(step.written),
        "weight_scales": [float(step.weight_scale.min()), float(step.weight_scale.max())],
        **({"weight_bits": 7 if max(weight.max(), -int(weight.min())) <= SEVEN_BITS else 8} if weight.size else {}),
    }


def _scale(scale: Scale) -> dict[str, float | int]:
    return {"scale": scale.step, "zero": scale.zero}
