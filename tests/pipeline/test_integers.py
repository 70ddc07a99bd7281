"""Networks in int8 on virtual boards: their libraries compute, bit for bit, what integers on the host do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CommandLine
from other_cpus import OLD, expected_outcomes, outcomes
from trained import trained, write_images

import tvmmobile
from studies.trained.digits import SIDE, digits, inputs_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.network import Float32Layer
from tvmmobile.graph.precision import INT8
from tvmmobile.kernels.reference import relative_error
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.own.loading import load_again
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.outcome import published_figures
from tvmmobile.pipeline.prepared import prepared
from tvmmobile.pipeline.request import device_of
from tvmmobile.pipeline.sentences import drop_sentence, float32_sentence
from tvmmobile.pipeline.stages.building import build_libraries
from tvmmobile.pipeline.stages.preparing import collect_variants
from tvmmobile.quantisation.data import calibration_data
from tvmmobile.quantisation.limit import Limit

NETWORK = """
from torch import nn

def make():
    first = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()
    depthwise = nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6()
    last = nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)
    return nn.Sequential(*first, *depthwise, *last)
"""


def sequential(layers: str) -> str:
    """Return the source of a network of layers one after another."""
    return f"from torch import nn\n\ndef make():\n    return nn.Sequential({layers})\n"


def compiled(tmp_path: Path, source: str, board: str, side: int = 32, images: int = 4, **options: Any) -> tvmmobile.Library:
    """Return the library of a network in int8, calibrated with arrays from a file, without records."""
    file, data = tmp_path / "network.py", tmp_path / "images.npy"
    tmp_path.mkdir(exist_ok=True)
    file.write_text(source)
    np.save(data, np.random.default_rng(0).uniform(-1, 1, (images, 3, side, side)).astype(np.float32))
    model = tvmmobile.load(f"{file}:make", resolution=side)
    return tvmmobile.compile(model, board, dtype="int8", calibrate=data, out=tmp_path / "out", logs=tmp_path, **options)


@pytest.mark.virtual
def test_an_image_stays_in_float32_where_that_is_faster(tmp_path: Path) -> None:
    """On a core that issues in order: no kernel converts what the layer stores, and the output is the same on any number of threads."""
    libraries = [compiled(tmp_path / str(threads), NETWORK, "pi3bplus", threads=threads) for threads in (1, 2)]
    for library in libraries:
        manifest = library.manifest()
        [kept] = manifest["float32_layers"]
        assert (kept["node"], kept["why"]) == (0, "faster in float32")
        assert kept["layer"].endswith("to_int8_linear")
        assert not any(kernel["kind"] == "fallback" or kernel["name"].startswith("multiply") for kernel in manifest["kernels"])
    one, two = (library.run(library.reference()[0][0], "pi3bplus") for library in libraries)
    assert np.array_equal(one, two) and relative_error(one, np.load(libraries[0].reference_path)["integers"]) < 0.02


@pytest.mark.virtual
def test_a_network_in_integers(tmp_path: Path) -> None:
    """Calibrated with arrays from a file; the reference is one of them, and the manifest lists every layer's scales."""
    library = compiled(tmp_path, NETWORK, "pi5", images=12)
    (image,), (expected,) = library.reference()
    data = tmp_path / "images.npy"
    assert (image == np.load(data)[:1]).all()
    output = library.run(image, "pi5")
    assert output.dtype == np.float32 and relative_error(output, np.load(library.reference_path)["integers"]) < 1e-6
    assert 1e-5 < relative_error(output, expected) < 0.1 < INT8.network_tolerance
    manifest = library.manifest()
    found = manifest["quantisation"]
    assert (found["calibration"], found["inputs"], len(found["layers"])) == (str(data), 12, 5) and "float32_layers" not in manifest
    for layer in found["layers"]:
        assert layer["signal_to_noise_db"] > 25 and layer.get("weight_bits", 8) == 8
        assert layer["dtype"] == "int8" and layer["reads"]["scale"] > 0 and -128 <= layer["reads"]["zero"] <= 127
        assert (layer["writes"] is None) == (layer is found["layers"][-1]) and 0 < layer["weight_scales"][0] <= layer["weight_scales"][1]
        assert layer["shortcuts"].keys() == {"unconverted", "scaled_at_once"} and not layer["narrow"]
    assert [(layer["kind"], layer["channels"]) for layer in found["layers"]] == [
        ("conv 3x3", 16),
        ("depthwise 3x3", 16),
        ("conv 1x1", 24),
        ("average pool", 24),
        ("fully connected", 10),
    ]
    assert [kernel["name"].endswith("_int8_t1") for kernel in manifest["kernels"]] == [True] * 5
    assert outcomes(library) == expected_outcomes(*OLD)  # without SDOT


@pytest.mark.virtual
def test_an_image_meets_weights_of_seven_bits(tmp_path: Path) -> None:
    """The first convolution has evenly spread weights, and the core has no SDOT."""
    library = compiled(tmp_path, NETWORK, "pi4", images=12)
    first = library.manifest()["quantisation"]["layers"][0]
    assert (first["number"], first["weight_bits"], first["narrow"], first["shortcuts"]["four_products"]) == (0, 7, True, 1)
    output = library.run(library.reference().inputs, "pi4")
    assert relative_error(output, np.load(library.reference_path)["integers"]) < 1e-6
    assert relative_error(output, library.reference().outputs[0]) < 0.1


@pytest.mark.virtual
def test_shuffled_pixels_in_integers(tmp_path: Path) -> None:
    """The convolution before the shuffle writes NHWC here, as integer layers do, and the last one reads three channels of integers."""
    layers = "nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU6(), nn.Conv2d(8, 12, 3, 1, 1), nn.PixelShuffle(2), nn.Conv2d(3, 8, 3, 1, 1)"
    library = compiled(tmp_path, sequential(layers), "pi5", side=16)
    (image,), (expected,) = library.reference()
    output = library.run(image, "pi5")
    assert relative_error(output, np.load(library.reference_path)["integers"]) < 1e-6
    assert relative_error(output, expected) < 0.05
    assert "float32_layers" not in library.manifest()


@pytest.mark.virtual
def test_slopes_and_softmax_are_in_floats_between_integers(tmp_path: Path) -> None:
    """Every convolution is in int8; PReLUs, a leaky ReLU and the softmax are kernels of their own."""
    layers = "nn.Conv2d(3, 16, 3, 2, 1), nn.PReLU(16), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.PReLU(), nn.Conv2d(16, 24, 1)"
    head = "nn.LeakyReLU(0.1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10), nn.Softmax(1)"
    library = compiled(tmp_path, sequential(f"{layers}, {head}"), "pi5", side=16)
    manifest = library.manifest()
    assert len(manifest["quantisation"]["layers"]) == 5 and [one["layer"] for one in manifest["float32_layers"]] == ["softmax_1_c10"]
    output = library.run(library.reference().inputs, "pi5")
    assert relative_error(output, np.load(library.reference_path)["integers"]) < 1e-6
    assert relative_error(output, library.reference().outputs[0]) < 0.1


@pytest.mark.parametrize("stage", [collect_variants, build_libraries])
def test_workers_have_longer_where_more_is_computed_to_quantise(stage: Callable[..., object], tmp_path: Path) -> None:
    """More or larger calibration data extend the limit; the longest one of all variants counts."""
    timeouts_s: list[float] = []

    class Idle:
        """Notes the time limits of jobs, and runs none."""

        def run(self, function: object, jobs: object, timeout_s: float) -> list[object]:
            timeouts_s.append(timeout_s)
            return []

    plain = variant_job(Model(ModelSpec()), device_of("pi4").profile, (), tmp_path)
    data = [calibration_data(f"noise:{count}", Preprocessing(side), generated=True) for count, side in ((4, 64), (4, 224), (500, 224))]
    jobs = [replace(plain, calibration=one) for one in data]
    for given in ([plain], *([job] for job in jobs), [*jobs, plain]):
        with suppress(KeyError):  # nothing was found
            stage(Idle(), given, lambda line: None)
    more = [timeout_s - timeouts_s[0] for timeout_s in timeouts_s]
    assert more[1] > 0 and more[3] == more[4] > 2 * more[2] > 4 * more[1]


@pytest.mark.parametrize(("part", "labelled"), [("", True), ("7", False)])
def test_class_folders_of_calibration_data_are_labels(part: str, labelled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits see them in the order of the images; the images of one class alone have none."""
    file, seen, given = tmp_path / "network.py", write_images(tmp_path / "digits", 20, seed=2), []
    file.write_text(NETWORK)
    model = tvmmobile.load(f"{file}:make", resolution=32)
    assert model.own is not None

    def holds(limit: Limit, outputs: Array, expected: Array, labels: tuple[int, ...]) -> bool:
        given.append(labels)
        return True

    monkeypatch.setattr(Limit, "holds", holds)
    data = calibration_data(str(seen / part), Preprocessing(32), generated=True)
    job = variant_job(model, device_of("pi5").profile, (), tmp_path, LibraryOptions(precision=INT8, max_drop="1%"), calibration=data)
    details = prepared(load_again(model.own, model.spec, None, 0), job, None).details
    found = details["quantisation"]
    assert found["labelled"] == labelled and found["corrected"]
    assert given == [tuple(sorted([*range(10)] * 2)) if labelled else ()]


GATED = """
import torch
from torch import nn


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 8, 1)
        self.squeeze, self.excite = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)

    def forward(self, image):
        found = torch.relu(self.first(image))
        gate = torch.relu(self.squeeze(nn.functional.adaptive_avg_pool2d(found, 1)))
        return self.last(found * nn.functional.hardsigmoid(self.excite(gate)))


def make():
    torch.manual_seed(0)
    return Gated().eval()
"""


@pytest.mark.virtual
def test_a_gate_can_stay_in_float32(tmp_path: Path) -> None:
    """A gate becomes a product of its own; a limit that holds only with every layer in float32 is met so."""
    plain, kept = (compiled(tmp_path / name, GATED, "pi5", side=16, **keep) for name, keep in (("a", {}), ("b", {"keep": ["gate_*"]})))
    names = [[kernel["name"] for kernel in library.manifest()["kernels"]] for library in (plain, kept)]
    assert any(name.startswith("gate_") for name in names[0]) and not any(name.startswith("gate_") for name in names[1])
    output = kept.run(kept.reference().inputs, "pi5")
    assert relative_error(output, np.load(kept.reference_path)["integers"]) < 0.02
    found = compiled(tmp_path / "c", GATED, "pi5", side=16, max_drop="90dB").manifest()["quantisation"]["max_drop"]
    assert found["measured_db"] is None or found["measured_db"] >= 90


@pytest.mark.virtual
def test_layers_in_float32_are_those_that_cost_least(tmp_path: Path) -> None:
    """The manifest has the prediction, the bound on it, and what was measured; the library computes that network."""
    layers = "nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU6(), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.ReLU6(), nn.Conv2d(16, 32, 1), nn.ReLU6()"
    source = sequential(f"{layers}, nn.Conv2d(32, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)")
    library = compiled(tmp_path, source, "pi5", side=16, max_drop="52dB")
    found, manifest = library.manifest()["quantisation"]["max_drop"], library.manifest()
    assert found["limit"] == "52dB" and found["measured_db"] >= 52 and found["predicted_db"] >= found["bound_db"] - 0.01
    assert 0 < found["no_other_below_us"] <= found["latency_us"] and 0 < found["estimated_us"] <= found["latency_us"]
    assert {one["why"] for one in manifest["float32_layers"]} == {"--max-drop 52dB"}
    output = library.run(library.reference().inputs, "pi5")
    assert relative_error(output, np.load(library.reference_path)["integers"]) < 0.02
    sentence = drop_sentence("net", found)
    assert sentence.startswith("net: --max-drop 52dB: ") and sentence.endswith(" measured on calibration data.")
    assert re.search(r"No other choice of layers is below \d+\.\d+ ms at \d+\.\d dB or better\.", sentence)


#: Residual, squeeze-and-excite, hard activations, and a window of five rows.
BLOCK = """
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.spread = nn.Sequential(nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24), nn.Hardswish())
        self.filter = nn.Sequential(nn.Conv2d(24, 24, 5, 1, 2, groups=24, bias=False), nn.BatchNorm2d(24), nn.Hardswish())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 8, 1), nn.ReLU(), nn.Conv2d(8, 24, 1), nn.Hardsigmoid())
        self.last = nn.Sequential(nn.Conv2d(24, 16, 1, bias=False), nn.BatchNorm2d(16))

    def forward(self, image):
        filtered = self.filter(self.spread(image))
        return image + self.last(filtered * self.gate(filtered))

def make():
    first = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish()
    return nn.Sequential(*first, Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 32), nn.Hardswish(), nn.Linear(32, 10))
"""


@pytest.mark.virtual
@pytest.mark.parametrize("board", ["pi4", "pi5"])
def test_a_block_in_integers(board: str, tmp_path: Path) -> None:
    """Every layer has an int8 kernel, and the library returns what integers on the host do."""
    library = compiled(tmp_path, BLOCK, board, images=8)
    manifest = library.manifest()
    assert "float32_layers" not in manifest and len(manifest["kernels"]) == len(manifest["quantisation"]["layers"]) == 11
    assert [layer["layer"] for layer in manifest["quantisation"]["layers"] if "adds" in layer] == [
        "gate_16x16_24",
        "pw_16x16_24x16_add_linear",
    ]
    output = library.run(library.reference().inputs, board)
    assert relative_error(output, np.load(library.reference_path)["integers"]) < 1e-6
    assert relative_error(output, library.reference().outputs[0]) < 0.1


#: Parts of detectors: a split whose parts are joined with a sum behind a curve, a max pool, pixels repeated, two scales joined.
BRANCHES = """
import torch
from torch import nn

def conv(channels, filters, kernel=1, stride=1, curve=nn.SiLU):
    return nn.Sequential(nn.Conv2d(channels, filters, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(filters), curve())

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.spread, self.inner = conv(3, 16, 3, 2), conv(16, 32), nn.Sequential(conv(16, 8, 3), conv(8, 16, 3))
        self.joined, self.lower, self.pool = conv(56, 24), conv(24, 24, 3, 2, nn.Tanh), nn.MaxPool2d(5, 1, 2)
        self.narrow = conv(16, 8)
        self.pooled, self.up, self.last = conv(48, 24), nn.Upsample(scale_factor=2), conv(48, 16, curve=nn.GELU)
        self.head = nn.Conv2d(16, 8, 1)

    def forward(self, image):
        one, other = self.spread(self.first(image)).chunk(2, 1)
        large = self.joined(torch.cat((one, other, other + self.inner(other), self.narrow(other)), 1))
        small = self.lower(large)
        small = self.pooled(torch.cat((small, self.pool(small)), 1))
        return self.head(self.last(torch.cat((self.up(small), large), 1)))

def make():
    return Network()
"""


@pytest.mark.virtual
@pytest.mark.parametrize("board", [pytest.param("pi4", marks=pytest.mark.long), "pi5"])
def test_a_detector_in_integers(board: str, tmp_path: Path) -> None:
    """No kernel converts anything: curves are looked up, integers are joined, cut, compared and repeated as they are; on cores with SDOT
    what is joined is read where it is.
    """
    library = compiled(tmp_path, BRANCHES, board, side=24, images=8, threads=2)
    manifest = library.manifest()
    assert "float32_layers" not in manifest
    moves = [kernel["name"] for kernel in manifest["kernels"] if "_int8_t" not in kernel["name"]]
    assert not any("round" in name for name in moves) and [name for name in moves if "cast" in name] == moves[-1:]
    assert any("concatenate" in kernel["name"] for kernel in manifest["kernels"]) == (board == "pi4")
    output = library.run(library.reference().inputs, board)
    assert relative_error(output, np.load(library.reference_path)["integers"]) < 1e-6
    assert relative_error(output, library.reference().outputs[0]) < 0.1


#: Numbers around 0, and whether they are above it.
DECISIONS = """
from torch import nn

class Network(nn.Sequential):
    def forward(self, image):
        return (super().forward(image) > 0).float()

def make():
    return Network(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 8, 1, bias=False))
"""


def test_decisions_are_compared_with_exact_integers(tmp_path: Path) -> None:
    """A few of them differ from those in float32, which is no error of the library."""
    library = compiled(tmp_path, DECISIONS, "pi5", side=16)
    manifest, reference = library.manifest(), library.reference()
    assert manifest["loss"] == 1.0 and manifest["reference"].startswith("its exact integers, which are 1 off PyTorch")
    assert np.array_equal(reference.outputs[0], np.load(library.reference_path)["integers"])
    assert manifest["check"]["error"] == 0.0 and library.tolerance < 0.1


#: A basic block of a ResNet with a stride, and a dilated one without.
RESIDUAL = """
from torch import nn

def conv(channels, filters, stride=1, dilation=1):
    return nn.Conv2d(channels, filters, 3, stride, dilation, dilation, bias=False), nn.BatchNorm2d(filters)

class Block(nn.Module):
    def __init__(self, channels, filters, stride, dilation):
        super().__init__()
        self.body = nn.Sequential(*conv(channels, filters, stride), nn.ReLU(), *conv(filters, filters, 1, dilation))
        self.short = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))
        self.last = nn.ReLU()

    def forward(self, image):
        return self.last(self.body(image) + self.short(image))

def make():
    blocks = *conv(3, 16, 2), nn.ReLU(), Block(16, 24, 2, 1), Block(24, 32, 1, 2)
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
"""


@pytest.mark.virtual
@pytest.mark.parametrize(("board", "bits"), [("pi4", 7), ("pi5", 8)])
def test_a_residual_network_in_integers(board: str, bits: int, tmp_path: Path) -> None:
    """Its 3×3 convolutions have int8 kernels; generated weights, which are evenly spread, have 7 bits where that is faster."""
    library = compiled(tmp_path, RESIDUAL, board, images=8, threads=2)
    manifest = library.manifest()
    found = [layer for layer in manifest["quantisation"]["layers"] if "_k3x3" in layer["layer"]]
    assert "float32_layers" not in manifest and len(found) == 5 and sum("adds" in layer for layer in found) == 2
    assert [(layer["weight_bits"], layer["narrow"]) for layer in found] == [(bits, bits == 7)] * 5
    output = library.run(library.reference().inputs, board)
    assert relative_error(output, np.load(library.reference_path)["integers"]) < 1e-6
    assert relative_error(output, library.reference().outputs[0]) < 0.1


@pytest.mark.virtual
def test_a_layer_that_is_faster_in_float32_stays_there(tmp_path: Path) -> None:
    """On a core without dot products; what reads its output is in integers again. The kernel stores these, so that a number halfway between
    two may be the other one.
    """
    layers = "nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 16, 1)"
    library = compiled(tmp_path, sequential(layers), "pi4", side=56)
    manifest = library.manifest()
    (kept,) = manifest["float32_layers"]
    assert kept["why"] == "faster in float32" and kept["layer"].startswith("conv_28x28_64x64_k3x3s1x1")
    assert [layer["number"] for layer in manifest["quantisation"]["layers"]] == [0, 2]
    output, integers = library.run(library.reference().inputs, "pi4"), np.load(library.reference_path)["integers"]
    assert relative_error(output, integers) < 0.02 and np.mean(np.abs(output - integers) > 1e-6 * np.abs(integers).max()) < 0.01


@pytest.mark.virtual
def test_a_network_with_a_layer_in_float32(tmp_path: Path) -> None:
    """One that was asked for: its library computes what the host does, and the manifest says why."""
    library = compiled(tmp_path, NETWORK, "pi5", keep=["dw_*"])
    manifest = library.manifest()
    (kept,) = manifest["float32_layers"]
    assert kept["why"] == "--keep dw_*" and kept["layer"].startswith("dw_16x16_16")
    assert [layer["number"] for layer in manifest["quantisation"]["layers"]] == [0, 2, 3, 4]
    output = library.run(library.reference().inputs, "pi5")
    assert relative_error(output, np.load(library.reference_path)["integers"]) < 1e-3


@pytest.mark.virtual
@pytest.mark.long
@pytest.mark.parametrize("board", ["pi4", "pi5"])
def test_a_trained_library_in_integers_names_the_same_class(cli: CommandLine, tmp_path: Path, board: str) -> None:
    """Calibrated with a folder of images; `evaluate` beside float32, on digits that neither training nor calibration saw."""
    torch.save(trained().state_dict(), tmp_path / "digits.pth")
    words = ("--alpha", "0.25", "--resolution", str(SIDE), "--classes", "10", "--checkpoint", str(tmp_path / "digits.pth"))
    calibrate = ("--dtype", "int8", "--calibrate", str(write_images(tmp_path / "seen", 200, seed=2)))
    for given in ((), calibrate):
        done = cli("compile", *words, "--device", board, *given, "--out", str(tmp_path / "libraries"))
        assert done.code == 0, done.err
    libraries = [tmp_path / "libraries" / f"mobilenet_v1_0.25_{SIDE}_{dtype}_t1.so" for dtype in ("float32", "int8")]
    folder = write_images(tmp_path / "digits", 500, seed=1)
    options = ("--device", f"{board}-virtual", "--checkpoint", str(tmp_path / "digits.pth"), "--out", str(tmp_path / "out"))
    done = cli("evaluate", *map(str, libraries), str(folder), *options)
    assert done.code == 0, done.err
    single, bytes_ = (json.loads((tmp_path / "out" / dtype / "evaluation.json").read_text()) for dtype in ("float32", "int8"))
    assert bytes_["evaluated"] == 500 and bytes_["same_top1"] >= 495
    assert bytes_["library"]["top1"] >= single["library"]["top1"] - 5 and bytes_["differences"]["signal_to_noise_db"] > 28
    (library,) = tvmmobile.open_libraries(libraries[1])
    reference = np.load(library.reference_path)
    for image in (reference["input"], inputs_of(digits(1, 9)[0])):
        assert np.isfinite(library.run(image, board)).all()
    assert relative_error(library.run(reference["input"], board), reference["integers"]) < 1e-6


def test_published_accuracies_are_not_those_of_integers() -> None:
    spec = ModelSpec()
    assert [published_figures(spec, dtype) is not None for dtype in ("float32", "float16", "int8")] == [True, True, False]
    assert published_figures(replace(spec, classes=10), "float32") is None


def test_neighbours_that_stay_in_float32_are_named_together() -> None:
    layers = [Float32Layer(node, f"layer{node}", why) for node, why in ((0, "a"), (1, "a"), (4, "a"), (5, "b"))]
    assert float32_sentence("net", layers) == (
        "net: 4 layers stay in float32: layer0 to layer1 (nodes 0 to 1, a); layer4 (node 4, a); layer5 (node 5, b)."
    )
