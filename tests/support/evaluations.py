"""Evaluations made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmmobile.accuracy.differences import difference_of
from tvmmobile.accuracy.evaluation_file import EvaluationContext, ImageResult
from tvmmobile.graph.precision import FLOAT16

#: What an original returns.
EXPECTED = np.array([[4.0, -2.0, 0.0, 1.0]], np.float32)


def result(name: str, off: float, dtype: Any = FLOAT16) -> ImageResult:
    """Return the result for an image of class 0, which is classified rightly, with outputs that are so far off."""
    output = EXPECTED + np.float32(off)
    return ImageResult(name, 0, (0, 3), (0, 3), abs(off) / 4, difference=difference_of(output, EXPECTED, dtype))


CONTEXT = EvaluationContext(
    library="net_1.0_32_float16_t1.so",
    library_sha256="0" * 64,
    model="net",
    alpha=1.0,
    resolution=32,
    classes=10,
    dtype="float16",
    threads=1,
    weights="seeded",
    judge="PyTorch 2",
    device="pi5-virtual",
    board="Raspberry Pi 5",
    kind="virtual",
    folder="val",
    class_folders=2,
    images_found=2,
    images_chosen=2,
    labels="by number",
    preprocessing="none",
    tolerance=0.05,
    versions={},
    date="today",
)
