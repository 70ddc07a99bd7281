"""A job's network in the form that the planner reads, in its precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile.graph.composed import ComposedLayer
from tvmmobile.graph.layers import Array, Layer, SumLayer
from tvmmobile.graph.network import Float32Layer, Network, names_of, read_network
from tvmmobile.graph.passes.pipeline import ComposedNetwork, compose, lower_to_kernels
from tvmmobile.graph.precision import FLOAT32, Precision, precision_named
from tvmmobile.graph.small_weights import fits, rounded
from tvmmobile.kernels import elementary
from tvmmobile.kernels.simulation import layers_to_keep
from tvmmobile.networks.frontend import Imported
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.quantised import WeightScales
from tvmmobile.networks.states import inputs_but, with_states
from tvmmobile.pipeline.integer_limits import check_given
from tvmmobile.pipeline.job import VariantJob, template_accepts
from tvmmobile.pipeline.precision_costs import layer_costs
from tvmmobile.pipeline.precision_entries import calibrated_entry, float32_entry, given_entry
from tvmmobile.quantisation.calibration import Accepts, Method
from tvmmobile.quantisation.data import CalibrationData, check_values
from tvmmobile.quantisation.flow import Flow
from tvmmobile.quantisation.given import prepare_given
from tvmmobile.quantisation.integers import IntegerNetwork
from tvmmobile.quantisation.kept import chosen_layers
from tvmmobile.quantisation.mixed import Mixed, quantise_within
from tvmmobile.quantisation.prepare import prepare_calibrated
from tvmmobile.running.formats import C
from tvmmobile.schedules.emit.expansion import is_expandable

_REFERENCE_SEED = 20170417  # the day arXiv 1704.04861 was submitted; any fixed number would do
#: Seed of the images that reveal which layers must stay in float32.
_SEEDS = (_REFERENCE_SEED, _REFERENCE_SEED + 1)


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


def prepared(imported: Imported, job: VariantJob, dump_dir: Path | None) -> Prepared:
    """Prepare a job's network; raise `UserError` where it, or its calibration data, cannot be used."""
    elementary.register()  # constants are folded identically in every build of a process
    precision, outside = job.options.precision, job.options.io_precision

    def accepts(layer: Layer) -> bool:
        return not (precision.is_integer and layer.apart_in_integers) and _is_composed(layer, job, precision)

    inputs = with_states(job.states, inputs_but(job.states, _noise(imported.spec, _REFERENCE_SEED)))
    if precision.is_integer and imported.scales is not None:
        check_given(imported.spec)
        return _given(imported, imported.scales, job, inputs, dump_dir)
    composed = compose(imported.module, accepts, dump_dir, whole_chains=precision.is_integer)
    if job.calibration is not None:
        return _calibrated(composed, job, job.calibration, imported.spec.scored_classes)
    if precision.bytes >= FLOAT32.bytes:
        module, layers = lower_to_kernels(composed, precision, outside=outside)
        return Prepared(read_network(module, _with_small_weights(layers, job)), inputs)
    wide = read_network(*lower_to_kernels(composed))
    images, names = [_noise(imported.spec, seed) for seed in _SEEDS], names_of(wide)
    float32_layers = layers_to_keep(wide, images, precision, job.options.max_error)
    apart = {names[node]: precision_named(precision.single) for node in single_term_layers(wide, images, precision)}
    apart |= {names[one.node]: FLOAT32 for one in float32_layers}
    network = read_network(*lower_to_kernels(composed, precision, apart, outside))
    float32_layers = _with_wide_layers(float32_layers, wide, network, apart)
    network = replace(network, float32_layers=float32_layers)
    return Prepared(network, inputs, None, float32_entry(float32_layers))


def _with_wide_layers(
    kept: Sequence[Float32Layer], wide: Network, network: Network, apart: Mapping[str, Precision]
) -> tuple[Float32Layer, ...]:
    """Return the layers kept in float32, and those that the conversion of the `wide` network left in it; see `passes.wide_values`."""
    types = {name: node.dtype for name, node in zip(names_of(network), network.nodes, strict=True)}
    found = [
        Float32Layer(number, node.layer.name, "for sums and powers beyond its range, or constants that it makes 0 or infinite")
        for number, (name, node) in enumerate(zip(names_of(wide), wide.nodes, strict=True))
        if name and name not in apart and types.get(name) == FLOAT32.name
    ]
    return tuple(sorted((*kept, *found), key=lambda layer: layer.node))


def _is_composed(layer: Layer, job: VariantJob, precision: Precision) -> bool:
    """Return whether a template takes a layer as networks in a precision have it."""
    wanted = layer.composed_as(precision)
    return wanted is not None and template_accepts(replace(job.task((layer,)), dtype=wanted.name))


def _with_small_weights(layers: Mapping[str, ComposedLayer], job: VariantJob) -> Mapping[str, ComposedLayer]:
    """Return a float32 network's layers with weights as the job stores them, rounded to that, where a kernel or `init` takes them."""
    name = job.options.weights
    if name == FLOAT32.name:
        return layers

    def stored(found: ComposedLayer) -> ComposedLayer:
        weight = found.parameters.weight
        if not isinstance(found.layer, SumLayer) or not fits(weight, name):
            return found
        near = replace(found.parameters, weight=rounded(weight, name))
        layer = found.layer.with_weights(name)
        if template_accepts(job.task((layer,))):
            return replace(found, layer=layer, parameters=near)
        if job.options.format == C and is_expandable(found.layer):
            return replace(found, parameters=replace(near, stored=name))
        return found

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


def _calibrated(composed: ComposedNetwork, job: VariantJob, data: CalibrationData, classes: int) -> Prepared:
    """Quantise a network of that many classes."""
    samples = replace(data.samples(), labels=data.labels(classes))
    check_values(data, samples)
    options = job.options

    def choose(wide: Network, flow: Flow, method: Method, accepts: Accepts) -> Mixed:
        pricing = partial(layer_costs, job, composed, wide, accepts)
        return quantise_within(flow, samples, method, accepts, chosen_layers(flow, options.keep), options.limit(), pricing)

    found = prepare_calibrated(composed, samples, job.task, choose)
    entry = calibrated_entry(found, data.given, samples, options.max_drop)
    reference = with_states(job.states, inputs_but(job.states, samples.read([0])))
    return _quantised(found.network, reference, found.integers, entry)


def _given(imported: Imported, scales: WeightScales, job: VariantJob, inputs: tuple[Array, ...], dump_dir: Path | None) -> Prepared:
    """Prepare a network that its file has quantised: in float32, where layers have more forms, if no int8 kernel takes a layer."""
    accepts = partial(_is_composed, job=job, precision=job.options.precision)
    found = prepare_given(imported.module, scales, job.task, accepts, job.options.keep, dump_dir)
    if not isinstance(found, str):
        return _quantised(found.network, inputs, found.integers, given_entry(found))
    accepts = partial(_is_composed, job=job, precision=FLOAT32)
    network = read_network(*lower_to_kernels(compose(imported.module, accepts, dump_dir)))
    in_float32 = [(number, node) for number, node in enumerate(network.nodes) if node.dtype == FLOAT32.name]
    floats = tuple(Float32Layer(number, node.layer.name, found) for number, node in in_float32)
    return _quantised(replace(network, float32_layers=floats), inputs, None, given_entry(None))


def _quantised(network: Network, inputs: tuple[Array, ...], integers: IntegerNetwork | None, entry: dict[str, Any]) -> Prepared:
    return Prepared(network, inputs, integers, {"quantisation": entry, **float32_entry(network.float32_layers)})
