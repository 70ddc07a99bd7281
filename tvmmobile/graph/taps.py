"""Describes resizes by any rule: the weighted input pixels of each output pixel along an axis, and how `relax.image.resize2d` carries them.

Relax's own resize knows sizes only. A call whose `coordinate_transformation_mode` is `GIVEN` has the pixels and weights of its rows and
columns in `roi`, which TVM reads for no other mode; where no template takes such a call, `graph.passes.given_resizes` spells it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tvmmobile.graph.parameters import Array
from tvmmobile.graph.resizing import GIVEN

#: The operator that carries them.
RESIZE = "relax.image.resize2d"
#: Weights of two pixels whose sum differs by more from 1 are not a value between the two.
_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Taps:
    """The weighted input pixels of each output pixel along one axis.

    Attributes:
        pixels: pixels of the input, int64, (outputs, taps).
        weights: float32, of the same shape.
    """

    pixels: Array
    weights: Array

    @property
    def outputs(self) -> int:
        """Output pixels along the axis."""
        return int(self.pixels.shape[0])

    @property
    def count(self) -> int:
        """Input pixels for each output pixel."""
        return int(self.pixels.shape[1])

    def keeps(self, inputs: int) -> bool:
        """Return whether the output is the input."""
        return self.copies and np.array_equal(self.pixels[:, 0], np.arange(inputs))

    @property
    def copies(self) -> bool:
        """True if each output pixel is an input pixel."""
        return self.count == 1 and bool((self.weights == 1).all())

    @property
    def is_linear(self) -> bool:
        """True if each output pixel is an input pixel or lies between one and the next."""
        if self.count == 1:
            return self.copies
        if self.count > 2 or (np.abs(self.weights.sum(1) - 1) > _SUM_TOLERANCE).any():
            return False
        steps = self.pixels[:, 1] - self.pixels[:, 0]
        return bool(((steps == 0) | (steps == 1)).all())

    def first_and_share(self) -> tuple[Array, Array]:
        """Return the first pixel of each linear interpolation, and the share of the next one."""
        if self.count == 1:
            return self.pixels[:, 0], np.zeros(self.outputs, np.float32)
        return self.pixels[:, 0], np.where(self.pixels[:, 1] > self.pixels[:, 0], self.weights[:, 1], np.float32(0))

    def without_zeros(self) -> Taps:
        """Drop taps that no output pixel needs."""
        used = (self.weights != 0).any(0)
        return Taps(self.pixels[:, used], self.weights[:, used]) if used.any() else self

    def matrix(self, inputs: int) -> Array:
        """Return the weights of all input pixels, float32, (outputs, inputs)."""
        matrix = np.zeros((self.outputs, inputs), np.float32)
        np.add.at(matrix, (np.arange(self.outputs)[:, None], self.pixels), self.weights)
        return matrix


def copied(pixels: Array) -> Taps:
    """Copies of pixels."""
    return Taps(np.asarray(pixels, np.int64)[:, None], np.ones((len(pixels), 1), np.float32))


def between(first: Array, share: Array, inputs: int) -> Taps:
    """Return values between pixels and the next ones, where there are any."""
    first = np.asarray(first, np.int64)
    if not share.any():
        return copied(first)
    share = np.asarray(share, np.float32)
    return Taps(np.stack([first, np.minimum(first + 1, inputs - 1)], 1), np.stack([1 - share, share], 1))


def of_matrix(matrix: Array) -> Taps:
    """Return the pixels with weights in a matrix of (outputs, inputs); two neighbours where no output has more."""
    outputs, inputs = matrix.shape
    used = matrix != 0
    counts = used.sum(1)
    first = np.where(counts > 0, used.argmax(1), 0)
    last = np.where(counts > 0, inputs - 1 - used[:, ::-1].argmax(1), 0)
    count = int((last - first).max()) + 1
    pixels = np.minimum(first[:, None] + np.arange(count), inputs - 1)
    weights = matrix[np.arange(outputs)[:, None], pixels].astype(np.float32)
    weights[first[:, None] + np.arange(count) > last[:, None]] = 0
    return Taps(pixels, weights)


def attributes_of(rows: Taps, columns: Taps) -> dict[str, Any]:
    """Return the attributes of a `relax.image.resize2d` of these pixels."""
    _keep_from_tvm()
    numbers = [part for taps in (rows, columns) for part in ([float(taps.count)], *map(_numbers, (taps.pixels, taps.weights)))]
    method = "nearest_neighbor" if rows.copies and columns.copies else "linear" if rows.is_linear and columns.is_linear else "cubic"
    return {"roi": [number for part in numbers for number in part], "method": method, "coordinate_transformation_mode": GIVEN}


def is_given(call: Any) -> bool:
    """Return whether a resize carries its pixels."""
    return str(call.attrs.coordinate_transformation_mode) == GIVEN


@cache
def _keep_from_tvm() -> None:
    """Make TVM leave such calls alone: its `FoldConstant` tries to legalise every operator, and fails on modes that it does not know."""
    import tvm
    from tvm.relax.transform.legalize_ops.image import _image_resize2d

    def legalize(builder: Any, call: Any) -> Any:
        return call if is_given(call) else _image_resize2d(builder, call)

    tvm.ir.register_op_attr(RESIZE, "FLegalize", legalize, level=11)


def _numbers(array: Array) -> list[float]:
    return [float(number) for number in array.reshape(-1)]


def taps_of(call: Any) -> tuple[Taps, Taps]:
    """Return rows and columns of a call that `attributes_of` describes."""
    height, width = (int(extent) for extent in call.args[1].values)
    numbers = np.array([number.value for number in call.attrs.roi])
    rows, columns = _decoded(numbers, (height, width))
    return rows, columns


def _decoded(numbers: Array, extents: Sequence[int]) -> Iterator[Taps]:
    begin = 0
    for outputs in extents:
        count = int(numbers[begin])
        middle, end = (begin + 1 + parts * outputs * count for parts in (1, 2))
        pixels, weights = numbers[begin + 1 : middle], numbers[middle:end]
        yield Taps(pixels.astype(np.int64).reshape(outputs, count), weights.astype(np.float32).reshape(outputs, count))
        begin = end
