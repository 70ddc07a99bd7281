"""Rounding errors of Winograd's filtering over random layers, by the same arithmetic in NumPy, beside the direct sum's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tvmmobile.graph.precision import FLOAT16, FLOAT32, Precision
from tvmmobile.schedules.floats.winograd_nest import CHAIN
from tvmmobile.schedules.floats.winograd_transform import GROWTH, HALF_SIZES, NOISE, SIZES, TAPS, Filtering, filterings, sides, transformed

#: Largest error relative to the largest output, of a thousand layers (docs/kernels.md), by the precision and the tile's size.
MOST = {
    FLOAT32: {2: 2e-6, 4: 3e-5, 5: 4e-5, 6: 4e-5, 7: 4e-5},
    FLOAT16: {2: 1e-2, 24: 1.2e-2, 42: 1.2e-2},
}
CASES = [(precision, size) for precision, sizes in MOST.items() for size in sizes]
#: Transforms along each side of all tiles.
FILTERINGS = [*map(Filtering, SIZES), Filtering(4, oblong=True)]


class Arrays:
    """Stands for a `Kernel` whose vectors are arrays of a precision, which multiplies and adds with one rounding."""

    def __init__(self, kind: Any) -> None:
        self.T, self.kind = self, np.dtype(kind).type

    def bind(self, value: Any) -> Any:
        return value.rounded if isinstance(value, Scaled) else value

    def splat(self, value: Any) -> Any:
        return Scaled(value, self.kind) if value else np.zeros((), self.kind)

    def number(self, value: float) -> Any:
        return np.float64(self.kind(value))


@dataclass(frozen=True)
class Scaled:
    """A factor, or its exact products with an array, which are rounded unless they are added to something."""

    exact: Any
    kind: Any
    #: NumPy's arrays leave sums with it to this class.
    __array_ufunc__ = None

    @property
    def rounded(self) -> Any:
        return np.asarray(self.exact).astype(self.kind)

    def __mul__(self, values: np.ndarray) -> Scaled:
        return Scaled(self.exact * values.astype(np.float64), self.kind)

    def __add__(self, other: Any) -> Any:
        return self.rounded + other

    def __sub__(self, other: Any) -> Any:
        return self.rounded - other

    def __radd__(self, values: np.ndarray) -> np.ndarray:
        return (values.astype(np.float64) + self.exact).astype(self.kind)

    def __rsub__(self, values: np.ndarray) -> np.ndarray:
        return (values.astype(np.float64) - self.exact).astype(self.kind)


@dataclass(frozen=True)
class Example:
    """A layer without padding: a few tiles of outputs in each direction, its input and weights."""

    data: np.ndarray
    weight: np.ndarray


def example(size: int, seed: int, precision: Precision) -> Example:
    """Inputs as a clamp leaves them, or signed, or with a few large ones; weights with a normal distribution, or a few large channels."""
    rng = np.random.default_rng(seed)
    depth, channels, tiles = int(rng.integers(16, 513)), 16, int(rng.integers(1, 4))
    height, width = sides(size)
    shape = (tiles * height + 2, tiles * width + 2, depth)
    data = (np.clip(rng.normal(1, 1.5, shape), 0, 6), rng.normal(0, 1, shape), rng.standard_t(3, shape))[seed % 3]
    spread = 1.8 / np.sqrt(9 * depth) * (np.exp(rng.normal(0, 1, channels)) if seed % 2 else 1)
    weight = rng.normal(0, 1, (3, 3, depth, channels)) * spread
    return Example(data.astype(precision.numpy), weight.astype(precision.numpy))


def direct(found: Example) -> np.ndarray:
    """Return the outputs, summed in float64."""
    windows = np.lib.stride_tricks.sliding_window_view(found.data.astype(np.float64), (3, 3), (0, 1))
    return np.tensordot(windows, found.weight.astype(np.float64), ([3, 4, 2], [0, 1, 2]))


def summed(points: np.ndarray, weights: np.ndarray, chain: int) -> np.ndarray:
    """Return the products of (points, K) and (points, K, N), as fused multiply-adds of at most `chain` terms, and sums of these."""
    total = np.zeros((len(points), weights.shape[2]), points.dtype)
    exact = points[:, :, None].astype(np.float64) * weights
    for start in range(0, exact.shape[1], chain):
        sums = np.zeros_like(total)
        for k in range(start, min(start + chain, exact.shape[1])):
            sums = (sums + exact[:, k]).astype(points.dtype)
        total += sums
    return total


def filtered(found: Example, size: int, chain: int, precision: Precision) -> np.ndarray:
    """Return the outputs in a precision, by tiles, whose products are sums of at most `chain` terms, added up."""
    kernel: Any = Arrays(precision.numpy)
    (down, across), (height, width) = filterings(size), sides(size)
    lines, columns = range(down.values), range(across.values)
    output = np.empty((found.data.shape[0] - 2, found.data.shape[1] - 2, found.weight.shape[3]), precision.numpy)
    weights = transformed(found.weight, size)
    for y in range(0, output.shape[0], height):
        for x in range(0, output.shape[1], width):
            patch = found.data[y : y + down.values, x : x + across.values]
            rows = [across.input(kernel, [patch[i, j] for j in columns]) for i in lines]
            tile = [down.input(kernel, [rows[i][j] for i in lines]) for j in columns]
            points = np.array([tile[j][i] for i in lines for j in columns])
            products = summed(points, weights, chain).reshape(down.values, across.values, -1)
            between = [down.output(kernel, list(products[:, j])) for j in columns]
            for i in range(height):
                output[y + i, x : x + width] = across.output(kernel, [between[j][i] for j in columns])
    return output


def errors(size: int, seed: int, precision: Precision) -> np.ndarray:
    """Return the errors of a random layer's outputs, relative to the largest one."""
    found = example(size, seed, precision)
    expected = direct(found)
    chain = precision.chain or (CHAIN if size == SIZES[-1] else found.weight.shape[2])
    return np.asarray(np.abs(filtered(found, size, chain, precision) - expected) / np.abs(expected).max())


def direct_errors(size: int, seed: int) -> np.ndarray:
    """Return those of the direct sum in half precision."""
    found = example(size, seed, FLOAT16)
    windows = np.lib.stride_tricks.sliding_window_view(found.data, (3, 3), (0, 1)).transpose(0, 1, 3, 4, 2)
    weights = found.weight.reshape(1, -1, found.weight.shape[3])
    expected = direct(found)
    sums = [summed(window.reshape(1, -1), weights, FLOAT16.chain) for window in windows.reshape(-1, *windows.shape[2:])]
    return np.asarray(np.abs(np.reshape(sums, expected.shape) - expected) / np.abs(expected).max())


@pytest.mark.parametrize(("precision", "size"), CASES)
@pytest.mark.parametrize("layers", [20, pytest.param(1000, marks=pytest.mark.long)])
def test_errors(precision: Precision, size: int, layers: int) -> None:
    """No layer's error is larger than documented, and some come close to that."""
    largest = max(errors(size, seed, precision).max() for seed in range(layers))
    assert MOST[precision][size] / 4 < largest <= MOST[precision][size]


def test_noise_in_half_precision() -> None:
    """It is documented as a multiple of the direct sum's, by which estimates of a network's error multiply."""
    squares = [[np.square(one).mean() for one in (errors(42, seed, FLOAT16), direct_errors(42, seed))] for seed in range(30)]
    filtered_noise, direct_noise = np.sqrt(np.mean(squares, 0))
    assert 0.75 * NOISE < filtered_noise / direct_noise < 1.25 * NOISE


@pytest.mark.parametrize("along", FILTERINGS)
def test_filtering_is_exact_with_whole_numbers(along: Filtering) -> None:
    """In float64, to rounding: the outputs of one line."""
    kernel: Any = Arrays(np.float64)
    rng = np.random.default_rng(along.outputs)
    data, taps = rng.integers(-9, 9, along.values).astype(np.float64), rng.integers(-9, 9, TAPS)
    products = np.array(along.input(kernel, list(data))) * (along.weights @ taps)
    np.testing.assert_allclose(along.output(kernel, list(products)), np.correlate(data, taps, "valid"), atol=1e-9)


@pytest.mark.parametrize("along", FILTERINGS)
def test_zeros_may_be_left_out(along: Filtering) -> None:
    """`None` for what lies outside the image counts as zeros."""
    kernel: Any = Arrays(np.float32)
    data = list(np.random.default_rng(0).normal(size=(along.values, 4)).astype(np.float32))
    for inside in (range(1, along.values), range(along.outputs), range(1, 2), range(0)):
        zeros = [value if place in inside else np.zeros_like(value) for place, value in enumerate(data)]
        left_out = [value if place in inside else None for place, value in enumerate(data)]
        for one, other in zip(along.input(kernel, zeros), along.input(kernel, left_out), strict=True):
            np.testing.assert_allclose(np.broadcast_to(other, one.shape), one, atol=1e-6)


def test_transformed_inputs_of_half_precision_stay_within_their_growth() -> None:
    """It is the sum of a transform's coefficients, so the largest input of all signs reaches it; and no coefficient is rounded."""
    kernel: Any = Arrays(np.float64)
    reached = []
    for size in HALF_SIZES:
        matrices = [np.array(along.input(kernel, list(np.eye(along.values)))) for along in filterings(size)]
        reached.append(np.prod([np.abs(matrix).sum(1).max() for matrix in matrices]))
        for along in filterings(size):
            whole = [np.array(along.input(kernel, list(np.eye(along.values)))), np.array(along.output(kernel, list(np.eye(along.values))))]
            assert all((matrix.astype(np.float16) == matrix).all() for matrix in whole)
    assert GROWTH - 1 < max(reached) <= GROWTH
