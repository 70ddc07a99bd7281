"""Compares a packaged network with the reference output that lies beside it, and times it: `python -m NAME`."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np

from tvmmobile.kernels.ranked import error_in_any_order  # in a wheel, from `.ranked`

from .network import Network  # of the package that this file is copied to

_RUNS = 20


def main(folder: Path, tolerance: float, quantised: bool) -> int:
    """Print what was found; return 1 if the network does not compute what it should.

    Args:
        tolerance: largest share of the largest magnitude by which an output may differ; of integers, the largest share that may differ.
        quantised: bytes are steps of a scale, so that those one apart agree.
    """
    with np.load(folder / "library.reference.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    network = Network(folder / "library.so")
    inputs = [arrays[key] for key in _keys(arrays, "input")]
    expected = [arrays[key] for key in _keys(arrays, "output")]
    found = network.run(*inputs)
    outputs = [found] if isinstance(found, np.ndarray) else list(found)
    errors = [_error(*pair, quantised) for pair in zip(outputs, expected)]  # noqa: B905 - Python 3.9 has no `strict`
    error = error_in_any_order(errors, outputs, expected)
    times = []
    for _ in range(_RUNS):
        begin = time.perf_counter()
        network.run(*inputs)
        times.append(1e3 * (time.perf_counter() - begin))
    network.close()
    good = error <= tolerance
    measure = "the largest magnitude" if all(output.dtype.kind == "f" for output in outputs) else "the largest magnitude or of the integers"
    share = f"error {error:.2g} of {measure}, {tolerance:.2g} is allowed"
    print(f"{'agrees' if good else 'disagrees'} with its reference output: {share}")
    median = statistics.median(times)
    print(f"{median:.3f} ms with {network.threads} thread{'s' * (network.threads > 1)}: median of {_RUNS} runs by this machine's clock")
    return 0 if good else 1


def _keys(arrays: dict[str, np.ndarray], name: str) -> list[str]:
    return [name] if name in arrays else [f"{name}{number}" for number in range(sum(key.startswith(name) for key in arrays))]


def _error(output: np.ndarray, expected: np.ndarray, quantised: bool) -> float:
    """Return the largest difference over the largest magnitude expected, infinite for NaN; of integers, the share that differs."""
    if expected.dtype.kind != "f":
        steps = quantised and expected.dtype.itemsize == 1
        return float(np.mean(np.abs(output.astype(np.int32) - expected) > 1 if steps else output != expected))
    if not np.isfinite(output).all():
        return float("inf")
    largest = float(np.abs(expected).max(initial=0.0)) or 1.0
    return float(np.abs(output.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)) / largest


if __name__ == "__main__":
    sys.exit("run the package instead: python -m NAME")
