"""A lowered network → `.so`, `.a`, header and CMake package: its kernels, its weights and `runtime.c`. Nothing else is needed or seen."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmmobile.kernels.codegen import CROSS_COMPILER, REINSTALL, freestanding_object, linker, pass_context
from tvmmobile.native.layout import Layout, make_layout
from tvmmobile.native.parts import CutKernel, cut_parts, write_object
from tvmmobile.native.program import Program, read_program
from tvmmobile.native.source import RUNTIME, Description, cmake_text, header_text, source_text
from tvmmobile.system.files import write_bytes, write_text
from tvmmobile.system.programs import run_tool

#: Images are scaled to the bit: no product is added before it is rounded.
FLAGS = ("-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off")
#: A device's: no C library, and atomic instructions of the base architecture in place.
DEVICE_FLAGS = ("-ffreestanding", "-fno-builtin", "-mno-outline-atomics", "-fno-stack-protector")
_LINK_FLAGS = ("-shared", "-Wl,--strip-debug", "-Wl,-z,noexecstack", "-Wl,--hash-style=both")
#: Nothing is needed, and nothing may be missing.
_DEVICE_LINK_FLAGS = ("-nodefaultlibs", "-nostartfiles", "-Wl,-z,defs")
#: In assembly, read-only and from a cache line on.
_WEIGHTS = """    .section .rodata.weights, "a"
    .balign 64
    .globl weights
    .hidden weights
weights:
    .incbin "weights.bin"
    .byte 0
    .section .note.GNU-stack, "", %progbits
"""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        workspace_bytes: that a run needs.
        least_bytes: the largest sum of tensors and kernels' memory that live at the same time.
        weight_bytes: of constants, as packed.
    """

    workspace_bytes: int
    least_bytes: int
    weight_bytes: int


def write_library(
    module: Any,
    target: Mapping[str, Any],
    description: Description,
    path: Path,
    archive: bool = False,
    separate: frozenset[str] = frozenset(),
) -> Written:
    """Write the library of a module that `graph.network.lower` returned to `path`, its header and CMake package beside it, each whole.

    Args:
        module: the network.
        target: the device's target.
        description: what the library says of itself.
        path: of the `.so`.
        archive: write the same as `.a` too.
        separate: kernels whose parts write different outputs.

    Raises:
        UserError: the network cannot be one, or a tool is missing.
    """
    compiler = linker(target)
    with tempfile.TemporaryDirectory(prefix="tvmmobile-link-") as name:
        folder = Path(name)
        layout = write_sources(module, target, description, folder, separate)
        _link(folder, compiler, description, path.name)
        write_bytes(path, (folder / "model.so").read_bytes())
        if archive:
            write_bytes(path.with_suffix(".a"), (folder / "model.a").read_bytes())
        write_text(path.with_suffix(".h"), (folder / f"{description.prefix}.h").read_text(encoding="utf-8"))
        write_text(path.with_name(f"{path.stem}Config.cmake"), cmake_text(path.stem))
    return Written(layout.workspace_bytes, layout.least_bytes, len(layout.weights))


def laid_out(module: Any, target: Mapping[str, Any], threads: int) -> tuple[Program, dict[str, CutKernel], Any, Layout]:
    """All that is known of a library before its kernels are compiled: the calls, the kernels and their functions, and where tensors lie."""
    program = read_program(module)
    with pass_context():
        kernels, parts = cut_parts(program.functions, target)
    return program, kernels, parts, make_layout(program, kernels, threads)


def write_sources(
    module: Any, target: Mapping[str, Any], description: Description, folder: Path, separate: frozenset[str] = frozenset()
) -> Layout:
    """What `write_library` links, in `folder`: `model.c` and its header, `kernels.o`, `weights.S` and `weights.bin`."""
    program, kernels, parts, layout = laid_out(module, target, description.threads)
    with pass_context():
        write_object(parts, target, folder / "kernels.o")
    (folder / f"{description.prefix}.h").write_text(header_text(description), encoding="utf-8")
    (folder / "model.c").write_text(source_text(description, program, kernels, layout, separate), encoding="utf-8")
    (folder / "weights.bin").write_bytes(layout.weights)
    (folder / "weights.S").write_text(_WEIGHTS, encoding="utf-8")
    return layout


def _link(folder: Path, compiler: str, description: Description, soname: str) -> None:
    """Make `model.so` and `model.a` in `folder`; of their symbols only the description's functions are seen."""
    device = Path(compiler).name == CROSS_COMPILER
    tools = CROSS_COMPILER.removesuffix("gcc") if device else ""
    own = [freestanding_object(compiler)] if device else []  # instead of the C library

    def run(*command: str | Path) -> None:
        run_tool([str(word) for word in command], f"Linking {soname}", REINSTALL)

    model, weights, whole, symbols = (folder / name for name in ("model.o", "weights.o", "all.o", "symbols"))
    run(compiler, *FLAGS, *(DEVICE_FLAGS if device else ()), f"-I{folder}", f"-I{RUNTIME.parent}", "-c", folder / "model.c", "-o", model)
    run(compiler, f"-Wa,-I{folder}", "-c", folder / "weights.S", "-o", weights)
    run(compiler, "-r", "-nostdlib", model, folder / "kernels.o", weights, *own, "-o", whole)
    symbols.write_text("".join(f"{description.prefix}_{function}\n" for function in description.functions), encoding="utf-8")
    run(f"{tools}objcopy", f"--keep-global-symbols={symbols}", "--strip-debug", whole)
    run(compiler, *_LINK_FLAGS, *(_DEVICE_LINK_FLAGS if device else ()), f"-Wl,-soname,{soname}", whole, "-o", folder / "model.so")
    run(f"{tools}ar", "rcsD", folder / "model.a", whole)
