"""C libraries of small networks: built for the host and called through ctypes alone, or for devices."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from assembly import TARGET
from conftest import REPOSITORY
from deployed import write_own_manifest
from one_set import write_library
from own_networks import network_of
from small_networks import HOST, kernels_of, prepared, run_lowered, two_blocks

from tvmmobile.graph.bindings import results_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.lowering import Lowered, lower
from tvmmobile.graph.network import Network
from tvmmobile.graph.placed import placed_nodes
from tvmmobile.native.library import Written, WrittenSets, write_sets
from tvmmobile.native.sets import LoweredSet, Suitability
from tvmmobile.native.source import Description
from tvmmobile.networks.frontend import Imported
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.networks.signature import Port
from tvmmobile.networks.states import states_of, without_states
from tvmmobile.pipeline.compiled_library import CompiledLibrary
from tvmmobile.system.doctor import CROSS_COMPILER, require

PREFIX = "net"
SYSROOT = Path("/usr/aarch64-linux-gnu")
#: Instances that were initialised: the threads of one that is not freed go on using it.
_KEPT: list[Any] = []
INTERFACE = 1
OK, VERSION, NULL, ALIGNMENT, WORKSPACE, UNREADY, IN_USE, THREADS, NO_THREADS = range(9)
CPU = 13


class Tensor(ctypes.Structure):
    """`tvmmobile_tensor`."""

    _fields_ = [
        *((name, ctypes.c_char_p) for name in ("name", "type", "layout")),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_uint32),
        ("scale_count", ctypes.c_uint32),
        ("bytes", ctypes.c_size_t),
        ("scales", ctypes.c_void_p),
        ("zero_points", ctypes.c_void_p),
        ("axis", ctypes.c_int32),
    ]

    @property
    def extents(self) -> tuple[int, ...]:
        """The shape."""
        return tuple(self.shape[i] for i in range(self.rank))


class Set(ctypes.Structure):
    """`tvmmobile_set`."""

    _fields_ = [
        *((name, ctypes.c_char_p) for name in ("device", "core", "needs")),
        *((name, ctypes.c_size_t) for name in ("workspace_bytes", "weight_bytes")),
    ]


class Described(ctypes.Structure):
    """`tvmmobile_description`."""

    _fields_ = [
        ("interface", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        *((name, ctypes.c_char_p) for name in ("name", "version", "core")),
        *((name, ctypes.POINTER(Tensor)) for name in ("inputs", "outputs")),
        *((name, ctypes.c_uint32) for name in ("input_count", "output_count")),
        *((name, ctypes.c_size_t) for name in ("workspace_bytes", "weight_bytes", "alignment")),
        ("sets", ctypes.POINTER(Set)),
        ("reasons", ctypes.POINTER(ctypes.c_char_p)),
        ("set_count", ctypes.c_uint32),
        ("fastest_threads", ctypes.POINTER(ctypes.c_uint32)),
        ("expanded_bytes", ctypes.c_size_t),
    ]


WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32)
PARALLEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, WORK, ctypes.c_void_p, ctypes.c_uint32)

OBSERVER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32)


class Options(ctypes.Structure):
    """`tvmmobile_options`."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("threads", "spins", "flags", "reserved")),
        ("cpus", ctypes.c_uint64),
        ("parallel", PARALLEL),
        *((name, ctypes.c_void_p) for name in ("pool", "create", "join")),
    ]


class Image(ctypes.Structure):
    """`tvmmobile_image`."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("format", "width", "height", "turns")),
        ("planes", ctypes.c_char_p * 3),
        ("strides", ctypes.c_size_t * 3),
        *((name, ctypes.c_uint32) for name in ("chroma_step", "reserved")),
    ]


class Ranking(ctypes.Structure):
    """`tvmmobile_class`."""

    _fields_ = [("index", ctypes.c_uint32), ("score", ctypes.c_float), ("probability", ctypes.c_float)]


def aligned(size: int, fill: int = 0xAA) -> Array:
    """Bytes that begin at a multiple of 64."""
    whole = np.full(size + 64, fill, np.uint8)
    start = -whole.ctypes.data % 64
    return whole[start : start + size]


class CLibrary:
    """A loaded library whose functions begin with `net_`."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.c.net_describe.restype = ctypes.POINTER(Described)
        self.c.net_message.restype = ctypes.c_char_p
        self.description: Any = self.c.net_describe().contents
        self.workspace = aligned(self.description.workspace_bytes)

    def instance(self, options: Options | None = None) -> Any:
        """Return an initialised instance; asserts that there is no error."""
        memory = (ctypes.c_uint64 * 128)()
        _KEPT.append(memory)
        code = self.c.net_init(INTERFACE, memory, options and ctypes.byref(options))
        assert code == OK, self.message(code)
        return memory

    def reset(self, instance: Any, memory: Array) -> int:
        """Return the code of a reset, for libraries that keep tensors."""
        code: int = self.c.net_reset(instance, ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(memory.size))
        return code

    def started(self, options: Options | None = None) -> tuple[Any, Array]:
        """Return an instance that was reset, and its memory."""
        instance, memory = self.instance(options), aligned(self.c.net_state_bytes())
        assert self.reset(instance, memory) == OK
        return instance, memory

    def message(self, code: int) -> str:
        """Return the meaning of a code."""
        text: bytes = self.c.net_message(code)
        return text.decode()

    def run(self, instance: Any, images: Sequence[Array], threads: int = 0, workspace: Array | None = None) -> list[Array]:
        """Return the outputs for some inputs; asserts that there is no error."""
        space = self.workspace if workspace is None else workspace
        inputs = [aligned(image.nbytes) for image in images]
        for place, image in zip(inputs, images, strict=True):
            place[:] = np.ascontiguousarray(image).view(np.uint8).reshape(-1)
        tensors = [self.description.outputs[i] for i in range(self.description.output_count)]
        outputs = [aligned(tensor.bytes) for tensor in tensors]
        arguments = pointers(inputs), pointers(outputs), ctypes.c_void_p(space.ctypes.data), ctypes.c_size_t(space.size)
        code = self.c.net_run(instance, *arguments, threads)
        assert code == OK, self.message(code)
        return [output.view(np.float32).reshape(tensor.extents) for output, tensor in zip(outputs, tensors, strict=True)]


def pointers(arrays: Sequence[Array | None]) -> Any:
    """Return a C array of pointers; `None` is null."""
    return (ctypes.c_void_p * len(arrays))(*(None if array is None else array.ctypes.data for array in arrays))


def describe(module: Any = None, threads: int = 1, image: Preprocessing | None = None) -> Description:
    """Return a test library's description: with the tensors of a lowered module, or one each without it."""
    ends = {"input": [()], "output": [()]} if module is None else _ends(module["main"])
    takes, returns = (tuple(Port(f"{kind}{i}", shape) for i, shape in enumerate(shapes)) for kind, shapes in ends.items())
    return Description(PREFIX, "net", "0", "host", threads, takes, returns, image)


def _ends(main: Any) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of a function's parameters and results."""
    tensors = {"input": main.params, "output": results_of(main)}
    return {kind: [tuple(int(extent) for extent in each.ty.shape) for each in found] for kind, found in tensors.items()}


def write_host_library(
    module: Any,
    path: Path,
    threads: int = 1,
    archive: bool = False,
    separate: frozenset[str] = frozenset(),
    image: Preprocessing | None = None,
) -> Written:
    """Write the library of a lowered module for this machine; each needs a path of its own."""
    return write_library(module, HOST, describe(module, threads, image), path, archive, separate)


@dataclass(frozen=True)
class HostSets:
    """A library for this machine with several sets of kernels, an input, and each set's output as TVM's virtual machine has it."""

    path: Path
    written: WrittenSets
    image: Array
    outputs: tuple[Array, ...]


def write_host_sets(
    sets: Sequence[LoweredSet], description: Description, image: Array, path: Path, by_features: tuple[int, ...], archive: bool = False
) -> HostSets:
    """Write a library of several sets, and run each in TVM's virtual machine; `by_features` is `Suitability`'s."""
    written = write_sets(sets, description, path, archive=archive, suitability=Suitability((), by_features, ((),) * len(sets)))
    outputs = [run_lowered(one.module, image, path.with_name(f"vm{place}.so")) for place, one in enumerate(sets)]
    return HostSets(path, written, image, tuple(outputs))


def unplaced(network: Network, threads: int = 1) -> tuple[Lowered, ...]:
    """Kernels of a network's nodes, but those that C libraries place."""
    placed = placed_nodes(network.module)
    return tuple(kernel for kernel in kernels_of(network, threads=threads) if kernel.first not in placed)


def write_own_library(imported: Imported, path: Path, stateful: Sequence[str] = (), threads: int = 1) -> None:
    """Write the library of a network of the user's own for this machine."""
    network, states = network_of(imported), states_of(imported.spec, stateful)
    kernels, seen = unplaced(network, threads), without_states(imported.spec, states)
    about = Description(PREFIX, "net", "0", "host", threads, seen.takes, seen.returns, states=states)
    write_library(lower(network, kernels), HOST, about, path, separate=frozenset(kernel.task.symbol for kernel in kernels))


def write_device_library(folder: Path, name: str = "net", core: str = TARGET["mcpu"]) -> Path:
    """Return the library of `two_blocks` for the virtual Pi 4 or another core, with a manifest and PyTorch's reference."""
    network, shape, path = two_blocks(), (1, 3, 16, 16), folder / f"{name}.so"
    kernels = kernels_of(read := prepared(network, shape))
    module = lower(read, kernels)
    target = {**TARGET, "mcpu": core}
    written = write_library(module, target, describe(module), path, separate=frozenset(kernel.task.symbol for kernel in kernels))
    image = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    with torch.no_grad():
        output = network(torch.from_numpy(image)).numpy()
    np.savez(path.with_suffix(".reference.npz"), input=image, output=output)
    program = {"prefix": PREFIX, "workspace_bytes": written.workspace_bytes}
    write_own_manifest(path, shape, output.shape, reference="PyTorch", format="c", c=program, target=target)
    return path


def taking_program(folder: Path) -> Path:
    """`taken.c`, which says which kernels a library takes and what they cost, compiled for AArch64 in a folder."""
    program, source = folder / "taken", REPOSITORY / "tests/native/taken.c"
    subprocess.run([str(require(CROSS_COMPILER)), f"-I{REPOSITORY}/tvmmobile/native", source, "-o", program, "-ldl"], check=True)
    return program


def answers_of(
    program: Path, library: CompiledLibrary, cpu: str, flags: int = 0, cpus: int = 0, root: Path = SYSROOT
) -> tuple[int, list[str]]:
    """Return that program's exit code and lines on a CPU of QEMU's: device, reason, init's time, output's hash, threads, KiB in memory."""
    words = [str(program), str(library.path), library.facts.program.prefix, str(flags), str(cpus)]
    command = ["qemu-aarch64", "-L", str(root), "-cpu", cpu, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, [word.strip() for word in done.stdout.split("|")]


def check_syntax(compiler: Sequence[str], source: Path) -> None:
    """Check that a compiler accepts a program without warnings; it is not compiled."""
    command = [*compiler, "-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
