"""Networks of several inputs, and streaming ones, in int8 on virtual boards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tvmmobile
from tvmmobile.kernels.reference import relative_error
from tvmmobile.system.errors import UserError

TWO_INPUTS = """
import torch
from torch import nn

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.map = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 1)
        self.both, self.head = nn.Conv2d(32, 24, 3, padding=1), nn.Linear(24 + 4, 10)

    def forward(self, image, features, numbers):
        shared = torch.relu(self.image(image) + features)
        both = torch.relu(self.both(torch.cat((shared, torch.relu(self.map(features))), 1)))
        return self.head(torch.cat((both.mean((2, 3)), numbers), 1))
"""


@pytest.mark.virtual
@pytest.mark.parametrize("form", ["c", "vm"])
def test_several_inputs_in_integers(form: str, tmp_path: Path) -> None:
    """Each has a scale of its own; the reference holds the first sample."""
    names: dict[str, Any] = {}
    exec(TWO_INPUTS, names)
    torch.manual_seed(0)
    network, shapes = names["Network"]().eval(), {"image": (3, 24, 24), "features": (16, 12, 12), "numbers": (4,)}
    torch.export.save(torch.export.export(network, tuple(torch.zeros(1, *shape) for shape in shapes.values())), tmp_path / "two.pt2")
    generator = np.random.default_rng(0)
    spreads = {"image": 1.0, "features": 3.0, "numbers": 0.2}
    data = {name: generator.normal(0, spreads[name], (12, *shape)).astype(np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "data.npz", **data)
    model = tvmmobile.load(tmp_path / "two.pt2")
    library = tvmmobile.compile(
        model, "pi5", dtype="int8", calibrate=tmp_path / "data.npz", max_drop="25dB", out=tmp_path / "out", logs=tmp_path, format=form
    )
    manifest, reference = library.manifest(), library.reference()
    assert (manifest["quantisation"]["inputs"], "float32_layers" in manifest) == (12, False)
    assert all((array == data[name][:1]).all() for name, array in zip(shapes, reference.inputs, strict=True))
    output = library.run(tuple(reference.inputs), "pi5")
    assert relative_error(output, np.load(library.reference_path)["integers"]) < 1e-6
    expected = network(*map(torch.from_numpy, reference.inputs)).detach().numpy()
    assert relative_error(output, expected) < 0.05


@pytest.mark.virtual
def test_states_in_integers(tmp_path: Path) -> None:
    """Calibration data have them; the library, like its reference, begins with zeros."""

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.mixed = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(16, 8, 1)

        def forward(self, image: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            following = torch.relu(self.mixed(torch.cat((torch.relu(self.read(image)), state), 1)))
            return following.mean((2, 3)), following

    torch.manual_seed(0)
    network, shapes = Network().eval(), {"image": (3, 8, 8), "state": (8, 8, 8)}
    torch.export.save(torch.export.export(network, tuple(torch.zeros(1, *shape) for shape in shapes.values())), tmp_path / "kept.pt2")
    generator = np.random.default_rng(0)
    data = {name: np.abs(generator.normal(0, 1, (6, *shape))).astype(np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "data.npz", **data)
    model = tvmmobile.load(tmp_path / "kept.pt2")
    options: Any = {"dtype": "int8", "calibrate": tmp_path / "data.npz", "stateful": ["state=output1"]}
    library = tvmmobile.compile(model, "pi5", out=tmp_path / "out", logs=tmp_path, **options)
    (image,) = library.reference().inputs
    assert (image == data["image"][:1]).all()
    with torch.no_grad():
        expected, _ = network(torch.from_numpy(image), torch.zeros(1, *shapes["state"]))
    output = library.run(image, "pi5")
    assert relative_error(output, np.load(library.reference_path)["integers"].reshape(1, 8)) < 1e-6
    assert relative_error(output, expected.numpy()) < 0.03


def test_inputs_that_int8_does_not_take(tmp_path: Path) -> None:
    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, image: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
            return self.convolution(image) * factor.mean()

    torch.export.save(torch.export.export(Network().eval(), (torch.ones(1, 3, 8, 8), torch.ones(4))), tmp_path / "two.pt2")
    np.savez(tmp_path / "data.npz", image=np.ones((2, 3, 8, 8), np.float32), factor=np.ones((2, 4), np.float32))
    model = tvmmobile.load(tmp_path / "two.pt2")
    with pytest.raises(UserError, match=r"with inputs of a batch of 1 and outputs, all in float32, not .*: float32 \[4\]"):
        tvmmobile.compile(model, "pi5", dtype="int8", calibrate=tmp_path / "data.npz", out=tmp_path / "out", logs=tmp_path)
