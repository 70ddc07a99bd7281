"""The wheel: what is in it, and that it compiles, tunes and times on a registered board where no compiler is installed."""

from __future__ import annotations

import os
import platform
import site
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import numpy as np
import pytest
from conftest import CommandLine
from registered_boards import SshBoard, make_board, make_home, register

from tvmmobile.devices.agent.build import AGENT, LOADER, bundle_path
from tvmmobile.kernels.reference import relative_error
from tvmmobile.pipeline.run import start
from tvmmobile.system.environment import cache_dir
from tvmmobile.virtual.elf import read_elf

STEM = "mobilenet_v1_0.25_128_float32_t1"
READY = f"tvmmobile/prebuilt/{bundle_path().name}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the script, from this checkout."""
    repository = Path(__file__).resolve().parents[2]
    command = [sys.executable, str(repository / "scripts/build_wheel.py"), "--out", str(tmp_path_factory.mktemp("dist"))]
    paths = {"PYTHONPATH": str(repository)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | paths)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_it_holds_every_file_of_the_package(wheel: Path, repository: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.startswith("tvmmobile/prebuilt/")}
    files = {
        str(Path(folder, name).relative_to(repository))
        for folder, _, names in os.walk(repository / "tvmmobile", followlinks=True)
        for name in names
        if not folder.endswith("__pycache__") and not name.endswith(".lock")
    }
    assert files <= held, "what is missing needs a line in pyproject.toml's package-data"
    assert {
        "tvmmobile/tuning_logs/pi4-virtual/float32_t1.jsonl",
        "tvmmobile/schedules/floats/pool.py",
        "tvmmobile/native/runtime.c",
    } <= files
    assert {name.split("/")[0] for name in held} == {"tvmmobile", "tvmmobile-0.1.0.dist-info"}


def test_what_boards_run_is_ready_built(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        ready = [entry for entry in archive.infolist() if entry.filename.startswith("tvmmobile/prebuilt/")]
        archive.extractall(tmp_path, [entry.filename for entry in ready])
    names = {entry.filename.removeprefix(f"{READY}/") for entry in ready}
    assert {AGENT, LOADER, "libc.so.6", "libstdc++.so.6", "libtvm_runtime.so", "libtvm_ffi.so"} <= names
    assert all(entry.external_attr >> 16 & 0o111 for entry in ready if entry.filename.startswith(READY))
    binaries = [path for path in (tmp_path / "tvmmobile/prebuilt").rglob("*") if path.is_file() and path.suffix != ".txt"]
    assert {read_elf(path).machine for path in binaries} == {"AArch64"}
    ours = [path for path in binaries if path.name.startswith((AGENT, "freestanding-", "adapter-", "check-"))]
    assert len(ours) == 4
    for path in ours:  # nothing of the machine that built it
        content = path.read_bytes()
        assert not [place for place in (Path(__file__).parents[2], cache_dir()) if str(place).encode() in content], path
    notice = (tmp_path / "tvmmobile/prebuilt/NOTICE.txt").read_text()
    cross = "" if platform.machine() == "aarch64" else "-arm64-cross"
    for package in (f"libc6{cross}", f"libstdc++6{cross}", f"libgcc-s1{cross}"):
        assert f"{package} " in notice and "License" in (tmp_path / f"tvmmobile/prebuilt/{package}.txt").read_text()


def test_it_is_for_every_machine_and_brings_a_linker(wheel: Path) -> None:
    assert wheel.name == "tvmmobile-0.1.0-py3-none-any.whl" and wheel.stat().st_size < 8e6
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_bytes(archive.read("tvmmobile-0.1.0.dist-info/METADATA"))
    assert "ziglang<0.18,>=0.17.1" in metadata.get_all("Requires-Dist", [])


class Installed:
    """The wheel in an environment of its own, which finds its dependencies in this one and no program in PATH."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        python = folder / "venv/bin/python"
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel]
        subprocess.run(pip, check=True)
        packages = next((folder / "venv").glob("lib/python3*/site-packages"))
        (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
        kept = {name: os.environ[name] for name in ("HOME", "COLUMNS", "TVMMOBILE_DATA", "OMP_NUM_THREADS")}
        self._environment = kept | {"PATH": str(folder / "venv/bin"), "TVMMOBILE_CACHE": str(folder / "cache")}
        self._folder = folder

    def __call__(self, *words: str, code: int = 0) -> str:
        """Return the output of a command line."""
        command = [self._folder / "venv/bin/python", "-P", "-m", "tvmmobile", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self._environment, cwd=self._folder)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    @property
    def place(self) -> str:
        """The place of the package."""
        command = [self._folder / "venv/bin/python", "-c", "import tvmmobile; print(tvmmobile.__path__[0])"]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=self._folder, env=self._environment).stdout.strip()


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshBoard]:
    board = make_board(tmp_path / "board", make_home(tmp_path, monkeypatch))
    yield board
    board.server.stop()


@pytest.mark.long
def test_a_board_needs_no_compiler_here(wheel: Path, board: SshBoard, cli: CommandLine, tmp_path: Path) -> None:
    """The board is this machine behind a real sshd, its agent under QEMU; PATH has neither here."""
    register(cli, board)
    tvmmobile = Installed(tmp_path, wheel)
    assert tvmmobile.place.startswith(str(tmp_path / "venv"))
    output = tvmmobile("doctor", code=1)
    assert "Virtual boards alone need what is missing" in output and "apt-get install -y qemu-user llvm-16 gcc libc6-dev\n" in output
    assert "mobilenet_v1" in tvmmobile("models")
    for form in ("vm", "c"):
        tvmmobile("compile", "--alpha", "0.25", "--resolution", "128", "--device", "desk", "--format", form, "--out", form)
        assert "emulated" in tvmmobile("bench", form, "--device", "desk", "--repeat", "2", "--out", form)  # which compares with PyTorch
    *_notes, sentence, remedy = tvmmobile("bench", "vm", "--device", "pi4-virtual", "--out", "virtual", code=1).splitlines()
    assert sentence.endswith(" is missing; virtual boards need qemu-aarch64, llvm-mca, llvm-mc, cc.")
    assert remedy == "Run: apt-get install -y qemu-user llvm-16 gcc libc6-dev"
    small = ("--alpha", "0.25", "--resolution", "32", "--classes", "10", "--trials", "1")
    tvmmobile("tune", "--device", "desk", *small, "--logs", "logs", "--out", "tuned")
    records = (tmp_path / "logs/desk/float32_t1.jsonl").read_text()
    assert records.count("\n") > 20 and '"error"' not in records
    assert {path.name for path in (tmp_path / "cache").iterdir()} & {bundle_path().name} and board.leftovers() == []
    with start("pi4-virtual", timed=False) as agents, np.load(tmp_path / f"vm/{STEM}.reference.npz") as arrays:
        outputs = [agents.outputs(tmp_path / form / f"{STEM}.so", [[arrays["input"]]], 1, 120)[0][0] for form in ("vm", "c")]
        assert relative_error(outputs[0], arrays["output"]) <= 1e-5
    assert outputs[0].tobytes() == outputs[1].tobytes()
