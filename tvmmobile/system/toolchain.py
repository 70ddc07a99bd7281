"""Compiles and links C and object files into libraries: this machine's compiler, the AArch64 cross compiler, or ziglang's clang and lld.

ziglang is a Python package, so nothing has to be installed as root. Kernels are always compiled by TVM's LLVM.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmmobile.system.doctor import CROSS_COMPILER, CROSS_PACKAGE, installed, require
from tvmmobile.system.errors import UserError
from tvmmobile.system.programs import run_tool, zig_program

#: The cross compiler's options to link a library for a device without a C library.
_WITHOUT_LIBC = ("-nodefaultlibs", "-nostartfiles")
#: A GCC option that clang does not have; for clang, `-fno-builtin` has the same effect.
_GCC_ALONE = frozenset({"-fno-tree-loop-distribute-patterns"})


@dataclass(frozen=True)
class Toolchain:
    """The programs for one kind of target.

    Attributes:
        program: GCC or a compatible compiler; for ziglang, `zig`.
        device: true if it makes code for devices, which needs no C library; otherwise for this machine.
        zig: true if it is ziglang.
    """

    program: Path
    device: bool
    zig: bool = False

    @property
    def remedy(self) -> str:
        """Command that repairs the toolchain if it fails."""
        if self.zig:
            return "Run: pip install --force-reinstall ziglang"
        return f"Run: apt-get install -y --reinstall {CROSS_PACKAGE if self.device else 'gcc libc6-dev'}"

    def compiled(self, source: Path, output: Path, flags: Sequence[str], folders: Sequence[Path] = ()) -> None:
        """Compile one file of C or assembly into an object; raise `UserError`.

        Args:
            flags: the compiler's flags, in GCC's syntax.
            folders: searched for included files.
        """
        words = [str(self.program)]
        if self.zig:
            words += ["clang", "--target=aarch64-linux-gnu", "-fno-addrsig", "-nostdinc", "-isystem"]
            words += [str(self.program.with_name("lib") / "include")]
        words += [word for word in flags if not (self.zig and word in _GCC_ALONE)]
        words += [word for folder in folders for word in (f"-I{folder}", f"-Wa,-I{folder}")]
        run_tool([*words, "-c", str(source), "-o", str(output)], f"Compiling {source.name}", self.remedy)

    def shared(self, objects: Sequence[Path | str], output: Path, options: Sequence[str] = ()) -> list[str]:
        """Return the command that links objects into a shared library; `options` are the linker's, each with its value after a comma."""
        rest = [*map(str, objects), "-o", str(output)]
        if self.zig:
            # Debian's cross compiler works around that erratum, too.
            words = [str(self.program), "ld.lld", "-shared", *(("--fix-cortex-a53-843419",) if self.device else ())]
            return [*words, *(word for option in options for word in option.split(",", 1)), *rest]
        without = _WITHOUT_LIBC if self.device else ()
        return [str(self.program), "-shared", "-fPIC", *(f"-Wl,{option}" for option in options), *without, *rest]

    def merged(self, objects: Sequence[Path], output: Path) -> None:
        """Link objects into one; raise `UserError`."""
        words = ("ld.lld", "-r", "--strip-debug") if self.zig else ("-r", "-nostdlib", "-Wl,--strip-debug")
        self._run([str(self.program), *words, *map(str, objects), "-o", str(output)], output)

    def archived(self, member: Path, output: Path) -> None:
        """Write a static library that contains one object; raise `UserError`."""
        words = [str(self.program), "ar"] if self.zig else [CROSS_COMPILER.removesuffix("gcc") + "ar" if self.device else "ar"]
        self._run([*words, "rcsD", str(output), str(member)], output)

    def _run(self, words: list[str], output: Path) -> None:
        run_tool(words, f"Linking {output.name}", self.remedy)


def toolchain(target: Mapping[str, Any]) -> Toolchain:
    """Return the toolchain for a device profile's target; raise `UserError` if there is none."""
    if "aarch64" not in str(target.get("mtriple", "")):
        return _host_toolchain()
    return device_toolchain()


def _host_toolchain() -> Toolchain:
    zig = zig_program()
    if zig is not None and sys.platform == "linux" and not installed("cc"):
        return Toolchain(zig, device=False, zig=True)  # links kernels; this process already has what they need of the C library
    return Toolchain(require("cc"), device=False)


def device_toolchain() -> Toolchain:
    """Return the AArch64 cross compiler, or ziglang if that is missing; raise `UserError` if both are."""
    zig = zig_program()
    if zig is not None and not installed(CROSS_COMPILER):
        return Toolchain(zig, device=True, zig=True)
    try:
        return Toolchain(require(CROSS_COMPILER), device=True)
    except UserError as error:
        message, remedy = error.as_typed
        raise UserError(message, f"{remedy}; or without root: pip install ziglang") from None
