"""A user's own programs around a C library: the commands of docs/native-examples.md, unchanged."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from debian import debian_folder
from guest_libraries import STEM, THREADS, write_guest
from guest_python import board_python
from page_commands import commands_of
from small_networks import HOST

GUIDE = REPOSITORY / "docs/native-examples.md"
COMPILE = "compile --alpha 0.25 --resolution 128 --threads 4 --archive --out out"
BUILT = ("classify-c", "classify-cc", "classify-rs")
ANSWER = re.compile(r"^class (\d+): (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Walk:
    """A folder with the examples, and with `out/` and `input.f32` from the guide's first commands."""

    folder: Path

    def run(self, commands: str) -> str:
        """Return the output of commands; assert that none fails."""
        command = ["bash", "-c", f"set -euo pipefail\n{commands}"]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def check(self, output: str, runs: int = 1) -> None:
        """Asserts that programs printed what PyTorch computes."""
        with np.load(self.folder / f"out/{STEM}.reference.npz") as arrays:
            expected = arrays["output"].reshape(-1)
        answers = ANSWER.findall(output)
        assert len(answers) == runs
        for best, score in answers:
            assert int(best) == expected.argmax() and abs(float(score) - expected.max()) < 1e-5 * abs(expected).max()
        assert len({np.float32(score) for _, score in answers}) == 1


def write_program(path: Path, line: str) -> None:
    """A program of one line of shell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@pytest.fixture(scope="module", params=["small", pytest.param("0.25-128", marks=pytest.mark.long)])
def walk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """The guide's first commands; the long tests compile the network that they name, the others get a small one in its place."""
    folder = tmp_path_factory.mktemp("native")
    shutil.copytree(REPOSITORY / "examples/native", folder / "examples/native", ignore=shutil.ignore_patterns(*BUILT))
    tvmmobile = f'exec {shlex.join([sys.executable, "-m", "tvmmobile"])} "$@"'
    if request.param == "small":
        write_guest(folder / "small")
        tvmmobile = f'[ "$*" = "{COMPILE}" ] && mv small out'
    write_program(folder / "scripts/tvmmobile", tvmmobile)
    write_program(folder / ".venv/bin/python", f'exec {shlex.quote(sys.executable)} "$@"')
    walk = Walk(folder)
    walk.run(commands_of(GUIDE, ""))
    return walk


def require(program: str) -> None:
    """Skips the test where a program is missing."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


@pytest.mark.virtual
@pytest.mark.parametrize(("language", "program"), [("C", "make"), ("C++", "cmake")])
def test_programs_print_what_pytorch_computes(walk: Walk, language: str, program: str) -> None:
    require(program)
    commands = commands_of(GUIDE, language)
    walk.check(walk.run(commands), commands.count("qemu-aarch64"))


@pytest.mark.long
def test_rust_for_a_board(walk: Walk, tmp_path: Path) -> None:
    """A rustc of Debian's, as set-up installs it, has no standard library for AArch64: it gets that of Debian's package."""
    require("rustc")
    target = ["--target", "aarch64-unknown-linux-gnu"]
    found = subprocess.run(["rustc", "--print", "target-libdir", *target], capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_dir():
        library = debian_folder(("libstd-rust-dev",)) / "usr/lib/rustlib/aarch64-unknown-linux-gnu/lib"
        write_program(tmp_path / "rustc", f'exec {shutil.which("rustc")} -L {library} "$@"')
        (tmp_path / "empty.rs").touch()
        compiled = [str(tmp_path / "rustc"), *target, "--crate-type", "lib", "--emit", "metadata", "empty.rs"]
        if subprocess.run(compiled, cwd=tmp_path, capture_output=True, check=False).returncode:
            pytest.skip("no standard library for AArch64 of this rustc's version: rustup target add aarch64-unknown-linux-gnu")
    walk.check(walk.run(f"export PATH={tmp_path}:$PATH\n{commands_of(GUIDE, 'Rust')}"))


@pytest.mark.virtual
def test_the_package_for_cmake_can_be_moved_and_has_the_archive(walk: Walk, tmp_path: Path) -> None:
    require("cmake")
    moved, project, build = tmp_path / "mo ved", tmp_path / "project", tmp_path / "build"
    shutil.copytree(walk.folder / "out", moved)
    (moved / f"{STEM}.so").unlink()
    shutil.copytree(walk.folder / "examples/native", project)
    lists = project / "CMakeLists.txt"
    lists.write_text(lists.read_text().replace(f"tvmmobile::{STEM}", f"tvmmobile::{STEM}_static"))
    options = [f"-DCMAKE_PREFIX_PATH={moved}", "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++"]
    for command in (["cmake", "-S", str(project), "-B", str(build), *options], ["cmake", "--build", str(build)]):
        walk.run(shlex.join(command))
    walk.check(walk.run(f"qemu-aarch64 -L /usr/aarch64-linux-gnu {build}/classify input.f32 {THREADS}"))


@pytest.mark.virtual
def test_the_apps_input(walk: Walk) -> None:
    walk.run(commands_of(GUIDE, "Android"))
    assets = walk.folder / "examples/native/android/app/src/main/assets"
    assert (assets / "input.f32").read_bytes() == (walk.folder / "input.f32").read_bytes()
    activity = (assets.parent / "java/org/example/classifier/MainActivity.java").read_text(encoding="utf-8")
    assert 'INPUT = "input.f32"' in activity


@pytest.mark.virtual
def test_python_on_the_board(walk: Walk) -> None:
    """An AArch64 Python runs it in the folder with both library and program."""
    (command,) = re.findall(r"^pi\$ python3 (.*)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    python = shlex.join(board_python())
    copies = f"mkdir -p pi; cp examples/native/classify.py input.f32 out/{STEM}.so out/{STEM}.json pi; cd pi"
    walk.check(walk.run(f"{copies}; PYTHONNOUSERSITE=1 PYTHONPATH= OMP_NUM_THREADS=1 {python} {command}"))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """The examples as on a board of one's own: with a library for this machine."""
    folder = tmp_path_factory.mktemp("here")
    shutil.copytree(REPOSITORY / "examples/native", folder / "examples/native", ignore=shutil.ignore_patterns(*BUILT))
    write_guest(folder / "out", HOST)
    with np.load(folder / f"out/{STEM}.reference.npz") as arrays:
        arrays["input"].tofile(folder / "input.f32")
    return Walk(folder)


@pytest.mark.parametrize("program", BUILT)
@pytest.mark.parametrize("threads", [1, THREADS])
def test_programs_built_on_the_board(here: Walk, program: str, threads: int) -> None:
    require("rustc" if program == "classify-rs" else "make")
    (options,) = re.findall(r"^# make (CC=gcc .*?) {2,}on the board$", (here.folder / "examples/native/Makefile").read_text(), re.MULTILINE)
    built = f"make -C examples/native {program} {options}; cp examples/native/{program} out"
    here.check(here.run(f"{built}; out/{program} input.f32 {threads}"))


def test_python_describes_what_it_loads(here: Walk) -> None:
    program = f"""
        import sys; sys.path.insert(0, "examples/native")
        from classify import Network
        network = Network("out/{STEM}.so", 2)
        print([(one.name, one.layout, one.bytes) for one in network.description.inputs[:1]], network.inputs[0].shape)
        print([array.shape for array in network.run()], network.inputs[0].ctypes.data % 64)
        network.close()
        network.close()"""
    (here.folder / "program.py").write_text(textwrap.dedent(program))
    words = [sys.executable, "program.py"]
    done = subprocess.run(words, cwd=here.folder, capture_output=True, text=True, check=False)
    assert done.stdout == "[(b'input', b'NCHW', 3072)] (1, 3, 16, 16)\n[(1, 5)] 0\n"
    assert done.stderr.endswith("RuntimeError: the instance was not initialised, was freed, or was moved\n")


@pytest.mark.parametrize("program", BUILT)
def test_programs_say_what_is_wrong(here: Walk, program: str) -> None:
    require("rustc" if program == "classify-rs" else "make")
    here.run(f"make -C examples/native {program} CC=gcc CXX=g++ RUSTC='rustc -O'; cp examples/native/{program} out")
    for words, complaint in (("", "usage: classify INPUT.f32 THREADS"), (f"input.f32 {THREADS + 1}", "more threads than the library")):
        done = subprocess.run([f"out/{program}", *words.split()], cwd=here.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and complaint in done.stderr
