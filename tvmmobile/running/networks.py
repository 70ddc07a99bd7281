"""A network's library on a device, loaded and ready to be run: for TVM's virtual machine, or a C library behind an adapter."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.precision import FLOAT32
from tvmmobile.native.source import INTERFACE
from tvmmobile.running.formats import VM, C
from tvmmobile.running.library import read_manifest
from tvmmobile.system.compiled import built_once
from tvmmobile.system.doctor import CROSS_COMPILER, require
from tvmmobile.system.programs import run_tool

MAIN = "main"
_ADAPTER, _CHECK = (Path(__file__).with_name(name) for name in ("adapter.c", "check.c"))
_FLAGS = ("-O2", "-fPIC", "-shared", "-ldl")
Array = npt.NDArray[Any]


class ReadyNetwork(Protocol):
    """A network on a device.

    Attributes:
        module, function, arguments: what runs it once.
        threads: of TVM's pool.
    """

    module: Any
    function: str
    arguments: list[Any]
    threads: int

    @property
    def observable(self) -> bool:
        """Whether it can be timed kernel by kernel."""

    def set_input(self, array: Array) -> None:
        """The input of runs from now on, in float32; a library that takes another type is given that."""

    def output(self) -> Array:
        """What the last run returned, in float32."""


@dataclass(frozen=True)
class CProgram:
    """How to call a C library: its manifest's data, and `adapter.c`, compiled for devices."""

    prefix: str
    workspace_bytes: int
    output_shape: tuple[int, ...]
    adapter: Path


@dataclass(frozen=True)
class Calling:
    """How a network's library is called.

    Attributes:
        input, output: NumPy's names of their types.
        c: of a C library; `None` for TVM's virtual machine.
    """

    input: str = FLOAT32.name
    output: str = FLOAT32.name
    c: CProgram | None = None


def calling(library: Path) -> Calling:
    """What a library's manifest says of calling it; one without a manifest is for TVM. Raises `UserError` for an invalid manifest."""
    path = library.with_suffix(".json")
    if not path.is_file():
        return Calling()
    manifest, spec = read_manifest(path)
    c = None
    if manifest.get("format", VM) == C:
        c = CProgram(manifest["c"]["prefix"], manifest["c"]["workspace_bytes"], spec.output_shape, adapter())
    input_type, output_type = (manifest[name].get("dtype", FLOAT32.name) for name in ("input", "output"))
    return Calling(input_type, output_type, c)


class VmNetwork:
    """A library of TVM's virtual machine whose `main` takes one tensor and returns one."""

    observable = True

    def __init__(self, session: Any, module: Any, threads: int, how: Calling) -> None:
        from tvm.runtime.vm import VirtualMachine

        self._session, self._machine = session, VirtualMachine(module, session.cpu(0))
        self.module, self.function, self.threads = self._machine.module, "invoke_stateful", threads
        self.arguments: list[Any] = [MAIN]
        self._how = how

    def set_input(self, array: Array) -> None:
        """See `ReadyNetwork`."""
        self._machine.set_input(MAIN, self._session.put(array.astype(self._how.input, copy=False)))

    def output(self) -> Array:
        """See `ReadyNetwork`."""
        found: Array = self._session.get(self._machine.get_outputs(MAIN))
        return found.astype(np.float32, copy=False)


class CNetwork:
    """A C library with one input and one output, which is in the session's folder on the device; raises `ValueError` if it cannot start."""

    def __init__(self, session: Any, module: Any, name: str, program: CProgram, threads: int, how: Calling) -> None:
        self._session, self._how = session, how
        self.module, self.function, self.threads = module, "run", 1
        self._output = session.put(np.zeros(program.output_shape, how.output))
        self.arguments: list[Any] = [None, self._output, session.put(np.zeros(max(program.workspace_bytes, 1), np.uint8))]
        place = session.get_function("tvm.rpc.server.workpath")(name)
        code = int(module["open"](self._text(str(place)), self._text(program.prefix), threads))
        if code:
            raise ValueError("the device's loader refuses it" if code < 0 else f"its init returns {code}")

    def _text(self, text: str) -> Any:
        return self._session.put(np.frombuffer(text.encode() + b"\0", np.uint8))

    @property
    def observable(self) -> bool:
        """See `ReadyNetwork`; not if it was compiled before libraries had observers."""
        return bool(self.module["observable"]())

    def set_input(self, array: Array) -> None:
        """See `ReadyNetwork`; raises `ValueError` where the library does not take it."""
        self.arguments[0] = self._session.put(array.astype(self._how.input, copy=False))
        code = int(self.module[self.function](*self.arguments))
        if code:
            raise ValueError(f"its run returns {code}")

    def output(self) -> Array:
        """See `ReadyNetwork`."""
        found: Array = self._session.get(self._output)
        return found.astype(np.float32, copy=False)


@functools.cache
def adapter() -> Path:
    """`adapter.c` for devices, compiled if it is not there yet; raises `UserError` without the cross compiler."""
    return _compiled(_ADAPTER, ".so", _FLAGS)


def checker() -> Path:
    """`check.c` for devices, compiled if it is not there yet: runs a C library on its reference input, where neither agent nor TVM is."""
    return _compiled(_CHECK, "", ("-O2", f"-DTOLERANCE={FLOAT32.network_tolerance}", "-ldl", "-lpthread"))


def _compiled(source: Path, suffix: str, flags: tuple[str, ...]) -> Path:
    def build(output: Path) -> None:
        command = [str(require(CROSS_COMPILER)), f"-I{INTERFACE.parent}", str(source), *flags, "-o", str(output)]
        run_tool(command, f"Compiling {source.name}", "Run: apt-get install -y --reinstall g++-aarch64-linux-gnu")

    return built_once(source, suffix, flags, build, (INTERFACE,))
