"""The linker of libraries is the cross compiler where it is installed, else ziglang's clang and lld, by the same calls."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from tvmmobile.system import doctor, toolchain
from tvmmobile.system.errors import UserError
from tvmmobile.system.programs import run_tool, zig_program
from tvmmobile.system.toolchain import Toolchain, device_toolchain

DEVICE, HOST = {"kind": "llvm", "mtriple": "aarch64-linux-gnu"}, {"kind": "llvm"}


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def zig() -> Toolchain:
    program = zig_program()
    assert program is not None
    return Toolchain(program, device=True, zig=True)


def test_the_cross_compiler_comes_first() -> None:
    assert device_toolchain() == Toolchain(Path(shutil.which(doctor.CROSS_COMPILER) or ""), device=True)
    assert not toolchain.toolchain(HOST).device


def test_without_a_compiler_ziglang_takes_its_place(no_compiler: None) -> None:
    assert toolchain.toolchain(DEVICE) == zig()
    assert (toolchain.toolchain(HOST).zig, toolchain.toolchain(HOST).device) == (True, False)


def test_without_any_both_remedies_are_named(no_compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "zig_program", lambda: None)
    with pytest.raises(UserError, match="aarch64-linux-gnu-gcc is missing") as caught:
        device_toolchain()
    assert caught.value.remedy == "Run: apt-get install -y g++-aarch64-linux-gnu; or without root: pip install ziglang"


def test_a_library_of_this_machine(no_compiler: None, tmp_path: Path) -> None:
    """Fallback kernels are compared with such libraries while a board is tuned."""
    (tmp_path / "seven.s").write_text(".globl seven\n.type seven, %function\nseven:\n mov $7, %eax\n ret\n.section .note.GNU-stack\n")
    run_tool([str(zig().program), "clang", "-c", f"{tmp_path}/seven.s", "-o", f"{tmp_path}/seven.o"], "Assembling", "")
    run_tool(toolchain.toolchain(HOST).shared([tmp_path / "seven.o"], tmp_path / "seven.so", ("--strip-debug",)), "Linking", "")
    assert ctypes.CDLL(str(tmp_path / "seven.so")).seven() == 7


@pytest.mark.parametrize("with_zig", [False, True])
def test_a_library_for_devices(tmp_path: Path, with_zig: bool) -> None:
    tools = zig() if with_zig else device_toolchain()
    (tmp_path / "a.c").write_text(
        '#include "b.h"\n#include <stdint.h>\nextern const char data[]; int32_t a(int i) { return data[i] + B; }\n'
    )
    (tmp_path / "b.h").write_text("#define B 1\n")
    (tmp_path / "d.S").write_text('.section .rodata\n.globl data\n.hidden data\ndata:\n.incbin "b.h"\n')
    objects = [tmp_path / "a.o", tmp_path / "d.o"]
    tools.compiled(tmp_path / "a.c", objects[0], ("-O2", "-fPIC", "-fno-tree-loop-distribute-patterns"), (tmp_path,))
    tools.compiled(tmp_path / "d.S", objects[1], (), (tmp_path,))
    tools.merged(objects, tmp_path / "all.o")
    run_tool(tools.shared([tmp_path / "all.o"], tmp_path / "a.so", ("-z,defs", "-soname,a.so")), "Linking", "")
    tools.archived(tmp_path / "all.o", tmp_path / "a.a")
    output = subprocess.run(["aarch64-linux-gnu-readelf", "-hdW", tmp_path / "a.so"], capture_output=True, text=True, check=True).stdout
    assert "AArch64" in output and "soname: [a.so]" in output and "NEEDED" not in output
    assert (tmp_path / "a.a").read_bytes()[:8] == b"!<arch>\n"


@pytest.mark.parametrize("with_zig", [False, True])
def test_what_does_not_compile_is_said(tmp_path: Path, with_zig: bool) -> None:
    tools = zig() if with_zig else device_toolchain()
    (tmp_path / "a.c").write_text("int a(\n")
    with pytest.raises(UserError, match=r"Compiling a.c failed: .*error: ") as caught:
        tools.compiled(tmp_path / "a.c", tmp_path / "a.o", ())
    assert ("ziglang" in caught.value.remedy) == with_zig
