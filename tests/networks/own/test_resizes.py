"""Resizes by any factor and rule, beside ONNX Runtime and PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_resizes import (
    OPSETS,
    OnnxCase,
    TorchCase,
    by_onnx_runtime,
    by_us,
    imported,
    onnx_case,
    onnx_network,
    torch_case,
    torch_imported,
    values_of,
)

from tvmmobile.graph.layers import Array
from tvmmobile.kernels.reference import relative_error
from tvmmobile.system.errors import UserError

#: Resizes of the whole campaign, by format.
MANY = 1500


def image_of(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return random.normal(0.0, 1.0, shape).astype(np.float32)


def agrees(ours: Array, theirs: Array) -> bool:
    return ours.shape == theirs.shape and relative_error(ours, theirs) <= 1e-5


def check_onnx(count: int) -> None:
    random = np.random.default_rng(0)
    for number in range(count):
        opset = OPSETS[number % len(OPSETS)]
        case = onnx_case(random, opset)
        image, model = image_of(random, case.shape), onnx_network([case], opset)
        theirs = by_onnx_runtime(model, [image])[0]
        if theirs.size == 0:  # an aspect ratio may leave no row
            with pytest.raises(UserError, match="leaves no pixels"):
                imported(model)
            continue
        assert agrees(values_of(imported(model), [image])[0], theirs), case


def check_torch(count: int, at_once: int) -> None:
    random = np.random.default_rng(0)
    for _ in range(0, count, at_once):
        cases = [torch_case(random) for _ in range(at_once)]
        images = [image_of(random, case.shape) for case in cases]
        for case, image, ours in zip(cases, images, values_of(torch_imported(cases), images), strict=True):
            assert agrees(ours, case(torch.from_numpy(image)).numpy()), case


def test_some_of_onnx() -> None:
    check_onnx(24)


def test_some_of_pytorch() -> None:
    check_torch(12, 12)


@pytest.mark.long
def test_many_of_onnx() -> None:
    check_onnx(MANY)


@pytest.mark.long
def test_many_of_pytorch() -> None:
    check_torch(MANY, 50)


def of_factors(mode: str, **attributes: Any) -> OnnxCase:
    return OnnxCase(13, (1, 5, 7, 9), {"mode": mode, **attributes}, [None, np.array([1, 1, 1.7, 2.3], np.float32)])


CASES = [
    of_factors("nearest"),
    of_factors("linear"),
    of_factors("cubic", cubic_coeff_a=-0.5, exclude_outside=1),
    of_factors("linear", coordinate_transformation_mode="half_pixel_symmetric"),
]


@pytest.mark.parametrize("before", [False, True])
def test_compiled(before: bool, tmp_path: Path) -> None:
    """In templates behind a convolution, in the fallback at the input; cubic ones in the fallback."""
    images = [image_of(np.random.default_rng(number), case.shape) for number, case in enumerate(CASES)]
    model = onnx_network(CASES, 13, before)
    for case, ours, theirs in zip(CASES, by_us(imported(model), images, tmp_path / "net.so"), by_onnx_runtime(model, images), strict=True):
        assert agrees(ours, theirs), case


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (
            OnnxCase(13, (1, 2, 3, 4), {"mode": "linear", "coordinate_transformation_mode": "other"}, [None, np.ones(4, np.float32)]),
            "'other'",
        ),
        (OnnxCase(10, (1, 2, 3, 4), {"mode": "nearest"}, [np.array([1, 1, 0.1, 1], np.float32)]), "leaves no pixels"),
        (OnnxCase(9, (1, 2, 3, 4), {"mode": "nearest"}, [np.array([1, 1, 0.5, 1], np.float32)]), "Upsample that has a scale below 1"),
    ],
)
def test_refused(case: OnnxCase, words: str) -> None:
    with pytest.raises(UserError, match=words):
        imported(onnx_network([case], case.opset))


def test_pytorch_to_a_width_of_one_is_refused() -> None:
    with pytest.raises(UserError, match="_upsample_bilinear2d_aa to a width of 1"):
        torch_imported([TorchCase("_upsample_bilinear2d_aa", "vec", (1, 1, 6, 4), ([12, 1], False, None))])
