"""C libraries of a small network under the names of the guides' 0.25-128, which takes long to compile, and what PyTorch computes for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from assembly import TARGET
from deployed import write_own_manifest
from one_set import write_library
from small_networks import kernels_of, prepared, two_blocks

from tvmmobile import __version__
from tvmmobile.graph.lowering import lower
from tvmmobile.native.source import Description, interface_version, prefix_of
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.networks.signature import Port
from tvmmobile.pipeline.manifest import image_entry

VARIANT = "mobilenet_v1_0.25_128"
STEM = f"{VARIANT}_float32_t4"
THREADS = 4
SHAPE = (1, 3, 16, 16)


def description(threads: int = THREADS) -> Description:
    """Return the description of the guides' library."""
    return Description(prefix_of(VARIANT), VARIANT, __version__, "cortex-a72", threads, (Port("input", SHAPE),), (Port("output", (1, 5)),))


def write_guest(folder: Path, target: Mapping[str, Any] = TARGET, takes: Preprocessing | None = None) -> Any:
    """All files that `compile --format c --archive` would write to `folder`; returns the lowered network. It `takes` images or none."""
    folder.mkdir(parents=True, exist_ok=True)
    torch_network = two_blocks()
    network = prepared(torch_network, SHAPE)
    kernels = kernels_of(network, threads=THREADS)
    module = lower(network, kernels)
    separate = frozenset(kernel.task.symbol for kernel in kernels)
    written = write_library(module, target, replace(description(), image=takes), folder / f"{STEM}.so", True, separate)
    image = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    with torch.no_grad():
        output = torch_network(torch.from_numpy(image)).numpy()
    np.savez(folder / f"{STEM}.reference.npz", input=image, output=output)
    c: dict[str, Any] = {"prefix": prefix_of(VARIANT), "interface": interface_version(), **asdict(written)}
    if takes is not None:
        c["image"] = image_entry(takes)
    write_own_manifest(folder / f"{STEM}.so", SHAPE, output.shape, THREADS, format="c", c=c, fastest_threads=THREADS)
    return module
