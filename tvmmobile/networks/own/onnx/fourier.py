"""Fourier transforms of ONNX files, as products with constant sines and cosines: `STFT` as a convolution, `DFT` as a matrix product; long
ones in two stages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx.numpy_helper import to_array
from tvm import relax, te

from tvmmobile.graph.expressions import constant, numbers_of, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.operators import INJECTIVE, NEVER_FUSED
from tvmmobile.networks.own.onnx.elementwise import over_no_axis

#: Most numbers of a transform's matrix: one of 2,896 samples to as many complex numbers, 64 MiB.
MOST_NUMBERS = 1 << 24
#: Largest difference of weights that are a transform's, where the largest one is about 1.
_ALIKE = 1e-6


def stft(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `STFT` of real signals `[batch, samples]` or `[batch, samples, 1]` to `[batch, frames, bins, 2]`.

    Raises:
        ValueError: the signal is complex, or frames or window are computed.
    """
    signal, step, window, length = [*inputs, None, None][:4]
    op, (batch, samples, *complex_part) = relax.op, shape_of(signal)
    if complex_part not in ([], [1]):
        raise ValueError("STFT of complex signals is not supported")
    hop, weights = _number(step, "frame step"), None if window is None else _numbers(window, "window").astype(np.float64)
    count = len(weights) if weights is not None else _number(length, "frame length")
    if not (hop > 0 and 0 < count <= samples):
        raise ValueError(f"STFT needs frames of 1 to {samples} samples, and steps of at least 1")
    window, half = np.ones(count) if weights is None else weights, bool(attrs.get("onesided", 1))
    data = relax.BlockBuilder.current().emit(op.reshape(signal, [batch, samples]))
    if lengths := _lengths(count, int(np.count_nonzero(window))):
        return _in_two_stages(data, window, hop, lengths, half)
    factors = _factors(count, count, half) * window[:, None, None]
    kernel = factors.reshape(count, -1).T[:, None, None].astype(np.float32)
    found = op.nn.conv2d(op.reshape(data, [batch, 1, 1, samples]), constant(kernel), strides=[1, hop])
    return op.reshape(op.permute_dims(found, [0, 2, 3, 1]), [batch, 1 + (samples - count) // hop, factors.shape[1], 2])


def spectral_convolution(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert a `Conv` whose weights are a window's cosines and then its negative sines, `[batch, 2 · bins, frames]`; `None` for others.

    So exporters spell `STFT` for runtimes without it.
    """
    signal, kernel, bias = [*inputs, None][:3]
    op, weights = relax.op, numbers_of(kernel)
    if weights is None or weights.ndim != 3 or weights.shape[:2] != (weights.shape[2] + 2, 1) or bias is not None:
        return None
    count, window, (batch, parts, samples) = weights.shape[2], weights[0, 0].astype(np.float64), shape_of(signal)
    plain = parts == 1 and attrs.get("auto_pad", b"NOTSET") == b"NOTSET" and all(int(step) == 1 for step in attrs.get("dilations", ()))
    if not plain or not (lengths := _lengths(count, int(np.count_nonzero(window)))):
        return None
    if not np.allclose(_factors(count, count, True).T * window, weights.reshape(2, -1, count), 0, _ALIKE):
        return None
    hop, before, after = (int(number) for number in (*attrs.get("strides", (1,)), *attrs.get("pads", (0, 0))))
    data = relax.BlockBuilder.current().emit(op.nn.pad(op.reshape(signal, [batch, samples]), [0, 0, before, after]))
    found = op.permute_dims(_in_two_stages(data, window, hop, lengths, True), [0, 3, 2, 1])
    return op.reshape(found, [batch, count + 2, 1 + (samples + before + after - count) // hop])


def _lengths(count: int, used: int) -> tuple[int, int] | None:
    """Return the lengths N₁, which is even, and N₂ of two stages that transform real numbers with the fewest products.

    `None` where one stage over the numbers that are `used` costs less: two of them also copy each number three times.
    """
    known = [(first, count // first) for first in range(2, count, 2) if count % first == 0]
    best = min(known, key=lambda lengths: (lengths[0] + 2 * lengths[1], -lengths[0]), default=(count, count))
    products = best[0] + 2 * best[1]
    return best if 4 * products <= used and count * products <= MOST_NUMBERS else None


def _in_two_stages(data: Any, window: Array, hop: int, lengths: tuple[int, int], half: bool) -> Any:
    """Emit the transform of all frames of signals `[batch, samples]`, to `[batch, frames, bins, 2]`.

    With n = N₂·n₁ + n₂, bin k is the sum over n₂ of Y[n₂, k mod N₁] · exp(-2πi·n₂·k/N), where Y[n₂] is the transform of N₁ numbers
    (J. Cooley and J. Tukey, Math. Comp. 19, 1965). Half of Y are conjugates of the others; numbers 0 and N₁/2 are real, and stand as real
    and imaginary part of one.
    """
    op, builder, (batch, samples), (first, second) = relax.op, relax.BlockBuilder.current(), shape_of(data), lengths
    size, groups = first * second, first // 2
    frames, bins = 1 + (samples - size) // hop, size // 2 + 1 if half else size
    count = batch * frames
    inner, (outer, places, signs) = _factors(first, first, True), _second_stage(lengths)
    inner[:, 0, 1] = inner[:, groups, 0]

    def framed(signal: Any, factors: Any) -> Any:
        def value(frame: Any, low: Any, high: Any) -> Any:
            return signal[frame // frames, frame % frames * hop + high * second + low] * factors[low, high]

        return te.compute([count, second, first], value, name="frames")

    def ordered(values: Any, places: Any, signs: Any) -> Any:
        def value(row: Any, frame: Any, number: Any, part: Any) -> Any:
            return values[row * frames + frame, places[number, part]] * signs[number, part]

        return te.compute([batch, frames, bins, 2], value, name="bins")

    factors = constant(np.ascontiguousarray(window.reshape(first, second).T, np.float32))
    # Frames overlap, so that what makes the signal is not computed for each; the order of bins costs nothing in what reads them.
    rows = builder.emit_te(framed, data, factors, primfunc_name_hint="frames", primfunc_attrs={"op_pattern": NEVER_FUSED})
    weights = constant(inner[:, :groups].reshape(first, first).astype(np.float32))
    pairs = op.reshape(op.matmul(op.reshape(rows, [count * second, first]), weights), [count, second, groups, 2])
    image = op.reshape(op.permute_dims(pairs, [0, 2, 3, 1]), [1, 1, count, size])
    found = op.nn.conv2d(image, constant(outer), groups=groups, data_layout="NHWC", kernel_layout="HWIO")
    values, tables = builder.emit(op.reshape(found, [count, size])), map(constant, (places[:bins], signs[:bins]))
    return builder.emit_te(ordered, values, *tables, primfunc_name_hint="bins", primfunc_attrs={"op_pattern": INJECTIVE})


def _second_stage(lengths: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Return the second stage's weights, HWIO in N₁/2 groups with N outputs, and which output each bin's parts are, with which sign."""
    (first, second), size = lengths, math.prod(lengths)
    groups = first // 2
    weights, ends = np.zeros((2, second, size)), [group * 2 * second for group in range(groups)]
    places, signs = np.zeros((size, 2), np.int32), np.zeros((size, 2), np.float32)
    for number in range(size // 2 + 1):
        rest = number % first
        group = min(rest, first - rest) % groups
        units = (1, 0) if rest == 0 else (0, 1) if rest == groups else (1, 1j if rest < groups else -1j)
        turn = np.exp(-2j * np.pi * (np.arange(second) * number % size) / size)
        values = np.stack([unit * turn for unit in units])
        for part, column in enumerate((values.real, values.imag) if number % (size // 2) else (values.real,)):
            weights[:, :, ends[group]] = column
            places[[number, -number], part] = ends[group]
            signs[-number, part], signs[number, part] = 1 - 2 * part, 1
            ends[group] += 1
    return weights.reshape(1, 1, 2 * second, size).astype(np.float32), places, signs


def dft(inputs: Sequence[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Convert `DFT` along one axis of real `[…, 1]` or complex numbers `[…, 2]`.

    Raises:
        ValueError: length or axis are computed, or real numbers are not twice as many as their complex ones less one: for others, ONNX
            Runtime, which the network is compared with, does not compute what ONNX says.
    """
    data, length, chosen = [*inputs, None, None][:3]
    op, shape = relax.op, shape_of(data)
    inverse, half = attrs.get("inverse", 0), attrs.get("onesided", 0)
    to_real = inverse and half
    given = attrs.get("axis", 1) if opset < 20 else -2 if chosen is None else _number(chosen, "axis")
    axis, parts = given % len(shape), shape[-1]
    extent = shape[axis]
    usual = 2 * (extent - 1) if to_real else extent
    count = usual if length is None else _number(length, "length")
    if to_real and (count != usual or parts != 2):
        raise ValueError(f"an inverse DFT of {extent} numbers to {count} real ones is not supported")
    others = [place for place in range(len(shape) - 1) if place != axis]
    outside = [shape[place] for place in others]
    rows = op.reshape(op.permute_dims(data, [*others, axis, len(shape) - 1]), [math.prod(outside), extent * parts])
    if parts == 1 and not inverse and (lengths := _lengths(count, min(extent, count))):
        whole = op.nn.pad(rows, [0, 0, 0, count - extent]) if extent < count else op.strided_slice(rows, [1], [0], [count])
        found = _in_two_stages(relax.BlockBuilder.current().emit(whole), np.ones(count), count, lengths, bool(half))
    else:
        factors = _to_real(count) if to_real else _factors(min(extent, count), count, half, inverse)
        matrix = _matrix(extent, parts, factors)
        found = op.matmul(rows, constant(matrix[:, ::2] if to_real else matrix))
    ordered = op.reshape(found, [*outside, count, 1] if to_real else [*outside, count // 2 + 1 if half else count, 2])
    return op.permute_dims(ordered, [*range(axis), len(others), *range(axis, len(others)), len(others) + 1])


def _matrix(extent: int, parts: int, factors: Array) -> Array:
    """Return the matrix from `extent` real or complex numbers, of which the first have factors, to bins."""
    matrix = np.zeros((extent, parts, *factors.shape[1:]), np.float32)
    matrix[: len(factors), 0] = factors
    if parts == 2:  # i · (c + i·s) = −s + i·c
        matrix[: len(factors), 1] = np.stack([-factors[..., 1], factors[..., 0]], -1)
    return matrix.reshape(extent * parts, -1)


def power_spectrum(inputs: Sequence[Any], attrs: dict[str, Any], opset: int) -> Any:
    """Convert `ReduceSumSquare` of complex numbers `[…, 2]` to one kernel, together with what makes them: no sum over an axis, no layer."""
    op, data, shape = relax.op, inputs[0], shape_of(inputs[0])
    axes = numbers_of(inputs[1]) if len(inputs) > 1 else attrs.get("axes")
    last = len(shape) - 1
    if axes is None or last < 1 or shape[last] != 2 or [int(axis) % len(shape) for axis in axes] != [last]:
        return over_no_axis("square", inputs, attrs, opset)
    real, imaginary = (op.strided_slice(data, [last], [part], [part + 1]) for part in range(2))
    found = op.add(op.multiply(real, real), op.multiply(imaginary, imaginary))
    return found if attrs.get("keepdims", 1) else op.reshape(found, shape[:-1])


def has_rough_transform(graph: Any) -> bool:
    """Return whether an `STFT` has frames whose length is not a power of two: ONNX Runtime's result is 3e-5 of its largest number off."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    lengths = []
    for node in graph.node:
        if node.op_type == "STFT":
            window, length = (known.get(name) for name in [*node.input[2:], "", ""][:2])
            lengths += [int(window.dims[0])] if window is not None else [int(to_array(length))] if length is not None else []
    return any(length & (length - 1) for length in lengths)


def _factors(samples: int, count: int, half: Any, inverse: Any = 0) -> Array:
    """Return each sample's factors in each bin of a transform of `count` samples, `[samples, bins, 2]`: cosine, and sine with its sign."""
    bins = count // 2 + 1 if half else count
    if samples * bins * 2 > MOST_NUMBERS:
        raise ValueError(f"a Fourier transform of {count} samples would need a matrix of {samples} × {bins} complex numbers")
    angle = 2 * np.pi / count * (np.outer(np.arange(samples), np.arange(bins)) % count)
    found = np.stack([np.cos(angle), np.sin(angle) * (1 if inverse else -1)], -1)
    return found / count if inverse else found


def _to_real(count: int) -> Array:
    """Return each complex number's factors in `count` real ones; those between the first and the last stand for two, see `_factors`."""
    factors = _factors(count, count, True, True).swapaxes(0, 1)
    factors[1:-1] *= 2
    return factors


def _number(value: Any, what: str) -> int:
    return int(_numbers(value, what).item())


def _numbers(value: Any, what: str) -> Array:
    if (numbers := numbers_of(value)) is None:
        raise ValueError(f"a computed {what} is not supported")
    return np.asarray(numbers)
