"""The study bench_peers in half precision: what runs and how, models, kernels, the best of both precisions, and refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from studies.formats.half_models import onnx_in_half
from studies.peers import bench_peers
from studies.peers.kernels import HALF_LANES, HALF_MAKERS, MAKERS, HotKernel, loop_of
from studies.peers.results import (
    BenchmarkContext,
    BoardFacts,
    Figures,
    GridCell,
    PeerComparison,
    PeerRow,
    best_peer,
    from_json,
    hottest_kernels,
    our_ratio,
    to_json,
)
from studies.peers.runs import PeerRun
from studies.peers.systems import EXAMPLES, OURS, OURS_C, OURS_KEYS, chosen_systems, peer_tolerance, systems
from studies.peers.tables import pages
from tvmmobile.graph.precision import FLOAT16
from tvmmobile.system.errors import UserError
from tvmmobile.virtual.board import load_board

RESULTS = Path(__file__).resolve().parents[2] / "studies/results"
CELL = GridCell("pi5", 1, 0.25, 128)
PI5 = BoardFacts("pi5", "Raspberry Pi 5", "Cortex-A76", 2.4e9, "c0ffee", "deadbeef", True)
CONTEXT = BenchmarkContext(
    {"pi5": PI5}, {one.key: one.title for one in systems("float16")}, {"tvmmobile": "1"}, "logs", "monday", dtype="float16"
)


def row(system: str, ms: float, loop: str = "") -> PeerRow:
    hottest = HotKernel("", loop, 0.5) if loop else None
    return PeerRow(CELL, system, (Figures(ms, {"core": ms}, 1000, 1000, 1000, 100, 10, 640, 0, 1e-2, hottest),))


def test_in_bfloat16_one_peer_computes_in_it_and_all_in_wider_floats() -> None:
    found = {system.key: system for system in systems("bfloat16")}
    halves = [key for key, one in found.items() if one.dtype == "float16"]
    assert [key for key, one in found.items() if one.dtype == "bfloat16"] == ["ncnn-bfloat16", OURS, OURS_C]
    assert halves == [f"{peer}-float16" for peer in MAKERS] and set(MAKERS) < set(found) and set(HALF_MAKERS) < set(found)
    assert found["ncnn-bfloat16"].program.is_file() and found["ncnn-bfloat16"].name == "ncnn"
    assert found["ncnn-bfloat16"].environment and not found["ncnn-float16"].environment and not found["ncnn"].environment
    assert loop_of(["bfmmla\tv31.4s, v23.8h, v7.8h", "ldp\tq23, q24, [x20]"]) == "1 bfmmla; 1 ldp q"


def test_peers_take_part_in_both_precisions_and_ours_in_half() -> None:
    found = {system.key: system for system in systems("float16")}
    halves = [key for key, one in found.items() if one.dtype == "float16"]
    assert halves == [*(f"{peer}-float16" for peer in MAKERS), OURS, OURS_C] and set(MAKERS) < set(found)
    assert [found[peer] for peer in MAKERS] == [
        system for system in systems() if system.key in MAKERS
    ]  # runs in float32 are the same, and kept
    assert found["ncnn-float16"].title.split()[:2] == ["ncnn", "float16"] and found[OURS_C].title.endswith("C library, float16")
    assert {found[key].tolerance for key in (OURS, OURS_C)} == {FLOAT16.network_tolerance}
    assert all(one.program.is_file() for one in found.values())
    assert [system.key for system in chosen_systems(["ncnn", "ours"], "float16")] == ["ncnn-float16", "ncnn", OURS]
    with pytest.raises(UserError, match=r"there is no system 'iree' in float16\.") as caught:
        chosen_systems(["iree"], "float16")
    assert caught.value.as_typed[1] == "Give --only some of: ncnn,mnn,litert,onnxruntime,ours,ours-c"


def test_a_run_is_another_one_in_half_precision(tmp_path: Path) -> None:
    """Also of a peer whose model alone says it."""
    for name in ("model.tflite", "image.npy", "logits.npy"):
        (tmp_path / name).write_bytes(b"x")
    single, half = (
        PeerRun(load_board("pi5"), "pi5", one, (tmp_path / "model.tflite",), tmp_path, 1)
        for one in (chosen_systems(["litert"], "float16")[1], chosen_systems(["litert"], "float16")[0])
    )
    program = str(EXAMPLES / "run_litert.py")
    assert single.command() == ["python3", program, str(tmp_path / "model.tflite"), "--threads", "1"]
    assert half.command() == ["python3", program, str(tmp_path / "model.tflite"), "--threads", "1", "--half"]
    assert single.key() != half.key() == replace(half, sysroot=tmp_path / "elsewhere").key()


def test_a_coarse_output_is_said_and_not_judged(tmp_path: Path) -> None:
    """`region` ends a program that is 1e-3 off PyTorch; what half precision may cost, bench_peers knows."""
    np.save(tmp_path / "image.npy", np.zeros((1, 3, 2, 2), np.float32))
    np.save(tmp_path / "logits.npy", np.zeros((1, 4), np.float32))
    program = tmp_path / "program.py"
    program.write_text(
        "import numpy as np\nfrom region import read_arguments, run_marked\nrun_marked(lambda: np.full(4, 0.5), read_arguments(''))\n"
    )
    calls: list[list[str]] = [[], ["--half"]]
    done = [
        subprocess.run(
            [sys.executable, str(program), str(tmp_path / "model"), *words],
            env={"PYTHONPATH": str(EXAMPLES)},
            capture_output=True,
            text=True,
            check=False,
        )
        for words in calls
    ]
    assert [one.returncode for one in done] == [1, 0]
    assert all("largest difference from PyTorch: 5.0e-01" in one.stdout for one in done)


def small_model() -> ModelProto:
    """Return a convolution whose clamp's bounds are constants in the graph, as PyTorch exports it."""
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weights"], ["sums"]),
        *(
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.float32(value)))
            for name, value in (("low", 0.0), ("high", 6.0))
        ),
        helper.make_node("Clip", ["sums", "low", "high"], ["clipped"]),
        helper.make_node("Flatten", ["clipped"], ["logits"]),
    ]
    ends = [
        helper.make_tensor_value_info(*end) for end in (("image", TensorProto.FLOAT, [1, 3, 5, 5]), ("logits", TensorProto.FLOAT, [1, 36]))
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], [numpy_helper.from_array(weights, "weights")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_an_onnx_model_computes_in_half_precision_between_its_ends() -> None:
    image = np.random.default_rng(1).normal(size=(1, 3, 5, 5)).astype(np.float32)
    expected = ReferenceEvaluator(small_model()).run(None, {"image": image})[0]
    half = onnx_in_half(small_model())
    output = ReferenceEvaluator(half).run(None, {"image": image})[0]
    assert output.dtype == np.float32 and 0 < np.abs(output - expected).max() < 5e-3 * np.abs(expected).max()
    assert [node.op_type for node in half.graph.node] == ["Cast", "Conv", "Constant", "Constant", "Clip", "Flatten", "Cast"]
    tensors = [
        *half.graph.initializer,
        *(attribute.t for node in half.graph.node for attribute in node.attribute if attribute.HasField("t")),
    ]
    assert len(tensors) == 3 and {tensor.data_type for tensor in tensors} == {TensorProto.FLOAT16}


def test_the_best_peer_is_the_quickest_in_either_precision() -> None:
    rows = [row("ncnn-float16", 20.0), row("ncnn", 35.0), row("onnxruntime-float16", 90.0), row("onnxruntime", 40.0), row(OURS_C, 16.0)]
    best = best_peer(rows)
    assert best is not None and best.system == "ncnn-float16" and our_ratio(rows) == pytest.approx(0.8)
    slower = best_peer([*rows[2:4]])
    assert slower is not None and slower.system == "onnxruntime"


def test_pages_say_how_each_was_asked_and_what_it_then_ran() -> None:
    loops = "48 fmla .8h by lane to 12 accumulators", "96 fmla by lane to 24 accumulators"
    rows = (row("ncnn-float16", 20.0, loops[0]), row("mnn-float16", 30.0, loops[1]), row("ncnn", 35.0, loops[1]), row(OURS_C, 16.0))
    found = pages(PeerComparison(CONTEXT, rows, hottest_kernels(CONTEXT, rows)), "half")
    page = found["half.md"]
    assert "MobileNet v1, float16, batch 1" in page and "benchmarks-half" not in page
    assert "more than 2e-1 of the largest magnitude (ours: 5e-2)" in page
    lines = {tuple(words[1:5]) for line in page.splitlines() if len(words := [word.strip() for word in line.split("|")]) == 8}
    asked = {("Cortex-A76", "ncnn float16", f"`unknown: {loops[0]}`", "yes"), ("Cortex-A76", "MNN float16", f"`unknown: {loops[1]}`", "no")}
    assert asked < lines
    assert (
        "`use_fp16_arithmetic`" in page and "`precision: low`" in page and "LiteRT" not in page.split("## Kernels")[0].split("## Half")[1]
    )
    assert "| ncnn float16 | MNN float16 | ncnn | ours, C library |" in found["half/pi5.md"] and "| 0.80 |" in found["half/pi5.md"]
    single = pages(PeerComparison(replace(CONTEXT, dtype="float32"), rows[2:]), "benchmarks")["benchmarks.md"]
    assert "more than 1e-3 of the largest magnitude (ours: 1e-4)" in single and "(benchmarks-half.md)" in single


def test_loops_say_that_they_multiply_eight_lanes() -> None:
    half = ["fmla\tv8.8h, v4.8h, v0.h[7]", "fmla\tv9.8h, v4.8h, v0.h[0]"]
    assert loop_of(half) == "2 fmla .8h by lane to 2 accumulators"
    assert loop_of([*half, "fmla\tv9.4s, v4.4s, v0.s[0]"]) == "3 fmla by lane to 2 accumulators"


def test_each_peers_half_precision_runs_in_the_committed_figures() -> None:
    """The kernel is the one that its makers chose, and it multiplies eight lanes; its float32 kernel does not."""
    found = from_json(RESULTS / "benchmarks-half.json")
    assert found.context.dtype == "float16"
    kernels = {(one.system, one.cpu): one.kernel for one in found.kernels}
    assert {system for system, _ in kernels} >= {one.key for one in systems("float16") if one.name in MAKERS}
    for (system, cpu), kernel in kernels.items():
        choice = HALF_MAKERS.get(system) or MAKERS[system]
        assert kernel.name == choice.kernel(cpu) and (HALF_LANES in kernel.loop) == (system in HALF_MAKERS), system
    assert all(run.difference < (5e-2 if one.system in OURS_KEYS else peer_tolerance("float16")) for one in found.rows for run in one.runs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--boards", "pi5", "pi4"], "the Cortex-A72 of Raspberry Pi 4 Model B does not compute in float16."),
        (["--boards", "pi5", "--known", "float32.json"], "float32.json compares in float32, not in float16."),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    single = PeerComparison(replace(CONTEXT, dtype="float32"), (row("ncnn", 35.0),))
    (tmp_path / "float32.json").write_text(json.dumps(to_json(single)), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench_peers, "prepare", lambda *_: pytest.fail("a board was prepared"))
    monkeypatch.setattr(sys, "argv", ["bench_peers", "--dtype", "float16", "--out", "out", *arguments])
    assert bench_peers.main() == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
