"""The order of the graph passes. Nothing else knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tvm import relax

from tvmmobile.graph.bindings import bindings_of
from tvmmobile.graph.composed import ComposedLayer, QuantisedLayer
from tvmmobile.graph.expressions import operator_of
from tvmmobile.graph.layers import Layer
from tvmmobile.graph.passes.activations import clamp_to_min_max, one_form_of_hard_activations
from tvmmobile.graph.passes.attention import attention
from tvmmobile.graph.passes.attention_scores import unmasked_rows
from tvmmobile.graph.passes.average_pools import average_pools
from tvmmobile.graph.passes.biases import bias_into_batch_norm, fold_factors, spell_batch_norms, zero_bias
from tvmmobile.graph.passes.booleans import compare_booleans
from tvmmobile.graph.passes.canonical_names import canonical_names
from tvmmobile.graph.passes.channel_constants import channel_constants
from tvmmobile.graph.passes.channel_means import channel_means
from tvmmobile.graph.passes.channel_order import order_channels
from tvmmobile.graph.passes.channels_last import channels_last
from tvmmobile.graph.passes.compose_layers import LayerComposer
from tvmmobile.graph.passes.flat_images import flat_images
from tvmmobile.graph.passes.fold_constants import fold_constants
from tvmmobile.graph.passes.fold_rest import fold_rest
from tvmmobile.graph.passes.given_resizes import given_resizes
from tvmmobile.graph.passes.input_pieces import integer_pieces
from tvmmobile.graph.passes.input_steps import input_steps
from tvmmobile.graph.passes.joined_copies import joined_copies
from tvmmobile.graph.passes.joined_views import joined_views
from tvmmobile.graph.passes.legalized import legalize
from tvmmobile.graph.passes.linear_layers import linear_layers
from tvmmobile.graph.passes.lookup_tables import looked_up_results, lookup_tables
from tvmmobile.graph.passes.neutral_steps import neutral_steps
from tvmmobile.graph.passes.norms import group_norms, layer_norms_of_images, rms_norms
from tvmmobile.graph.passes.output_layouts import output_layouts
from tvmmobile.graph.passes.outputs import copied_outputs, separate_outputs
from tvmmobile.graph.passes.pads import pads_of_layers
from tvmmobile.graph.passes.parallel_branches import parallel_branches
from tvmmobile.graph.passes.plain_views import plain_views, unit_permute_to_reshape
from tvmmobile.graph.passes.prelu import spell_prelus
from tvmmobile.graph.passes.products import computed_weights, temperatures, transposed_products
from tvmmobile.graph.passes.recurrent_layers import recurrent_layers
from tvmmobile.graph.passes.resized_pieces import resized_pieces
from tvmmobile.graph.passes.roundings import compose_roundings, simpler_roundings
from tvmmobile.graph.passes.scaled_layers import scaled_layers
from tvmmobile.graph.passes.selected_scores import selected_scores
from tvmmobile.graph.passes.sequences import sequences
from tvmmobile.graph.passes.sliced_permutations import sliced_permutations
from tvmmobile.graph.passes.space_to_depth import space_to_depth
from tvmmobile.graph.passes.split_batch import split_batch
from tvmmobile.graph.passes.split_steps import split_steps
from tvmmobile.graph.passes.standalone_steps import standalone_steps
from tvmmobile.graph.passes.steps_apart import steps_apart
from tvmmobile.graph.passes.sub_pixels import sub_pixels
from tvmmobile.graph.passes.tap_windows import tap_windows
from tvmmobile.graph.passes.to_integers import to_integers
from tvmmobile.graph.passes.to_precision import to_precision
from tvmmobile.graph.passes.transposed_rows import transposed_rows
from tvmmobile.graph.precision import FLOAT32, Precision
from tvmmobile.graph.taps import RESIZE
from tvmmobile.system.files import write_text

Pass = Callable[[Any], Any]
#: Layouts of data and weights. The others would take over the layout of their input, in which they cannot be legalised.
_LAYOUTS = {
    "relax.nn.conv2d": ["NHWC", "HWIO"],
    "relax.nn.conv2d_transpose": ["NCHW", "IOHW"],
    "relax.nn.conv3d": ["NCDHW", "OIDHW"],
    "relax.image.resize3d": ["NCDHW"],
}


@dataclass(frozen=True)
class ComposedNetwork:
    """A network whose layers are composed, before a precision is chosen.

    Attributes:
        module: `main` calls an external function for each layer.
        layers: layers by the name of that function.
        accepts, dump_dir, passes: see `compose`; `passes` is the number done so far.
    """

    module: Any
    layers: Mapping[str, ComposedLayer]
    accepts: Callable[[Layer], bool]
    dump_dir: Path | None
    passes: int


def _composition_passes(composer: LayerComposer, standalone: tuple[str, Pass] | None = None) -> list[tuple[str, Pass]]:
    """Return named passes from the imported network to its layers, in order.

    Args:
        standalone: the pass that makes layers of steps by themselves; without one, steps that change nothing stay as well.
    """
    transform = relax.transform
    return [
        ("split_batch", split_batch),
        ("recurrent_layers", recurrent_layers(composer.accepts, composer.layers)),
        ("compare_booleans", compare_booleans),
        ("pads_of_layers", pads_of_layers),
        ("sequences", sequences),
        ("space_to_depth", space_to_depth),
        ("spell_prelus", spell_prelus),
        ("sub_pixels", sub_pixels),
        ("bias_into_batch_norm", bias_into_batch_norm),
        ("fold_batch_norm", transform.FoldBatchnormToConv2D()),
        ("spell_batch_norms", spell_batch_norms),
        ("fold_constants", fold_constants),
        *([] if standalone is None else [("neutral_steps", neutral_steps)]),
        ("parallel_branches", parallel_branches),
        ("clamp_to_min_max", clamp_to_min_max),
        ("normalize", transform.Normalize()),
        ("one_form_of_hard_activations", one_form_of_hard_activations),
        ("layer_norms_of_images", layer_norms_of_images),
        ("group_norms", group_norms),
        ("rms_norms", rms_norms),
        ("plain_views", plain_views),
        ("transposed_products", transposed_products),
        ("computed_weights", computed_weights),
        ("transposed_rows", transposed_rows),
        ("channel_constants", channel_constants),
        ("average_pools", average_pools),
        ("nhwc", _images_in_nhwc),
        ("normalize_layout", transform.Normalize()),
        ("unit_permute_to_reshape", unit_permute_to_reshape),
        ("fold_layout", fold_constants),
        ("fold_rest", fold_rest),
        ("temperatures", temperatures),
        ("selected_scores", selected_scores),
        ("channels_last", channels_last),
        ("flat_images", flat_images),
        ("linear_layers", linear_layers),
        ("channel_means", channel_means),
        ("zero_bias", zero_bias),
        ("fold_factors", fold_factors),
        ("canonicalize", transform.CanonicalizeBindings()),
        ("separate_outputs", separate_outputs),
        ("channel_order", order_channels),
        ("remove_dead_code", transform.DeadCodeElimination()),
        ("unmasked_rows", unmasked_rows),
        ("attention", attention(composer.accepts, composer.layers)),
        ("compose_layers", composer),
        *([] if standalone is None else [standalone]),
    ]


def _images_in_nhwc(module: Any) -> Any:
    """Convert images to NHWC. Where an input is resized, resizes stay in the layout that they find: inputs are NCHW."""
    main = module["main"]
    inputs = {*main.params} | input_steps(main)
    resized = {binding.value.args[0] for binding in bindings_of(main) if operator_of(binding.value) == RESIZE}
    layouts = _LAYOUTS if resized & inputs else {**_LAYOUTS, RESIZE: ["NHWC"]}
    return relax.transform.ConvertLayout(layouts)(module)


def _lowering_passes(*convert: tuple[str, Pass]) -> list[tuple[str, Pass]]:
    """List the passes from layers to one call per kernel; `convert` bring the network to another precision."""
    transform = relax.transform
    return [
        ("sliced_permutations", sliced_permutations),
        ("joined_views", joined_views),
        *convert,
        ("copied_outputs", copied_outputs),
        ("given_resizes", given_resizes),
        ("legalize_rest", legalize),
        ("reshape_to_view", transform.RewriteDataflowReshape()),
        ("annotate_rest", transform.AnnotateTIROpPattern()),
        ("fuse_rest", transform.FuseOps()),
        ("fuse_rest_tir", transform.FuseTIR()),
        ("remove_dead_functions", transform.DeadCodeElimination()),
        ("canonical_names", canonical_names),
    ]


def compose(module: Any, accepts: Callable[[Layer], bool], dump_dir: Path | None = None, *, whole_chains: bool = False) -> ComposedNetwork:
    """Find the layers of an imported network.

    Args:
        module: Relax module as the front end leaves it.
        accepts: returns whether some template takes a layer.
        dump_dir: folder for the module after each pass, as `NN_name.py`.
        whole_chains: see `standalone_steps`.
    """
    composer = LayerComposer(accepts)
    passes = _composition_passes(composer, ("standalone_steps", standalone_steps(composer, whole_chains)))
    return _composed_network(module, composer, passes, dump_dir)


def compose_quantised(
    module: Any,
    accepts_integers: Callable[[Layer], bool],
    accepts: Callable[[Layer], bool],
    accepts_sums: Callable[[ComposedLayer], bool],
    dump_dir: Path | None = None,
) -> ComposedNetwork:
    """Find the layers and roundings of an imported network that its file has quantised, leaving its steps unchanged.

    Args:
        module, dump_dir: see `compose`.
        accepts_integers: returns whether an integer kernel takes a layer.
        accepts: returns whether a layer is composed.
        accepts_sums: returns whether an integer kernel takes a layer that returns float32, whose weights are integers.
    """
    composer = LayerComposer(accepts)
    passes = [
        ("simpler_roundings", simpler_roundings(accepts_integers)),
        *_composition_passes(composer),
        ("compose_roundings", compose_roundings(composer.layers)),
        ("steps_apart", steps_apart(accepts_sums, accepts, composer.layers)),
    ]
    return _composed_network(module, composer, passes, dump_dir)


def _composed_network(module: Any, composer: LayerComposer, passes: list[tuple[str, Pass]], dump_dir: Path | None) -> ComposedNetwork:
    return ComposedNetwork(_run(module, passes, 0, dump_dir), composer.layers, composer.accepts, dump_dir, len(passes))


def lower_to_kernels(
    composed: ComposedNetwork,
    precision: Precision = FLOAT32,
    precisions: Mapping[str, Precision] = MappingProxyType({}),
    outside: Precision = FLOAT32,
) -> tuple[Any, dict[str, ComposedLayer]]:
    """Bring a network to the form the planner reads, in one precision.

    Args:
        precisions: layers that have another precision, by name.
        outside: precision of the input and output.

    Returns:
        The module, whose `main` calls external functions for composed layers and TIR functions for the rest, and those layers by name.
    """
    layers = dict(composed.layers)
    to_other = to_precision(precision, layers, composed.accepts, precisions, outside)
    convert = [("to_precision", to_other)] if precision != FLOAT32 else []
    views = [("output_layouts", output_layouts(composed.accepts, layers)), ("tap_windows", tap_windows(composed.accepts, layers))]
    # With sums in chains, Strassen's algorithm, which needs one tensor, is out of the question.
    joined = [
        ("joined_copies", joined_copies(composed.accepts, layers)),
        ("resized_pieces", resized_pieces(composed.accepts, layers)),
        ("split_steps", split_steps(composed.accepts, layers)),
    ]
    scaled = [("scaled_layers", scaled_layers(composed.accepts, layers))]
    passes = [*scaled, *(joined if precision.chain else []), *views, *_lowering_passes(*convert)]
    return _run(composed.module, passes, composed.passes, composed.dump_dir), layers


def lower_in_nhwc(composed: ComposedNetwork) -> tuple[Any, dict[str, ComposedLayer]]:
    """Lower in float32 with all images in NHWC, in which integer layers are known."""
    return _run(composed.module, _lowering_passes(), composed.passes, composed.dump_dir), dict(composed.layers)


def lower_in_integers(
    composed: ComposedNetwork,
    quantised: Mapping[str, QuantisedLayer],
    floats: Mapping[str, ComposedLayer],
    accepts: Callable[[Layer], bool],
) -> tuple[Any, dict[str, ComposedLayer]]:
    """Lower with the layers in `quantised` in integers, and those in `floats` in place of the network's, by external function.

    Args:
        accepts: returns whether some template takes an integer layer.
    """
    layers = {**composed.layers, **floats}
    convert = [
        ("to_integers", to_integers(layers, quantised, composed.accepts)),
        ("integer_pieces", integer_pieces(accepts, layers)),
        ("lookup_tables", lookup_tables(accepts, layers)),
        ("looked_up_results", looked_up_results(accepts, layers)),
    ]
    passes = _lowering_passes(*convert)
    return _run(composed.module, passes, composed.passes, composed.dump_dir), layers


def _run(module: Any, passes: list[tuple[str, Pass]], done: int, dump_dir: Path | None) -> Any:
    for index, (name, transform) in enumerate(passes, done):
        module = transform(module)
        if dump_dir is not None:
            write_text(dump_dir / f"{index:02}_{name}.py", module.script(show_meta=False))
    return module
