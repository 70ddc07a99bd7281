"""From `compile` to top-5 in a user's own programs: the commands of docs/deploy.md, unchanged, and `tvmmobile deploy`."""

from __future__ import annotations

import json
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
from guest_python import board_python
from network_files import write_python
from own_networks import module_text
from page_commands import commands_of
from PIL import Image
from ssh_server import Home, Server, new_key, require_sshd
from workflows import clone

import tvmmobile as tm
from tvmmobile.devices.agent.build import build_bundle
from tvmmobile.devices.board.connect import connected, described
from tvmmobile.devices.board.install import MARK, push_files, runtime_files
from tvmmobile.devices.board.registered import DeviceFile, Facts, LinuxCore, RegisteredBoard, save_device
from tvmmobile.kernels.reference import relative_error
from tvmmobile.running.networks import checker
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.errors import DeviceUnavailable

GUIDE = REPOSITORY / "docs/deploy.md"
STEM = "mobilenet_v1_0.25_128_float32_t1"
#: All that a library takes from elsewhere: the error of TVM's runtime.
FOREIGN = {"TVMFFIErrorSetRaisedFromCStrParts"}
ANSWER = re.compile(r"class (\d+): (\d+\.\d+) %")


@dataclass(frozen=True)
class Walk:
    """The results of the guide's commands.

    Attributes:
        folder: folder that they ran in, a clean clone with `photo.jpg` in it; they made `out/`, `photo.f32` and `examples/deploy/classify`.
        said: their output.
    """

    folder: Path
    output: str

    @property
    def library(self) -> Path:
        """The compiled library of TVM's virtual machine."""
        return self.folder / f"out/vm/{STEM}.so"

    @property
    def c_library(self) -> Path:
        """The C library."""
        return self.folder / f"out/{STEM}.so"

    def reference(self) -> tuple[Path, np.ndarray]:
        """Return the reference input as a file of raw float32, and PyTorch's output for it."""
        path = self.folder / "reference.f32"
        with np.load(self.library.with_suffix(".reference.npz")) as arrays:
            arrays["input"].astype("<f4").tofile(path)
            return path, arrays["output"].reshape(-1)


def in_clone(command: str, folder: Path, **variables: str) -> str:
    """Return the output of a command in a clone, with no Python on the way to programs but what Debian has; assert that it succeeds."""
    path = os.pathsep.join(place for place in os.environ["PATH"].split(os.pathsep) if Path(place) != Path(sys.executable).parent)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": path} | variables
    script = "set -euo pipefail\n" + command
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """The guide's commands, run as they stand there in a clean clone."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("this is no git repository, so there is nothing to clone")
    scratch = tmp_path_factory.mktemp("walk")
    folder = clone(REPOSITORY, scratch / "checkout")
    gradient = np.linspace(0, 255, 300 * 200 * 3).reshape(200, 300, 3)
    Image.fromarray(gradient.astype(np.uint8)).save(folder / "photo.jpg")
    return Walk(folder, in_clone(commands_of(GUIDE), folder, TVMMOBILE_DATA=str(scratch / "data")))


def emulated(*words: str) -> list[str]:
    """Return a command line that runs an AArch64 program of ours with the runtime's own loader."""
    bundle = build_bundle()
    return ["qemu-aarch64", str(bundle / "ld-linux-aarch64.so.1"), "--library-path", str(bundle), *words]


@pytest.mark.virtual
def test_the_guides_commands_agree_with_each_other(walk: Walk) -> None:
    # `run` prints its table twice; then the C++ program answers for the same image.
    tables = re.findall(r"^ (\d+) +(\d+\.\d+) %", walk.output, re.MULTILINE)
    program = ANSWER.findall(walk.output)
    assert len(program) == 5 and tables == [*program, *program]
    assert walk.output.count(" ms modelled") == 2


@pytest.mark.virtual
def test_the_guides_table_has_what_the_commands_made(walk: Walk) -> None:
    """Sizes to a twentieth, for other versions of compilers; latencies as they were printed, which depends on the compiler, too."""
    rows = {cells[0]: cells for line in GUIDE.read_text(encoding="utf-8").splitlines() if len(cells := line.strip("| ").split(" | ")) == 5}
    bundle = build_bundle()
    runtime, for_c = ([path.stat().st_size for path in runtime_files(bundle, tvm).values()] for tvm in (True, False))
    library, c_library = walk.library.stat().st_size, walk.c_library.stat().st_size
    beside = sum(walk.c_library.with_suffix(suffix).stat().st_size for suffix in (".h", ".json", ".reference.npz"))
    sizes = {
        "C library, shared": c_library,
        "C library, static": walk.c_library.with_suffix(".a").stat().st_size,
        "VM library, from C++": library,
        "VM library, from Python": library,
        "`deploy` of the C library": c_library + beside + sum(for_c) + checker().stat().st_size,
        "`deploy` of the VM library": library + walk.library.with_suffix(".json").stat().st_size + sum(runtime),
    }
    for way, size in sizes.items():
        assert float(rows[way][2]) == pytest.approx(size / 1e6, rel=0.05), way
    manifest = json.loads(walk.c_library.with_suffix(".json").read_text())
    assert c_library - manifest["c"]["weight_bytes"] < 400 * 1024  # code, description and padding
    tvm = sum((bundle / name).stat().st_size for name in ("libtvm_runtime.so", "libtvm_ffi.so"))
    assert f"({tvm / 1e6:.2f} MB)" in rows["VM library, from C++"][3]
    modelled = [float(found) for found in re.findall(r"^latency (\S+) ms modelled", walk.output, re.MULTILINE)]
    for way, latency_ms in zip(("C library, shared", "VM library, from C++"), modelled, strict=True):
        assert float(rows[way][4]) == pytest.approx(latency_ms, rel=0.02), way


def test_make_says_which_python_it_needs(tmp_path: Path) -> None:
    for name in ("Makefile", "classify.cc"):
        shutil.copy(REPOSITORY / "examples/deploy" / name, tmp_path)
    program = tmp_path / "bin/python3"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho No module named tvm_ffi >&2; exit 1\n")
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["make"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "python3 has no TVM. Run ./scripts/tvmmobile doctor, which sets one up" in line


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
    data, expected = walk.reference()
    output = walk.folder / "python.f32"
    command = [*board_python(), str(walk.folder / "examples/deploy/classify.py"), str(walk.library), str(data), str(output)]
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
    """An SSH server that is registered as the device `mypi`.

    Attributes:
        server: a real one, on this machine.
        directory: the device's directory.
    """

    server: Server
    directory: Path

    @property
    def where(self) -> str:
        """Its address, as `deploy` prints it."""
        return described(self.server.address)


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
        save_device(DeviceFile(name="mypi", boards=(board,)))
        yield Registered(server, directory)
    finally:
        server.stop()


def documented_deploy() -> tuple[str, str]:
    """Return the guide's command, and what it says that it prints."""
    (block,) = re.findall(r"```console\n(\$ .*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    command, _, output = block.removeprefix("$ ").partition("\n")
    return command, output


@pytest.mark.virtual
def test_deploy_of_a_c_library_as_the_guide_shows_it(cli: CommandLine, walk: Walk, registered: Registered) -> None:
    command, expected = documented_deploy()
    output, folder = in_clone(command, walk.folder), registered.directory / "models"
    output = output.replace("'", "").replace(str(folder), "/home/pi/.tvmmobile/models")
    output = output.replace(registered.where, "pi@raspberrypi.local").replace(" qemu-aarch64 ", " ")
    size = re.compile(r"\(\d+\.\d MB\)")
    assert size.sub("", output) == size.sub("", expected)
    kept = {path.name for path in folder.iterdir()}
    assert kept == {f"{STEM}{suffix}" for suffix in (".so", ".h", ".json", ".reference.npz")} | {"runtime"}
    assert all((folder / name).read_bytes() == (walk.c_library.parent / name).read_bytes() for name in kept - {"runtime"})

    again = cli("deploy", str(walk.c_library), "--device", "mypi")
    (line,) = [line for line in again.out.splitlines() if "runtime/check" in line]
    assert "nothing has changed" in again.out
    done = subprocess.run(["sh", "-c", f"{line} 1 3"], capture_output=True, text=True, check=True)
    assert re.match(
        r"mobilenet_v1_0.25_128, threads: 1\nerror \d(\.\d)?e-0\d of the reference's largest magnitude\nfirst run .* \(median of 3\)",
        done.stdout,
    )


@pytest.mark.virtual
def test_a_c_library_that_is_wrong_there(cli: CommandLine, walk: Walk, registered: Registered, tmp_path: Path) -> None:
    """It computes something else, or does not start; and a file cut off on the board is renewed."""
    for suffix in (".so", ".h", ".json", ".reference.npz"):
        shutil.copy(walk.c_library.with_suffix(suffix), tmp_path)
    library = tmp_path / f"{STEM}.so"
    with np.load(library.with_suffix(".reference.npz")) as arrays:
        data, output = arrays["input"], arrays["output"]
    np.savez(library.with_suffix(".reference.npz"), input=data, output=output + 0.01 * np.abs(output).max())
    words = ("deploy", str(library), "--device", "mypi")
    wrong = cli(*words, "--verify")
    assert wrong.code == 5 and f"{STEM}.so disagrees with " in wrong.err and ": error 0.01 of the reference's largest" in wrong.err
    manifest = json.loads(library.with_suffix(".json").read_text())
    library.with_suffix(".json").write_text(json.dumps(manifest | {"c": manifest["c"] | {"prefix": "another"}}))
    wrong = cli(*words, "--verify")
    assert wrong.code == 5 and f"{STEM}.so does not run on " in wrong.err and "another_describe" in wrong.err
    library.with_suffix(".h").unlink()
    assert f"{library.with_suffix('.h')} does not exist" in cli(*words).err
    there = registered.directory / "models" / f"{STEM}.so"
    there.write_bytes(there.read_bytes()[:5000])
    again = cli("deploy", str(walk.c_library), "--device", "mypi", "--verify")
    assert again.code == 0 and there.read_bytes() == walk.c_library.read_bytes(), again.err
    assert not [path.name for path in there.parent.iterdir() if path.name.endswith(".part")]


@pytest.mark.virtual
def test_rows_in_order_of_a_score_are_compared_whatever_their_order(cli: CommandLine, registered: Registered, tmp_path: Path) -> None:
    """Two rows of the reference that nearly tie change places."""
    scores = "(1 - 0.01 * torch.arange(12.0) + 0.00999 * (torch.arange(12) == 3))"
    forward = f"y = self.conv(x).mean(3)[..., :3].flatten(1); return torch.stack([{scores}.expand_as(y), y], 2)"
    made = cli("compile", "--model", f"{write_python(tmp_path, module_text(forward))}:small", "--resolution", "8", "--out", str(tmp_path))
    assert made.code == 0, made.err
    (library,) = tmp_path.glob("*.so")
    reference = library.with_suffix(".reference.npz")
    with np.load(reference) as arrays:
        data, output = arrays["input"], arrays["output"]
    for changed, code in ((output[:, [0, 1, 3, 2, *range(4, 12)]] * [0, 1] + output * [1, 0], 0), (output * [1, 2], 5)):
        np.savez(reference, input=data, output=changed.astype(np.float32))
        done = cli("deploy", str(library), "--device", "mypi", "--verify")
        assert done.code == code and ("disagrees with" in done.err) == (code == 5), done


@pytest.mark.virtual
def test_deploy_and_what_it_says_to_run(cli: CommandLine, walk: Walk, registered: Registered) -> None:
    """A library of TVM's virtual machine."""
    first = cli("deploy", str(walk.library.parent), "--device", "mypi", "--verify")
    assert first.code == 0, first.err
    folder = registered.directory / "models"
    assert (registered.directory / MARK).exists(), "removed with the device, and shared with the agent that verified"
    assert "13 files pushed" in first.out and f"  {folder / STEM}.so\n" in first.out and "every library agrees" in first.out
    for name in (f"{STEM}.so", f"{STEM}.json"):
        assert (folder / name).read_bytes() == (walk.library.parent / name).read_bytes()
    (line,) = [line for line in first.out.splitlines() if line.endswith("./classify " + shlex.quote(f"{folder / STEM}.so") + " INPUT.f32")]
    data, expected = walk.reference()
    there = line.replace("INPUT.f32", shlex.quote(str(data)))
    done = subprocess.run(["sh", "-c", there], cwd=walk.folder / "examples/deploy", capture_output=True, text=True, check=True)
    assert int(ANSWER.findall(done.stdout)[0][0]) == expected.argmax()
    assert f"tvmmobile run {shlex.quote(str(walk.library))} IMAGE --device mypi" in first.out

    assert "nothing has changed" in cli("deploy", str(walk.library), "--device", "mypi").out
    (folder / f"{STEM}.so").write_bytes(b"damaged")
    again = cli("deploy", str(walk.library), "--device", "mypi")
    assert again.code == 0 and "1 file pushed" in again.out
    assert (folder / f"{STEM}.so").read_bytes() == walk.library.read_bytes()


@pytest.mark.virtual
def test_an_emulated_board_says_so_with_every_time(cli: CommandLine, walk: Walk, registered: Registered) -> None:
    arguments = ("run", str(walk.library), str(walk.folder / "photo.jpg"), "--device", "mypi", "--repeat", "2")
    shown = cli(*arguments)
    assert shown.code == 0, shown.err
    assert ANSWER.findall(walk.output)[0] == re.findall(r"^ (\d+) +(\d+\.\d+) %", shown.out, re.MULTILINE)[0]
    times = [line for line in shown.out.splitlines() if " ms" in line]
    assert [line.split()[0] for line in times] == ["init", "first", "latency"] and all(" ms emulated" in line for line in times)


@pytest.mark.virtual
def test_deploy_to_another_folder_and_several_libraries(cli: CommandLine, tmp_path: Path, registered: Registered) -> None:
    one, four = make_library(tmp_path / "out"), make_library(tmp_path / "out", threads=4, content=b"other", target={"mcpu": "cortex-a76"})
    folder = tmp_path / "else where" / "nets"
    done = cli("deploy", str(tmp_path / "out"), "--device", "mypi", "--to", f"{folder}/")
    assert done.code == 0, done.err
    assert (folder / one.name).read_bytes() == one.read_bytes() and (folder / four.name).read_bytes() == b"other"
    assert done.err == f"note: {four.name} was compiled for cortex-a76; mypi has cortex-a72.\n"
    (again,) = tm.deploy([tm.open_libraries(one)[0], four], "mypi", to=str(folder))
    assert [library.path for library in again.libraries] == [one, four] and again.pushed == ()
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
        done = cli("deploy", *map(str, arguments), "--device", "mypi")
        assert done.code == code and complaint in done.err and done.out == "", done
    registered.server.stop()
    done = cli("deploy", str(good), "--device", "mypi")
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
