"""The study bench_peers with a user's own network: how it gets to the other libraries, and what they cannot take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from studies.formats import export_models
from studies.harness import parsed
from studies.peers import bench_peers
from studies.peers.models import check_comparable, exported, model_files
from studies.peers.systems import chosen_systems
from tvmmobile.networks.model import Model
from tvmmobile.pipeline.load import load
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.board import load_board


class Small(torch.nn.Module):
    """A convolution, an average and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.dense = torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.dense(torch.nn.functional.silu(self.convolution(image)).mean((2, 3)))
        return pooled


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An exported program, and an empty cache."""
    monkeypatch.setenv("TVMMOBILE_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    path = tmp_path / "small.pt2"
    torch.export.save(torch.export.export(Small().eval(), (torch.randn(1, 3, 8, 12),)), path)
    return path


def test_a_file_is_a_network_to_compare(program: Path) -> None:
    (model,) = bench_peers.variants(str(program), [], [], False, 4)
    assert isinstance(model, Model) and model.spec.input_shape == (1, 3, 8, 12)
    folder = exported(model, lambda _: None)
    image, logits = (np.load(folder / name) for name in ("image.npy", "logits.npy"))
    expected = torch.export.load(program).module()(torch.from_numpy(image)).detach().numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert (folder / "own.pt2").read_bytes() == program.read_bytes()
    assert exported(model, lambda _: pytest.fail("it is there already")) == folder


def test_inputs_beside_a_file_calibrate_it(program: Path) -> None:
    """The first one is the image that all systems run."""
    inputs = np.random.default_rng(0).normal(size=(3, 3, 8, 12)).astype(np.float32)
    (model,) = bench_peers.variants(str(program), [], [], False, 1)
    generated = exported(model, lambda _: None)
    np.save(program.with_suffix(".npy"), inputs)
    check_comparable(model, "int8")
    folder = exported(model, lambda _: None)
    assert folder != generated and np.array_equal(np.load(folder / "image.npy"), inputs[:1])
    assert np.array_equal(np.load(folder / "inputs.npy"), inputs)


def test_each_format_is_made_when_it_is_asked_for(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that fails then affects only its own library."""
    folder = exported(load(program), lambda _: None)
    converter = tmp_path / "converters/pnnx/pnnx"
    converter.parent.mkdir(parents=True)
    converter.write_text("#!/bin/sh\nexit 3\n")
    converter.chmod(0o755)
    monkeypatch.setattr(export_models, "converters", lambda: tmp_path / "converters")
    (system,) = chosen_systems(["onnxruntime"])
    (path,) = model_files(system, load_board("pi4"), folder, None)
    assert path.name == "model.onnx" and (path.parent / "logits.npy").is_file() and not list(folder.glob("model.tflite*"))
    (ncnn,) = chosen_systems(["ncnn"])
    with pytest.raises(UserError, match="pnnx"):
        model_files(ncnn, load_board("pi4"), folder, None)


def test_what_converters_do_not_take_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="LiteRT's converter takes networks of PyTorch alone"):
        export_models.STEPS["model.tflite"](export_models.Source((1, 3, 8, 8), file=tmp_path / "net.onnx"), tmp_path, tmp_path)


class Shifted(torch.nn.Module):
    """Takes two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 4, 3)

    def forward(self, image: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        shifted: torch.Tensor = self.convolution(image) + shift
        return shifted


def test_what_is_not_compared_is_refused_before_any_work(program: Path, tmp_path: Path) -> None:
    python, several = tmp_path / "net.py", tmp_path / "two.pt2"
    python.write_text("import torch\ndef make():\n    return torch.nn.Conv2d(3, 4, 3).eval(), torch.zeros(1, 3, 8, 8)\n")
    torch.export.save(torch.export.export(Shifted().eval(), (torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 1, 1))), several)
    for network, dtype, complaint in (
        (f"{python}:make", "float32", r"is Python, which the other libraries' converters do not take"),
        (several, "float32", r"two\.pt2 does not take and return one tensor in float32 each, but .*image.*shift"),
        (program, "int8", r"small\.pt2 has weights of its own, which noise does not calibrate"),
    ):
        with pytest.raises(UserError, match=complaint) as caught:
            bench_peers.compare(parsed(bench_peers.OPTIONS, None, ["--models", str(network), "--dtype", dtype, "--threads", "1"]))
        assert "\n" not in caught.value.message
