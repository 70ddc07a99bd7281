"""Networks that select boxes or places agree with ONNX Runtime: as many rows as it finds, then fillers, and their number beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lowered_networks import prepare
from onnx import TensorProto, helper, numpy_helper
from onnx_campaign import built, difference_of, run
from own_networks import load, network_of
from small_networks import accepted, kernels_of

from tvmmobile.graph.bindings import bindings_of
from tvmmobile.graph.lowering import lower
from tvmmobile.graph.precision import FLOAT16
from tvmmobile.networks.frontend import Imported
from tvmmobile.networks.own.files import OwnFile, RequestedShape
from tvmmobile.networks.own.onnx.file import imported_onnx
from tvmmobile.system.errors import UserError

Array = np.ndarray[Any, Any]
node = helper.make_node
#: Largest difference from ONNX Runtime; indices are equal.
TOLERANCE = 1e-5


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def reals(*numbers: float) -> Array:
    return np.array(numbers, np.float32)


def network(path: Path, nodes: Sequence[Any], constants: Mapping[str, Array], outputs: Sequence[str]) -> Imported:
    """Return a network of boxes `b`, `[1, 9, 4]`, and scores `s`, `[1, 2, 9]`, which a product makes of its input `x`; and what follows."""
    random, boxes = np.random.default_rng(5), 9
    values = {
        "w": random.normal(0, 1, (3, 4 * boxes + 2 * boxes)).astype(np.float32),
        "cut": ints(4 * boxes, 2 * boxes),
        "b_shape": ints(1, boxes, 4),
        "s_shape": ints(1, 2, boxes),
        "most": ints(4),
        "overlap": reals(0.4),
        "score": reals(0.1),
        "zero": ints(0),
        "one": ints(1),
        "two": ints(2),
        **constants,
    }
    front = [
        node("MatMul", ["x", "w"], ["p"]),
        node("Split", ["p", "cut"], ["p1", "p2"], axis=1),
        node("Reshape", ["p1", "b_shape"], ["b"]),
        node("Reshape", ["p2", "s_shape"], ["s"]),
    ]
    graph = helper.make_graph(
        [*front, *nodes],
        "detector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3))],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return load(path)


SELECT = node("NonMaxSuppression", ["b", "s", "most", "overlap", "score"], ["sel"])
COLUMN = [SELECT, node("Gather", ["sel", "two"], ["box"], axis=1), node("Squeeze", ["box", "one"], ["i"])]
MATRICES = np.random.default_rng(6).normal(0, 1, (2, 4, 3)).astype(np.float32)
#: What follows a selection: nodes, constants and outputs.
FOLLOWERS: dict[str, tuple[Sequence[Any], Mapping[str, Array], Sequence[str]]] = {
    "indices": ([SELECT], {}, ["sel"]),
    "boxes and scores": (
        [
            *COLUMN,
            node("Gather", ["b", "i"], ["chosen"], axis=1),
            node("Slice", ["sel", "zero", "two", "one"], ["pair"]),
            node("Slice", ["sel", "one", "two", "one"], ["kind"]),
            node("Cast", ["kind"], ["label"], to=TensorProto.FLOAT),
            node("GatherND", ["s", "sel"], ["score_of"]),
            node("Squeeze", ["chosen", "zero"], ["flat"]),
            node("Unsqueeze", ["score_of", "one"], ["column"]),
            node("Concat", ["flat", "column", "label"], ["rows"], axis=1),
        ],
        {},
        ["rows", "pair", "s"],
    ),
    "the best of them": (
        [
            *COLUMN,
            node("GatherND", ["s", "sel"], ["score_of"]),
            node("Shape", ["score_of"], ["count"]),
            node("Concat", ["count", "three"], ["both"], axis=0),
            node("ReduceMin", ["both"], ["k"], keepdims=1),
            node("TopK", ["score_of", "k"], ["top", "which"]),
            node("Gather", ["i", "which"], ["places"], axis=0),
            node("Gather", ["b", "places"], ["chosen"], axis=1),
        ],
        {"three": ints(3)},
        ["top", "chosen"],
    ),
    "the first ones": (
        [*COLUMN, node("Slice", ["i", "zero", "two", "zero"], ["first"]), node("Gather", ["b", "first"], ["y"], axis=1)],
        {},
        ["y", "i"],
    ),
    "places of high scores": (
        [
            node("Greater", ["s", "half"], ["high"]),
            node("NonZero", ["high"], ["found"]),
            node("Transpose", ["found"], ["rows"], perm=[1, 0]),
            node("GatherND", ["s", "rows"], ["values"]),
            node("ReduceMax", ["values"], ["best"], keepdims=1),
        ],
        {"half": reals(0.5)},
        ["found", "values"],
    ),
    "classes one by one": (
        [
            *[
                made
                for kind in range(2)
                for made in (
                    node("Gather", ["s", f"class{kind}"], [f"of{kind}"], axis=1),
                    node("Reshape", [f"of{kind}", "minus"], [f"scores{kind}"]),
                    node("Greater", [f"scores{kind}", "low"], [f"high{kind}"]),
                    node("NonZero", [f"high{kind}"], [f"places{kind}"]),
                    node("Squeeze", [f"places{kind}", "zero"], [f"keep{kind}"]),
                    node("Gather", [f"scores{kind}", f"keep{kind}"], [f"kept{kind}"], axis=0),
                    node("Gather", ["flat", f"keep{kind}"], [f"boxes{kind}"], axis=0),
                    node("Shape", [f"kept{kind}"], [f"size{kind}"]),
                    node("Expand", [f"label{kind}", f"size{kind}"], [f"labels{kind}"]),
                )
            ],
            node("Concat", ["kept0", "kept1"], ["kept"], axis=0),
            node("Concat", ["boxes0", "boxes1"], ["boxes"], axis=0),
            node("Concat", ["labels0", "labels1"], ["labels"], axis=0),
            node("ReduceMax", ["boxes"], ["largest"], keepdims=0),
            node("Cast", ["labels"], ["real"], to=TensorProto.FLOAT),
            node("Mul", ["real", "largest"], ["shift"]),
            node("Unsqueeze", ["shift", "one"], ["shifts"]),
            node("Add", ["boxes", "shifts"], ["apart"]),
            node("Unsqueeze", ["apart", "zero"], ["batch"]),
            node("Unsqueeze", ["kept", "pair"], ["row"]),
            node("NonMaxSuppression", ["batch", "row", "many", "overlap"], ["sel"]),
            node("Gather", ["sel", "two"], ["third"], axis=1),
            node("Squeeze", ["third", "one"], ["index"]),
            node("Gather", ["boxes", "index"], ["y0"], axis=0),
            node("Gather", ["kept", "index"], ["y1"], axis=0),
            node("Gather", ["labels", "index"], ["y2"], axis=0),
        ],
        {
            "class0": ints(0),
            "class1": ints(1),
            "minus": ints(-1),
            "low": reals(0.7),
            "label0": ints(1),
            "label1": ints(2),
            "pair": ints(0, 1),
            "many": ints(100),
        },
        ["y0", "y1", "y2"],
    ),
    "compressed": (
        [
            node("Reshape", ["s", "minus"], ["row"]),
            node("Greater", ["row", "low"], ["high"]),
            node("Compress", ["row", "high"], ["y"], axis=0),
            node("Compress", ["s", "high"], ["z"]),
        ],
        {"minus": ints(-1), "low": reals(0.3)},
        ["y", "z"],
    ),
    "filled up to ten": (
        [
            *COLUMN,
            node("Gather", ["b", "i"], ["chosen"], axis=1),
            node("Squeeze", ["chosen", "zero"], ["rows"]),
            node("Reshape", ["rows", "minus"], ["flat"]),
            node("Shape", ["rows"], ["size"]),
            node("Gather", ["size", "zero"], ["count"], axis=0),
            node("Sub", ["ten", "count"], ["lacking"]),
            node("Mul", ["lacking", "four"], ["behind"]),
            node("Concat", ["zero", "behind"], ["amounts"], axis=0),
            node("Concat", ["zero", "zero", "lacking", "zero"], ["below"], axis=0),
            node("Pad", ["flat", "amounts"], ["filled"]),
            node("Reshape", ["filled", "shape"], ["y0"]),
            node("Pad", ["rows", "below", "half"], ["y1"]),
        ],
        {"minus": ints(-1), "ten": ints(10), "four": ints(4), "shape": ints(1, 10, 4), "half": np.array(0.5, np.float32)},
        ["y0", "y1", "flat"],
    ),
    "products": (
        [
            *COLUMN,
            node("Gather", ["b", "i"], ["chosen"], axis=1),
            node("Squeeze", ["chosen", "zero"], ["flat"]),
            node("Transpose", ["flat"], ["turned"]),
            node("Unsqueeze", ["flat", "inner"], ["apart"]),
            node("Gemm", ["turned", "matrix", "bias"], ["y0"], transA=1, alpha=0.5),
            node("MatMul", ["flat", "matrices"], ["y1"]),
            node("MatMul", ["apart", "matrices"], ["y2"]),
            node("MatMul", ["chosen", "matrix"], ["y3"]),
        ],
        {"matrix": MATRICES[0], "matrices": MATRICES, "bias": reals(0.3, -0.7, 1.1), "inner": ints(1, 2)},
        ["y0", "y1", "y2", "y3"],
    ),
}
FOLLOWERS["classes one by one"][0].insert(0, node("Squeeze", ["b", "zero"], ["flat"]))  # type: ignore[attr-defined]


#: Followers that run by default, with all passes; those that take long are compiled without.
FEW, LONG = ("boxes and scores", "the best of them"), ("classes one by one", "filled up to ten", "products")


def agree(folder: Path, names: Sequence[str], passes: bool) -> set[int]:
    """Compare networks with ONNX Runtime; returns the numbers of rows that occurred."""
    from tvm import relax

    networks = [network(folder / f"net{place}.onnx", *FOLLOWERS[name]) for place, name in enumerate(names)]
    if passes:
        machine = built([lower(one, kernels_of(one)) for one in map(network_of, networks)])
    else:
        machine = built([relax.transform.LegalizeOps()(imported.module) for imported in networks])
    counts = set()
    for seed, spread in enumerate((1.0, 1.0, 0.4, 0.15, 0.05)):
        given = np.random.default_rng(seed).normal(0, spread, (1, 3)).astype(np.float32)
        for place, (name, imported) in enumerate(zip(names, networks, strict=True)):
            wanted, found = imported.compute([given]), run(machine, f"main_{place}", [given])
            for port, one, other in zip(imported.spec.returns, found, wanted, strict=True):
                assert (one.dtype, one.shape) == (other.dtype, other.shape) == (port.dtype, port.shape)
                assert difference_of(one, other) <= TOLERANCE, (name, seed, port.name, one, other)
                if port.name.endswith("/count"):
                    counts.add(int(other[0]))
    return counts


def test_followers_agree(tmp_path: Path) -> None:
    assert {3, 4, 5} <= agree(tmp_path, FEW, True)
    found = agree(tmp_path, LONG, False)
    assert min(found) == 0 and len(found) > 2, found


@pytest.mark.long
def test_all_followers_agree(tmp_path: Path) -> None:
    assert max(agree(tmp_path, list(FOLLOWERS), True)) > 10


def test_outputs_are_named(tmp_path: Path) -> None:
    returns = network(tmp_path / "net.onnx", *FOLLOWERS["boxes and scores"]).spec.returns
    assert [(port.name, port.shape, port.dtype) for port in returns] == [
        ("rows", (8, 6), "float32"),
        ("rows/count", (1,), "int64"),
        ("pair", (8, 2), "int64"),
        ("pair/count", (1,), "int64"),
        ("s", (1, 2, 9), "float32"),
    ]


SHAPES = ((1, 3, 30), (2, 2, 17))


@pytest.mark.parametrize(
    ("given", "centre"), [(2, 0), (5, 0), (5, 1), pytest.param(3, 0, marks=pytest.mark.long), pytest.param(4, 1, marks=pytest.mark.long)]
)
def test_suppression_agrees(given: int, centre: int) -> None:
    """Coordinates and scores are multiples of a power of two: many are equal, and shares of areas lie exactly on thresholds."""
    outcomes = []
    for images, classes, boxes in SHAPES:
        ports = {"b": (images, boxes, 4), "s": (images, classes, boxes)}
        numbers = {"most": TensorProto.INT64, "overlap": TensorProto.FLOAT, "score": TensorProto.FLOAT}
        names = [*ports, *numbers][:given]
        graph = helper.make_graph(
            [node("NonMaxSuppression", names, ["y"], center_point_box=centre)],
            "selection",
            [
                *(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports.items()),
                *(helper.make_tensor_value_info(name, kind, (1,)) for name, kind in numbers.items() if name in names),
            ],
            [helper.make_tensor_value_info("y", TensorProto.INT64, ["n", 3])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
        if given == 2:  # nothing is selected by default
            with pytest.raises(UserError, match=r"NonMaxSuppression \(node 'y', opset 11\) finds nothing"):
                imported_onnx(OwnFile(Path("net.onnx")), model, "", RequestedShape(), "")
            return
        outcomes.append(imported_onnx(OwnFile(Path("net.onnx")), model, "", RequestedShape(), ""))
    from tvm import relax

    machine, random = built([relax.transform.LegalizeOps()(imported.module) for imported in outcomes]), np.random.default_rng(given)
    rows = set()
    for turn in range(30):
        for place, (imported, (images, classes, boxes)) in enumerate(zip(outcomes, SHAPES, strict=True)):
            arrays = [
                random.integers(-6, 7, (images, boxes, 4)).astype(np.float32),
                (random.integers(-4, 5, (images, classes, boxes)) / 4).astype(np.float32),
                ints([0, 1, 3, boxes, 2**62][turn % 5]),
                reals(random.choice([0.0, 0.25, 0.5, 1.0])),
                reals(random.choice([-2.0, 0.0, 0.5, 1.0])),
            ][:given]
            wanted, found = imported.compute(arrays), run(machine, f"main_{place}", arrays)
            assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True)), (arrays, wanted, found)
            rows.add(int(wanted[1][0]))
    assert 0 in rows and len(rows) > 10


@pytest.mark.long
def test_nodes_of_onnx_agree() -> None:
    """ONNX's own cases of `NonMaxSuppression`."""
    from onnx.backend.test.case.node import _NodeTestCases as cases
    from onnx.backend.test.case.node import nonmaxsuppression  # noqa: F401
    from tvm import relax

    found = [case for case in cases if case.name.startswith("test_nonmaxsuppression")]
    imported = [imported_onnx(OwnFile(Path("net.onnx")), case.model, "", RequestedShape(), "") for case in found]
    machine = built([relax.transform.LegalizeOps()(one.module) for one in imported])
    assert len(found) >= 10
    for place, case in enumerate(found):
        ((inputs, (wanted,)),) = case.data_sets
        rows, count = run(machine, f"main_{place}", inputs)
        assert np.array_equal(rows[: int(count[0])], wanted) and (rows[int(count[0]) :] == -1).all()


CHOSEN = [*COLUMN, node("Gather", ["b", "i"], ["c"], axis=1)]
#: What cannot be computed on some rows of many: the operator that the message names first, and nodes.
REFUSED: dict[str, Sequence[Any]] = {
    "ReduceMean": [*CHOSEN, node("ReduceMean", ["c"], ["y"], axes=[1])],
    "ScatterElements": [*CHOSEN, node("ScatterElements", ["b", "sel", "c"], ["y"])],
    "Shape": [SELECT, node("Shape", ["sel"], ["y"])],
    "Reshape": [*CHOSEN, node("Transpose", ["c"], ["d"], perm=[0, 2, 1]), node("Reshape", ["d", "flat"], ["y"])],
    "Pad": [*CHOSEN, node("Pad", ["c", "amounts"], ["y"])],
    "Reshape of a number": [SELECT, node("Shape", ["sel"], ["n"]), node("Reshape", ["n", "flat"], ["y"])],
    "Concat with as many rows as there may be": [*CHOSEN, node("Concat", ["c", "eight"], ["y"], axis=2)],
    "Gemm with a bias for each row": [*CHOSEN, node("Squeeze", ["c", "zero"], ["d"]), node("Gemm", ["d", "kernel", "weights"], ["y"])],
    "Gemm over rows": [*CHOSEN, node("Squeeze", ["c", "zero"], ["d"]), node("Gemm", ["d", "weights"], ["y"], transA=1)],
    "MatMul over rows": [*CHOSEN, node("Transpose", ["c"], ["d"], perm=[0, 2, 1]), node("MatMul", ["d", "weights"], ["y"])],
    "GatherND from the last row": [*CHOSEN, node("GatherND", ["c", "last"], ["y"])],
    "GatherElements from the last row": [*CHOSEN, node("GatherElements", ["c", "ends"], ["y"], axis=1)],
    "Slice": [*COLUMN, node("Slice", ["i", "one", "two", "zero"], ["y"])],
    "Add": [
        *COLUMN,
        node("NonZero", ["s"], ["found"]),
        node("Slice", ["found", "zero", "one", "zero"], ["j"]),
        node("Add", ["i", "j"], ["y"]),
    ],
}


@pytest.mark.parametrize("operator", list(REFUSED))
def test_others_are_refused_by_name(tmp_path: Path, operator: str) -> None:
    constants = {"flat": ints(-1), "eight": np.ones((1, 8, 1), np.float32), "weights": np.ones((8, 3), np.float32), "kernel": MATRICES[0]}
    constants |= {"amounts": ints(0, 0, 0, 0, 2, 0), "last": np.array([[0, -1]]), "ends": np.full((1, 1, 4), -1)}
    where = rf"{operator.split()[0]} \(node 'y', opset 17\)"
    with pytest.raises(UserError, match=f"{where} reads boxes or places whose number is known only at run time"):
        network(tmp_path / "net.onnx", REFUSED[operator], constants, ["y"])


def test_too_many_rows_are_refused() -> None:
    ports = {"b": (1, 2000, 4), "s": (1, 3000, 2000)}
    graph = helper.make_graph(
        [node("NonMaxSuppression", ["b", "s", "most"], ["y"])],
        "selection",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports.items()],
        [helper.make_tensor_value_info("y", TensorProto.INT64, ["n", 3])],
        [numpy_helper.from_array(ints(2**62), "most")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    with pytest.raises(UserError, match=r"may find 6,000,000 places, more than 4,194,304"):
        imported_onnx(OwnFile(Path("net.onnx")), model, "", RequestedShape(), "")


def test_half_precision_selects_in_float32(tmp_path: Path) -> None:
    imported = network(tmp_path / "net.onnx", *FOLLOWERS["boxes and scores"])
    module, _ = prepare(imported.module, lambda layer: accepted(layer, FLOAT16), None, FLOAT16)
    (selection,) = (function for name, function in module.functions_items() if name.name_hint.startswith("non_max_suppression"))
    assert [str(parameter.ty.dtype) for parameter in selection.params] == ["float32", "float32", "int64"]
    assert any("float16" in str(binding.value.ty) for binding in bindings_of(module["main"]))
