"""Builds a variant's library, manifest and reference output from the tuning logs alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile import __version__
from tvmmobile.graph.network import Float32Layer
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import export
from tvmmobile.native.sets import LoweredSet
from tvmmobile.native.source import Description, interface_version, prefix_of
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.networks.signature import INPUT_NAME, OUTPUT_NAME, keys_of
from tvmmobile.networks.states import inputs_but, outputs_but
from tvmmobile.pipeline.checking import check, handed_over, unchecked
from tvmmobile.pipeline.diagnosis import Difference, first_difference
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.manifest import image_entry, kernel_entry, set_entry, sparse_entry, state_entries, with_shortcuts, write_manifest
from tvmmobile.pipeline.movement import rounding
from tvmmobile.pipeline.planning import PlannedVariant, fastest_threads, plan_variant
from tvmmobile.pipeline.prepared_variant import PreparedVariant
from tvmmobile.pipeline.sharing import Shared, share_weights
from tvmmobile.pipeline.variant import import_variant
from tvmmobile.running.formats import C
from tvmmobile.running.library import Library
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import replacing
from tvmmobile.system.toolchain import toolchain
from tvmmobile.tuning.claims import RefusedLine
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.plan import PlannedKernel, Price
from tvmmobile.tuning.search.twin import rank_correlation, records_of_twin


@dataclass(frozen=True)
class BuiltVariant:
    """A library, and the log records that were ignored when its schedules were chosen.

    Attributes:
        refused: lines that hold no record, or one that cannot be true; paths begin with the number of the directory in `VariantJob.logs`,
            which has another name where the job was done on another machine.
        outdated: number of records that rest on another timing model.
        float32_layers: layers that stay in float32 where the others do not.
        rounding, loss: values as the manifest has them.
        max_drop: the manifest's entry on what `--max-drop` found, if layers had to be kept.
        small_weights: the manifest's, if the job has `--weights`.
        shared_weights: the manifest's, if the job has several sets of kernels that share weights.
    """

    library: Library
    refused: tuple[RefusedLine, ...]
    outdated: int
    float32_layers: tuple[Float32Layer, ...] = ()
    rounding: float = 0.0
    loss: float | None = None
    max_drop: Mapping[str, Any] | None = None
    small_weights: Mapping[str, Any] | None = None
    shared_weights: Mapping[str, Any] | None = None


def build(job: VariantJob, plan: Callable[[VariantJob], PlannedVariant] = plan_variant) -> BuiltVariant:
    """Compile a variant; write library, manifest and reference, each atomically; return the library and remarks on the logs.

    Raises `UserError` if the network or the toolchain makes it impossible, `Disagreement` if the library is checked and is wrong.
    """
    if job.unchecked:
        return _built(job, _plans(job, plan))
    with handed_over(job.out) as folder:
        unseen = replace(job, out=folder)
        shared = _plans(unseen, plan)
        built = _built(unseen, shared)
        inputs = shared.plans[0].prepared.reference.inputs

        def explain(place: int, moves: float) -> Difference | None:
            return first_difference(job.sets[place], shared.plans[place], moves)

        check(built.library, lambda: rounding(job, import_variant(job), inputs), explain)
        widened = built.library.facts.rounding
    return replace(built, library=job.library, rounding=widened)


def _plans(job: VariantJob, plan: Callable[[VariantJob], PlannedVariant]) -> Shared:
    """Plan a job's sets of kernels, the first one by `plan`."""
    return share_weights([plan(job), *map(plan_variant, job.others)], job.share_percent)


def _built(job: VariantJob, shared: Shared) -> BuiltVariant:
    """Write a planned variant's files, without running the library."""
    tools = toolchain(job.profile.target)
    library, plans = job.library, shared.plans
    planned = plans[0]
    kernels = [_kernel_entries(*each) for each in zip(job.sets, plans, strict=True)]
    details: dict[str, Any] = unchecked(job.unchecked)
    if job.options.format == C:
        details |= _write_c_library(job, plans, kernels)
    else:
        export(planned.compiled(job.profile.target), library.path, tools)
    _write_reference(job, planned.prepared)
    details |= _sparse_entry(planned) | ({} if shared.entry is None else {"shared_weights": shared.entry})
    small = _small_weights_entry(planned)
    details |= with_shortcuts(planned.prepared.details, planned.shortcuts()) | ({} if small is None else {"small_weights": small})
    write_manifest(job, planned.prepared.origin, kernels[0], details)
    refused = {
        _placed(line, each.logs): None
        for each, plan in zip(job.sets, plans, strict=True)
        for database in dict.fromkeys((plan.database, plan.basis))
        for line in database.refused
    }
    outdated = max(plan.database.outdated for plan in plans)
    prepared = planned.prepared
    max_drop = prepared.details.get("quantisation", {}).get("max_drop")
    return BuiltVariant(
        library,
        tuple(refused),
        outdated,
        planned.network.float32_layers,
        loss=prepared.origin.loss,
        max_drop=max_drop,
        small_weights=small,
        shared_weights=shared.entry,
    )


def _small_weights_entry(planned: PlannedVariant) -> dict[str, Any] | None:
    """Return the manifest's entry on weights in fewer bits, without layers whose kernels need them in float32 after all."""
    entry: dict[str, Any] | None = planned.prepared.details.get("small_weights")
    kept = planned.weights_not_stored()
    return entry and {**entry, "layers": entry["layers"] - len(kept), "weights": entry["weights"] - sum(kept)}


def _sparse_entry(planned: PlannedVariant) -> dict[str, Any]:
    """Return the manifest's entry on the gain of sparse kernels, if the device's own records show it."""
    return sparse_entry(planned.steps, planned.dense_us) if planned.basis is planned.database else {}


def _kernel_entries(job: VariantJob, planned: PlannedVariant) -> list[dict[str, Any]]:
    """Return the manifest's entries on the kernels of a plan."""
    database, basis = planned.database, planned.basis
    measured = basis is database
    steps = planned.steps if measured else tuple(_unmeasured(step, basis) for step in planned.steps)
    ranks = _ranks(job, database, planned.steps)
    macs = [sum(node.macs for node in planned.network.nodes[step.first : step.last + 1]) for step in steps]
    return [
        kernel_entry(
            step,
            planned.choices[step.task].schedule,
            count,
            ranks,
            database.trials(step.task).course() if measured else (),
            planned.zeros(step),
        )
        for step, count in zip(steps, macs, strict=True)
    ]


def _placed(line: RefusedLine, logs: Sequence[Path]) -> RefusedLine:
    """Return the line with its path in the form of `BuiltVariant.refused`; lines of the shipped logs, from which a twin's records always
    come, keep theirs.
    """
    for number, directory in enumerate(logs):
        if line.path.is_relative_to(directory):
            return replace(line, path=Path(str(number)) / line.path.relative_to(directory))
    return line


def _unmeasured(step: PlannedKernel, basis: Database) -> PlannedKernel:
    """Return a kernel that was chosen by another device's records, without its latency, and with the records' origin in the reason."""
    device = basis.identity.device
    price = Price(None, f"{step.price.source}, modelled on {device}; never measured here")
    return replace(step, price=price, reason=f"by records modelled on {device}: {step.reason}")


def _ranks(job: VariantJob, database: Database, steps: tuple[PlannedKernel, ...]) -> dict[Task, float | None]:
    """Return each kernel's rank correlation between the twin's modelled latencies and the measured ones; empty without a twin."""
    if job.twin is None:
        return {}
    twin = records_of_twin(job.twin, job.logs)
    return {step.task: rank_correlation(database, twin, step.task) for step in steps}


def _write_c_library(job: VariantJob, plans: Sequence[PlannedVariant], kernels: Sequence[list[dict[str, Any]]]) -> dict[str, Any]:
    """Write the C library; return its manifest entries."""
    from tvmmobile.native.library import write_sets

    spec, states = job.library.spec, job.states
    cores = " ".join(str(each.profile.target["mcpu"]) for each in job.sets)
    names = (prefix_of(spec.variant), spec.variant, __version__, cores)
    images = job.options.image
    image = None if images is None else Preprocessing(spec.resolution, images.mean, images.std)
    description = Description(*names, job.options.threads, spec.takes, spec.returns, image, states)
    fastest = [fastest_threads(each, plan) for each, plan in zip(job.sets, plans, strict=True)]
    sets = [
        LoweredSet(module, each.profile.target, plan.separate, each.identity.device, count, expansions)
        for each, plan, count in zip(job.sets, plans, fastest, strict=True)
        for module, expansions in [plan.lowered()]
    ]
    written = write_sets(sets, description, job.library.path, job.options.archive, job.suitability)
    details: dict[str, Any] = {"prefix": description.prefix, "interface": interface_version(), **asdict(written.whole)}
    if states:
        details["states"] = state_entries(job.spec, states, job.options.io_precision)
    if image is not None:
        details["image"] = image_entry(image)
    entries = [
        set_entry(each, asdict(sizes), count, listed) | _sparse_entry(plan)
        for each, sizes, count, listed, plan in zip(job.sets, written.sets, fastest, kernels, plans, strict=True)
    ]
    return {"format": C, "c": details, "fastest_threads": fastest[0], **({"sets": entries} if job.others else {})}


def _write_reference(job: VariantJob, variant: PreparedVariant) -> None:
    """Write inputs and the network's outputs for them, see `Library.reference`; in an integer network, also the exact integer outputs from
    the host, as `integers`.
    """
    spec, (inputs, outputs) = job.library.spec, variant.reference
    if not all(np.isfinite(output).all() for output in outputs):
        raise UserError(
            f"{spec.variant} returns values that are not finite for white noise, by {variant.origin.reference_program}.",
            "Check its weights.",
        )
    arrays: dict[str, Any] = dict(zip(keys_of(spec.takes, INPUT_NAME), inputs_but(job.states, inputs), strict=True))
    arrays |= dict(zip(keys_of(spec.returns, OUTPUT_NAME), outputs_but(job.states, outputs), strict=True))
    if variant.integers is not None:
        arrays |= dict(zip(keys_of(spec.returns, "integers"), outputs_but(job.states, variant.integers), strict=True))
    with replacing(job.library.reference_path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)
