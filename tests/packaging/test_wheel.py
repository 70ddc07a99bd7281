"""A library as a wheel: installed by pip, and run by an AArch64 Python with NumPy alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from guest_python import board_python
from PIL import Image

import tvmmobile as tm
from tvmmobile.cli import run
from tvmmobile.networks.images import read_input
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.packaging.wheel import write_wheel
from tvmmobile.pipeline.compiled_library import CompiledLibrary
from tvmmobile.running.library import find_libraries
from tvmmobile.system.errors import UserError

#: What a program on a board does with a package.
PROGRAM = """
import json, os, sys, threading
import numpy as np
import mynet
inputs = np.load(sys.argv[1])
network = mynet.network()
expected = mynet.run(inputs["image"])
said = {"ports": [network.inputs, network.outputs], "scores": expected.tolist()}
said["picture"] = mynet.run(inputs["picture"]).tolist()
said["without batch"] = bool((mynet.run(inputs["image"][0]) == expected).all())
alike = []
calls = [threading.Thread(target=lambda: alike.append(bool((mynet.run(inputs["image"]) == expected).all()))) for _ in range(4)]
[call.start() for call in calls], [call.join() for call in calls]
said["threads"] = alike
child = os.fork()
if not child:
    os._exit(0 if (mynet.run(inputs["image"]) == expected).all() else 1)
said["forked"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
wrong = {"shape": ((3, 9, 9), "f4"), "type": ((1, 3, 128, 128), "c8"), "bytes": ((128, 128, 4), "u1")}
for name, (shape, dtype) in wrong.items():
    try:
        mynet.run(np.zeros(shape, dtype))
    except (ValueError, TypeError) as error:
        said[name] = str(error)
with mynet.Network(mynet.LIBRARY, threads=0) as fastest:
    said["fastest"] = fastest.threads, bool((fastest.run(inputs["image"]) == expected).all())
network.close()
said["closed"] = bool((mynet.run(inputs["image"]) == expected).all())
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> CompiledLibrary:
    net = tm.load("mobilenet_v1", alpha=0.25, resolution=128)
    return tm.compile(net, device="pi4", threads=2, image=tm.Normalisation(), out=tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def installed(library: CompiledLibrary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder into which pip has installed the wheel for a board."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = tm.write_wheel(library, folder, "mynet", "2.1")
    board = ["--platform", "manylinux_2_17_aarch64", "--only-binary", ":all:", "--python-version", "3.11", "--no-deps", "--no-index"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *board, "--target", folder / "site", wheel]
    subprocess.run(command, check=True, timeout=120)
    about = (folder / "site" / "mynet-2.1.dist-info" / "METADATA").read_text(encoding="utf-8")
    assert library.fastest_threads == {"pi4-virtual": 2}
    assert "It runs on up to 2 threads; fastest by the records that it was compiled from: 2 on cortex-a72." in about
    return folder / "site"


def on_board(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*board_python(), *words]
    return subprocess.run(command, env={"PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.virtual
def test_it_computes_what_the_network_does(library: CompiledLibrary, installed: Path, tmp_path: Path) -> None:
    (image,), (expected,) = find_libraries([library.path])[0].reference()
    picture = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)
    np.savez(tmp_path / "inputs.npz", image=image, picture=picture)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = on_board(installed, str(program), str(tmp_path / "inputs.npz"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert np.abs(np.array(found["scores"]) - expected).max() <= 1e-4 * np.abs(expected).max()
    assert found["without batch"] and found["threads"] == [True] * 4 and found["forked"] == 0 and found["closed"]
    assert found["fastest"] == [min(2, len(os.sched_getaffinity(0))), True]
    assert found["ports"] == [
        [["input", [1, 3, 128, 128], "float32", "NCHW"]],
        [["output", [1, 1000], "float32", found["ports"][1][0][3]]],
    ]
    assert "not [3, 9, 9]" in found["shape"] and "complex64" in found["type"] and "[128, 128, 4]" in found["bytes"]
    Image.fromarray(picture).save(tmp_path / "picture.png")
    seen = library.run(read_input(tmp_path / "picture.png", Preprocessing(128)).array, device="pi4")
    assert np.array_equal(np.array(found["picture"], np.float32), seen)


@pytest.mark.virtual
def test_it_checks_itself(installed: Path) -> None:
    done = on_board(installed, "-m", "mynet")
    assert (done.returncode, done.stdout.startswith("agrees with its reference output: error")) == (0, True), done.stderr
    assert "with 2 threads: median of 20 runs by this machine's clock" in done.stdout


def test_the_same_library_gives_the_same_wheel(library: CompiledLibrary, tmp_path: Path) -> None:
    first, second = (tm.write_wheel(library, tmp_path / folder) for folder in "ab")
    assert first.name.startswith("mobilenet_v1_0_25_128-1.0-py3-none-manylinux_2_17_aarch64")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.testzip() is None


def test_bad_names_and_libraries(library: CompiledLibrary, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (found,) = find_libraries([library.path])
    for name in ("My-Net", "class", "1net", "", "net_"):
        with pytest.raises(UserError, match="cannot be the name"):
            write_wheel(found, tmp_path, name)
    for name in ("numpy", "statistics"):
        with pytest.raises(UserError, match="one would hide the other"):
            write_wheel(found, tmp_path, name)
    for release in ("one", "1..0", "1.0\nName: other"):
        with pytest.raises(UserError, match="not a version"):
            write_wheel(found, tmp_path, release=release)
    assert run(["package", str(library.path), "--out", str(tmp_path)]) == 1
    assert "Give --wheel or --android." in capfd.readouterr().err
    assert run(["package", str(library.path), "--wheel", "--out", str(tmp_path / "dist")]) == 0
    assert "python -m mobilenet_v1_0_25_128" in " ".join(capfd.readouterr().out.split())
