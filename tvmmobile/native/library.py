"""Writes a lowered network as `.so`, `.a`, header and CMake package: its kernels, its weights and `runtime.c`.

It depends on nothing else and exports nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tvmmobile.kernels.codegen import instead_of_libc, pass_context
from tvmmobile.native.instructions import needed_features
from tvmmobile.native.layout import PAGE, Layout, make_layout, shared_weights
from tvmmobile.native.memory import ALIGNMENT
from tvmmobile.native.objects import write_objects
from tvmmobile.native.parts import CutKernel, cut_parts
from tvmmobile.native.program import Program, read_program
from tvmmobile.native.sets import CompiledSet, LoweredSet, Suitability, prefix_of_set
from tvmmobile.native.source import RUNTIME, Description, cmake_text, header_text, source_text
from tvmmobile.native.symbols import localised
from tvmmobile.networks.states import State
from tvmmobile.schedules.emit.expansion import NO_EXPANSIONS, Expansion
from tvmmobile.system.files import write_bytes, write_text
from tvmmobile.system.programs import run_tool
from tvmmobile.system.toolchain import Toolchain, toolchain

#: Image scaling must be exact to the bit: products are rounded before they are added.
FLAGS = ("-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off")
#: For devices: no C library, only instructions of the base architecture, and inline atomics.
DEVICE_FLAGS = ("-march=armv8-a", "-ffreestanding", "-fno-builtin", "-mno-outline-atomics", "-fno-stack-protector")
#: `-Bsymbolic`: two libraries of one network in a program have functions of the same names, and each calls its own.
_LINK_OPTIONS = ("--strip-debug", "-z,noexecstack", "--hash-style=both", "-Bsymbolic")
#: No symbol may be undefined.
_DEVICE_LINK_OPTIONS = ("-z,defs",)
#: In assembly: read-only and aligned to a cache line, or to a page if there are several sets.
_WEIGHTS = """    .section .rodata.weights, "a"
    .balign {alignment}
    .globl weights
    .hidden weights
weights:
    .incbin "weights.bin"
    .byte 0
    .section .note.GNU-stack, "", %progbits
"""


@dataclass(frozen=True)
class Written:
    """The written library, or one of its sets of kernels.

    Attributes:
        workspace_bytes: size of the workspace that a run needs.
        least_bytes: the largest sum of tensors and kernels' memory that live at the same time.
        weight_bytes: size of the constants, as packed.
        expanded_bytes: size of the constants that `init` expands from some of these.
    """

    workspace_bytes: int
    least_bytes: int
    weight_bytes: int
    expanded_bytes: int


@dataclass(frozen=True)
class WrittenSet(Written):
    """One of a library's sets of kernels; `needs` are the features that a CPU must have, as /proc/cpuinfo names them."""

    needs: tuple[str, ...]


@dataclass(frozen=True)
class WrittenSets:
    """The written library, and its sets of kernels."""

    whole: Written
    sets: tuple[WrittenSet, ...]


def write_sets(
    sets: Sequence[LoweredSet], description: Description, path: Path, archive: bool = False, suitability: Suitability | None = None
) -> WrittenSets:
    """Write a library to `path`, its header and CMake package beside it, each whole.

    Args:
        sets: the network for each core; all have the same inputs and outputs.
        description: the library's description of itself.
        path: path of the `.so`.
        archive: write the same as `.a` too.
        suitability: suitability of each of several sets for cores.

    Raises:
        UserError: the network cannot become a C library, or a tool is missing.
    """
    tools = toolchain(sets[0].target)
    with tempfile.TemporaryDirectory(prefix="tvmmobile-link-") as name:
        folder = Path(name)
        written = write_sources(sets, description, folder, suitability)
        _link(folder, tools, description, path.name)
        write_bytes(path, (folder / "model.so").read_bytes())
        if archive:
            write_bytes(path.with_suffix(".a"), (folder / "model.a").read_bytes())
        write_text(path.with_suffix(".h"), (folder / f"{description.prefix}.h").read_text(encoding="utf-8"))
        write_text(path.with_name(f"{path.stem}Config.cmake"), cmake_text(path.stem))
    return written


def laid_out(
    module: Any,
    target: Mapping[str, Any],
    threads: int,
    states: Sequence[State] = (),
    prefix: str = "",
    expansions: Mapping[bytes, Expansion] = NO_EXPANSIONS,
) -> tuple[Program, dict[str, CutKernel], Any, Layout]:
    """Lay out a library before its kernels are compiled: its calls, kernels, functions, and the placement of tensors."""
    program = read_program(module, states, expansions)
    with pass_context():
        kernels, parts = cut_parts(program.functions, target, prefix)
    return program, kernels, parts, make_layout(program, kernels, threads)


def write_sources(
    sets: Sequence[LoweredSet], description: Description, folder: Path, suitability: Suitability | None = None
) -> WrittenSets:
    """Write the files that `write_library` links: `model.c` and its header, `kernels*.o` of each set, `weights.S` and `weights.bin`."""
    compiled = [_compiled(each, description, folder / f"set{place}", prefix_of_set(place, sets)) for place, each in enumerate(sets)]
    layouts, weights = shared_weights([each.program for each in compiled], [each.layout for each in compiled])
    compiled = [replace(each, layout=layout) for each, layout in zip(compiled, layouts, strict=True)]
    (folder / f"{description.prefix}.h").write_text(header_text(description), encoding="utf-8")
    (folder / "model.c").write_text(source_text(description, compiled, len(weights), suitability), encoding="utf-8")
    (folder / "weights.bin").write_bytes(weights)
    (folder / "weights.S").write_text(_WEIGHTS.format(alignment=ALIGNMENT if len(sets) == 1 else PAGE), encoding="utf-8")
    written = [
        WrittenSet(
            layout.workspace_bytes,
            layout.least_bytes,
            len(layout.weights),
            layout.expanded_bytes,
            tuple(feature.name for feature in each.needs),
        )
        for each, layout in zip(compiled, layouts, strict=True)
    ]
    most, least, expanded = (
        max(sizes) for sizes in zip(*((each.workspace_bytes, each.least_bytes, each.expanded_bytes) for each in written), strict=True)
    )
    return WrittenSets(Written(most, least, len(weights), expanded), tuple(written))


def _compiled(lowered: LoweredSet, description: Description, folder: Path, prefix: str) -> CompiledSet:
    """Compile a set's kernels to object files in a folder of its own."""
    module, target = lowered.module, lowered.target
    program, kernels, parts, layout = laid_out(module, target, description.threads, description.states, prefix, lowered.expansions)
    folder.mkdir()
    write_objects(parts, target, folder)
    needs = needed_features(folder.iterdir(), target) if toolchain(target).device else ()
    return CompiledSet(lowered, program, kernels, layout, needs)


def _kernels(folder: Path) -> list[Path]:
    """Return the object files that `write_objects` wrote."""
    return sorted(folder.glob("set*/kernels*.o"))


def _link(folder: Path, tools: Toolchain, description: Description, soname: str) -> None:
    """Make `model.so` and `model.a` in `folder`; only the description's functions are visible symbols."""
    model, weights, whole = (folder / name for name in ("model.o", "weights.o", "all.o"))
    tools.compiled(folder / "model.c", model, (*FLAGS, *(DEVICE_FLAGS if tools.device else ())), (folder, RUNTIME.parent))
    tools.compiled(folder / "weights.S", weights, (), (folder,))
    tools.merged((model, *_kernels(folder), weights, *instead_of_libc(tools)), whole)
    seen = {f"{description.prefix}_{function}" for function in description.functions}
    whole.write_bytes(localised(whole.read_bytes(), seen))
    options = (*_LINK_OPTIONS, *(_DEVICE_LINK_OPTIONS if tools.device else ()), f"-soname,{soname}")
    run_tool(tools.shared((whole,), folder / "model.so", options), f"Linking {soname}", tools.remedy)
    tools.archived(whole, folder / "model.a")
