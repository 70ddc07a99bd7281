"""A network variant → library, manifest and reference output, from the tuning logs alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile import __version__
from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.graph.layers import Layer, LayerParameters
from tvmmobile.graph.machine import BASELINE, Machine
from tvmmobile.graph.network import KeptLayer, Lowered, Network, lower
from tvmmobile.graph.precision import FLOAT32, Precision
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import export, make_target, pass_context
from tvmmobile.kernels.function import kernel_function, packed_constants
from tvmmobile.kernels.lowering import PIPELINE
from tvmmobile.kernels.serial import Schedule, TraceSchedule, schedule_to_json
from tvmmobile.native.library import write_library
from tvmmobile.native.source import Description, interface_version, prefix_of
from tvmmobile.networks.frontend import Imported, imported_torch
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec, OwnSpec
from tvmmobile.networks.own.loading import files_of, load_again
from tvmmobile.networks.preprocessing import Normalisation, Preprocessing
from tvmmobile.networks.signature import INPUT_NAME, OUTPUT_NAME, Port, keys_of
from tvmmobile.pipeline.prepared import Prepared, prepared, taken
from tvmmobile.quantisation.data import CalibrationData
from tvmmobile.quantisation.mixed import Decision
from tvmmobile.running.formats import C
from tvmmobile.running.library import Library, stem_of
from tvmmobile.running.manifest import MANIFEST_VERSION
from tvmmobile.system.environment import SHIPPED_LOGS, TVM_FFI_VERSION, TVM_VERSION
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import replacing, sha256_of, write_text
from tvmmobile.system.toolchain import toolchain
from tvmmobile.tuning.choice import Choice, choose
from tvmmobile.tuning.claims import RefusedLine
from tvmmobile.tuning.database import Database, log_paths
from tvmmobile.tuning.plan import Price, Step, VariantTasks, candidate_regions, make_plan
from tvmmobile.tuning.records import Identity
from tvmmobile.tuning.search.twin import rank_correlation, twin_identity


@dataclass(frozen=True)
class VariantJob:
    """Everything that determines a library, in a form that can be sent to a worker process.

    Attributes:
        model: the network and where its weights come from.
        identity, logs: which records are used, and the directories they are read from.
        target: the device's target.
        twin: of a real board, whose modelled records its ranks are compared with.
        out: directory for the results.
        dump_dir: where to write the Relax module after each pass, or `None`.
        machine: the device's core.
        form: what the library is for, one of `FORMS`.
        archive: write a static library as well.
        image: let a C library take images too, normalised like this.
        io_dtype: name of the precision of input and output.
        max_error: keep layers in float32 until the output is off by no more, as a share of its largest magnitude; `None` for any error.
        calibration: where the data are that give integers their scales; `None` for other precisions, and quantised networks.
        keep: layers of a quantised network that stay in float32, see `mixed.chosen_layers`.
        decision: how to quantise by calibration data, where that is known.
    """

    model: Model
    dtype: str
    threads: int
    identity: Identity
    logs: tuple[Path, ...]
    target: Mapping[str, Any]
    out: Path
    dump_dir: Path | None = None
    twin: Identity | None = None
    machine: Machine = BASELINE
    form: str = C
    archive: bool = False
    image: Normalisation | None = None
    io_dtype: str = FLOAT32.name
    max_error: float | None = None
    calibration: CalibrationData | None = None
    keep: tuple[str, ...] = ()
    decision: Decision | None = None

    def task(self, region: tuple[Layer, ...]) -> Task:
        """The task of some of the network's layers."""
        return Task(region, self.dtype, self.threads, self.machine)

    @property
    def spec(self) -> ModelSpec:
        """The variant."""
        return self.model.spec

    @property
    def stem(self) -> str:
        """File name without suffix, e.g. `mobilenet_v1_1.0_224_float32_t1`."""
        return stem_of(self.spec.variant, self.dtype, self.threads)

    @property
    def library(self) -> Library:
        """The library that the job makes."""
        return Library(self.spec, self.dtype, self.threads, self.out / f"{self.stem}.so")

    def reads(self) -> Mapping[str, Path]:
        """The files it reads, by path below the folder that `moved` is given."""
        found: dict[str, Path] = {}
        # The job reports a checkpoint that is not a file; all other paths are kept.
        checkpoint, own = self.model.checkpoint, self.model.own
        if checkpoint is not None and checkpoint.is_file():
            found[f"checkpoint/{checkpoint.name}"] = checkpoint
        if own is not None:
            found |= {f"network/{path.relative_to(own.path.parent).as_posix()}": path for path in files_of(own)}
        if self.calibration is not None:
            found |= {f"calibration/{name}": path for name, path in self.calibration.reads().items()}
        devices = {self.identity.device: None, **({} if self.twin is None else {self.twin.device: None})}
        for number, directory in enumerate(self.logs):
            found |= {f"logs/{number}/{device}/{path.name}": path for device in devices for path in log_paths(directory, device)}
        return found

    def writes(self) -> Mapping[str, Path]:
        """The folders it writes to, by name below the folder that `moved` is given."""
        return {"out": self.out} | ({} if self.dump_dir is None else {"dump": self.dump_dir})

    def moved(self, folder: Path) -> VariantJob:
        """The same job with all its paths below `folder`."""
        checkpoint, own = self.model.checkpoint, self.model.own
        model = replace(
            self.model,
            checkpoint=None if checkpoint is None else folder / "checkpoint" / checkpoint.name,
            own=None if own is None else replace(own, path=folder / "network" / own.path.name),
        )
        return replace(
            self,
            model=model,
            logs=tuple(folder / "logs" / str(number) for number in range(len(self.logs))),
            calibration=None if self.calibration is None else self.calibration.moved(folder / "calibration"),
            out=folder / "out",
            dump_dir=None if self.dump_dir is None else folder / "dump",
        )


def variant_job(
    model: Model,
    profile: DeviceProfile,
    logs: Sequence[Path],
    out: Path,
    threads: int = 1,
    dump_ir: Path | None = None,
    precision: Precision = FLOAT32,
    form: str = C,
    archive: bool = False,
    image: Normalisation | None = None,
    io_dtype: str = FLOAT32.name,
    max_error: float | None = None,
    calibration: CalibrationData | None = None,
    keep: tuple[str, ...] = (),
) -> VariantJob:
    """The library of a network for a device, in `out`; see `VariantJob`."""
    identity, dump_dir = Identity.of(profile), dump_ir / model.spec.variant if dump_ir else None
    place = (profile.target, out, dump_dir, twin_identity(profile), profile.machine)
    numbers = (io_dtype, max_error, calibration, keep)
    return VariantJob(model, precision.name, threads, identity, tuple(logs), *place, form, archive, image, *numbers)


def variant_tasks(job: VariantJob) -> VariantTasks:
    """The tasks of a variant."""
    import tvm

    ready = prepared(_imported(job), job, None)
    network = ready.network
    regions = candidate_regions(network, taken, job.task)
    nodes = {region.task: network.nodes[region.first] for region in regions if region.first == region.last}
    opaque = {task: node for task, node in nodes.items() if node.function is not None}
    sources = {task: tvm.ir.save_json(node.function) for task, node in opaque.items()}
    macs = {task: node.macs for task, node in opaque.items()}
    return VariantTasks(len(network.nodes), tuple(regions), sources, network.kept, macs, ready.decision)


@dataclass(frozen=True)
class BuiltVariant:
    """A library, and what of the logs did not count when its schedules were chosen.

    Attributes:
        refused: lines that hold no record, or one that cannot be true; paths begin with the number of the directory in `VariantJob.logs`,
            which has another name where the job was done on another machine.
        outdated: how many records rest on another timing model.
        kept: layers that stay in float32 where the others do not.
    """

    library: Library
    refused: tuple[RefusedLine, ...]
    outdated: int
    kept: tuple[KeptLayer, ...] = ()


def build_variant(job: VariantJob) -> Library:
    """Compile a variant; write library, manifest and reference, each whole. Raises `UserError` where network or toolchain rule it out."""
    return build(job).library


@dataclass(frozen=True)
class PlannedVariant:
    """A network with the schedules that the logs give its kernels.

    Attributes:
        steps: the plan's.
        database: the device's records.
        basis: whose records decided, see `_basis`.
    """

    imported: Imported
    prepared: Prepared
    steps: tuple[Step, ...]
    choices: Mapping[Task, Choice]
    database: Database
    basis: Database

    @property
    def network(self) -> Network:
        """What the steps cover."""
        return self.prepared.network

    def lowered(self) -> Any:
        """The network's Relax module, with every distinct kernel once."""
        with pass_context():
            return _lowered(self.network, self.steps, self.choices)

    @property
    def separate(self) -> frozenset[str]:
        """Symbols of kernels whose parallel loops write different outputs, as in all templates' kernels."""
        return frozenset(step.task.symbol for step in self.steps if not isinstance(self.choices[step.task].schedule, TraceSchedule))


def plan_variant(job: VariantJob) -> PlannedVariant:
    """Import a network and plan it; compiles only what the fallback needs."""
    imported = _imported(job)
    ready = prepared(imported, job, job.dump_dir)
    network = ready.network
    database = Database(job.identity, job.logs, None)
    choices: dict[Task, Choice] = {}
    regions = candidate_regions(network, taken, job.task)
    basis = _basis(job, database, [region.task for region in regions])
    for region in regions:
        task = region.task
        if task not in choices and (region.first == region.last or basis.best(task)):
            choices[task] = choose(task, network.nodes[region.first].function, basis, job.target)
    regions = [region for region in regions if region.task in choices]
    plan = make_plan(len(network.nodes), regions, lambda task: choices[task].price)
    return PlannedVariant(imported, ready, plan.steps, choices, database, basis)


def build(job: VariantJob) -> BuiltVariant:
    """Build a variant; returns the library and remarks on the logs."""
    tools = toolchain(job.target)
    planned = plan_variant(job)
    database, basis, library = planned.database, planned.basis, job.library
    details: dict[str, Any] = {}
    if job.form == C:
        details = _write_c_library(job, planned)
    else:
        with pass_context():
            export(_compiled(planned.lowered(), job.target), library.path, tools)
    _write_reference(planned, library.reference_path)
    steps = planned.steps if basis is database else tuple(replace(step, price=_unmeasured(step.price, basis)) for step in planned.steps)
    ranks = _ranks(job, database, planned.steps)
    macs = [sum(node.macs for node in planned.network.nodes[step.first : step.last + 1]) for step in steps]
    kernels = [_kernel(step, planned.choices[step.task].schedule, count, ranks, basis) for step, count in zip(steps, macs, strict=True)]
    _write_manifest(job, planned.imported, kernels, details | planned.prepared.details)
    read = [database] if basis is database else [database, basis]
    refused = tuple(_placed(line, job.logs) for each in read for line in each.refused)
    return BuiltVariant(library, refused, database.outdated, planned.network.kept)


def _placed(line: RefusedLine, logs: Sequence[Path]) -> RefusedLine:
    """The line with its path as `BuiltVariant` has it; one of the shipped logs, which a twin's always are read from, has its own."""
    for number, directory in enumerate(logs):
        if line.path.is_relative_to(directory):
            return replace(line, path=Path(str(number)) / line.path.relative_to(directory))
    return line


def _twin_database(job: VariantJob) -> Database:
    assert job.twin is not None
    return Database(job.twin, (SHIPPED_LOGS, *job.logs), None)


def _basis(job: VariantJob, database: Database, tasks: Sequence[Task]) -> Database:
    """Whose records decide: the device's own; the twin's where a real board has none of this network. Never both: they do not compare."""
    if job.twin is None or any(database.best(task) for task in tasks):
        return database
    return _twin_database(job)


def _unmeasured(price: Price, basis: Database) -> Price:
    """The same schedule without a latency on the board itself."""
    return Price(None, f"{price.source}, modelled on {basis.identity.device}; never measured here")


def _ranks(job: VariantJob, database: Database, steps: tuple[Step, ...]) -> dict[Task, float | None]:
    """Each kernel's rank correlation between the twin's modelled latencies and those measured; empty without a twin."""
    if job.twin is None:
        return {}
    twin = _twin_database(job)
    return {step.task: rank_correlation(database, twin, step.task) for step in steps}


def _imported(job: VariantJob) -> Imported:
    model = job.model
    if model.own is not None:
        return load_again(model.own, model.spec, model.checkpoint, model.seed)
    built = build_torch_model(model.spec, model.checkpoint, model.seed)
    return imported_torch(model.spec, built.module, built.weights)


def _lowered(network: Network, steps: tuple[Step, ...], choices: Mapping[Task, Choice]) -> Any:
    """The network's module lowered by its plan, with every distinct kernel once."""
    functions: dict[Task, Any] = {}
    kernels = []
    for step in steps:
        schedule = choices[step.task].schedule
        node = network.nodes[step.first]
        if step.task not in functions:
            functions[step.task] = kernel_function(step.task, schedule, node.function)
        constants = () if isinstance(schedule, TraceSchedule) else packed_constants(step.task, schedule, _parameters(network, step))
        kernels.append(Lowered(step.first, step.last, step.task, functions[step.task], tuple(constants)))
    return lower(network, tuple(kernels))


def _compiled(lowered: Any, target: Mapping[str, Any]) -> Any:
    """A lowered network built for TVM's virtual machine, in a pass context."""
    from tvm import relax

    return relax.build(lowered, target=make_target(target), tir_pipeline=PIPELINE)


def _write_c_library(job: VariantJob, planned: PlannedVariant) -> dict[str, Any]:
    """Write the C library; returns what the manifest says of it."""
    spec = job.spec
    names = (prefix_of(spec.variant), spec.variant, __version__, str(job.target["mcpu"]))
    image = None if job.image is None else Preprocessing(spec.resolution, job.image.mean, job.image.std)
    description = Description(*names, job.threads, spec.takes, spec.returns, image)
    written = write_library(planned.lowered(), job.target, description, job.library.path, job.archive, planned.separate)
    details: dict[str, Any] = {"prefix": description.prefix, "interface": interface_version(), **asdict(written)}
    if image is not None:
        details["image"] = image_entry(image)
    return {"format": C, "c": details}


def image_entry(image: Preprocessing) -> dict[str, Any]:
    """The manifest's entry on the images that a C library takes."""
    numbers = {"side": image.side, "shorter_side": image.shorter_side, "mean": image.mean, "std": image.std}
    return {"resampling": "bicubic", **numbers}


def _parameters(network: Network, step: Step) -> tuple[LayerParameters, ...]:
    found = []
    for node in network.nodes[step.first : step.last + 1]:
        assert node.parameters is not None
        found.append(node.parameters)
    return tuple(found)


def _write_reference(planned: PlannedVariant, path: Path) -> None:
    """Write inputs and the network's outputs for them, see `Library.reference`; for integers, theirs on the host as `integers`."""
    imported, inputs, integers = planned.imported, planned.prepared.inputs, planned.prepared.integers
    outputs, spec = imported.compute(inputs), imported.spec
    if not all(np.isfinite(output).all() for output in outputs):
        raise UserError(
            f"{imported.spec.variant} returns values that are not finite for white noise, by {imported.judge}.", "Look at its weights."
        )
    arrays: dict[str, Any] = dict(zip(keys_of(spec.takes, INPUT_NAME), inputs, strict=True))
    arrays |= dict(zip(keys_of(spec.returns, OUTPUT_NAME), outputs, strict=True))
    if integers is not None:
        arrays["integers"] = integers.outputs(inputs[0])
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def _kernel(step: Step, schedule: Schedule, macs: int, ranks: Mapping[Task, float | None], basis: Database) -> dict[str, Any]:
    """The manifest's entry for a kernel."""
    return {
        "name": step.task.name,
        "kind": " + ".join(layer.kind for layer in step.task.region),
        "nodes": [step.first, step.last],
        "macs": macs,
        "schedule": schedule_to_json(schedule),
        "latency_us": step.price.latency_us,
        "record": step.price.source,
        "why": step.reason,
        "least_bytes": step.task.least_bytes,
        "course": basis.trials(step.task).course(),
        **({"rank_correlation": ranks[step.task]} if step.task in ranks else {}),
    }


def _write_manifest(job: VariantJob, imported: Imported, kernels: list[dict[str, Any]], details: Mapping[str, Any]) -> None:
    library = job.library
    manifest = {
        "version": MANIFEST_VERSION,
        "library": library.path.name,
        **details,
        "sha256": sha256_of(library.path),
        "model": _identity(job),
        "weights": imported.weights,
        "reference": imported.judge,
        **({} if imported.macs is None else {"macs": imported.macs, "parameters": imported.parameters}),
        **_tensors(INPUT_NAME, job.spec.takes, job.io_dtype),
        **_tensors(OUTPUT_NAME, job.spec.returns, job.io_dtype),
        "dtype": job.dtype,
        "threads": job.threads,
        "device": job.identity.device,
        "timing_model": job.identity.origin.written,
        "kind": job.identity.origin.kind,
        "target": dict(job.target),
        "versions": {"tvmmobile": __version__, "tvm": TVM_VERSION, "tvm_ffi": TVM_FFI_VERSION, "torch": _torch_version()},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernels": kernels,
    }
    write_text(library.manifest_path, json.dumps(manifest, indent=1) + "\n")


def _tensors(only: str, ports: Sequence[Port], io_dtype: str) -> dict[str, Any]:
    """The manifest's entry on what a library takes or returns: `input`, or `inputs` with a list of them and their names."""
    found = [
        {
            "shape": port.shape,
            **({"layout": port.layout} if only == INPUT_NAME and len(port.shape) == 4 else {}),
            "dtype": port.stored(io_dtype),
        }
        for port in ports
    ]
    if len(ports) == 1:
        return {only: found[0]}
    return {f"{only}s": [{"name": port.name} | entry for port, entry in zip(ports, found, strict=True)]}


def _identity(job: VariantJob) -> dict[str, Any]:
    spec = job.spec
    found = {name: getattr(spec, name) for name in ("name", "alpha", "resolution", "activation", "classes")}
    own = job.model.own
    if own is None or not isinstance(spec, OwnSpec):
        return found
    return found | {"file": own.label, "contents": spec.contents}


def _torch_version() -> str:
    import torch

    return str(torch.__version__)
