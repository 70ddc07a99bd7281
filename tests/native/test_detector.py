"""A detector with its selection of boxes as a C library, in a C program by the documented interface."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from support.c_libraries import write_own_library
from support.own_networks import load

PROGRAM = Path(__file__).with_name("detector.c")
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
        "most": np.array([20]),
        "overlap": np.array([0.4], np.float32),
        "least": np.array([0.4], np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "third": np.array([2]),
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
        node("NonMaxSuppression", ["all", "by_class", "most", "overlap", "least"], ["found"]),
        node("Gather", ["found", "third"], ["column"], axis=1),
        node("Squeeze", ["column", "one"], ["index"]),
        node("Gather", ["all", "index"], ["chosen"], axis=1),
        node("Squeeze", ["chosen", "zero"], ["boxes"]),
        node("GatherND", ["by_class", "found"], ["scores"]),
        node("Slice", ["found", "one", "third", "one"], ["kinds"]),
        node("Squeeze", ["kinds", "one"], ["labels"]),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 2 * SIDE, 2 * SIDE))],
        [helper.make_empty_tensor_value_info(name) for name in ("boxes", "scores", "labels")],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def test_a_c_program_finds_boxes(tmp_path: Path) -> None:
    imported = load(write_detector(tmp_path / "net.onnx"))
    write_own_library(imported, tmp_path / "net.so")
    command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", PROGRAM, "-I", tmp_path, tmp_path / "net.so", "-o", tmp_path / "detector"]
    subprocess.run(command, check=True)
    done = subprocess.run([tmp_path / "detector"], capture_output=True, text=True, check=True, env={"LD_LIBRARY_PATH": str(tmp_path)})
    found = np.array([line.split() for line in done.stdout.splitlines()], float)
    places = np.arange(3 * (2 * SIDE) ** 2)
    image = (places * 7919 % 13 < 5).astype(np.float32).reshape(imported.spec.takes[0].shape)
    boxes, (count,), scores, _, labels, _ = imported.compute([image])
    assert 3 <= count < len(boxes) == len(labels) and len(set(labels[:count])) == CLASSES
    wanted = np.concatenate([labels[:count, None], scores[:count, None], boxes[:count]], 1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
