"""A job's network, imported and prepared once for all stages of a run, which find it in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile.graph.composed import ComposedLayer
from tvmmobile.graph.integers import IntegerParameters
from tvmmobile.graph.layers import Array, LayerParameters
from tvmmobile.graph.network import Float32Layer, Network, names_of, read_network
from tvmmobile.graph.precision import FLOAT32, INT8
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.reference import network_error
from tvmmobile.kernels.serial import task_from_json, task_to_json
from tvmmobile.networks.frontend import Imported, imported_torch
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.own.loading import load_again
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.rounded_reference import round_weights
from tvmmobile.running.library import Reference
from tvmmobile.system.files import replacing

#: The types of layers' constants, by name.
_PARAMETERS: dict[str, type[LayerParameters]] = {each.__name__: each for each in (LayerParameters, IntegerParameters)}


@dataclass(frozen=True)
class NetworkOrigin:
    """The manifest's entries on the network that a library is made of.

    Attributes:
        weights, macs, parameters: see `Imported`.
        reference_program: the program that computed the reference outputs.
        quantised: true if the network's file has its weights in integers.
        loss: error of the network in integers, if it is too large for a library to be compared with anything but these; else `None`.
    """

    weights: str
    reference_program: str
    macs: int | None
    parameters: int | None
    quantised: bool
    loss: float | None = None


@dataclass(frozen=True, eq=False)
class PreparedVariant:
    """A network for the planner, and all that its library's manifest and reference say of it.

    Attributes:
        reference: inputs and the network's outputs for them.
        integers: outputs in exact integers on the host, if that is what the library computes.
        details: the manifest's entries on how numbers are stored.
    """

    network: Network
    reference: Reference
    origin: NetworkOrigin
    integers: tuple[Array, ...] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def prepare_variant(job: VariantJob, with_reference: bool = True, imported: Imported | None = None) -> PreparedVariant:
    """Read a job's network from the file of an earlier stage, or import and prepare it, and write that file if the job names one.

    Where `with_reference` is false, reference outputs, which take a run of the network, are left out, and nothing is written. A network
    that was `imported` before is not imported again.

    Raises `UserError` where the network, or its calibration data, cannot be used.
    """
    file = job.prepared
    if file is not None and file.is_file():
        return _read(file)
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
        with suppress(OSError):  # where the disk is full, each stage prepares the network
            _write(file, variant)
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


def _write(path: Path, variant: PreparedVariant) -> None:
    """Write a prepared variant: arrays, and the rest as JSON in `text`."""
    import tvm

    network, reference = variant.network, variant.reference
    arrays = {f"{part}{number}": array for part in Reference._fields for number, array in enumerate(getattr(reference, part))}
    arrays |= {f"integers{number}": array for number, array in enumerate(variant.integers or ())}
    layers = {}
    for name, node in zip(names_of(network), network.nodes, strict=True):
        if node.parameters is not None:
            fields = dict(vars(node.parameters))
            operands = fields.pop("operands")
            found = {key: fields.pop(key) for key, value in list(fields.items()) if isinstance(value, np.ndarray)}
            arrays |= {f"{name}/{key}": array for key, array in (*found.items(), *enumerate(operands))}
            layers[name] = {
                "task": task_to_json(Task((node.layer,), node.dtype)),
                "parameters": type(node.parameters).__name__,
                "arrays": list(found),
                "operands": len(operands),
                "numbers": fields,
            }
    text = {
        "module": tvm.ir.save_json(network.module),
        "layers": layers,
        "kept": [asdict(one) for one in network.float32_layers],
        "reference": [len(each) for each in reference],
        "origin": asdict(variant.origin),
        "integers": len(variant.integers or ()),
        "details": variant.details,
    }
    arrays["text"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def _read(path: Path) -> PreparedVariant:
    """Read what `_write` wrote."""
    import tvm

    with np.load(path, allow_pickle=False) as stored:
        text = json.loads(stored["text"].tobytes())
        composed = {}
        for name, entry in text["layers"].items():
            arrays = {key: stored[f"{name}/{key}"] for key in entry["arrays"]}
            operands = tuple(stored[f"{name}/{number}"] for number in range(entry["operands"]))
            task = task_from_json(entry["task"])
            parameters = _PARAMETERS[entry["parameters"]](**arrays, **entry["numbers"], operands=operands)
            composed[name] = ComposedLayer(task.region[0], parameters, task.dtype)
        counts = zip(Reference._fields, text["reference"], strict=True)
        reference = Reference(*(tuple(stored[f"{part}{number}"] for number in range(count)) for part, count in counts))
        integers = None if not text["integers"] else tuple(stored[f"integers{number}"] for number in range(text["integers"]))
    network = read_network(tvm.ir.load_json(text["module"]), composed)
    float32_layers = tuple(Float32Layer(**one) for one in text["kept"])
    return PreparedVariant(
        replace(network, float32_layers=float32_layers), reference, NetworkOrigin(**text["origin"]), integers, text["details"]
    )
