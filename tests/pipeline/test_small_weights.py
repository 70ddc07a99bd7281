"""`--weights`: large layers' weights are stored in fewer bits, and the library computes what PyTorch does with the rounded ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tvmmobile
from tvmmobile.graph.precision import FLOAT16, FLOAT32, INT8
from tvmmobile.graph.small_weights import FEWEST
from tvmmobile.pipeline.listener import Listener
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.sentences import small_weights_sentence
from tvmmobile.system.errors import UserError

NETWORK = """
from torch import nn

def make():
    first = nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU6(), nn.Conv2d(64, 520, 1), nn.ReLU6()
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(520, 72), nn.ReLU(), nn.Linear(72, 10))
"""


class Heard(Listener):
    """Collects remarks."""

    def __init__(self) -> None:
        self.remarks: list[str] = []

    def message(self, text: str) -> None:
        self.remarks.append(text)


def rounded_by_hand(weight: np.ndarray, name: str) -> np.ndarray:
    if name == FLOAT16.name:
        return weight.astype(np.float16).astype(np.float32)
    scale = np.abs(weight).reshape(len(weight), -1).max(axis=1).reshape(-1, *[1] * (weight.ndim - 1)) / 127
    return (np.round(weight / scale) * scale).astype(np.float32)


@pytest.mark.virtual
@pytest.mark.parametrize("name", [INT8.name, FLOAT16.name])
def test_a_library_with_small_weights(tmp_path: Path, name: str) -> None:
    """It agrees with PyTorch's network whose two large layers have rounded weights; the small classifier keeps its own."""
    import torch

    file = tmp_path / "network.py"
    file.write_text(NETWORK)
    heard = Heard()
    model = tvmmobile.load(f"{file}:make", resolution=16)
    library = tvmmobile.compile(model, "pi4", weights=name, out=tmp_path / "out", listener=heard)
    manifest = json.loads(library.manifest_path.read_text())
    kernels = [kernel["name"] for kernel in manifest["kernels"]]
    assert [f"{name}weights" in kernel for kernel in kernels] == [False, True, False, True, False]
    entry = manifest["small_weights"]
    assert (entry["dtype"], entry["layers"], entry["weights"]) == (name, 2, 64 * 520 + 520 * 72)
    assert manifest["checked"] and manifest["dtype"] == FLOAT32.name and f"2 layers in {name}" in manifest["reference"]
    assert 0 < entry["loss"] < 0.05 and entry["signal_to_noise_db"] > 25
    (result,) = tvmmobile.bench(library, "pi4").variants
    assert result.weights_dtype == name and f"{library.spec.variant}_{result.precision}_t1" == library.path.stem == result.name
    (sentence,) = [remark for remark in heard.remarks if "stored in" in remark]
    assert sentence == small_weights_sentence(library.spec.variant, entry)

    scope: dict = {}
    torch.manual_seed(0)
    exec(NETWORK, scope)
    network = scope["make"]().eval()
    reference = library.reference()
    given = torch.from_numpy(reference.inputs[0])
    with torch.no_grad():
        wanted = network(given).numpy()
        for layer in (network[2], network[6]):
            assert layer.weight.numel() >= FEWEST
            layer.weight.copy_(torch.from_numpy(rounded_by_hand(layer.weight.numpy(), name)))
        near = network(given).numpy()
    assert np.abs(reference.outputs[0] - near).max() <= 1e-5 * np.abs(near).max()
    assert np.abs(near - wanted).max() / np.abs(wanted).max() == pytest.approx(entry["loss"], rel=0.1)


WINDOWS = """
from torch import nn

def make():
    windows = nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 70, 5, 2), nn.ReLU()
    return nn.Sequential(*windows, nn.Conv2d(70, 70, 3, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(70, 10))
"""


@pytest.mark.virtual
def test_init_makes_the_weights_of_larger_windows(tmp_path: Path) -> None:
    """A C library's file holds them in fewer bits, once for all devices; one for TVM's virtual machine has them in float32."""
    file = tmp_path / "network.py"
    file.write_text(WINDOWS)
    model = tvmmobile.load(f"{file}:make", resolution=32)
    sizes, entries, libraries = {}, {}, {}
    for name, devices, options in (
        ("wide", "pi4", {}),
        ("small", "pi4", {"weights": INT8.name}),
        ("both", ["pi4", "pi5"], {"weights": INT8.name}),
        ("machine", "pi4", {"weights": INT8.name, "format": "vm"}),
    ):
        library = libraries[name] = tvmmobile.compile(model, devices, out=tmp_path / name, **options)
        sizes[name], entries[name] = library.path.stat().st_size, json.loads(library.manifest_path.read_text())
        assert entries[name]["checked"]
    windows = 64 * 64 * 9 + 64 * 70 * 25
    small = entries["small"]["small_weights"]
    assert (small["layers"], small["weights"]) == (2, windows)
    assert entries["machine"]["small_weights"]["layers"] == 0
    assert sizes["small"] < sizes["wide"] / 2 and entries["both"]["c"]["weight_bytes"] < 1.5 * entries["small"]["c"]["weight_bytes"]
    assert entries["wide"]["c"]["expanded_bytes"] == 0 and entries["small"]["c"]["expanded_bytes"] > 4 * windows
    (result,) = tvmmobile.bench(libraries["both"], "pi5").variants
    assert result.weights_dtype == INT8.name and result.max_error < 1e-4


def test_networks_without_large_layers_say_so() -> None:
    entry = {"dtype": INT8.name, "layers": 0, "weights": 0, "loss": 0.0, "signal_to_noise_db": None}
    assert "net: no layer is large enough for weights in int8" in small_weights_sentence("net", entry)


def test_a_large_loss_is_warned_of() -> None:
    entry = {"dtype": INT8.name, "layers": 1, "weights": 40_000, "loss": 0.4, "signal_to_noise_db": 9.0}
    assert "more than 25 %: look at its accuracy" in small_weights_sentence("net", entry)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "int4"}, "weights cannot be stored in int4"),
        ({"weights": "int8", "dtype": "float16"}, "weights.* is for libraries that compute in float32, and .*dtype.* is float16"),
        ({"weights": "float16", "dtype": "int8", "calibrate": "noise:8"}, "weights.* is for libraries that compute in float32"),
    ],
)
def test_options_that_exclude_each_other(options: dict, message: str) -> None:
    from tvmmobile.devices.registry import find_device

    with pytest.raises(UserError, match=message):
        LibraryOptions.of(options).check(find_device("pi5-virtual").profile)


def test_a_quantised_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "network.py"
    file.write_text(NETWORK)
    model = tvmmobile.load(f"{file}:make", resolution=16)
    monkeypatch.setattr(type(model), "quantised", property(lambda _: True))
    with pytest.raises(UserError, match="has its weights in integers already"):
        tvmmobile.compile(model, "pi4", weights=INT8.name, out=tmp_path / "out")
    assert not (tmp_path / "out").exists() or not [*(tmp_path / "out").iterdir()]
