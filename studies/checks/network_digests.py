"""Prints what the compiler makes of networks, a line for each node and kernel, so that two commits can be compared.

    ./studies/run network_digests >before; git switch my-branch; ./studies/run network_digests | diff before -
    ./studies/run network_digests --models out/survey >before     # files as well, such as those of survey_networks

A node's line has its layer, what it reads and a digest of its constants; a kernel's has the nodes it computes and its schedule in the
shipped logs. Together with `./scripts/kernel_digests`, equal output means equal libraries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studies.harness import Options, option, study
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.network import Node, results_from, sources_of
from tvmmobile.kernels.serial import TraceSchedule
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.registry import FAMILIES, grid
from tvmmobile.pipeline.load import load
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.planning import PlannedVariant, plan_variant
from tvmmobile.pipeline.request import jobs_of
from tvmmobile.system.entry_points import progress
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.logs.directories import LogDirs

#: Devices and precisions that together reach every pass.
SETTINGS = (("pi4-virtual", "float32"), ("pi5-virtual", "float16"), ("pi5-virtual", "int8"))


def digest_of(value: Any) -> str:
    """Return 12 hexadecimal digits that change with any array, function or field of a value."""
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(part + b"\0")
    return digest.hexdigest()[:12]


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__.encode()
        yield from _parts(list(vars(value).values()))
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _parts(one)
    else:
        yield str(value).encode()


def lines_of(planned: PlannedVariant) -> Iterator[str]:
    """Yield a line for each node, for the results, and for each kernel."""
    network = planned.network
    for number, (node, sources) in enumerate(zip(network.nodes, sources_of(network.module), strict=True)):
        yield f"node {number} {_named(node)} reads {_read(sources)} constants {digest_of(node.parameters)} {node.dtype}"
    yield f"returns {_read(results_from(network.module))}"
    if network.float32_layers:
        yield f"float32 {' '.join(f'{one.node}:{one.layer}' for one in network.float32_layers)}"
    if planned.prepared.integers is not None:
        yield f"integers {digest_of(planned.prepared.details)}"
    for step in planned.steps:
        schedule = planned.choices[step.task].schedule
        knobs = "trace" if isinstance(schedule, TraceSchedule) else f"{schedule.template} {dict(schedule.knobs)}"
        yield f"kernel {step.first}-{step.last} {step.task.name} {knobs}"


def _named(node: Node) -> str:
    return f"{node.layer.name}{'' if node.gated is None else f' gates {node.gated}'}{' alone' if node.alone else ''}"


def _read(sources: Iterable[Any]) -> str:
    return ",".join(str(one) if isinstance(one, int) else digest_of(one) for one in sources)


def digests(models: Iterable[Model], device: str, dtype: str) -> Iterator[str]:
    """Yield the lines of networks in one precision, each after the network's name; one with the reason where compilation fails."""
    profile, logs = find_device(device).profile, LogDirs((), SHIPPED_LOGS)
    for model in models:
        options = LibraryOptions.of({"dtype": dtype, "calibrate": "noise:4" if dtype == "int8" and not model.quantised else None})
        name = f"{model} {device} {dtype}"
        progress(name)
        try:
            [job] = jobs_of(model, profile, options, Path("out"), logs, None)
            found = list(lines_of(plan_variant(job)))
        except UserError as error:
            found = [f"refused: {error}"]
        yield from (f"{name}: {line}" for line in found)


@study(
    option("names", [], "built-in families, or files (default: all families)", nargs="*", metavar="NETWORK"),
    option("--models", None, "a folder whose .pt2, .onnx and .tflite files are read as well", type=Path, metavar="DIR"),
    option("--dtype", None, "(default: all of them)", choices=[dtype for _, dtype in SETTINGS]),
)
def main(options: Options) -> None:
    """Print the digests."""
    folder = options.models
    files = sorted(path for path in folder.iterdir() if path.suffix in (".pt2", ".onnx", ".tflite")) if folder else []
    for network in (*(options.names or FAMILIES), *files):
        model = load(network, alpha=min(spec.alpha for spec in grid(network))) if network in FAMILIES else load(network)
        for device, dtype in SETTINGS:
            if options.dtype in (None, dtype):
                for line in digests([model], device, dtype):
                    print(line, flush=True)
