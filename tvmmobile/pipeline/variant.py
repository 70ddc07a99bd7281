"""A job's network, imported and prepared once for all stages of a run, which find it in a file."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from functools import partial

from tvmmobile.graph.layers import Array
from tvmmobile.graph.precision import FLOAT32, INT8
from tvmmobile.kernels.reference import network_error
from tvmmobile.networks.frontend import Imported, imported_torch
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.own.loading import load_again
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.prepared_variant import NetworkOrigin, PreparedVariant
from tvmmobile.pipeline.rounded_reference import round_weights
from tvmmobile.running.library import Reference


def prepare_variant(job: VariantJob, with_reference: bool = True, imported: Imported | None = None) -> PreparedVariant:
    """Read a job's network from the file of an earlier stage, or import and prepare it, and write that file if the job names one.

    Where `with_reference` is false, reference outputs, which take a run of the network, are left out, and nothing is written. A network
    that is already `imported` is not imported again.

    Raises `UserError` where the network, or its calibration data, cannot be used.
    """
    file = job.prepared
    if file is not None and file.is_file():
        return PreparedVariant.read(file)
    from tvmmobile.pipeline.prepared import prepared

    imported = import_variant(job) if imported is None else imported
    ready = prepared(imported, job, job.dump_dir)
    origin = NetworkOrigin(imported.weights, imported.reference_program, imported.macs, imported.parameters, imported.scales is not None)
    if not with_reference:
        return PreparedVariant(ready.network, Reference(ready.inputs, ()), origin, None, ready.details)
    outputs = imported.compute(ready.inputs)
    integers = None if ready.integers is None else ready.integers.results(ready.inputs)
    if integers is not None and not origin.quantised:
        origin, outputs = _integer_reference(origin, outputs, integers)
    details = dict(ready.details)
    if job.options.weights != FLOAT32.name:
        rounding = round_weights(ready.network, ready.inputs, outputs, job.options.weights)
        origin, outputs = replace(origin, reference_program=f"{origin.reference_program}, {rounding.where}"), rounding.outputs
        details["small_weights"] = rounding.entry
    variant = PreparedVariant(ready.network, Reference(ready.inputs, outputs), origin, integers, details)
    if file is not None:
        with suppress(OSError):  # if the disk is full, each stage prepares the network itself
            variant.write(file)
    return variant


def _integer_reference(
    origin: NetworkOrigin, outputs: tuple[Array, ...], integers: tuple[Array, ...]
) -> tuple[NetworkOrigin, tuple[Array, ...]]:
    """Return the origin and outputs to compare a library in integers with: exact integers where quantisation moves the outputs too far,
    such as those of a detector that chooses other boxes.
    """
    loss = network_error(integers, outputs)
    if not INT8.network_tolerance < loss < math.inf:
        return origin, outputs
    program = f"its exact integers, which are {loss:.2g} off {origin.reference_program}"
    return replace(origin, reference_program=program, loss=float(f"{loss:.2g}")), integers


def import_variant(job: VariantJob) -> Imported:
    """Import a job's network; raise `UserError` where that cannot be done."""
    return import_model(job.model)


def import_model(model: Model) -> Imported:
    """Import a network; raise `UserError` where that cannot be done."""
    if model.own is not None:
        return load_again(model.own, model.spec, model.checkpoint, model.seed)
    from tvmmobile.networks.torch_trace import trace_module

    built = build_torch_model(model.spec, model.checkpoint, model.seed)
    return replace(imported_torch(model.spec, built.module, built.weights), trace=partial(trace_module, built.module))
