"""Loads a network's library on a device, ready to run: for TVM's virtual machine, or a C library through an adapter."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.native.source import INTERFACE
from tvmmobile.running.formats import C
from tvmmobile.running.manifest import read_manifest
from tvmmobile.system.compiled import built_once
from tvmmobile.system.doctor import CROSS_COMPILER, CROSS_PACKAGE, require
from tvmmobile.system.programs import run_tool

MAIN = "main"
_ADAPTER, _CHECK = (Path(__file__).with_name(name) for name in ("adapter.c", "check.c"))
_FLAGS = ("-O2", "-fPIC", "-shared", "-ldl")
#: Exit code of `check.c` for a library that runs but computes something else.
DISAGREES = 5
#: Its exit code if the CPU lacks instructions that the library uses, and the message for that.
LACKS, LACKING = 6, "the CPU lacks instructions that it uses"
#: `TVMMOBILE_CPU` of the C interface.
_CPU = 13
Array = npt.NDArray[Any]


class ReadyNetwork(Protocol):
    """Runs and times a network that is ready on a device.

    Attributes:
        module, function, arguments: the function, its module and its arguments that run the network once.
        threads: number of threads in TVM's pool.
    """

    module: Any
    function: str
    arguments: list[Any]
    threads: int

    @property
    def observable(self) -> bool:
        """True if the network can be timed kernel by kernel."""

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        """Set the inputs of further runs, reals in float32; they are converted to the type that the library takes."""

    def outputs(self) -> tuple[Array, ...]:
        """Return the outputs of the last run, reals in float32."""


@dataclass(frozen=True)
class CProgram:
    """A C library's data from its manifest, and `adapter.c`, compiled for devices."""

    prefix: str
    workspace_bytes: int
    output_shapes: tuple[tuple[int, ...], ...]
    adapter: Path


@dataclass(frozen=True)
class Calling:
    """Calling convention of a network's library.

    Attributes:
        inputs, outputs: NumPy's names of their types; empty for those of the arrays that are given.
        c: interface of a C library; `None` for TVM's virtual machine.
        number: number of the set of kernels for the device, counted from 1; 0 if it has no such set, or only one set.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    c: CProgram | None = None
    number: int = 0

    def converted(self, arrays: Sequence[Array]) -> list[Array]:
        """Convert the inputs to the types that the library takes."""
        return [
            array.astype(kind, copy=False)
            for array, kind in zip(arrays, self.inputs or (str(array.dtype) for array in arrays), strict=True)
        ]


def calling(library: Path, profile: DeviceProfile) -> Calling:
    """Return a library's calling convention from its manifest; a library without one is for TVM.

    Raises `UserError` for an invalid manifest.
    """
    path = library.with_suffix(".json")
    if not path.is_file():
        return Calling()
    manifest, program = read_manifest(path), None
    place = manifest.set_for(profile)
    if manifest.format == C:
        shapes = tuple(port.shape for port in manifest.returns)
        needing = manifest.program if place is None else manifest.sets[place]
        program = CProgram(manifest.program.prefix, needing.workspace_bytes, shapes, adapter())
    takes, returns = (tuple(tensor.dtype for tensor in tensors) for tensors in (manifest.takes, manifest.returns))
    return Calling(takes, returns, program, 0 if place is None else place + 1)


def _widened(array: Array) -> Array:
    """Convert reals to float32."""
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


class VmNetwork:
    """Runs a library of TVM's virtual machine."""

    observable = True

    def __init__(self, session: Any, module: Any, threads: int, convention: Calling) -> None:
        from tvm.runtime.vm import VirtualMachine

        self._session, self._machine = session, VirtualMachine(module, session.cpu(0))
        self.module, self.function, self.threads = self._machine.module, "invoke_stateful", threads
        self.arguments: list[Any] = [MAIN]
        self._convention = convention

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        self._machine.set_input(MAIN, *map(self._session.put, self._convention.converted(arrays)))

    def outputs(self) -> tuple[Array, ...]:
        found = self._machine.get_outputs(MAIN)
        tensors = found if isinstance(found, list | tuple) else [found]
        return tuple(_widened(self._session.get(tensor)) for tensor in tensors)


class CNetwork:
    """Runs a C library, which is in the session's folder on the device; raises `ValueError` if it cannot start.

    `cpus` is the library's option of that name, and `number` counts its sets of kernels from 1; 0 leaves the choice to the library.
    """

    def __init__(
        self, session: Any, module: Any, name: str, program: CProgram, threads: int, convention: Calling, cpus: int = 0, number: int = 0
    ) -> None:
        self._session, self._convention = session, convention
        self.module, self.function, self.threads = module, "run", 1
        self._outputs = [session.put(np.zeros(*each)) for each in zip(program.output_shapes, convention.outputs, strict=True)]
        self._workspace = session.put(np.zeros(max(program.workspace_bytes, 1), np.uint8))
        self.arguments: list[Any] = []
        place = session.get_function("tvm.rpc.server.workpath")(name)
        code = int(module["open"](self._text(str(place)), self._text(program.prefix), threads, cpus, number))
        if code:
            raise ValueError(_refusal(code))

    def _text(self, text: str) -> Any:
        return self._session.put(np.frombuffer(text.encode() + b"\0", np.uint8))

    @property
    def observable(self) -> bool:
        """False for a library that was compiled before libraries had observers."""
        return bool(self.module["observable"]())

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        """Set the inputs; raise `ValueError` if the library refuses them."""
        self.arguments[:] = [*map(self._session.put, self._convention.converted(arrays)), *self._outputs, self._workspace]
        code = int(self.module[self.function](*self.arguments))
        if code:
            raise ValueError(f"its run returns {code}")

    def outputs(self) -> tuple[Array, ...]:
        return tuple(_widened(self._session.get(tensor)) for tensor in self._outputs)


def _refusal(code: int) -> str:
    """Return why a C library did not start, from the exit code of the adapter's `open`."""
    if code == _CPU:
        return LACKING
    return "the device's loader refuses it" if code < 0 else f"its init returns {code}"


@functools.cache
def adapter() -> Path:
    """Return `adapter.c` for devices, compiled if needed; raise `UserError` without the cross compiler."""
    return compiled_for_devices(_ADAPTER, ".so", _FLAGS)


def checker() -> Path:
    """Return `check.c` for devices, compiled if needed: it runs a C library on its reference input, without agent or TVM."""
    return compiled_for_devices(_CHECK, "", ("-O2", f"-DTOLERANCE={FLOAT32.network_tolerance}", "-ldl", "-lpthread"))


def compiled_for_devices(source: Path, suffix: str, flags: tuple[str, ...]) -> Path:
    """Return a C file that knows a C library's interface, compiled for devices if needed; raise `UserError` without the cross compiler."""

    def build(output: Path) -> None:
        command = [str(require(CROSS_COMPILER)), f"-I{INTERFACE.parent}", str(source), *flags, "-o", str(output)]
        run_tool(command, f"Compiling {source.name}", f"Run: apt-get install -y --reinstall {CROSS_PACKAGE}")

    return built_once(source, suffix, flags, build, (INTERFACE,))
