"""The systems that are compared: each a program, the wheels it needs, and the file it runs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from studies.formats import iree_compiler
from studies.harness import ROOT
from tvmmobile import __version__
from tvmmobile.graph.precision import BFLOAT16, FLOAT16, FLOAT32, INT8, precision_named
from tvmmobile.system.environment import TVM_FFI_VERSION, TVM_VERSION
from tvmmobile.system.errors import UserError

#: The peers' programs, with `region.py`, which all programs here import.
EXAMPLES = ROOT / "examples/virtual-run"
#: Our network in TVM's Relax VM, and as a C library.
OURS, OURS_C = "ours", "ours-c"
#: Our systems: "ours" in a ratio is the first of these that ran there.
OURS_KEYS = (OURS_C, OURS)
#: Precisions of a comparison. In half precision and bfloat16, each peer is also run in its wider types, because any of them may be its
#: fastest.
DTYPES = (FLOAT32.name, FLOAT16.name, BFLOAT16.name, INT8.name)
#: ONNX Runtime once more, with unsigned activations: which is faster depends on the core.
UNSIGNED = "onnxruntime-u8"
_PEER_TOLERANCE = {FLOAT32.name: 1e-3, FLOAT16.name: 2e-1, BFLOAT16.name: 2e-1, INT8.name: 5e-1}


@dataclass(frozen=True)
class System:
    """One system.

    Attributes:
        key: its name in files: `name`, followed by the dtype if float32 is compared, too.
        title: its name in the table, with its version.
        program: a Python program that takes `MODEL --threads N`, and prints what `region.run_marked` prints; `--half` allows it half
            precision, as it does its users unless they forbid it, and an output that is as coarse.
        requirements: the wheels in its sysroot.
        model: the files of the network it runs, in the variant's folder, the one to name first; empty where it is compiled for the board.
        tolerance: largest difference from PyTorch it may have, relative to the output's largest magnitude.
        environment: variables that it needs.
        dtype: type that it computes in.
    """

    key: str
    title: str
    program: Path
    requirements: tuple[str, ...]
    model: tuple[str, ...]
    tolerance: float
    environment: Mapping[str, str] = field(default_factory=dict)
    dtype: str = FLOAT32.name

    @property
    def name(self) -> str:
        """The name for `--only`, the same in every precision."""
        return self.key.removesuffix(f"-{self.dtype}")


def systems(dtype: str = FLOAT32.name) -> tuple[System, ...]:
    """Return all systems, peers first, with the versions that examples/virtual-run/wheels.txt pins.

    IREE is there in float32 alone. In half precision the others are there twice, and ncnn a third time with bfloat16, the only one whose
    wheel has such convolutions: MNN's lacks them, and ONNX Runtime's fast mode serves matrix products alone.
    """
    wheels = tuple((EXAMPLES / "wheels.txt").read_text(encoding="utf-8").split())
    versions = dict(wheel.split("==") for wheel in wheels)
    peers = (
        ("ncnn", "ncnn", "ncnn", ("model.ncnn.param", "model.ncnn.bin")),
        ("mnn", "MNN", "MNN", ("model.mnn",)),
        ("litert", "LiteRT/XNNPACK", "ai-edge-litert", ("model.tflite",)),
        ("onnxruntime", "ONNX Runtime", "onnxruntime", ("model.onnx",)),
    )
    found = [
        System(key, f"{title} {versions[wheel]}", EXAMPLES / f"run_{key}.py", wheels, model, peer_tolerance(FLOAT32.name))
        for key, title, wheel, model in peers
    ]
    if dtype == FLOAT32.name:
        return (*found, _iree(), _ours(), _ours_c())
    ours = (_ours(), _ours_c())
    bound = precision_named(dtype).network_tolerance
    coarser = [_in(FLOAT16.name if dtype == BFLOAT16.name else dtype, peer) for peer in found]
    if dtype == INT8.name:
        signed = coarser[-1]
        unsigned = replace(signed, key=f"{UNSIGNED}-{dtype}", title=signed.title.replace(dtype, "uint8"), model=("model.u8.onnx",))
        others = [*(replace(one, model=one.model[:1]) for one in coarser), unsigned]
    else:
        others = [*coarser, *found]
    if dtype == BFLOAT16.name:
        others.insert(0, replace(_in(dtype, found[0]), environment={"NCNN_BFLOAT16": "1"}))
    return (*others, *(replace(one, title=f"{one.title}, {dtype}", tolerance=bound, dtype=dtype) for one in ours))


def peer_tolerance(dtype: str) -> float:
    """Return a peer's tolerance, enough to show that it computed the network. Our own bound, which we promise, is stricter.

    With generated weights, for MobileNet v1 1.0-224, ncnn is 7 % off in half precision, and its latency counts all the same. In integers
    all libraries are some 15 % off.
    """
    return _PEER_TOLERANCE[dtype]


def _in(dtype: str, peer: System) -> System:
    """Return a peer in another precision, by an argument of its program or by its model (`half_models.py`, `integer_models.py`)."""
    return replace(
        peer,
        key=f"{peer.key}-{dtype}",
        title=f"{peer.title.rpartition(' ')[0]} {dtype} {peer.title.rpartition(' ')[2]}",
        tolerance=peer_tolerance(dtype),
        dtype=dtype,
    )


def _iree() -> System:
    requirements = (f"iree-base-runtime=={iree_compiler.VERSION}", *_same("numpy", "ml_dtypes"))
    return System(
        "iree", f"IREE {iree_compiler.VERSION}", Path(__file__).with_name("run_iree.py"), requirements, (), peer_tolerance(FLOAT32.name)
    )


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
    """Return our system that runs a C library; its sysroot has NumPy alone."""
    title = f"tvmmobile {__version__}, C library"
    return System(OURS_C, title, Path(__file__).with_name("run_c_library.py"), _same("numpy"), (), 1e-4)


def _same(*names: str) -> tuple[str, ...]:
    """Return packages that a runtime imports, in this Python's versions, with which it is known to work."""
    return tuple(f"{name}=={importlib.metadata.version(name)}" for name in names)


def chosen_systems(only: Sequence[str], dtype: str = FLOAT32.name) -> tuple[System, ...]:
    """Return the systems that `--only` names, in the table's order; all if it names none."""
    known = systems(dtype)
    names = list(dict.fromkeys(system.name for system in known))
    unknown = sorted(set(only) - set(names))
    if unknown:
        where = "" if dtype == FLOAT32.name else f" in {dtype}"
        raise UserError(f"there is no system {unknown[0]!r}{where}.", f"Give --only some of: {','.join(names)}")
    return tuple(system for system in known if not only or system.name in only)
