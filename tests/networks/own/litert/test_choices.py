"""LiteRT's comparisons, choices, selections and whole numbers beside LiteRT's own runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from litert_files import IMAGE, Array, LiteRtFile, agrees, one, refused

ROWS = (3, 5)


def numbers(shape: Sequence[int] = IMAGE, seed: int = 7) -> Array:
    return 2 * np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize(
    "kind", ["CEIL", "COS", "FLOOR", "RELU_0_TO_1", "ROUND", "SIGN", "SIN", "SQUARE", "L2_NORMALIZATION", "LOG_SOFTMAX"]
)
def test_each_element(kind: str) -> None:
    options = {"COS": "CosOptions", "SIGN": "SignOptions", "SQUARE": "SquareOptions", "L2_NORMALIZATION": "L2NormOptions"}
    agrees(*one(kind, options.get(kind, "LogSoftmaxOptions" if kind == "LOG_SOFTMAX" else "")), most=2e-6)


def test_local_response_norm() -> None:
    values = {"radius": 1, "bias": 1.5, "alpha": 0.3, "beta": 0.75}
    agrees(*one("LOCAL_RESPONSE_NORMALIZATION", "LocalResponseNormalizationOptions", **values))


@pytest.mark.parametrize("kind", ["EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"])
@pytest.mark.parametrize("other", [IMAGE, (3,), ()])
def test_comparisons(kind: str, other: tuple[int, ...]) -> None:
    """Also of equal numbers; what they choose, and together."""
    file, image, more = LiteRtFile(), np.round(numbers()), np.round(numbers(other, 8))
    data, second = file.tensor(IMAGE), file.tensor(other, value=more)
    first, turned, both, either, out = (file.tensor(IMAGE, "bool") for _ in range(5))
    chosen = file.tensor(IMAGE)
    options = {"EQUAL": "EqualOptions", "NOT_EQUAL": "NotEqualOptions", "GREATER": "GreaterOptions", "LESS": "LessOptions"}
    options |= {"GREATER_EQUAL": "GreaterEqualOptions", "LESS_EQUAL": "LessEqualOptions"}
    file.operator(kind, [data, second], [first], options[kind])
    file.operator("LOGICAL_NOT", [first], [turned], "LogicalNotOptions")
    file.operator("GREATER", [data, file.tensor((), value=np.array(0.0))], [both], "GreaterOptions")
    file.operator("LOGICAL_OR", [turned, both], [either], "LogicalOrOptions")
    file.operator("LOGICAL_AND", [either, first], [out], "LogicalAndOptions")
    file.operator("SELECT_V2", [turned, data, second], [chosen], "SelectV2Options")
    agrees(file.ends([data], [first, out, chosen]), [image])


@pytest.mark.parametrize("condition", [IMAGE, (1,)])
def test_a_vector_selects_along_the_first_dimension(condition: tuple[int, ...]) -> None:
    file = LiteRtFile()
    chosen = file.tensor(condition, "bool", np.random.default_rng(3).uniform(size=condition) > 0.5)
    data, other, out = file.tensor(IMAGE), file.tensor(IMAGE), file.tensor(IMAGE)
    file.operator("SELECT", [chosen, data, other], [out], "SelectOptions")
    agrees(file.ends([data, other], [out]), [numbers(), numbers(seed=9)])


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_quotients_are_rounded_down(dtype: str) -> None:
    file, random = LiteRtFile(), np.random.default_rng(5)
    data, other, quotient, rest = (file.tensor(ROWS, dtype) for _ in range(4))
    file.operator("FLOOR_DIV", [data, other], [quotient], "FloorDivOptions", version=2)
    file.operator("FLOOR_MOD", [data, other], [rest], "FloorModOptions")
    given = random.integers(-20, 20, ROWS).astype(dtype), (random.integers(1, 6, ROWS) * random.choice([-1, 1], ROWS)).astype(dtype)
    agrees(file.ends([data, other], [quotient, rest]), list(given))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gathered_and_reversed(axis: int) -> None:
    file = LiteRtFile()
    places = np.array([[2, 0], [1, 2]])
    extents = [*ROWS[: axis % 2], 2, 2, *ROWS[axis % 2 + 1 :]]
    data, found, back = file.tensor(ROWS), file.tensor(extents), file.tensor(ROWS)
    file.operator("GATHER", [data, file.int32(*places.tolist())], [found], "GatherOptions", axis=axis)
    file.operator("REVERSE_V2", [data, file.int32(axis % 2)], [back], "ReverseV2Options")
    agrees(file.ends([data], [found, back]), [numbers(ROWS)])


def test_places_of_several_dimensions() -> None:
    file = LiteRtFile()
    data, out = file.tensor((2, 3, 4)), file.tensor((3, 4))
    file.operator("GATHER_ND", [data, file.int32([0, 2], [1, 0], [1, 1])], [out], "GatherNdOptions")
    agrees(file.ends([data], [out]), [numbers((2, 3, 4))])


def test_the_greatest_and_their_places() -> None:
    file = LiteRtFile()
    data, values, places = file.tensor(ROWS), file.tensor((3, 2)), file.tensor((3, 2), "int32")
    file.operator("TOPK_V2", [data, file.tensor((), "int32", np.array(2))], [values, places], "TopKV2Options")
    agrees(file.ends([data], [values, places]), [numbers(ROWS)])


@pytest.mark.parametrize("axis", [-1, 0])
def test_one_hot(axis: int) -> None:
    file = LiteRtFile()
    data, out = file.tensor(ROWS, "int32"), file.tensor((*ROWS, 4) if axis == -1 else (4, *ROWS))
    scalars = [file.tensor((), "int32", np.array(4)), *(file.tensor((), value=np.array(value)) for value in (2.0, -1.0))]
    file.operator("ONE_HOT", [data, *scalars], [out], "OneHotOptions", axis=axis)
    places = np.random.default_rng(2).permutation(np.arange(15) % 8 - 2)  # also outside, which gives no 1
    agrees(file.ends([data], [out]), [places.reshape(ROWS).astype(np.int32)])


def test_repeated_numbers() -> None:
    file = LiteRtFile()
    data, row = file.tensor(ROWS), file.tensor((1, 5))
    tiled, wide, filled, none, total = (file.tensor(shape) for shape in ((6, 15), ROWS, ROWS, ROWS, ROWS))
    file.operator("TILE", [data, file.int32(2, 3)], [tiled], "TileOptions")
    file.operator("BROADCAST_TO", [row, file.int32(*ROWS)], [wide], "BroadcastToOptions", version=2)
    file.operator("FILL", [file.int32(*ROWS), file.tensor((), value=np.array(1.5))], [filled], "FillOptions")
    file.operator("ZEROS_LIKE", [data], [none], "ZerosLikeOptions")
    file.operator("ADD_N", [data, wide, filled, none], [total], "AddNOptions")
    agrees(file.ends([data, row], [tiled, total]), [numbers(ROWS), numbers((1, 5))])


@pytest.mark.parametrize(("exclusive", "reverse"), [(False, False), (True, False), (False, True), (True, True)])
def test_cumulative_sums(exclusive: bool, reverse: bool) -> None:
    file = LiteRtFile()
    data, out = file.tensor(ROWS), file.tensor(ROWS)
    axis = file.tensor((), "int32", np.array(1))
    file.operator("CUMSUM", [data, axis], [out], "CumsumOptions", exclusive=exclusive, reverse=reverse)
    agrees(file.ends([data], [out]), [numbers(ROWS)])


def test_a_product_of_dimensions() -> None:
    file = LiteRtFile()
    data, out = file.tensor(IMAGE), file.tensor((1, 6, 3))
    file.operator("REDUCE_PROD", [data, file.int32(2)], [out], "ReducerOptions", keepDims=False)
    agrees(file.ends([data], [out]), [numbers()])


def test_batches_of_gathers_are_refused() -> None:
    file: Any = LiteRtFile()
    data, out = file.tensor(ROWS), file.tensor((3, 1))
    file.operator("GATHER", [data, file.int32([0], [1], [2])], [out], "GatherOptions", axis=1, batchDims=1)
    content = file.ends([data], [out])
    assert "GATHER with batch dimensions" in refused(content)
