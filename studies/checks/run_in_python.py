"""Runs libraries with TVM's own virtual machine and compares them with PyTorch's output; prints a JSON list of [name, problem or error].

Needs nothing but numpy and apache-tvm, so it also runs on a board:

    python3 run_in_python.py out/*.so
"""

from __future__ import annotations

import json
import sys

import numpy as np
import tvm
from tvm import relax


def difference(library: str) -> float:
    """Return the library's error on the reference input beside it, relative to the output's largest magnitude."""
    with np.load(library.removesuffix(".so") + ".reference.npz", allow_pickle=False) as reference:
        data, expected = reference["input"], reference["output"]
    machine = relax.VirtualMachine(tvm.runtime.load_module(library), tvm.cpu())
    output = machine["main"](tvm.runtime.tensor(data))
    if not isinstance(output, tvm.runtime.Tensor):
        raise TypeError(f"main returns {type(output).__name__}, not one tensor")
    if tuple(output.shape) != expected.shape:
        raise ValueError(f"main returns shape {tuple(output.shape)}, not {expected.shape}")
    return float(np.abs(output.numpy() - expected).max() / np.abs(expected).max())


def main() -> None:
    """Entry point: one line of JSON for each library, written before the next is loaded."""
    for library in sys.argv[1:]:
        try:
            found: object = difference(library)
        except Exception as error:  # any error that TVM raises for a library is the finding
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(json.dumps([library, found]), flush=True)


if __name__ == "__main__":
    main()
