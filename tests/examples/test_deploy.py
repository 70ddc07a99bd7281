"""From `compile` to top-5 in programs of a user's own: the commands of docs/deploy.md as they stand there, and `tvmmobile deploy`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, CommandLine
from deployed import make_library
from PIL import Image
from ssh_server import Home, Server, new_key, require_sshd

from tvmmobile.devices.agent.build import build_bundle
from tvmmobile.devices.board.connect import connected
from tvmmobile.devices.board.install import push_files
from tvmmobile.devices.board.registered import DeviceFile, Facts, LinuxCore, RegisteredBoard, save_device
from tvmmobile.kernels.reference import relative_error
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.errors import DeviceUnavailable
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.sysroot import python_sysroot

GUIDE = REPOSITORY / "docs/deploy.md"
STEM = "mobilenet_v1_0.25_128_float32_t1"
#: All that a library takes from elsewhere: the error of TVM's runtime.
FOREIGN = {"TVMFFIErrorSetRaisedFromCStrParts"}
ANSWER = re.compile(r"class (\d+): (\d+\.\d+) %")


@dataclass(frozen=True)
class Walk:
    """What the guide's commands left.

    Attributes:
        folder: where they ran, with `out/`, `photo.f32` and `examples/deploy/classify` in it.
        said: what they printed.
    """

    folder: Path
    said: str

    @property
    def library(self) -> Path:
        """The compiled library."""
        return self.folder / f"out/{STEM}.so"

    def reference(self) -> tuple[Path, np.ndarray]:
        """The reference input as a file of raw float32, and PyTorch's output for it."""
        path = self.folder / "reference.f32"
        with np.load(self.library.with_suffix(".reference.npz")) as arrays:
            arrays["input"].astype("<f4").tofile(path)
            return path, arrays["output"].reshape(-1)


def commands_of(guide: Path) -> str:
    """The text of all blocks marked `sh`."""
    return "".join(re.findall(r"```sh\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL))


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """The guide's commands, run in a folder that has nothing but the examples and a photo."""
    folder = tmp_path_factory.mktemp("walk")
    shutil.copytree(REPOSITORY / "examples", folder / "examples", ignore=shutil.ignore_patterns("classify"))
    gradient = np.linspace(0, 255, 300 * 200 * 3).reshape(200, 300, 3)
    Image.fromarray(gradient.astype(np.uint8)).save(folder / "photo.jpg")
    programs = folder / "bin"
    programs.mkdir()
    for name, words in {"tvmmobile": [sys.executable, "-m", "tvmmobile"], "python3": [sys.executable]}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (programs / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}",
        "TVMMOBILE_DATA": str(folder / "data"),
    }
    script = "set -euo pipefail\n" + commands_of(GUIDE)
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Walk(folder, done.stdout)


def emulated(*words: str) -> list[str]:
    """A command line that runs an AArch64 program of ours with the runtime's own loader."""
    bundle = build_bundle()
    return ["qemu-aarch64", str(bundle / "ld-linux-aarch64.so.1"), "--library-path", str(bundle), *words]


@pytest.mark.virtual
def test_the_guides_commands_agree_with_each_other(walk: Walk) -> None:
    # `run` prints its table twice; then the C++ program answers for the same image.
    tables = re.findall(r"^ (\d+) +(\d+\.\d+) %", walk.said, re.MULTILINE)
    program = ANSWER.findall(walk.said)
    assert len(program) == 5 and tables == [*program, *program]
    assert walk.said.count(" ms modelled") == 2


@pytest.mark.virtual
def test_the_program_in_c_plus_plus_computes_what_pytorch_computes(walk: Walk) -> None:
    data, expected = walk.reference()
    output = walk.folder / "cc.f32"
    command = emulated(str(walk.folder / "examples/deploy/classify"), str(walk.library), str(data), str(output))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert relative_error(np.fromfile(output, "<f4"), expected) < 1e-5
    assert [int(index) for index, _ in ANSWER.findall(done.stdout)] == list(np.argsort(-expected)[:5])
    assert re.search(r"first run \d+\.\d+ ms, then \d+\.\d+ ms \(median of 20\)", done.stdout)


@pytest.mark.virtual
def test_the_program_in_python_computes_what_pytorch_computes(walk: Walk) -> None:
    sys.path.insert(0, str(REPOSITORY / "scripts"))
    try:
        from verify_in_python import REQUIREMENTS
    finally:
        sys.path.remove(str(REPOSITORY / "scripts"))
    data, expected = walk.reference()
    output = walk.folder / "python.f32"
    sysroot = python_sysroot(load_board("pi4"), REQUIREMENTS)
    command = ["qemu-aarch64", "-L", str(sysroot), str(sysroot / "usr/bin/python3")]
    command += [str(walk.folder / "examples/deploy/classify.py"), str(walk.library), str(data), str(output)]
    environment = {"PATH": os.defpath, "PYTHONNOUSERSITE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert relative_error(np.fromfile(output, "<f4"), expected) < 1e-5
    assert [int(index) for index, _ in ANSWER.findall(done.stdout)] == list(np.argsort(-expected)[:5])


@pytest.mark.virtual
def test_the_programs_pins_are_ours() -> None:
    from tvmmobile.system.environment import TVM_FFI_VERSION, TVM_VERSION

    assert f"apache-tvm=={TVM_VERSION} apache-tvm-ffi=={TVM_FFI_VERSION}\n" in GUIDE.read_text(encoding="utf-8")


@pytest.mark.virtual
def test_what_the_program_cannot_run(walk: Walk, tmp_path: Path) -> None:
    program, data = str(walk.folder / "examples/deploy/classify"), str(walk.folder / "photo.f32")
    wrong = tmp_path / "wrong.f32"
    wrong.write_bytes(bytes(12 * 5))
    other = tmp_path / "other.f32"
    other.write_bytes(bytes(12 * 64 * 64))
    cases = {
        (str(walk.library),): "usage: ",
        (str(walk.library), str(wrong)): "does not hold the float32 of a square image",
        (str(walk.library), str(tmp_path / "absent.f32")): "does not hold the float32 of a square image",
        (str(tmp_path / "absent.so"), data): "Failed to load dynamic shared library",
        (str(walk.library), str(other)): "classify: ",  # the virtual machine's own words about the shape
        (str(walk.library), data, "/proc/nowhere"): "/proc/nowhere cannot be written",
    }
    for arguments, complaint in cases.items():
        done = subprocess.run(emulated(program, *arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 1 and complaint in done.stderr, (arguments, done.stderr)


@pytest.mark.virtual
def test_a_library_takes_little_from_elsewhere(walk: Walk) -> None:
    dynamic = subprocess.run(["aarch64-linux-gnu-readelf", "-d", str(walk.library)], capture_output=True, text=True, check=True).stdout
    assert "NEEDED" not in dynamic and "TEXTREL" not in dynamic
    command = ["aarch64-linux-gnu-nm", "-D", "--undefined-only", str(walk.library)]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r" U (\S+)", symbols)) <= FOREIGN


@dataclass(frozen=True)
class Registered:
    """An SSH server that is registered as the device `board`.

    Attributes:
        server: a real one, on this machine.
        directory: what the device has on it.
    """

    server: Server
    directory: Path


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registered]:
    """A board behind SSH on which AArch64 programs run through QEMU."""
    require_sshd()
    monkeypatch.setenv("TVMMOBILE_CACHE", str(cache_dir()))  # which the new home would move
    home = Home(tmp_path / "home")
    new_key(home.key)
    monkeypatch.setenv("HOME", str(home.path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    directory = tmp_path / "on board"
    facts = Facts(
        architecture="aarch64",
        model="A board",
        cores=(LinuxCore(implementer=0x41, part=0xD08, max_hz=1.8e9),) * 4,
        memory_bytes=4 << 30,
        system="Debian",
        kernel="6.1",
        libc="glibc 2.36",
    )
    server = Server(tmp_path / "sshd", home)
    try:
        board = RegisteredBoard(address=server.address, directory=str(directory), runner=("qemu-aarch64",), facts=facts, added="today")
        save_device(DeviceFile(name="board", boards=(board,)))
        yield Registered(server, directory)
    finally:
        server.stop()


@pytest.mark.virtual
def test_deploy_and_what_it_says_to_run(cli: CommandLine, walk: Walk, registered: Registered) -> None:
    first = cli("deploy", str(walk.folder / "out"), "--device", "board")
    assert first.code == 0, first.err
    folder = registered.directory / "models"
    assert "13 files pushed" in first.out and f"  {folder / STEM}.so\n" in first.out
    for name in (f"{STEM}.so", f"{STEM}.json"):
        assert (folder / name).read_bytes() == (walk.folder / "out" / name).read_bytes()
    (line,) = [line for line in first.out.splitlines() if line.endswith("./classify " + shlex.quote(f"{folder / STEM}.so") + " INPUT.f32")]
    data, expected = walk.reference()
    there = line.replace("INPUT.f32", shlex.quote(str(data)))
    done = subprocess.run(["sh", "-c", there], cwd=walk.folder / "examples/deploy", capture_output=True, text=True, check=True)
    assert int(ANSWER.findall(done.stdout)[0][0]) == expected.argmax()
    assert f"tvmmobile run {shlex.quote(str(walk.library))} IMAGE --device board" in first.out

    assert "nothing has changed" in cli("deploy", str(walk.library), "--device", "board").out
    (folder / f"{STEM}.so").write_bytes(b"damaged")
    again = cli("deploy", str(walk.library), "--device", "board")
    assert again.code == 0 and "1 file pushed" in again.out
    assert (folder / f"{STEM}.so").read_bytes() == walk.library.read_bytes()


@pytest.mark.virtual
def test_an_emulated_board_says_so_with_every_time(cli: CommandLine, walk: Walk, registered: Registered) -> None:
    arguments = ("run", str(walk.library), str(walk.folder / "photo.jpg"), "--device", "board", "--repeat", "2")
    shown = cli(*arguments)
    assert shown.code == 0, shown.err
    assert ANSWER.findall(walk.said)[0] == re.findall(r"^ (\d+) +(\d+\.\d+) %", shown.out, re.MULTILINE)[0]
    times = [line for line in shown.out.splitlines() if " ms" in line]
    assert [line.split()[0] for line in times] == ["init", "first", "latency"] and all(" ms emulated" in line for line in times)


@pytest.mark.virtual
def test_deploy_to_another_folder_and_several_libraries(cli: CommandLine, tmp_path: Path, registered: Registered) -> None:
    one, four = make_library(tmp_path / "out"), make_library(tmp_path / "out", threads=4, content=b"other", target={"mcpu": "cortex-a76"})
    folder = tmp_path / "else where" / "nets"
    done = cli("deploy", str(tmp_path / "out"), "--device", "board", "--to", f"{folder}/")
    assert done.code == 0, done.err
    assert (folder / one.name).read_bytes() == one.read_bytes() and (folder / four.name).read_bytes() == b"other"
    assert done.err == f"note: {four.name} was compiled for cortex-a76; board has cortex-a72.\n"
    assert not registered.directory.exists()


@pytest.mark.virtual
def test_what_cannot_be_deployed(cli: CommandLine, tmp_path: Path, registered: Registered) -> None:
    good = make_library(tmp_path / "good")
    for arguments, code, complaint in (
        ((good, make_library(tmp_path / "twin")), 1, "have the same name"),
        ((make_library(tmp_path / "many", threads=16),), 1, "16 threads, more than the 4 cores"),
        ((make_library(tmp_path / "damaged", sha256="0" * 64),), 1, "is not the library its manifest describes"),
        ((tmp_path,), 1, "no library in"),
        ((good, "--to", "models"), 1, "--to models is not a folder's absolute path"),
        ((good, "--to", "/"), 1, "--to / is not"),
        ((good, "--to", "/proc/nowhere"), 3, "/proc/nowhere cannot be created on the board"),
        ((good, "--to", str(good)), 3, "cannot be created on the board"),
    ):
        done = cli("deploy", *map(str, arguments), "--device", "board")
        assert done.code == code and complaint in done.err and done.out == "", done
    registered.server.stop()
    done = cli("deploy", str(good), "--device", "board")
    assert done.code == 3 and "Traceback" not in done.err


@pytest.mark.virtual
def test_a_file_that_cannot_be_stored_is_named(tmp_path: Path, registered: Registered) -> None:
    source = make_library(tmp_path / "out")
    folder = tmp_path / "models"
    (folder / source.name).mkdir(parents=True)  # in its place
    with connected(registered.server.address) as remote:
        with pytest.raises(
            DeviceUnavailable, match=f"{source.name} (cannot be stored on the board|on the board differs from what was sent)"
        ):
            push_files(remote, str(folder), {source.name: source})
        with pytest.raises(DeviceUnavailable, match=r"^/proc/sys/net\.so cannot be stored on the board"):
            push_files(remote, "/proc/sys", {"net.so": source})


def test_there_is_nothing_to_deploy_to_on_a_virtual_board(cli: CommandLine, tmp_path: Path) -> None:
    done = cli("deploy", str(make_library(tmp_path)), "--device", "pi4")
    assert done.code == 1 and "pi4-virtual is a virtual board: there is nothing to deploy to" in done.err
    assert "tvmmobile device add pi4 --ssh USER@HOST" in done.err
