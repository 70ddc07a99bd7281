"""The systems that are compared: each a program, the wheels it needs, and the file it runs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peers import iree_compiler
from tvmmobile import __version__
from tvmmobile.system.environment import TVM_FFI_VERSION, TVM_VERSION
from tvmmobile.system.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
#: The peers' programs, with `region.py`, which all programs here import.
EXAMPLES = ROOT / "examples/virtual-run"
#: Our network in TVM's Relax VM, and as a C library.
OURS, OURS_C = "ours", "ours-c"
#: What is ours, not a peer's: "ours" in a ratio is the first of these that ran there.
OURS_KEYS = (OURS_C, OURS)


@dataclass(frozen=True)
class System:
    """One system.

    Attributes:
        key: what `--only` calls it.
        title: what the table calls it, with its version.
        program: a Python program that takes `MODEL --threads N` and prints what `region.run_marked` prints.
        requirements: the wheels in its sysroot.
        model: the files of the network it runs, in the variant's folder, the one to name first; empty where it is compiled for the board.
        tolerance: largest difference from PyTorch it may have, relative to the output's largest magnitude.
        environment: variables that it needs.
    """

    key: str
    title: str
    program: Path
    requirements: tuple[str, ...]
    model: tuple[str, ...]
    tolerance: float
    environment: Mapping[str, str] = field(default_factory=dict)


def systems() -> tuple[System, ...]:
    """All of them, peers first, with the versions that examples/virtual-run/wheels.txt pins."""
    wheels = tuple((EXAMPLES / "wheels.txt").read_text(encoding="utf-8").split())
    versions = dict(wheel.split("==") for wheel in wheels)
    peers = (
        ("ncnn", "ncnn", "ncnn", ("model.ncnn.param", "model.ncnn.bin")),
        ("mnn", "MNN", "MNN", ("model.mnn",)),
        ("litert", "LiteRT/XNNPACK", "ai-edge-litert", ("model.tflite",)),
        ("onnxruntime", "ONNX Runtime", "onnxruntime", ("model.onnx",)),
    )
    found = [
        System(key, f"{title} {versions[wheel]}", EXAMPLES / f"run_{key}.py", wheels, model, 1e-3) for key, title, wheel, model in peers
    ]
    return (*found, _iree(), _ours(), _ours_c())


def _iree() -> System:
    requirements = (f"iree-base-runtime=={iree_compiler.VERSION}", *_same("numpy", "ml_dtypes"))
    return System("iree", f"IREE {iree_compiler.VERSION}", Path(__file__).with_name("run_iree.py"), requirements, (), 1e-3)


def _ours() -> System:
    others = _same("numpy", "ml_dtypes", "typing_extensions")
    return System(
        key=OURS,
        title=f"tvmmobile, TVM {TVM_VERSION}",
        program=Path(__file__).with_name("run_tvmmobile.py"),
        requirements=(f"apache-tvm=={TVM_VERSION}", f"apache-tvm-ffi=={TVM_FFI_VERSION}", *others),
        model=(),
        tolerance=1e-4,
        environment={"TVM_USE_RUNTIME_LIB": "1"},
    )


def _ours_c() -> System:
    """The same network as a C library; NumPy alone is in its sysroot."""
    title = f"tvmmobile {__version__}, C library"
    return System(OURS_C, title, Path(__file__).with_name("run_c_library.py"), _same("numpy"), (), 1e-4)


def _same(*names: str) -> tuple[str, ...]:
    """Packages that a runtime imports, in the versions of this Python's, where it is known to work with them."""
    return tuple(f"{name}=={importlib.metadata.version(name)}" for name in names)


def chosen_systems(only: Sequence[str]) -> tuple[System, ...]:
    """Those that `--only` names, in the table's order; all of them if it names none."""
    known = systems()
    unknown = sorted(set(only) - {system.key for system in known})
    if unknown:
        raise UserError(f"There is no system {unknown[0]!r}.", f"Give --only some of: {','.join(system.key for system in known)}")
    return tuple(system for system in known if not only or system.key in only)
