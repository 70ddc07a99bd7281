"""Branches and loops that do not depend on the input run as in ONNX Runtime; others are refused, and so are those without end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from network_files import Graph, convolution, write_model
from onnx import TensorProto, helper, numpy_helper
from own_networks import TOLERANCE, error_of, load

from tvmmobile.system.errors import UserError

FLOAT = TensorProto.FLOAT


def value(name: str, kind: int = FLOAT) -> Any:
    """Describe a tensor of a graph within the network: real numbers of any shape, or a single number of another kind."""
    return helper.make_tensor_value_info(name, kind, None if kind == FLOAT else [])


def body(nodes: Sequence[Any], outputs: Sequence[str], states: Sequence[str] = ("a",), **constants: Any) -> Any:
    """Return the body of a `Loop`, whose condition `go` stays as it is unless a node computes `gone`."""
    inputs = [value("i", TensorProto.INT64), value("go", TensorProto.BOOL), *map(value, states)]
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    if not any("gone" in node.output for node in nodes):
        nodes = [*nodes, helper.make_node("Identity", ["go"], ["gone"])]
    return helper.make_graph(nodes, "body", inputs, [value("gone", TensorProto.BOOL), *map(value, outputs)], stored)


def written(folder: Path, nodes: Sequence[Any], **constants: Any) -> Path:
    """Write a convolution from `x` to `c`, and nodes behind it, up to `y`."""
    made = convolution(nodes)
    return write_model(folder / "net.onnx", Graph(made.nodes, made.constants | {name: np.asarray(one) for name, one in constants.items()}))


def scaled() -> list[Any]:
    """Return nodes from `a` to `n`: multiplied by the iteration, with weights of a loop's own."""
    return [
        helper.make_node("Cast", ["i"], ["f"], to=FLOAT),
        helper.make_node("Mul", ["f", "half"], ["g"]),
        helper.make_node("Conv", ["a", "k"], ["d"]),
        helper.make_node("Add", ["d", "g"], ["n"]),
    ]


KERNEL = np.random.default_rng(0).normal(0, 0.5, (4, 4, 1, 1)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 3])
def test_a_loop_of_a_known_count(tmp_path: Path, count: int) -> None:
    inside = body(scaled(), ["n"], half=np.float32(0.5), k=KERNEL)
    path = written(tmp_path, [helper.make_node("Loop", ["count", "", "c"], ["y"], body=inside)], count=np.int64(count))
    imported = load(path)
    assert error_of(imported, tmp_path / "net.so") <= TOLERANCE and imported.reference_program.startswith("ONNX Runtime")
    assert imported.parameters == 112 + 16 + 1


def test_a_loop_that_stops_by_a_computed_condition_and_keeps_every_result(tmp_path: Path) -> None:
    inside = body([*scaled(), helper.make_node("Less", ["i", "last"], ["gone"])], ["n", "n"], half=np.float32(0.5), k=KERNEL, last=2)
    nodes = [
        helper.make_node("Loop", ["", "yes", "c"], ["e", "all"], body=inside),
        helper.make_node("ReduceSum", ["all", "first"], ["s"], keepdims=0),
        helper.make_node("Mul", ["s", "e"], ["y"]),
    ]
    assert error_of(load(written(tmp_path, nodes, yes=True, first=[0])), tmp_path / "net.so") <= TOLERANCE


def test_a_branch_in_a_loop_whose_names_are_the_same_in_each(tmp_path: Path) -> None:
    def branch(operator: str) -> Any:
        made = [helper.make_node(operator, ["a"], ["t"]), helper.make_node("Mul", ["t", "k"], ["n"])]
        return helper.make_graph(made, "branch", [], [value("n")], [numpy_helper.from_array(np.float32(0.7), "k")])

    nodes = [
        helper.make_node("Equal", ["i", "one"], ["is"]),
        helper.make_node("If", ["is"], ["n"], then_branch=branch("Sigmoid"), else_branch=branch("Tanh")),
    ]
    loop = helper.make_node("Loop", ["count", "", "c"], ["y"], body=body(nodes, ["n"], one=np.int64(1)))
    assert error_of(load(written(tmp_path, [loop], count=np.int64(3))), tmp_path / "net.so") <= TOLERANCE


@pytest.mark.parametrize("backwards", [0, 1])
@pytest.mark.parametrize("axis", [2, 3])
def test_a_scan(tmp_path: Path, axis: int, backwards: int) -> None:
    nodes = [
        helper.make_node("Mul", ["a", "half"], ["h"]),
        helper.make_node("Add", ["h", "p"], ["n"]),
        helper.make_node("Tanh", ["n"], ["o"]),
    ]
    half = [numpy_helper.from_array(np.float32(0.5), "half")]
    inside = helper.make_graph(nodes, "body", [value("a"), value("p")], [value("n"), value("o")], half)
    options = {"scan_input_axes": [axis], "scan_input_directions": [backwards], "scan_output_axes": [axis], "scan_output_directions": [1]}
    scan = helper.make_node("Scan", ["zeros", "c"], ["", "y"], body=inside, num_scan_inputs=1, **options)
    scan.output[0] = "state"
    path = written(tmp_path, [scan], zeros=np.zeros((1, 4, 8), np.float32))
    assert error_of(load(path), tmp_path / "net.so") <= TOLERANCE


def test_a_loop_that_the_input_decides_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["c"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["count"], to=TensorProto.INT64),
        helper.make_node("Loop", ["count", "", "c"], ["y"], body=body(scaled(), ["n"], half=np.float32(0.5), k=KERNEL)),
    ]
    with pytest.raises(UserError, match="Loop"):
        load(written(tmp_path, nodes))


def test_a_loop_without_end_is_refused(tmp_path: Path) -> None:
    inside = body(scaled(), ["n"], half=np.float32(0.5), k=KERNEL)
    with pytest.raises(UserError, match=r"its loops unrolled, has 10,0\d\d operators"):
        load(written(tmp_path, [helper.make_node("Loop", ["count", "", "c"], ["y"], body=inside)], count=np.int64(1 << 40)))


def test_weights_in_a_graph_within_a_long_loop_are_refused(tmp_path: Path) -> None:
    large = np.zeros((1, 4, 1024, 1024), np.float32)
    branch = helper.make_graph(
        [helper.make_node("Add", ["a", "k"], ["n"])], "branch", [], [value("n")], [numpy_helper.from_array(large, "k")]
    )
    nodes = [helper.make_node("If", ["go"], ["n"], then_branch=branch, else_branch=branch)]
    loop = helper.make_node("Loop", ["count", "", "c"], ["y"], body=body(nodes, ["n"]))
    with pytest.raises(UserError, match=r"loops, unrolled, have more than|its loops unrolled, has"):
        load(written(tmp_path, [loop], count=np.int64(1000)))
