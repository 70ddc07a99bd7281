"""LiteRT's selection of boxes beside LiteRT's own runtime."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from litert_files import FILE, Array, LiteRtFile, by_litert, network_in, refused, schema, translated
from onnx_campaign import built, run

from tvmmobile.networks.own.files import RequestedShape
from tvmmobile.networks.own.litert.detection import without_leftovers
from tvmmobile.networks.own.litert.file import start_litert
from tvmmobile.networks.own.litert.operators import onnx_of
from tvmmobile.networks.own.onnx.file import imported_onnx

OPTIONS: dict[str, Any] = {
    "max_detections": 6,
    "max_classes_per_detection": 1,
    "detections_per_class": 4,
    "use_regular_nms": False,
    "nms_score_threshold": 0.25,
    "nms_iou_threshold": 0.5,
    "num_classes": 3,
    "y_scale": 10.0,
    "x_scale": 10.0,
    "h_scale": 5.0,
    "w_scale": 5.0,
}


def detector(boxes: int, classes: int, quantised: bool = False, **changed: Any) -> bytes:
    """Return a file of the operator alone; `classes` may include a background."""
    from flatbuffers import flexbuffers

    file, made, writer = LiteRtFile(), schema(), flexbuffers.Builder()
    with writer.Map():
        for name, value in (OPTIONS | changed).items():
            {bool: writer.Bool, int: writer.Int, float: writer.Float}[type(value)](name, value)
    random = np.random.default_rng(boxes)
    anchors = np.concatenate([random.uniform(0.2, 0.8, (boxes, 2)), random.uniform(0.1, 0.4, (boxes, 2))], 1).astype(np.float32)
    kind, grid = ("uint8", {"scale": 1 / 128, "zero": 100}) if quantised else ("float32", {})
    stored = np.clip(np.round(anchors * 128) + 100, 0, 255) if quantised else anchors
    encoded, scores = file.tensor((1, boxes, 4), kind, **grid), file.tensor((1, boxes, classes), kind, **grid)
    outputs = [file.tensor(()) for _ in range(4)]  # files do not say
    file.operator("CUSTOM", [encoded, scores, file.tensor((boxes, 4), kind, stored, **grid)], outputs)
    file.model.operatorCodes[0].customCode = "TFLite_Detection_PostProcess"
    file.graph.operators[0].customOptions = np.frombuffer(bytes(writer.Finish()), np.uint8)
    assert file.model.operatorCodes[0].deprecatedBuiltinCode == made.BuiltinOperator.CUSTOM
    return file.ends([encoded, scores], outputs)


def agrees(content: bytes, inputs: list[Array]) -> int:
    """Boxes, classes, scores and their number; returns the latter."""
    network, theirs = network_in(content), by_litert(content, inputs)
    found = dict(zip(network.outputs, theirs, strict=True))
    without_leftovers(network, found, found.__getitem__)
    ours = translated(content, inputs)
    for one, other in zip(found.values(), ours, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        np.testing.assert_allclose(one, other, atol=2e-6)
    return int(theirs[3][0])


@pytest.mark.parametrize("background", [0, 1])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"max_classes_per_detection": 2, "nms_score_threshold": 0.0},
        {"max_classes_per_detection": 5, "max_detections": 40},
        {"use_regular_nms": True},
        {"use_regular_nms": True, "max_detections": 20, "nms_iou_threshold": 0.9, "detections_per_class": 20},
    ],
    ids=str,
)
def test_detections(changed: dict[str, Any], background: int) -> None:
    """Scores are multiples of a quarter: many are equal, or equal to the threshold."""
    counts, content = set(), detector(17, 3 + background, **changed)
    for seed in range(8):
        random = np.random.default_rng(seed)
        scores = random.integers(0, 2 if seed == 7 else 5, (1, 17, 3 + background)) / (16 if seed == 7 else 4)
        if changed.get("max_classes_per_detection", 1) > 1:  # of equal classes, LiteRT returns any
            scores = scores + np.arange(3 + background) / 64
        counts.add(agrees(content, [random.normal(0, 2, (1, 17, 4)).astype(np.float32), scores.astype(np.float32)]))
    assert max(counts) > 4 and (len(counts) > 1 or not changed.get("nms_score_threshold", 1))


@pytest.mark.parametrize("changed", [{"use_regular_nms": True}, pytest.param({"max_classes_per_detection": 2}, marks=pytest.mark.long)])
def test_compiled(changed: dict[str, Any]) -> None:
    """There are fewer boxes than the outputs have room for."""
    from tvm import relax

    content = detector(17, 4, max_detections=9, **changed)
    programs = [("LiteRT", partial(start_litert, content, network_in(content)))]
    network = imported_onnx(FILE, onnx_of(network_in(content)), "", RequestedShape(), "", programs)
    assert network.reference_program.startswith("LiteRT")
    machine = built([relax.transform.LegalizeOps()(network.module)])
    for seed in range(4):
        random = np.random.default_rng(seed)
        given = [random.normal(0, 2, (1, 17, 4)).astype(np.float32), random.uniform(0, 0.3, (1, 17, 4)).astype(np.float32)]
        for one, other in zip(run(machine, "main_0", given), network.compute(given), strict=True):
            assert one.shape == other.shape
            np.testing.assert_allclose(one, other, atol=2e-6)


def test_integers() -> None:
    random = np.random.default_rng(3)
    content = detector(11, 4, quantised=True)
    assert agrees(content, [random.integers(80, 120, (1, 11, 4), np.uint8), random.integers(90, 220, (1, 11, 4), np.uint8)]) > 1


def test_contradictions_are_refused() -> None:
    assert "options that contradict each other" in refused(detector(5, 3, num_classes=7))
