"""TIR → object code → shared library for the device's CPU."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tvmmobile.kernels import elementary
from tvmmobile.system.doctor import require
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.files import filling_cache, replacing, write_bytes
from tvmmobile.system.programs import run_tool

CROSS_COMPILER = "aarch64-linux-gnu-gcc"
#: What to do where it fails.
REINSTALL = "Run: apt-get install -y --reinstall g++-aarch64-linux-gnu"
_FREESTANDING = Path(__file__).with_name("freestanding.c")
_FREESTANDING_FLAGS = ("-O2", "-fPIC", "-ffreestanding", "-fno-builtin", "-fno-tree-loop-distribute-patterns", "-c")

#: Templates allocate register tiles as annotated local buffers; TVM's storage rewrite would merge them into one and spill.
PASS_CONFIG = {"tirx.disable_storage_rewrite": True}
#: Templates ask for as much as they use: to find that out again took more than half of the time to build a kernel of several layers.
#: And they write nothing that does nothing: without looking for it, a kernel is built in nine tenths of the time, to the same object code.
LEFT_OUT = ("s_tir.CompactBufferAllocation", "tirx.RemoveNoOp")


def pass_context() -> Any:
    """The PassContext under which every kernel and network is built, so that a kernel is the same code alone and in a network."""
    import tvm

    elementary.register()
    return tvm.transform.PassContext(opt_level=3, config=PASS_CONFIG, disabled_pass=[*LEFT_OUT])


def make_target(target: Mapping[str, Any]) -> Any:
    """TVM's target object for a device profile's target."""
    import tvm

    return tvm.target.Target(dict(target))


def linker(target: Mapping[str, Any]) -> str:
    """The compiler that links for `target`: the host's own, or the AArch64 cross-compiler; raises `UserError` if it is not installed."""
    return str(require(CROSS_COMPILER if "aarch64" in str(target.get("mtriple", "")) else "cc"))


def compile_kernel(function: Any, target: Mapping[str, Any], path: Path) -> None:
    """Build one TIR function into a shared library at `path`, written whole; raises `UserError` without the cross-compiler."""
    import tvm

    compiler = linker(target)
    module = tvm.IRModule({str(function.attrs["global_symbol"]): function})
    with pass_context():
        library = tvm.tirx.build(module, target=make_target(target))
    export(library, path, compiler)


def instead_of_libc(compiler: str) -> list[str]:
    """Options by which a library for a device needs no C library, so that Android can load it too; none for this machine's own."""
    if Path(compiler).name != CROSS_COMPILER:
        return []
    return [str(freestanding_object(compiler)), "-nodefaultlibs", "-nostartfiles"]


@functools.cache
def freestanding_object(compiler: str) -> Path:
    """`freestanding.c`, compiled if it is not there yet."""
    return compiled_once(compiler, _FREESTANDING_FLAGS, _FREESTANDING, ".o")


def compiled_once(compiler: str, flags: Sequence[str], source: Path, suffix: str, *headers: Path) -> Path:
    """A C file of ours, compiled into the cache if it is not there yet; `headers` are what it includes, from their own folders."""
    digest = hashlib.sha256(repr(tuple(flags)).encode() + b"".join(file.read_bytes() for file in (source, *headers))).hexdigest()
    path = cache_dir() / f"{source.stem}-{digest[:16]}{suffix}"
    if not path.exists():
        with filling_cache(), replacing(path) as temporary:
            folders = [f"-I{header.parent}" for header in headers]
            command = [compiler, *folders, str(source), *flags, "-o", str(temporary)]
            run_tool(command, f"Compiling {source.name}", REINSTALL)
    return path


def export(library: Any, path: Path, compiler: str) -> None:
    """Link a built module to `path`, whole or not at all, without debug information; raises `OSError` for a full disk and the like."""
    with tempfile.TemporaryDirectory(prefix="tvmmobile-link-") as folder:
        linked = Path(folder, path.name)
        try:
            library.export_library(str(linked), cc=compiler, options=["-Wl,--strip-debug", *instead_of_libc(compiler)])
        except RuntimeError as error:  # the linker's words, as TVM passes them on
            if os.strerror(errno.ENOSPC) in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder) from error
            raise
        try:
            write_bytes(path, linked.read_bytes())
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
