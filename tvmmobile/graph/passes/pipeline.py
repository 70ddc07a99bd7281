"""The order of the graph passes. Nothing else knows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tvmmobile.graph.layers import Layer
from tvmmobile.graph.passes.activations import clamp_to_min_max, one_form_of_hard_activations
from tvmmobile.graph.passes.average_pools import average_pools
from tvmmobile.graph.passes.biases import bias_into_batch_norm, zero_bias
from tvmmobile.graph.passes.canonical_names import canonical_names
from tvmmobile.graph.passes.channel_order import order_channels
from tvmmobile.graph.passes.compose_layers import ComposedLayer, LayerComposer
from tvmmobile.graph.passes.fold_constants import fold_constants
from tvmmobile.graph.passes.plain_views import plain_views, unit_permute_to_reshape
from tvmmobile.graph.passes.single_output import unwrap_single_output
from tvmmobile.graph.passes.to_precision import to_precision
from tvmmobile.graph.precision import FLOAT32, Precision
from tvmmobile.system.files import write_text

Pass = Callable[[Any], Any]
#: Of data and weights. Transposed convolutions would take over the layout of what they read, and cannot be legalised in it.
_LAYOUTS = {"relax.nn.conv2d": ["NHWC", "HWIO"], "relax.nn.conv2d_transpose": ["NCHW", "IOHW"]}


def prepare_passes(composer: LayerComposer, precision: Precision) -> list[tuple[str, Pass]]:
    """Named passes from the imported network to one call per kernel, in order."""
    from tvm import relax

    transform = relax.transform
    return [
        ("bias_into_batch_norm", bias_into_batch_norm),
        ("fold_batch_norm", transform.FoldBatchnormToConv2D()),
        ("fold_constants", fold_constants),
        ("clamp_to_min_max", clamp_to_min_max),
        ("normalize", transform.Normalize()),
        ("one_form_of_hard_activations", one_form_of_hard_activations),
        ("plain_views", plain_views),
        ("average_pools", average_pools),
        ("nhwc", transform.ConvertLayout(_LAYOUTS)),
        ("normalize_layout", transform.Normalize()),
        ("unit_permute_to_reshape", unit_permute_to_reshape),
        ("fold_layout", fold_constants),
        ("fold_rest", transform.FoldConstant()),
        ("zero_bias", zero_bias),
        ("canonicalize", transform.CanonicalizeBindings()),
        ("unwrap_single_output", unwrap_single_output),
        ("channel_order", order_channels),
        ("remove_dead_code", transform.DeadCodeElimination()),
        ("compose_layers", composer),
        *([] if precision is FLOAT32 else [("to_precision", to_precision(precision, composer))]),
        ("legalize_rest", transform.LegalizeOps()),
        ("reshape_to_view", transform.RewriteDataflowReshape()),
        ("annotate_rest", transform.AnnotateTIROpPattern()),
        ("fuse_rest", transform.FuseOps()),
        ("fuse_rest_tir", transform.FuseTIR()),
        ("remove_dead_functions", transform.DeadCodeElimination()),
        ("canonical_names", canonical_names),
    ]


def prepare(
    module: Any, accepts: Callable[[Layer], bool], dump_dir: Path | None = None, precision: Precision = FLOAT32
) -> tuple[Any, dict[str, ComposedLayer]]:
    """Bring an imported network to the form the planner reads.

    Args:
        module: Relax module as the front end leaves it.
        accepts: whether some template takes a layer.
        dump_dir: where to write the module after each pass, as `NN_name.py`.
        precision: what the network shall compute in.

    Returns:
        The module, whose `main` calls external functions for composed layers and TIR functions for the rest, and those layers by name.
    """
    composer = LayerComposer(accepts)
    for index, (name, transform) in enumerate(prepare_passes(composer, precision)):
        module = transform(module)
        if dump_dir is not None:
            write_text(dump_dir / f"{index:02}_{name}.py", module.script(show_meta=False))
    return module, composer.layers
