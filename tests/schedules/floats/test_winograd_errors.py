"""Rounding errors of Winograd's filtering over random layers, by the same arithmetic in NumPy, beside the direct sum's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tvmmobile.schedules.floats.winograd_nest import CHAIN
from tvmmobile.schedules.floats.winograd_transform import SIZES, Filtering, transformed

#: Largest error relative to the largest output, of a thousand layers (docs/kernels.md), by the tile's outputs.
MOST = {2: 2e-6, 4: 3e-5, 5: 4e-5, 6: 4e-5, 7: 4e-5}


class Arrays:
    """Stands for a `Kernel` whose vectors are float32 arrays."""

    def __init__(self) -> None:
        self.T = self

    def bind(self, value: Any) -> Any:
        return value

    def splat(self, value: Any) -> Any:
        return value

    def number(self, value: float) -> Any:
        return np.float32(value)


@dataclass(frozen=True)
class Example:
    """A layer without padding: (tiles, tiles) of outputs, its input and weights."""

    data: np.ndarray
    weight: np.ndarray


def example(size: int, seed: int) -> Example:
    """Inputs as a clamp leaves them, or signed, or with a few large ones; weights with a normal distribution, or a few large channels."""
    rng = np.random.default_rng(seed)
    depth, channels, tiles = int(rng.integers(16, 513)), 16, int(rng.integers(1, 4))
    shape = (tiles * size + 2, tiles * size + 2, depth)
    data = (np.clip(rng.normal(1, 1.5, shape), 0, 6), rng.normal(0, 1, shape), rng.standard_t(3, shape))[seed % 3]
    spread = 1.8 / np.sqrt(9 * depth) * (np.exp(rng.normal(0, 1, channels)) if seed % 2 else 1)
    return Example(data.astype(np.float32), (rng.normal(0, 1, (3, 3, depth, channels)) * spread).astype(np.float32))


def direct(found: Example) -> np.ndarray:
    """Return the outputs, summed in float64."""
    windows = np.lib.stride_tricks.sliding_window_view(found.data.astype(np.float64), (3, 3), (0, 1))
    return np.tensordot(windows, found.weight.astype(np.float64), ([3, 4, 2], [0, 1, 2]))


def summed(points: np.ndarray, weights: np.ndarray, chain: int) -> np.ndarray:
    """Return the products of (points, K) and (points, K, N), as fused multiply-adds of at most `chain` terms, and sums of these."""
    total = np.zeros((len(points), weights.shape[2]), np.float32)
    exact = points[:, :, None].astype(np.float64) * weights
    for start in range(0, exact.shape[1], chain):
        sums = np.zeros_like(total)
        for k in range(start, min(start + chain, exact.shape[1])):
            sums = (sums + exact[:, k]).astype(np.float32)
        total += sums
    return total


def filtered(found: Example, size: int, chain: int) -> np.ndarray:
    """Return the outputs in float32, by tiles, whose products are sums of at most `chain` terms, added up."""
    kernel: Any = Arrays()
    along, count = Filtering(size), size + 2
    tiles = (found.data.shape[0] - 2) // size
    output = np.empty((tiles * size, tiles * size, found.weight.shape[3]), np.float32)
    weights = transformed(found.weight, size)
    for y in range(0, tiles * size, size):
        for x in range(0, tiles * size, size):
            patch = found.data[y : y + count, x : x + count]
            lines = [along.input(kernel, [patch[i, j] for j in range(count)]) for i in range(count)]
            columns = [along.input(kernel, [lines[i][j] for i in range(count)]) for j in range(count)]
            points = np.array([columns[j][i] for i in range(count) for j in range(count)])
            products = summed(points, weights, chain).reshape(count, count, -1)
            between = [along.output(kernel, list(products[:, j])) for j in range(count)]
            for i in range(size):
                output[y + i, x : x + size] = along.output(kernel, [between[j][i] for j in range(count)])
    return output


def error(size: int, seed: int) -> float:
    """Return the largest error of a random layer, relative to its largest output."""
    found = example(size, seed)
    expected = direct(found)
    computed = filtered(found, size, CHAIN if size == SIZES[-1] else found.weight.shape[2])
    return float(np.abs(computed - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layers", [20, pytest.param(1000, marks=pytest.mark.long)])
def test_errors(size: int, layers: int) -> None:
    """No layer's error is larger than documented, and some come close to that."""
    errors = [error(size, seed) for seed in range(layers)]
    assert MOST[size] / 4 < max(errors) <= MOST[size]


@pytest.mark.parametrize("size", SIZES)
def test_filtering_is_exact_with_whole_numbers(size: int) -> None:
    """In float64, to rounding: the outputs of one line."""
    kernel: Any = Arrays()
    rng = np.random.default_rng(size)
    data, taps = rng.integers(-9, 9, size + 2).astype(np.float64), rng.integers(-9, 9, 3)
    kernel.number = np.float64
    along = Filtering(size)
    products = np.array(along.input(kernel, list(data))) * (along.weights @ taps)
    np.testing.assert_allclose(along.output(kernel, list(products)), np.correlate(data, taps, "valid"), atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_zeros_may_be_left_out(size: int) -> None:
    """`None` for what lies outside the image counts as zeros."""
    kernel: Any = Arrays()
    data = list(np.random.default_rng(0).normal(size=(size + 2, 4)).astype(np.float32))
    for inside in (range(1, size + 2), range(size), range(1, 2), range(0)):
        zeros = [value if place in inside else np.zeros_like(value) for place, value in enumerate(data)]
        left_out = [value if place in inside else None for place, value in enumerate(data)]
        for one, other in zip(Filtering(size).input(kernel, zeros), Filtering(size).input(kernel, left_out), strict=True):
            np.testing.assert_allclose(np.broadcast_to(other, one.shape), one, atol=1e-6)
