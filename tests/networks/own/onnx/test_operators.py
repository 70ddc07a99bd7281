"""ONNX files around one operator agree with ONNX Runtime once they are compiled, or are refused with the operator's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_campaign import AGREES, REFUSED, UNJUDGED, Outcome, outcomes
from own_networks import load
from random_onnx import Case, sample

from tvmmobile.networks.own.onnx.constants import with_shapes
from tvmmobile.system.errors import UserError

Array = np.ndarray[Any, Any]
#: Models of a default run: each takes about 0.3 s.
FEW = 12
MANY = 2000


def node(operator: str, inputs: str, output: str = "y", **attributes: Any) -> Any:
    """Return an operator of inputs whose names are separated by spaces; `-` stands for none."""
    return helper.make_node(operator, [name.strip("-") for name in inputs.split(" ")], [output], **attributes)


def model(opset: int, nodes: Sequence[Any], constants: Mapping[str, Array], batch: int) -> Any:
    """Return a convolution from `x` to `c`, images of 4 channels of 6 × 7 pixels, and what follows it up to `y`."""
    random = np.random.default_rng(0)
    values = {"w": random.normal(0, 0.8, (4, 3, 1, 1)).astype(np.float32), "b": random.normal(0, 1, 4).astype(np.float32), **constants}
    graph = helper.make_graph(
        [node("Conv", "x w b", "c"), *nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, 3, 6, 7))],
        [helper.make_empty_tensor_value_info(name) for name in "yz" if any(name in made.output for made in nodes)],
        [numpy_helper.from_array(array, name) for name, array in values.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    return with_shapes(made)


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def floats(*shape: int, least: float = -1.0) -> Array:
    return np.random.default_rng(1).uniform(least, 2.0, shape).astype(np.float32)


_TO_FLOAT: dict[str, Any] = {"to": TensorProto.FLOAT}
#: What went wrong once: opset, batch, the nodes behind a convolution, and constants.
FOUND: dict[str, tuple[int, int, Sequence[Any], Mapping[str, Array]]] = {
    "a sum of images": (13, 1, [node("Relu", "c", "d"), node("Sum", "c d c")], {}),
    "a mean of images": (9, 1, [node("Relu", "c", "d"), node("Mean", "c d")], {}),
    "dropout": (9, 1, [node("Dropout", "c")], {}),
    "Celu": (13, 1, [node("Celu", "c", alpha=0.7)], {}),
    "LpNormalization": (13, 1, [node("LpNormalization", "c", axis=1, p=1)], {}),
    "infinities of one sign": (
        *(13, 1),
        [node("Relu", "c", "d"), node("Log", "d", "e"), node("IsInf", "e", "f", detect_negative=0), node("Cast", "f", **_TO_FLOAT)],
        {},
    ),
    "regions of smaller images": (
        *(16, 1),
        [node("RoiAlign", "c r i", output_height=2, output_width=3, spatial_scale=0.5, sampling_ratio=2)],
        {"r": np.array([[1, 2, 9, 8], [0, 0, 5, 11]], np.float32), "i": ints(0, 0)},
    ),
    "regions with as many samples as they have pixels": (
        *(16, 1),
        [node("RoiAlign", "c r i", output_height=2, output_width=3, spatial_scale=0.5)],
        {"r": np.array([[1, 2, 9, 8], [0, 0, 5, 11]], np.float32), "i": ints(0, 0)},
    ),
    "a shape of nothing": (
        *(14, 1),
        [
            node("Slice", "c a a p", "d"),
            node("Reshape", "d s", "e", allowzero=1),
            node("Reshape", "c r", "f"),
            node("Concat", "e f", axis=0),
        ],
        {"a": ints(0), "p": ints(1), "s": ints(0, 56), "r": ints(3, 56)},
    ),
    "fewer indices than data": (
        *(16, 1),
        [node("ScatterElements", "c i u", axis=1)],
        {"i": ints(1, -1, 0, 2).reshape(1, 2, 2, 1), "u": floats(1, 2, 2, 1)},
    ),
    "fewer indices than data, added": (
        *(16, 1),
        [node("ScatterElements", "c i u", axis=1, reduction="add")],
        {"i": ints(1, -1, 0, 1).reshape(1, 2, 2, 1), "u": floats(1, 2, 2, 1)},
    ),
    "places from the end": (
        *(16, 1),
        [node("ScatterND", "c i u")],
        {"i": ints(0, 1, -1, 0, -2, 3).reshape(2, 3), "u": floats(2, 7)},
    ),
    "the greatest numbers of version 10": (10, 1, [helper.make_node("TopK", ["c", "n"], ["y", "places"], axis=2)], {"n": ints(3)}),
    "a layer norm with factors of rows": (17, 2, [node("LayerNormalization", "c f", axis=1)], {"f": floats(7)}),
    "an RMS norm of whole images": (23, 2, [node("RMSNormalization", "c f", axis=1)], {"f": floats(4, 6, 7, least=0.5)}),
    "an RMS norm of pixels": (23, 1, [node("RMSNormalization", "c f", axis=2)], {"f": floats(6, 7, least=0.5)}),
    "a mean of a batch": (13, 2, [node("ReduceMean", "c", axes=[-4, 1], keepdims=0)], {}),
    "a group norm with factors of groups": (18, 1, [node("GroupNormalization", "c f s", num_groups=2)], {"f": floats(2), "s": floats(2)}),
    "a pool without its indices": (17, 1, [helper.make_node("MaxPool", ["c"], ["y", ""], kernel_shape=[2, 2])], {}),
    "a group norm": (21, 1, [node("GroupNormalization", "c f s", num_groups=2)], {"f": floats(4), "s": floats(4)}),
    "a depth with a dimension": (
        *(13, 1),
        [node("ArgMax", "c", "d", axis=1, keepdims=0), node("OneHot", "d n v", axis=1)],
        {"n": ints(4), "v": np.array([-0.5, 2], np.float32)},
    ),
    "a diagonal of doubles": (
        13,
        1,
        [node("Reshape", "c s", "d"), node("EyeLike", "d", "e", dtype=11), node("Cast", "e", **_TO_FLOAT)],
        {"s": ints(12, 14)},
    ),
    "attention": (23, 1, [node("Attention", "c c k", is_causal=1, scale=0.3)], {"k": floats(1, 4, 6, 5)}),
    "attention with shared heads": (
        *(23, 1),
        [node("Reshape", "c s", "d"), node("Attention", "d k k m", q_num_heads=3, kv_num_heads=1)],
        {"s": ints(1, 14, 12), "k": floats(1, 5, 4), "m": floats(14, 5)},
    ),
    "attention of a row that is wholly hidden": (
        *(23, 1),
        [node("Reshape", "c s", "d"), node("Attention", "d k k m", q_num_heads=3, kv_num_heads=1, is_causal=1)],
        {"s": ints(1, 14, 12), "k": floats(1, 5, 4), "m": np.arange(70).reshape(14, 5) % 5 > np.arange(14)[:, None] % 4},
    ),
    **{
        f"{operator} over no axis": (18, 1, [node("Relu", "c", "d"), node(operator, "d", noop_with_empty_axes=1)], {})
        for operator in ("ReduceL1", "ReduceLogSum")
    },
    **{
        f"{operator} over no axis": (18, 1, [node(operator, "c e", noop_with_empty_axes=1)], {"e": ints()})
        for operator in ("ReduceL2", "ReduceSumSquare")
    },
    "a greatest pixel with zeros in front": (
        *(13, 1),
        [node("MaxPool", "c", auto_pad="SAME_LOWER", kernel_shape=[2, 3], strides=[4, 2])],
        {},
    ),
    "a pool of powers that rounds up": (
        *(22, 1),
        [node("LpPool", "c", ceil_mode=1, kernel_shape=[3, 3], strides=[2, 2], p=3)],
        {},
    ),
    "whole exponents": (13, 1, [node("Abs", "c", "d"), node("Pow", "d e")], {"e": ints(2, 3, -1, 0, 1, 2, 1)}),
    "a constant beside an image": (
        *(13, 1),
        [node("ConstantOfShape", "s", "k"), node("Conv", "k w", "y"), node("Relu", "c", "z")],
        {"s": ints(1, 3, 2, 2)},
    ),
    "a product of numbers": (
        *(13, 1),
        [node("ReduceMax", "c", "d", keepdims=0), node("Exp", "d", "e"), node("Mul", "d e", "f"), node("Reshape", "f o")],
        {"o": ints(1)},
    ),
    "a product of vectors": (
        *(13, 1),
        [node("Reshape", "c n", "d"), node("MatMul", "d v", "e"), node("Reshape", "e o")],
        {"n": ints(-1), "v": floats(168), "o": ints(1)},
    ),
    "a boolean and a number": (
        *(13, 1),
        [node("Greater", "c f"), node("ReduceMax", "c", "d", keepdims=0), node("IsNaN", "d", "z")],
        {"f": floats(7)},
    ),
    "a loss that ONNX defines by other operators": (
        *(13, 1),
        [node("SoftmaxCrossEntropyLoss", "c t")],
        {"t": np.arange(42).reshape(1, 6, 7) % 4},
    ),
    "attention with one query": (
        *(13, 1),
        [
            *(node("Reshape", "c n", "d"), node("MatMul", "d v", "e"), node("Softmax", "e", "f", axis=-1)),
            *(node("Unsqueeze", "f o", "g"), node("MatMul", "g d")),
        ],
        {"n": ints(1, 21, 8), "v": floats(8), "o": ints(1)},
    ),
    "attention with queries that images share": (
        *(13, 1),
        [
            *(
                node("Reshape", "c n", "d"),
                node("ReduceMean", "d", "q", axes=[0], keepdims=0),
                node("Transpose", "d", "k", perm=[0, 1, 3, 2]),
            ),
            *(node("MatMul", "q k", "e"), node("Softmax", "e", "f", axis=-1), node("MatMul", "f d")),
        ],
        {"n": ints(2, 2, 6, 7)},
    ),
    **{
        f"{operator} of booleans": (20, 1, [node("Greater", "c k", "d"), node(operator, "d a", "e"), node("Cast", "e", **_TO_FLOAT)], given)
        for operator, given in (("ReduceMax", {"k": floats(7), "a": ints(1)}), ("ReduceMin", {"k": floats(7) - 2, "a": ints(-1)}))
    },
    "a sum of powers of nothing": (
        *(13, 1),
        [node("Log", "c", "d"), node("IsNaN", "d", "e"), node("Where", "e k d", "f"), node("ReduceLogSumExp", "f", axes=[1], keepdims=0)],
        {"k": np.float32(-np.inf)},
    ),
    "parts of one size and a smaller one": (
        *(13, 1),
        [node("SplitToSequence", "c n", "d", axis=2), node("SequenceAt", "d p"), node("ConcatFromSequence", "d", "z", axis=2)],
        {"n": np.int64(4), "p": np.int64(-1)},
    ),
    "a sequence that is empty at first": (
        *(13, 1),
        [
            helper.make_node("SequenceEmpty", [], ["d"]),
            *(node("SequenceInsert", "d c", "e"), node("SequenceInsert", "e k", "f"), node("ConcatFromSequence", "f", "g", axis=1)),
            *(node("SequenceConstruct", "i j", "s"), node("ConcatFromSequence", "s", "t", axis=0), node("Reshape", "g t", "r")),
            node("Reshape", "r u"),
        ],
        {"k": floats(1, 2, 6, 7), "i": ints(6), "j": ints(-1), "u": ints(1, 6, 6, 7)},
    ),
    "places of constants, without the first of each": (
        *(13, 1),
        [helper.make_node("Unique", ["k"], ["u", "", "d"]), node("Gather", "c d", axis=1)],
        {"k": np.array([3, 1, 3, 2], np.float32)},
    ),
    "a transposed convolution to a shape": (
        *(13, 1),
        [node("ConvTranspose", "c k", output_shape=[13, 13], strides=[2, 2])],
        {"k": floats(4, 2, 3, 3)},
    ),
}


def as_case(name: str) -> Case:
    """Return a model of `FOUND` with its input."""
    opset, batch, nodes, constants = FOUND[name]
    image = np.random.default_rng(2).normal(0, 1.5, (batch, 3, 6, 7)).astype(np.float32)
    return Case("found", name, opset, 0, model(opset, nodes, constants, batch), {"x": image})


def test_what_went_wrong_once_agrees_with_onnx_runtime() -> None:
    found = list(outcomes(map(as_case, FOUND)))
    assert [outcome for outcome in found if outcome.result != AGREES] == [] and len(found) == len(FOUND)


def test_windows_that_onnx_and_onnx_runtime_pad_in_different_ways_are_refused() -> None:
    pool = node("MaxPool", "c", auto_pad="SAME_UPPER", dilations=[1, 2], kernel_shape=[2, 2])
    made = Case("found", "MaxPool", 13, 0, model(13, [pool], {}, 1), {"x": floats(1, 3, 6, 7)})
    assert [outcome.result for outcome in outcomes([made])] == [REFUSED]


@pytest.mark.parametrize(("extents", "sides"), [([13, 14], (13, 6, 12)), ([11, 15], (15, 7, 14)), ([40, 13], (40, 6, 12))])
def test_an_output_that_is_larger_than_a_transposed_convolution_makes(extents: list[int], sides: tuple[int, ...], tmp_path: Path) -> None:
    operator = node("ConvTranspose", "c k", output_shape=extents, strides=[2, 2])
    made = model(13, [operator], {"k": floats(4, 2, 1, 1)}, 1)
    onnx.save(made, tmp_path / "net.onnx")
    with pytest.raises(UserError, match="its output of {} pixels is beyond what its windows make of {}, at most {}".format(*sides)):
        load(tmp_path / "net.onnx")


def bad(found: Sequence[Outcome]) -> list[tuple[Any, ...]]:
    """Return how to reproduce the models that neither agree nor are refused by name."""
    fine = {AGREES, REFUSED, UNJUDGED}
    return [(*_arguments(outcome.case), outcome.result, outcome.why) for outcome in found if outcome.result not in fine]


def _arguments(case: Case) -> tuple[str, int, int]:
    """Return the arguments of `draw_case`."""
    return case.operator, case.opset, case.seed


def test_a_few_random_models_agree_with_onnx_runtime_or_are_refused_by_name() -> None:
    found = list(outcomes(sample(FEW, 2)))
    assert bad(found) == [] and Counter(outcome.result for outcome in found)[AGREES] > FEW / 2


@pytest.mark.long
def test_random_models_agree_with_onnx_runtime_or_are_refused_by_name() -> None:
    found = list(outcomes(sample(MANY, 1)))
    assert bad(found) == [] and Counter(outcome.result for outcome in found)[AGREES] > 0.8 * MANY
