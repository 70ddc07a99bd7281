"""Compares a packaged network with the reference output that lies beside it, and times it: `python -m NAME`."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np

from .network import Network  # of the package that this file is copied to

_RUNS = 20


def main(folder: Path, tolerance: float) -> int:
    """Print what was found; return 1 if the network does not compute what it should."""
    with np.load(folder / "library.reference.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    network = Network(folder / "library.so")
    inputs = [arrays[key] for key in _keys(arrays, "input")]
    expected = [arrays[key] for key in _keys(arrays, "output")]
    found = network.run(*inputs)
    outputs = [found] if isinstance(found, np.ndarray) else list(found)
    error = max(map(_error, outputs, expected))
    times = []
    for _ in range(_RUNS):
        begin = time.perf_counter()
        network.run(*inputs)
        times.append(1e3 * (time.perf_counter() - begin))
    network.close()
    good = error <= tolerance
    share = f"error {error:.2g} of the largest magnitude, {tolerance:.2g} is allowed"
    print(f"{'agrees' if good else 'disagrees'} with its reference output: {share}")
    median = statistics.median(times)
    print(f"{median:.3f} ms with {network.threads} thread{'s' * (network.threads > 1)}: median of {_RUNS} runs by this machine's clock")
    return 0 if good else 1


def _keys(arrays: dict[str, np.ndarray], name: str) -> list[str]:
    return [name] if name in arrays else [f"{name}{number}" for number in range(sum(key.startswith(name) for key in arrays))]


def _error(output: np.ndarray, expected: np.ndarray) -> float:
    largest = float(np.abs(expected).max(initial=0.0)) or 1.0
    return float(np.abs(output.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)) / largest


if __name__ == "__main__":
    sys.exit("run the package instead: python -m NAME")
