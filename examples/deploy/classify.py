"""A program of your own around a library of `--format vm`, in Python: classify.py LIBRARY.so INPUT.f32 [OUTPUT.f32]

INPUT is the network's input as raw float32, NCHW (tvmmobile run --save-input writes one). Prints the five most likely classes and the
latency; OUTPUT, if given, gets what the network returned. Needs numpy and apache-tvm, nothing of tvmmobile's.
"""

from __future__ import annotations

import math
import statistics
import sys
import time

import numpy as np
import tvm
from tvm import relax

RUNS = 20
SHOWN = 5


def read_input(path: str) -> np.ndarray:
    """An image of three channels, `[1, 3, side, side]`; the side follows from the file's size."""
    values = np.fromfile(path, dtype="<f4")
    side = math.isqrt(values.size // 3)
    if side == 0 or values.size != 3 * side * side:
        raise SystemExit(f"{path} does not hold the float32 of a square image with three channels")
    return values.reshape(1, 3, side, side)


def main() -> None:
    """Entry point."""
    if len(sys.argv) not in (3, 4):
        raise SystemExit(f"usage: {sys.argv[0]} LIBRARY.so INPUT.f32 [OUTPUT.f32]")
    image = tvm.runtime.tensor(read_input(sys.argv[2]))
    network = relax.VirtualMachine(tvm.runtime.load_module(sys.argv[1]), tvm.cpu())["main"]
    times = []
    for _ in range(1 + RUNS):
        begin = time.perf_counter()
        output = network(image)
        times.append(1e3 * (time.perf_counter() - begin))
    logits = output.numpy().reshape(-1)
    shares = np.exp(logits - logits.max())
    for index in np.argsort(-logits, kind="stable")[:SHOWN]:
        print(f"class {index}: {100 * shares[index] / shares.sum():.2f} %")
    print(f"first run {times[0]:.3f} ms, then {statistics.median(times[1:]):.3f} ms (median of {RUNS}), by this machine's clock")
    if len(sys.argv) == 4:
        logits.astype("<f4").tofile(sys.argv[3])


if __name__ == "__main__":
    main()
