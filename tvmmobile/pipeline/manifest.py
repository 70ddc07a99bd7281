"""The manifest of a library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tvmmobile import __version__
from tvmmobile.graph.precision import Precision
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule, schedule_to_json
from tvmmobile.networks.models.spec import ModelSpec, OwnSpec
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.networks.signature import INPUT_NAME, OUTPUT_NAME, Port
from tvmmobile.networks.states import State
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.prepared_variant import NetworkOrigin
from tvmmobile.running.manifest import MANIFEST_VERSION
from tvmmobile.running.manifest import write_manifest as write
from tvmmobile.system.environment import TVM_FFI_VERSION, TVM_VERSION
from tvmmobile.system.files import sha256_of
from tvmmobile.tuning.plan import Plan, PlannedKernel


def write_manifest(job: VariantJob, origin: NetworkOrigin, kernels: list[dict[str, Any]], details: Mapping[str, Any]) -> None:
    """Write the manifest of a job's library; `details` are entries besides those that every library has."""
    library = job.library
    entries = {
        "version": MANIFEST_VERSION,
        "library": library.path.name,
        **details,
        "sha256": sha256_of(library.path),
        "model": _identity(job),
        "weights": origin.weights,
        "reference": origin.reference_program,
        **({} if origin.macs is None else {"macs": origin.macs, "parameters": origin.parameters}),
        **_tensors(INPUT_NAME, library.spec.takes, job.options.io_precision),
        **_tensors(OUTPUT_NAME, library.spec.returns, job.options.io_precision),
        "dtype": job.options.precision.name,
        **({"quantised": True} if origin.quantised else {}),
        **({} if origin.loss is None else {"loss": origin.loss}),
        "threads": job.options.threads,
        **_device_entries(job),
        "versions": {"tvmmobile": __version__, "tvm": TVM_VERSION, "tvm_ffi": TVM_FFI_VERSION, "torch": _torch_version()},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernels": kernels,
    }
    write(library.manifest_path, entries)


def set_entry(job: VariantJob, written: Mapping[str, Any], fastest: int, kernels: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the manifest's entry for one of several sets of kernels.

    Args:
        written: its sizes and what it needs of a CPU.
        fastest: number of threads on which it is fastest.
    """
    return {**_device_entries(job), "cpu": job.profile.cpu, **written, "fastest_threads": fastest, "kernels": kernels}


def _device_entries(job: VariantJob) -> dict[str, Any]:
    """Return the entries on the target for which kernels were chosen and compiled."""
    return {
        "device": job.identity.device,
        "timing_model": job.identity.origin.written,
        "kind": job.identity.origin.kind,
        "target": dict(job.profile.target),
    }


def kernel_entry(
    step: PlannedKernel,
    schedule: Schedule,
    macs: int,
    ranks: Mapping[Task, float | None],
    course: Sequence[tuple[int, float]] = (),
    zeros: float | None = None,
) -> dict[str, Any]:
    """Return the manifest's entry for a kernel.

    Args:
        ranks: correlations with a twin's records, where there is one.
        course: course of the kernel's search on the device; see `KernelResult`.
        zeros: share of its weights that a sparse kernel leaves out.
    """
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
        "course": course,
        **({"rank_correlation": ranks[step.task]} if step.task in ranks else {}),
        **({} if zeros is None else {"zeros": round(zeros, 4)}),
    }


def sparse_entry(steps: tuple[PlannedKernel, ...], dense_us: float | None) -> dict[str, Any]:
    """Return the manifest's entry on a plan's gain from sparse kernels by its records; none if unknown."""
    latency_us = Plan(steps).latency_us
    if latency_us is None or dense_us is None:
        return {}
    # No plan is faster than the best; sums of the same latencies may differ in their last digit.
    return {"sparse": {"dense_us": dense_us, "gained_us": round(max(dense_us, latency_us) - latency_us, 3)}}


def with_shortcuts(details: Mapping[str, Any], shortcuts: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """Return the entries on how numbers are stored, with the shortcuts that each integer layer's kernel takes (`shortcuts`, by node)."""
    if "quantisation" not in details:
        return dict(details)
    layers = []
    for entry in details["quantisation"]["layers"]:
        shares = {name: round(share, 4) for name, share in shortcuts.get(entry["node"], {}).items()}
        layers.append({**entry, **({"shortcuts": shares} if shares else {})})
    return {**details, "quantisation": {**details["quantisation"], "layers": layers}}


def state_entries(spec: ModelSpec, states: Sequence[State], stored: Precision) -> list[dict[str, Any]]:
    """Return the manifest's entries on the tensors that a C library keeps."""
    return [
        {
            "input": state.port.name,
            "output": spec.returns[state.output].name,
            "shape": state.port.shape,
            "dtype": state.port.stored(stored.name),
        }
        for state in states
    ]


def image_entry(image: Preprocessing) -> dict[str, Any]:
    """Return the manifest's entry on the images that a C library takes."""
    numbers = {"side": image.side, "shorter_side": image.shorter_side, "mean": image.mean, "std": image.std}
    return {"resampling": "bicubic", **numbers}


def _tensors(only: str, ports: Sequence[Port], stored: Precision) -> dict[str, Any]:
    """Return the manifest's entry on a library's inputs or outputs: `input`, or `inputs` with a list of them and their names."""
    found = [
        {
            "shape": port.shape,
            **({"layout": port.layout} if only == INPUT_NAME and len(port.shape) == 4 else {}),
            "dtype": port.stored(stored.name),
        }
        for port in ports
    ]
    if len(ports) == 1:
        return {only: found[0]}
    return {f"{only}s": [{"name": port.name} | entry for port, entry in zip(ports, found, strict=True)]}


def _identity(job: VariantJob) -> dict[str, Any]:
    spec = job.library.spec
    found = {name: getattr(spec, name) for name in ("name", "alpha", "resolution", "activation", "classes")}
    own = job.model.own
    if own is None or not isinstance(spec, OwnSpec):
        return found
    return found | {"file": own.label, "contents": spec.contents}


def _torch_version() -> str:
    import torch

    return str(torch.__version__)
