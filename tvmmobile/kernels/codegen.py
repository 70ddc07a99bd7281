"""Compiles TIR to object code, and links it into a shared library for the device's CPU."""

from __future__ import annotations

import errno
import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tvmmobile.kernels import elementary, lowering
from tvmmobile.system.compiled import built_once
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import write_bytes
from tvmmobile.system.programs import run_tool
from tvmmobile.system.toolchain import Toolchain, toolchain

_FREESTANDING = Path(__file__).with_name("freestanding.c")
_FREESTANDING_FLAGS = ("-O2", "-fPIC", "-ffreestanding", "-fno-builtin", "-fno-tree-loop-distribute-patterns")

#: Templates allocate register tiles as annotated local buffers; TVM's storage rewrite would merge them into one, which LLVM would spill.
PASS_CONFIG = {"tirx.disable_storage_rewrite": True}


def pass_context(left_out: Sequence[str] = ()) -> Any:
    """Return the `PassContext` for single kernels and networks, built through `lowering.PIPELINE`, so that kernels are identical in both.

    Args:
        left_out: names of TVM's passes to disable.
    """
    import tvm

    elementary.register()
    lowering.register()
    return tvm.transform.PassContext(opt_level=3, config=PASS_CONFIG, disabled_pass=list(left_out))


def make_target(target: Mapping[str, Any]) -> Any:
    """Return TVM's target object for a device profile's target."""
    import tvm

    return tvm.target.Target(dict(target))


def compile_kernel(function: Any, target: Mapping[str, Any], path: Path) -> None:
    """Build a TIR function into a shared library, and write it to `path` atomically.

    Raises:
        UserError: there is no linker for the target.
    """
    import tvm

    tools = toolchain(target)
    module = tvm.IRModule({str(function.attrs["global_symbol"]): function})
    with pass_context():
        library = tvm.tirx.build(module, target=make_target(target), pipeline=lowering.PIPELINE)
    export(library, path, tools)


@functools.cache
def instead_of_libc(tools: Toolchain) -> tuple[Path, ...]:
    """Return object files that replace the C library in a device's library, so that Android can load it too; none for the host."""
    if not tools.device:
        return ()

    def build(output: Path) -> None:
        tools.compiled(_FREESTANDING, output, _FREESTANDING_FLAGS)

    return (built_once(_FREESTANDING, ".o", _FREESTANDING_FLAGS, build, variant="-zig" if tools.zig else ""),)


def export(library: Any, path: Path, tools: Toolchain) -> None:
    """Link a built module without debug information, and write it to `path` atomically.

    Raises:
        OSError: the file cannot be written, e.g. because the disk is full.
        RuntimeError: the linker rejects the compiled code.
    """

    def link(output: str, objects: Sequence[str], **_options: Any) -> None:
        command = tools.shared([*instead_of_libc(tools), *objects], Path(output), ("--strip-debug",))
        run_tool(command, f"Linking {path.name}", tools.remedy)

    with tempfile.TemporaryDirectory(prefix="tvmmobile-link-") as folder:
        linked = Path(folder, path.name)
        try:
            library.export_library(str(linked), fcompile=link)
        except UserError as error:
            if os.strerror(errno.ENOSPC) in error.message:  # the linker's options
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder) from error
            raise RuntimeError(str(error)) from error  # the compiled code is at fault
        try:
            write_bytes(path, linked.read_bytes())
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
