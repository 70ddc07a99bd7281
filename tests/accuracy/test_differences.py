"""Tests of `evaluate`'s figures on outputs beside their original's, and on layers stored in half precision."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from deployed import CLASSES, SIDE, make_library
from evaluations import CONTEXT, EXPECTED, result
from json_schemas import evaluation_schema
from jsonschema import Draft202012Validator
from torch import nn

from tvmmobile.accuracy.differences import Differences, difference_of, differences_of
from tvmmobile.accuracy.evaluate import Evaluation, check_one_network
from tvmmobile.accuracy.evaluation_file import EvaluationFile, evaluation_of, write_evaluation
from tvmmobile.accuracy.noise import inputs_in
from tvmmobile.accuracy.storage import StoredLayer, stored_layers
from tvmmobile.cli.evaluate import library_names, print_evaluations
from tvmmobile.graph.precision import FLOAT16, FLOAT32
from tvmmobile.networks.frontend import by_torch
from tvmmobile.networks.images import read_input
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.running.library import find_libraries
from tvmmobile.system.errors import UserError


def test_a_difference_in_numbers() -> None:
    found = difference_of(EXPECTED + np.array([[0.04, 0, 0, -0.04]], np.float32), EXPECTED, FLOAT16)
    assert found.mean == pytest.approx(0.02 / 4) and found.signal == pytest.approx(21 / 4) and found.noise == pytest.approx(2 * 0.0016 / 4)
    assert (found.values, found.infinities, found.nans, found.subnormals) == (4, 0, 0, 0)
    both = differences_of([found, difference_of(EXPECTED, EXPECTED, FLOAT16)])
    assert both.mean == pytest.approx(0.01 / 4) and both.signal_to_noise_db == pytest.approx(10 * np.log10(42 / 0.0032), abs=1e-4)
    assert differences_of([difference_of(EXPECTED, EXPECTED, FLOAT16)]).signal_to_noise_db is None, "there is no noise"


def test_numbers_that_are_not_finite_or_too_small_are_counted() -> None:
    output = np.array([[np.inf, -np.inf, np.nan, 3e-5]], np.float32)
    found = difference_of(output, EXPECTED, FLOAT16)
    assert (found.infinities, found.nans, found.subnormals) == (2, 1, 1) and found.mean is found.signal is found.noise is None
    assert difference_of(output, EXPECTED, FLOAT32).subnormals == 0, "3e-5 is a normal number there"
    whole = difference_of(EXPECTED * 1.01, EXPECTED, FLOAT16)
    both = differences_of([found, whole])
    assert both == Differences(8, whole.mean, differences_of([whole]).signal_to_noise_db, 2, 1, 1)
    assert differences_of([]) == Differences()


def network(scale: float = 1.0) -> nn.Module:
    """Two blocks with a residual around one; `scale` is how large the numbers between them are."""

    class Residual(nn.Sequential):
        def forward(self, data: torch.Tensor) -> torch.Tensor:
            return data + super().forward(data)

    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
    block = Residual(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Hardswish(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
    module = nn.Sequential(*first, block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    with torch.no_grad():
        block[3].weight.fill_(scale)
    return module


IMAGES = [np.random.default_rng(seed).normal(size=(1, 3, 16, 16)).astype(np.float32) for seed in range(2)]


def test_layers_in_the_order_of_execution_with_what_they_lose() -> None:
    module = network()
    before = [image.copy() for image in IMAGES], {name: tensor.clone() for name, tensor in module.state_dict().items()}
    layers = stored_layers(by_torch(module), IMAGES, FLOAT16)
    assert [layer.layer for layer in layers] == [
        "1: 3×3, 3 → 8 channels, to 8×8",
        "2: depthwise 3×3, 8 channels, to 8×8",
        "3: 1×1, 8 → 8 channels, to 8×8",
        "4: dense, 8 → 5",
    ]
    # A rounding costs at most 2⁻¹¹ of a number: 66 dB, and a few of them some decibels more or less.
    assert all(layer.signal_to_noise_db is not None and 55 < layer.signal_to_noise_db < 85 for layer in layers)
    assert [layer.values for layer in layers] == [1024, 1024, 1024, 10] and all(layer.beyond == layer.not_finite == 0 for layer in layers)
    with torch.no_grad():
        sums = module[1](module[0](torch.from_numpy(np.concatenate(IMAGES))))
    assert layers[0].largest == pytest.approx(float(sums.abs().max())), "after the batch norm, before the activation"
    assert all(np.array_equal(*pair) for pair in zip(before[0], IMAGES, strict=True))
    assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in before[1].items())


@pytest.mark.parametrize("expanded", [False, True])
def test_weights_in_the_place_of_an_activation_are_not_changed(expanded: bool) -> None:
    """Such weights are a pooling head's learned queries; elements of an expanded tensor share memory."""

    class Pooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.queries = nn.Parameter(torch.randn(1 if expanded else 4, 256))

        def forward(self, data: torch.Tensor) -> torch.Tensor:
            return torch.mm(self.queries.expand(4, 256), data.flatten(2)[0].t().repeat(1, 3).reshape(256, 9))

    torch.manual_seed(0)
    module = Pooling().eval()
    before = module.queries.detach().clone()
    layers = [stored_layers(by_torch(module), IMAGES, FLOAT16) for _ in range(2)]
    assert torch.equal(module.queries, before) and layers[0] == layers[1]
    assert layers[0][0].signal_to_noise_db is not None and 55 < layers[0][0].signal_to_noise_db < 85


def test_what_the_network_returns_in_the_model_is_what_rounding_by_hand_gives() -> None:
    convolution = nn.Conv2d(3, 4, 1, bias=False)
    (layer,) = stored_layers(by_torch(convolution), IMAGES[:1], FLOAT16)
    image, weights = torch.from_numpy(IMAGES[0]), convolution.weight.detach()
    exact, rounded = (
        nn.functional.conv2d(data, kernel) for data, kernel in ((image, weights), (image.half().float(), weights.half().float()))
    )
    noise = float((exact.double() - rounded.double()).square().sum())
    assert layer.signal_to_noise_db == pytest.approx(10 * np.log10(float(exact.double().square().sum()) / noise), rel=1e-6)


def test_an_exported_program_is_seen_alike() -> None:
    module = network()
    exported = torch.export.export(module, (torch.zeros(1, 3, 16, 16),)).module()
    assert stored_layers(by_torch(exported), IMAGES, FLOAT16) == stored_layers(by_torch(module), IMAGES, FLOAT16)
    assert stored_layers(tuple, IMAGES, FLOAT16) == (), "PyTorch does not compute it"


def test_a_matrix_that_all_channels_share_and_a_parameter_that_is_multiplied() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores, self.wanted = nn.Conv2d(3, 1, 1), nn.Parameter(torch.rand(4, 16))

        def forward(self, data: torch.Tensor) -> torch.Tensor:
            mixed = torch.softmax(self.scores(data), -1) @ data  # [1, 1, 16, 16], which PyTorch expands, by [1, 3, 16, 16]
            return self.wanted @ mixed[0, 0]

    torch.manual_seed(0)
    module = Attention().eval()
    before = module.wanted.detach().clone()
    layers = stored_layers(by_torch(module), [IMAGES[0]] * 3, FLOAT16)
    assert [layer.layer for layer in layers] == ["1: 1×1, 3 → 1 channels, to 16×16", "2: dense, 16 → 16", "3: dense, 16 → 16"]
    assert torch.equal(module.wanted, before), "the next image's sums in float32 are of the parameter as it was"
    (once,) = stored_layers(by_torch(module), IMAGES[:1], FLOAT16)[2:]
    assert layers[2].signal_to_noise_db == once.signal_to_noise_db


def test_layers_beyond_the_range_of_half_precision_are_found() -> None:
    layers = stored_layers(by_torch(network(scale=1e6)), IMAGES, FLOAT16)
    assert [layer.beyond > 0 for layer in layers] == [False, False, True, True] and layers[2].largest > 65504
    assert layers[2].not_finite == 0 and layers[2].signal_to_noise_db is not None, "what it reads is still in range"
    assert layers[3].not_finite > 0 and layers[3].signal_to_noise_db is None
    small = stored_layers(by_torch(network(scale=1e-7)), IMAGES, FLOAT16)
    assert small[2].subnormals > 0.9 * small[2].values


STORED = (
    StoredLayer("1: 3×3, 3 → 8 channels, to 8×8", 71.25, 12.5, 0, 0, 3, 1024),
    StoredLayer("2: depthwise 3×3, 8 channels, to 8×8", 42.0, 3.0, 0, 0, 0, 1024),
    StoredLayer("3: 1×1, 8 → 8 channels, to 8×8", 60.0, 70000.0, 2, 0, 0, 1024),
    StoredLayer("4: dense, 8 → 5", None, 1.0, 0, 0, 0, 10),
)


def evaluations() -> dict[str, Evaluation]:
    half = evaluation_of(CONTEXT, [result("0/a.png", 0.04), result("1/b.png", 0.02)], 2, STORED)
    context = replace(CONTEXT, library="net_1.0_32_float32_t1.so", dtype="float32", tolerance=1e-4)
    single = evaluation_of(context, [result("0/a.png", 4e-6, FLOAT32), result("1/b.png", 0.0, FLOAT32)])
    files: dict[str, EvaluationFile] = {"float32": single, "float16": half}
    return {name: Evaluation(file, (Path("out", name, "evaluation.json"),), "PyTorch", 0) for name, file in files.items()}


SHOWN = """\
          largest     mean   signal/     same
            error    error  noise dB  top-1 %  infinite  NaN  subnormal
 ──────────────────────────────────────────────────────────────────────
 float32  1.0e-06  5.0e-07     118.2   100.00         0    0          0
 float16  1.0e-02  7.5e-03      37.2   100.00         0    0          0
"""
STORED_SHOWN = """\
float16: outputs differ by at most 1.0e-02 of PyTorch's largest magnitude (0/a.png)
The lowest of 4 layers when weights and activations are stored in float16:
a model in PyTorch on this machine, 2 images, without the kernels' arithmetic

                                        signal/  largest   beyond
 layer                                 noise dB    value  float16  subnormal
 ───────────────────────────────────────────────────────────────────────────
 3: 1×1, 8 → 8 channels, to 8×8            60.0    70000        2          0
 2: depthwise 3×3, 8 channels, to 8×8      42.0        3        0          0
 1: 3×3, 3 → 8 channels, to 8×8            71.2     12.5        0          3
 4: dense, 8 → 5                              –        1        0          0
"""


def test_precisions_side_by_side_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Layers that leave the range come before those that lose most; in float32 there is nothing to say of them."""
    print_evaluations(evaluations())
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    shown = "\n".join(lines) + "\n"
    assert SHOWN in shown and STORED_SHOWN in shown and max(map(len, SHOWN.splitlines() + STORED_SHOWN.splitlines()[1:])) <= 80
    assert [line.split()[:2] for line in lines if "100.00       2  100.00" in line] == [
        [who, "100.00"] for who in ("float32", "float16", "PyTorch")
    ]
    assert "float32: the same top-1 on 2 of 2 images, the same top-5 set on 2" in lines and shown.count("The lowest of") == 1
    print_evaluations({"float16": evaluations()["float16"]})
    alone = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert "the same top-1 on 2 of 2 images, the same top-5 set on 2" in alone
    (row,) = (line.split() for line in alone if line.startswith(" library"))
    assert row[1:7] == ["100.00", "2", "100.00", "2", "0.00", "±"] and row[-1] == "1" and max(map(len, alone)) <= 80


def test_noise_in_place_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On disk while it is used, the same each time, of unit variance; and no accuracy is shown, which would mean nothing."""
    spec = ModelSpec(alpha=0.25, resolution=SIDE, classes=CLASSES)
    with inputs_in("noise:3", spec, None) as found:
        paths = [image.path for image in found.images]
        inputs = [read_input(path, Preprocessing(SIDE)).array for path in paths]
    assert [image.name for image in found.images] == ["noise/00000.npy", "noise/00001.npy", "noise/00002.npy"]
    assert not paths[0].parent.exists() and inputs[0].shape == (1, 3, SIDE, SIDE) and np.var(inputs) == pytest.approx(1, abs=0.05)
    with inputs_in("noise:2", spec, None) as again:
        assert all(np.array_equal(np.load(image.path), before) for image, before in zip(again.images, inputs, strict=False))
    assert not np.array_equal(*inputs[:2])
    for wrong in ("noise:0", "noise:x", "noise"):
        with pytest.raises(UserError, match=f"{wrong} is not a folder") as caught, inputs_in(wrong, spec, None):
            pass
        assert "or noise:N" in caught.value.remedy
    one = evaluations()["float16"]
    print_evaluations({"float16": replace(one, file=replace(one.file, context=replace(CONTEXT, folder="noise:2")))})
    shown = capsys.readouterr().out
    assert "top-5\n" not in shown and "PyTorch  100.00" not in shown and "same top-1 on 2 of 2 images" in shown


def test_the_files_hold_it(tmp_path: Path) -> None:
    for name, evaluation in evaluations().items():
        paths = write_evaluation(evaluation.file, tmp_path / name)
        content = json.loads(paths[0].read_text(encoding="utf-8"))
        Draft202012Validator(evaluation_schema()).validate(content)
        assert [one["difference"]["values"] for one in content["images"]] == [4, 4]
        assert (len(content["stored"]), content["stored_images"]) == ((4, 2) if name == "float16" else (0, 0))
        assert "mean_deviation" in paths[1].read_text(encoding="utf-8").splitlines()[0]
    assert content["differences"]["signal_to_noise_db"] == pytest.approx(10 * np.log10(42 / (4 * (0.04**2 + 0.02**2))), rel=1e-4)


def test_libraries_of_another_network_are_refused(tmp_path: Path) -> None:
    paths = [make_library(tmp_path / name, weights=weights) for name, weights in (("a", "seed 0"), ("b", "seed 0"), ("c", "seed 1"))]
    libraries = [find_libraries([path])[0] for path in paths]
    check_one_network(libraries[:2])
    with pytest.raises(UserError, match=r"c/mobilenet.* is not of the same network and weights as .*a/mobilenet"):
        check_one_network(libraries)
    assert libraries[0].spec.classes == CLASSES and libraries[0].spec.resolution == SIDE
    assert library_names(libraries[:1]) == ["float32"] and library_names(libraries[:2]) == ["float32-vm-1", "float32-vm-2"]
    assert library_names([libraries[0], replace(libraries[1], dtype="float16")]) == ["float32", "float16"]
