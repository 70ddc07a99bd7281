"""A compiled library's three files without a compiler, for tests of what is checked before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tvmmobile.devices.registry import find_device
from tvmmobile.system.files import sha256_of

SIDE, CLASSES = 32, 10
TARGET = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}


def write_manifest(path: Path, threads: int = 1, **changes: Any) -> None:
    """The manifest of the library at `path`, which is there already; `changes` go into it."""
    manifest = {
        "version": 1,
        "library": path.name,
        "sha256": sha256_of(path),
        "model": {"name": "mobilenet_v1", "alpha": 0.25, "resolution": SIDE, "activation": "relu6", "classes": CLASSES},
        "weights": "seeded",
        "dtype": "float32",
        "threads": threads,
        "input": {"shape": [1, 3, SIDE, SIDE]},
        "output": {"shape": [1, CLASSES]},
        "device": "pi4-virtual",
        "timing_model": find_device("pi4-virtual").profile.origin.model,
        "target": TARGET,
        "kernels": [],
    }
    path.with_suffix(".json").write_text(json.dumps(manifest | changes))


def write_own_manifest(path: Path, input_shape: tuple[int, ...], output_shape: tuple[int, ...], threads: int = 1, **changes: Any) -> None:
    """The same of a network that is no built-in one."""
    model = {"name": path.stem, "alpha": 1.0, "resolution": input_shape[2], "file": "net.py:make", "contents": "0" * 64}
    shapes = {"input": {"shape": input_shape}, "output": {"shape": output_shape}}
    write_manifest(path, threads, **{"model": model, "macs": 1000, "parameters": 100, **shapes, **changes})


def make_library(folder: Path, threads: int = 1, content: bytes = b"no ELF file", **changes: Any) -> Path:
    """Return a library that every check of files passes and no device can run; `changes` go into its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"mobilenet_v1_0.25_{SIDE}_float32_t{threads}.so"
    path.write_bytes(content)
    write_manifest(path, threads, **changes | {"target": TARGET | changes.get("target", {})})
    arrays = {"input": np.zeros((1, 3, SIDE, SIDE), np.float32), "output": np.zeros((1, CLASSES), np.float32)}
    np.savez(path.with_suffix(".reference.npz"), **arrays)
    return path
