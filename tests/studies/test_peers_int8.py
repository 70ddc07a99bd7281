"""The study bench_peers in integers: what runs and how, ncnn's files and scales, hottest loops, and the page."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studies.formats.ncnn_models import quantise, quantised_inputs, read_layers, write_layers
from studies.peers.kernels import MAKERS, QUANTISERS, HotKernel, loop_of
from studies.peers.models import CALIBRATION, exported, model_files
from studies.peers.results import BenchmarkContext, BoardFacts, Figures, GridCell, PeerComparison, PeerRow, from_json, hottest_kernels
from studies.peers.runs import PeerRun
from studies.peers.systems import OURS, OURS_C, OURS_KEYS, UNSIGNED, chosen_systems, peer_tolerance, systems
from studies.peers.tables import pages
from tvmmobile.graph.precision import INT8
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.board import load_board

RESULTS = Path(__file__).parents[2] / "studies/results"
CELL = GridCell("pi4", 1, 0.25, 128)
PI4 = BoardFacts("pi4", "Raspberry Pi 4 Model B", "Cortex-A72", 1.8e9, "c0ffee", "deadbeef", True)
CONTEXT = BenchmarkContext(
    {"pi4": PI4}, {one.key: one.title for one in systems("int8")}, {"tvmmobile": "1"}, "logs", "monday", dtype="int8"
)


def test_peers_take_part_in_integers_and_ours_too() -> None:
    found = {system.key: system for system in systems("int8")}
    assert (
        list(found) == [*(f"{peer}-int8" for peer in (*MAKERS, UNSIGNED)), OURS, OURS_C]
        and found.keys() - {OURS, OURS_C} == QUANTISERS.keys()
    )
    assert {one.dtype for one in found.values()} == {"int8"}
    assert found["onnxruntime-u8-int8"].title.split()[:3] == ["ONNX", "Runtime", "uint8"] and found[OURS_C].title.endswith(", int8")
    assert {found[key].tolerance for key in (OURS, OURS_C)} == {INT8.network_tolerance} and peer_tolerance("int8") > INT8.network_tolerance
    assert [system.key for system in chosen_systems([UNSIGNED, "litert"], "int8")] == ["litert-int8", "onnxruntime-u8-int8"]
    with pytest.raises(UserError, match=r"there is no system 'iree' in int8\."):
        chosen_systems(["iree"], "int8")


def test_an_output_may_be_as_coarse_as_integers_are(tmp_path: Path) -> None:
    for name in ("model.tflite", "image.npy", "logits.npy"):
        (tmp_path / name).write_bytes(b"x")
    (system,) = chosen_systems(["litert"], "int8")
    command = PeerRun(load_board("pi4"), "pi4", system, (tmp_path / "model.tflite",), tmp_path, 1).command()
    assert command[-1] == "--half"


# A convolution, a copy for each of two, a depthwise one and one by one, a constant, a sum, and a fully connected layer.
TEXT = """7767517
10 11
Input in0 0 1 in0
Convolution first 1 1 in0 1 0=4 1=3 11=3 5=1 6=108 -23310=2,0.0,6.0
Split copies 1 2 1 2 3
ConvolutionDepthWise deep 1 1 2 4 0=4 1=3 11=3 5=1 6=36 7=4
Convolution flat 1 1 3 5 0=4 1=1 11=1 5=0 6=16
BinaryOp add 2 1 4 5 6 0=0
MemoryData table 0 1 7 0=4 1=1 2=1
BinaryOp scale 2 1 6 7 8 0=2
Reshape flatten 1 1 8 9 0=-1
InnerProduct dense 1 1 9 out0 0=3 1=1 2=12
"""


def weights_of_text() -> bytes:
    generator = np.random.default_rng(0)
    parts = [(108, 4), (36, 4), (16, 0), None, (12, 3)]
    found = []
    for part in parts:
        if part is None:
            found.append(generator.normal(size=4).astype("<f4").tobytes())
            continue
        weights, bias = (generator.normal(size=count).astype("<f4").tobytes() for count in part)
        found.append(b"\0\0\0\0" + weights + bias)
    return b"".join(found)


def test_ncnns_files_are_read_and_written_alike() -> None:
    layers = read_layers(TEXT, weights_of_text())
    assert write_layers(layers) == (TEXT, weights_of_text())
    assert [layer.name for layer in layers if layer.weights is not None] == ["first", "deep", "flat", "dense"]


@pytest.mark.parametrize(
    ("text", "weights", "message"),
    [
        ("1 2\n", b"", "no network of ncnn's"),
        (TEXT, weights_of_text()[:-4], "end too early"),
        (TEXT, weights_of_text() + b"\0\0\0\0", "not known here"),
        (TEXT, b"\1" + weights_of_text()[1:], "weights of first are not in float32"),
    ],
)
def test_other_files_are_refused(text: str, weights: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_layers(text, weights)


def test_every_layer_with_weights_gets_scales_and_convolutions_pass_integers_on() -> None:
    layers = read_layers(TEXT, weights_of_text())
    assert quantised_inputs(layers) == ["2", "3", "9", "in0"]
    quantise(layers, {"in0": 2.0, "2": 6.0, "3": 6.0, "9": 4.0})
    found = {layer.name: layer for layer in layers}
    # 2: a scale for each output channel, 1: for each group; 100 more where the output is in integers.
    assert {name: found[name].values.get("8") for name in ("first", "deep", "flat", "dense", "add")} == {
        "first": "102",
        "deep": "1",
        "flat": "2",
        "dense": "2",
        "add": None,
    }
    weights = found["first"].weights
    assert weights is not None
    np.testing.assert_allclose(found["first"].scales[0], 127 / np.abs(weights.reshape(4, 27)).max(axis=1), rtol=1e-6)
    assert [scale.tolist() for scale in found["first"].scales[1:]] == [[63.5], pytest.approx([127 / 6])]
    _, content = write_layers(layers)
    assert len(content) == len(weights_of_text()) + 4 * (4 + 1 + 1 + 4 + 1 + 4 + 1 + 3 + 1)


def test_a_channel_of_zeros_has_a_scale() -> None:
    layers = read_layers(TEXT, bytes(len(weights_of_text())))
    quantise(layers, dict.fromkeys(quantised_inputs(layers), 1.0))
    assert all(np.isfinite(scale).all() for layer in layers for scale in layer.scales)


def test_loops_of_integers_say_what_they_multiply_with() -> None:
    dots = ["sdot\tv8.4s, v4.16b, v0.4b[1]", "sdot\tv9.4s, v4.16b, v0.4b[0]", "ldr\tq4, [x1]"]
    assert loop_of(dots) == "2 sdot by lane; 1 ldr q"
    longs = ["smull\tv2.8h, v4.8b, v0.8b", "smlal2\tv2.8h, v4.16b, v0.16b", "sadalp\tv8.4s, v2.8h", "ldp\tq4, q5, [x1]"]
    assert loop_of(longs) == "1 sadalp, 1 smlal2, 1 smull; 1 ldp q"
    assert (
        loop_of(["smlal\tv8.4s, v4.4h, v0.h[1]", "smlal2\tv8.4s, v4.8h, v0.h[1]", "sshll\tv4.8h, v5.8b, #0"])
        == "1 smlal by lane, 1 smlal2 by lane"
    )


def row(system: str, ms: float, loop: str) -> PeerRow:
    return PeerRow(CELL, system, (Figures(ms, {"core": ms}, 1000, 1000, 1000, 100, 10, 640, 0, 1e-1, HotKernel("", loop, 0.5)),))


def test_the_page_says_how_each_network_was_quantised() -> None:
    rows = (row("litert-int8", 2.5, "32 sdot by lane"), row("onnxruntime-u8-int8", 4.0, "16 udot"), row(OURS_C, 1.7, "x"))
    found = pages(PeerComparison(CONTEXT, rows, hottest_kernels(CONTEXT, rows)), "ints")
    page = found["ints.md"]
    assert "MobileNet v1, int8, batch 1" in page and "more than 5e-1 of the largest magnitude" in page
    cells = [[word.strip() for word in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    assert ["ONNX Runtime uint8", QUANTISERS["onnxruntime-u8-int8"]] in cells
    assert ["Cortex-A72", "LiteRT/XNNPACK int8", "", "32 sdot by lane", "pi4, 0.25-128", "50 %"] in cells
    assert "| LiteRT/XNNPACK int8 | ONNX Runtime uint8 | ours, C library |" in found["ints/pi4.md"] and "| 0.68 |" in found["ints/pi4.md"]
    single = PeerComparison(replace(CONTEXT, dtype="float32"), rows)
    assert "(benchmarks-int8.md)" in pages(single, "benchmarks")["benchmarks.md"]


def test_each_peer_multiplies_integers_in_the_committed_figures() -> None:
    """It uses the core's instructions for that, and is no farther from float32 than quantisation explains."""
    found = from_json(RESULTS / "benchmarks-int8.json")
    assert found.context.dtype == "int8"
    assert {kernel.system for kernel in found.kernels} == set(QUANTISERS)
    for kernel in found.kernels:
        assert re.search("sdot|udot|smmla" if kernel.cpu in ("Cortex-A55", "Cortex-A76") else "sadalp|smlal", kernel.kernel.loop), kernel
    assert all(run.difference < (0.2 if one.system in OURS_KEYS else peer_tolerance("int8")) for one in found.rows for run in one.runs)


@pytest.mark.long
def test_every_quantiser_makes_a_network_that_is_not_far_off(tmp_path: Path) -> None:
    """In the libraries of this machine; on a board, bench_peers checks each run."""
    from studies.formats.export_models import converters
    from tvmmobile.networks.model import Model
    from tvmmobile.networks.models.spec import ModelSpec

    models = exported(Model(ModelSpec("mobilenet_v1", 0.25, 32)), lambda _: None)
    peers = [system for system in systems("int8") if system.key in QUANTISERS]
    files = {peer.key: model_files(peer, load_board("pi4"), models, None) for peer in peers}
    assert np.load(models / f"calibration-{CALIBRATION}/inputs.npy").shape == (CALIBRATION, 3, 32, 32)
    programs = {peer.key: peer.program for peer in peers}
    for key, (model, *_) in files.items():
        path = f"import sys, runpy; sys.path += [{str(converters())!r}, {str(programs[key].parent)!r}]; del sys.argv[0]; "
        command = [
            sys.executable,
            "-c",
            f"{path}runpy.run_path(sys.argv[0], run_name='__main__')",
            str(programs[key]),
            str(model),
            "--half",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        reported = next(line for line in done.stdout.splitlines() if line.startswith("largest difference"))
        difference = float(reported.rpartition(" ")[2]) / float(np.abs(np.load(models / "logits.npy")).max())
        assert 1e-4 < difference < peer_tolerance("int8"), key
