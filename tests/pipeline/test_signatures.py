"""A network with several inputs and outputs, of several types, from a file to its library on a device."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CommandLine
from torch import nn

import tvmmobile as tm
from tvmmobile.kernels.reference import network_error
from tvmmobile.networks.frontend import by_torch
from tvmmobile.running.networks import checker
from tvmmobile.system.doctor import require

pytestmark = pytest.mark.virtual
DEVICE = "pi4-virtual"
STEM = "detector_1.0_8_float32_t1"


class Detector(nn.Module):
    """Scores of pixels, their classes and a copy of an input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, image: torch.Tensor, shift: torch.Tensor) -> dict[str, torch.Tensor]:
        features = (self.body(image.float() / 255) + shift).relu()
        scores = self.head(features)
        return {"scores": scores, "classes": scores.argmax(1)}


@pytest.fixture(scope="module", params=["c", pytest.param("vm", marks=pytest.mark.long)])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tm.CompiledLibrary:
    examples = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 16, 1, 1)
    model = tm.load(Detector().eval(), examples, name="detector")
    return tm.compile(model, DEVICE, out=tmp_path_factory.mktemp("out") / request.param, format=request.param)


def test_it_is_verified_timed_and_run(library: tm.CompiledLibrary, cli: CommandLine, tmp_path: Path) -> None:
    (variant,) = library.bench(DEVICE).variants
    assert variant.max_error < 1e-6 and variant.samples_us[0] > 0
    inputs = {"image": np.full((1, 3, 8, 8), 200, np.uint8), "shift": np.ones((1, 16, 1, 1), np.float32)}
    wanted = by_torch(Detector())(list(inputs.values()))
    found = library.run(inputs, DEVICE)
    assert isinstance(found, dict) and list(found) == ["scores", "classes"] and network_error(list(found.values()), wanted) < 1e-6
    np.savez(tmp_path / "given.npz", **inputs)
    words = ["run", str(library.path), str(tmp_path / "given.npz"), "--device", DEVICE, "--output"]
    done = cli(*words, str(tmp_path / "found.npz"))
    assert done.code == 0 and "image: uint8 [1, 3, 8, 8], shift: float32 [1, 16, 1, 1]" in done.out, done.err
    with np.load(tmp_path / "found.npz") as arrays:
        assert {name: arrays[name].dtype for name in arrays} == {"scores": np.float32, "classes": np.int64}
        assert network_error([arrays["scores"], arrays["classes"]], wanted) < 1e-6
    refused = cli(*words, str(tmp_path / "found.npy"))
    assert refused.code == 1 and "does not end in .npz" in refused.err


def test_its_manifest_names_them(library: tm.CompiledLibrary) -> None:
    manifest = library.manifest()
    assert manifest["inputs"][0] == {"name": "image", "shape": [1, 3, 8, 8], "layout": "NCHW", "dtype": "uint8"}
    assert [(entry["name"], entry["dtype"]) for entry in manifest["outputs"]] == [("scores", "float32"), ("classes", "int64")]
    (again,) = tm.open_libraries(library.path)
    assert again.spec == library.spec and [port.name for port in again.spec.takes] == ["image", "shift"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (np.zeros((1, 3, 8, 8)), "1 inputs are given, and .* takes 2"),
        ({"image": np.zeros((1, 3, 8, 8))}, "inputs called image are given"),
        ((np.zeros((1, 3, 8, 9)), np.zeros((1, 16, 1, 1))), r"the input image is \[1, 3, 8, 9\], and .* takes \[1, 3, 8, 8\]"),
        ((np.full((1, 3, 8, 8), 0.5), np.zeros((1, 16, 1, 1))), "the input image holds numbers that are not uint8"),
    ],
)
def test_what_it_does_not_take(library: tm.CompiledLibrary, given: tuple[np.ndarray, ...], complaint: str) -> None:
    with pytest.raises(tm.UserError, match=complaint):
        library.run(given, DEVICE)


def test_it_is_checked_where_it_is_deployed(library: tm.CompiledLibrary, tmp_path: Path) -> None:
    """`check` compares every output, and integers by how many differ."""
    if not library.is_c:
        pytest.skip("check runs C libraries")
    program = Path(shutil.copy(checker(), tmp_path / "check"))
    program.chmod(0o755)
    prefix = library.manifest()["c"]["prefix"]
    command = [str(require("qemu-aarch64")), "-L", "/usr/aarch64-linux-gnu", str(program), str(library.path), prefix, "1", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "detector_1.0_8, threads: 1" in done.stdout, done.stderr
    (tmp_path / library.path.name).write_bytes(library.path.read_bytes())
    with np.load(library.reference_path) as arrays:
        changed = {name: arrays[name] for name in arrays}
    changed["output1"] = changed["output1"] + 1
    np.savez(tmp_path / library.reference_path.name, **changed)
    command[-4] = str(tmp_path / library.path.name)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 5 and "error 1 of" in done.stdout, done.stdout


def test_it_is_no_classifier_of_images(library: tm.CompiledLibrary, cli: CommandLine, tmp_path: Path) -> None:
    done = cli("evaluate", str(library.path), "noise:1", "--device", DEVICE, "--model", "net.py:make")
    assert done.code == 1 and "does not map one float32 image to float32 scores" in done.err
    assert json.loads(library.manifest_path.read_text())["version"] == 1


def test_a_batch_is_computed_image_by_image(tmp_path: Path) -> None:
    """It uses the kernels of a single image, and gives the same bits as separate runs."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
    images = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    both, one = (tm.compile(tm.load(module, torch.zeros(count, 3, 8, 8), name="net"), DEVICE, out=tmp_path) for count in (2, 1))
    assert both.path.name == "net_1.0_b2_8_float32_t1.so"
    layers = [kernel.name for kernel in both.kernels if not kernel.schedule.startswith("stages")]
    assert layers == 2 * [kernel.name for kernel in one.kernels]
    found = both.run(images, DEVICE)
    assert np.array_equal(found, np.concatenate([one.run(images[place : place + 1], DEVICE) for place in range(2)]))
    assert network_error([found], by_torch(module)([images])) < 1e-6
