"""Fourier transforms of ONNX files, as products with constant sines and cosines: `STFT` as a convolution, `DFT` as a matrix product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvmmobile.graph.expressions import constant, numbers_of, shape_of
from tvmmobile.graph.layers import Array

#: Most numbers of a transform's matrix: one of 2,896 samples to as many complex numbers, 64 MiB.
MOST_NUMBERS = 1 << 24


def stft(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `STFT` of real signals `[batch, samples]` or `[batch, samples, 1]` to `[batch, frames, bins, 2]`.

    Samples become the channels of rows that are one frame step long, so that a frame is a window of a few rows.

    Raises:
        ValueError: the signal is complex, or frames or window are computed.
    """
    from tvm import relax

    signal, step, window, length = [*inputs, None, None][:4]
    op, (batch, samples, *complex_part) = relax.op, shape_of(signal)
    if complex_part not in ([], [1]):
        raise ValueError("STFT of complex signals is not supported")
    hop, weights = _number(step, "frame step"), None if window is None else _numbers(window, "window").astype(np.float64)
    count = len(weights) if weights is not None else _number(length, "frame length")
    if not (hop > 0 and 0 < count <= samples):
        raise ValueError(f"STFT needs frames of 1 to {samples} samples, and steps of at least 1")
    factors = _factors(count, count, attrs.get("onesided", 1)) * (1.0 if weights is None else weights[:, None, None])
    frames, bins, rows = 1 + (samples - count) // hop, factors.shape[1], -(-count // hop)
    kernel = np.zeros((rows * hop, bins, 2), np.float32)
    kernel[:count] = factors
    needed = (frames - 1 + rows) * hop
    data = op.reshape(signal, [batch, samples])
    if needed > samples:
        data = op.nn.pad(data, [0, 0, 0, needed - samples])
    elif needed < samples:
        data = op.strided_slice(data, [1], [0], [needed])
    image = op.permute_dims(op.reshape(data, [batch, needed // hop, 1, hop]), [0, 3, 1, 2])
    found = op.nn.conv2d(image, constant(kernel.reshape(rows, hop, -1).transpose(2, 1, 0)[..., None]), strides=1)
    return op.reshape(op.permute_dims(found, [0, 2, 3, 1]), [batch, frames, bins, 2])


def dft(inputs: Sequence[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Convert `DFT` along one axis of real `[…, 1]` or complex numbers `[…, 2]`.

    Raises:
        ValueError: length or axis are computed, or the output of an inverse transform is real.
    """
    from tvm import relax

    data, length, chosen = [*inputs, None, None][:3]
    op, shape = relax.op, shape_of(data)
    inverse, half = attrs.get("inverse", 0), attrs.get("onesided", 0)
    if inverse and half:
        raise ValueError("DFT with inverse and onesided is not supported")
    given = attrs.get("axis", 1) if opset < 20 else -2 if chosen is None else _number(chosen, "axis")
    axis, parts = given % len(shape), shape[-1]
    count = shape[axis] if length is None else _number(length, "length")
    factors = _factors(min(shape[axis], count), count, half, inverse)
    matrix = np.zeros((shape[axis], parts, *factors.shape[1:]), np.float32)
    matrix[: len(factors), 0] = factors
    if parts == 2:  # i · (c + i·s) = −s + i·c
        matrix[: len(factors), 1] = np.stack([-factors[..., 1], factors[..., 0]], -1)
    others = [place for place in range(len(shape) - 1) if place != axis]
    rows = op.reshape(
        op.permute_dims(data, [*others, axis, len(shape) - 1]), [math.prod(shape[place] for place in others), shape[axis] * parts]
    )
    found = op.matmul(rows, constant(matrix.reshape(shape[axis] * parts, -1)))
    bins = factors.shape[1]
    ordered = op.reshape(found, [*(shape[place] for place in others), bins, 2])
    return op.permute_dims(ordered, [*range(axis), len(others), *range(axis, len(others)), len(others) + 1])


def has_rough_transform(graph: Any) -> bool:
    """Return whether an `STFT` has frames whose length is not a power of two: ONNX Runtime's result is 3e-5 of its largest number off."""
    from onnx.numpy_helper import to_array

    known = {tensor.name: tensor for tensor in graph.initializer}
    lengths = []
    for node in graph.node:
        if node.op_type == "STFT":
            window, length = (known.get(name) for name in [*node.input[2:], "", ""][:2])
            lengths += [int(window.dims[0])] if window is not None else [int(to_array(length))] if length is not None else []
    return any(length & (length - 1) for length in lengths)


def _factors(samples: int, count: int, half: Any, inverse: Any = 0) -> Array:
    """Factors of each sample in each bin of a transform of `count` samples, `[samples, bins, 2]`: cosine, and sine with its sign."""
    bins = count // 2 + 1 if half else count
    if samples * bins * 2 > MOST_NUMBERS:
        raise ValueError(f"a Fourier transform of {count} samples would need a matrix of {samples} × {bins} complex numbers")
    angle = 2 * np.pi / count * (np.outer(np.arange(samples), np.arange(bins)) % count)
    found = np.stack([np.cos(angle), np.sin(angle) * (1 if inverse else -1)], -1)
    return found / count if inverse else found


def _number(value: Any, what: str) -> int:
    return int(_numbers(value, what).item())


def _numbers(value: Any, what: str) -> Array:
    if (numbers := numbers_of(value)) is None:
        raise ValueError(f"a computed {what} is not supported")
    return np.asarray(numbers)
