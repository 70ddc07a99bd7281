"""`init` compares the instructions that the kernels use with the CPU, and never dies of that."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from c_libraries import CPU, OK, write_device_library
from conftest import REPOSITORY
from other_cpus import CPUS, OLD, expected_outcomes, outcomes

from tvmmobile.native.library import DEVICE_FLAGS, FLAGS
from tvmmobile.running.library import find_libraries
from tvmmobile.system.doctor import CROSS_COMPILER, require

pytestmark = pytest.mark.virtual
#: Half precision and dot products, which Armv8.2 has, or matrix products as well.
ARMV8_2, MATRIX = (0x100400, 0, "asimdhp asimddp"), (0x100400, 0x2000, "asimdhp asimddp i8mm")
SYSROOT = Path("/usr/aarch64-linux-gnu")
Built = Callable[..., Path]


@pytest.fixture
def built(tmp_path: Path) -> Built:
    """Compiles `cpu.c` as libraries are, for kernels that need something, and links it as these words say."""

    def build(needs: tuple[int, int, str], *words: str) -> Path:
        hwcap, hwcap2, names = needs
        defined = f"-DNEEDED_HWCAP={hwcap}u", f"-DNEEDED_HWCAP2={hwcap2}u", f'-DNEEDED_NAMES="{names}"'
        source, program = Path(__file__).with_name("cpu.c"), tmp_path / "cpu"
        command = [str(require(CROSS_COMPILER)), *FLAGS, *DEVICE_FLAGS, "-Wall", "-Wextra", "-Werror", f"-I{REPOSITORY}/tvmmobile/native"]
        subprocess.run([*command, *defined, *words, source, "-o", program], check=True)
        return program

    return build


def code_of(program: Path, cpu: str, root: Path = SYSROOT) -> int:
    """Return a program's exit code; less than 0 for a signal."""
    return subprocess.run(["qemu-aarch64", "-L", root, "-cpu", cpu, program], timeout=60, check=False).returncode


@pytest.mark.parametrize("words", [[], ["-static"]], ids=["dynamic", "static"])
def test_getauxval_tells(words: list[str], built: Built) -> None:
    program = built(ARMV8_2, *words)
    assert {cpu: code_of(program, cpu) for cpu in CPUS} == {cpu: CPU if cpu in OLD else OK for cpu in CPUS}
    program = built(MATRIX, *words)
    assert {cpu: code_of(program, cpu) for cpu in CPUS} == {cpu: OK if cpu == "max" else CPU for cpu in CPUS}


LINES = "processor\t: 0\nBogoMIPS\t: 108.00\n{}\nCPU implementer\t: 0x41\n"
OTHER_WAYS = {
    "hidden": ["-pie", "-Wl,--dynamic-linker=/lib/ld-linux-aarch64.so.1"],  # as Android's loader hides it
    "not linked": ["-static", "-Wl,--defsym,__libc_start_main=main"],  # as in a static program that does not use it
}


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_files_tell_where_there_is_no_getauxval(way: str, built: Built, tmp_path: Path) -> None:
    """Kernels write cpuinfo in more than one way, and half a name is none. Without a line of features the auxiliary vector counts."""
    program = built(MATRIX, "-DALONE", "-nostdlib", *OTHER_WAYS[way])
    (tmp_path / "lib").symlink_to(SYSROOT / "lib")
    (tmp_path / "proc").mkdir()
    every = "fp asimd asimdhp asimddp i8mm"
    cases = [
        ("cortex-a53", LINES.format(f"Features\t: {every}"), OK),
        ("cortex-a53", LINES.format(f"Features\t: {every}\nprocessor\t: 1\nFeatures\t: fp asimd"), OK),
        ("cortex-a53", f"Processor\t: AArch64\nprocessor\t: 0\nprocessor\t: 1\nFeatures\t: {every}", OK),
        ("max", LINES.format("Features\t: fp asimd asimdhp asimddp"), CPU),
        ("max", LINES.format(f"Features\t: {every}2"), CPU),
        ("max", LINES.format("Features\t: fp xasimdhp asimddp i8mm"), CPU),
        *((cpu, text, code) for text in (LINES.format(f"Features2\t: {every}"), "") for cpu, code in (("cortex-a76", CPU), ("max", OK))),
    ]
    found = []
    for cpu, text, _ in cases:
        (tmp_path / "proc/cpuinfo").write_text(text)
        found.append((cpu, text, code_of(program, cpu, tmp_path)))
    assert found == cases


def test_without_an_operating_system_nobody_is_asked(built: Built) -> None:
    """A system call would end a program there."""
    program = built(MATRIX, "-DALONE", "-nostdlib", "-static")
    done = subprocess.run(
        ["qemu-aarch64", "-strace", "-cpu", "cortex-a53", program], capture_output=True, text=True, timeout=60, check=False
    )
    (call,) = done.stderr.splitlines()
    assert done.returncode == OK and call.endswith("exit(0)")


def test_every_loader_can_bind_it(built: Built) -> None:
    """Android's and musl's bind what they show when they load a library; a direct call would be bound when it is made."""
    library = built(MATRIX, "-shared", "-nostdlib", "-Wl,-z,defs")
    listed = subprocess.run(["aarch64-linux-gnu-readelf", "-rW", library], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"(R_AARCH64_\w+) .* (\w+) \+ 0$", listed, re.MULTILINE)
    names = "getauxval", "__libc_start_main"  # of one thread
    assert sorted(found) == sorted(("R_AARCH64_GLOB_DAT", name) for name in names)


def test_a_library_in_float32_runs_on_every_cpu(tmp_path: Path) -> None:
    """Compiled for a core that has more, too: LLVM uses none of it."""
    path = write_device_library(tmp_path, core="cortex-a76")
    (library,) = find_libraries([path])
    assert outcomes(library) == expected_outcomes()
    listed = subprocess.run(["aarch64-linux-gnu-nm", "-DP", path], capture_output=True, text=True, check=True).stdout
    assert "getauxval" not in listed
