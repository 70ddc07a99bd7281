"""Computes, along one axis, which input pixels each output pixel of a resize reads, by PyTorch's and ONNX's rules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.parameters import Array

#: Added before a position is rounded down, and subtracted before it is rounded up, against float32 errors, as in TVM.
_MARGIN = 1e-5
#: Maps output indices, and the extents of input and output, to positions in the input in pixels. In float32, as in PyTorch.
_Place = Callable[[npt.NDArray[np.float32], int, int], npt.NDArray[np.float32]]
_HALF = np.float32(0.5)


def _ratio(inputs: int, outputs: int) -> np.float32:
    return np.float32(inputs) / np.float32(outputs)


#: Positions by ONNX's names of them. `half_pixel` compares the centres of pixels; with `align_corners` the first and last ones coincide.
PLACES: dict[str, _Place] = {
    "half_pixel": lambda x, inputs, outputs: (x + _HALF) * _ratio(inputs, outputs) - _HALF,
    "pytorch_half_pixel": lambda x, inputs, outputs: (x + _HALF) * _ratio(inputs, outputs) - _HALF if outputs > 1 else 0 * x,
    "align_corners": lambda x, inputs, outputs: x * _ratio(inputs - 1, max(outputs - 1, 1)),
    "asymmetric": lambda x, inputs, outputs: x * _ratio(inputs, outputs),
    "tf_half_pixel_for_nn": lambda x, inputs, outputs: (x + _HALF) * _ratio(inputs, outputs),
}
#: Maps positions to pixels.
ROUNDINGS: dict[str, Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]] = {
    "floor": lambda x: np.floor(x + np.float32(_MARGIN)),
    "ceil": lambda x: np.ceil(x - np.float32(_MARGIN)),
    "round": lambda x: np.floor(x + _HALF),
    "round_prefer_floor": lambda x: np.ceil(x - _HALF),
    "round_prefer_ceil": lambda x: np.floor(x + _HALF),
}
#: The methods of `layers.Resize`.
METHODS = ("linear", *ROUNDINGS)
#: In place of a name in `PLACES`: the pixels and shares are constants of the layer. Methods are `linear` and `COPIES` then.
GIVEN, COPIES = "given", "nearest"


def pixels_along(inputs: int, outputs: int, method: str, places: str) -> tuple[Array, Array, Array]:
    """Return for each output pixel the first and last input pixel that it is made of, int64, and the share of the last, float32."""
    found = PLACES[places](np.arange(outputs, dtype=np.float32), inputs, outputs)
    if method != "linear":
        chosen = np.clip(ROUNDINGS[method](found), 0, inputs - 1).astype(np.int64)
        return chosen, chosen, np.zeros(outputs, np.float32)
    found = np.clip(found, 0, inputs - 1)
    first = np.floor(found).astype(np.int64)
    return first, np.minimum(first + 1, inputs - 1), found - first.astype(np.float32)
