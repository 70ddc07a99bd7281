"""Code that the four programs beside this file share: arguments, the marked region, and the comparison with PyTorch."""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

#: `tvmmobile virtual run` models the region between these two system calls, prctl(0x7a110001, 0, 0, 0, 0) and prctl(0x7a110002, 0, 0, 0,
#: 0). Linux refuses them, so on a board they do nothing.
BEGIN, END = 0x7A110001, 0x7A110002
#: With `--skip-start`, caches are simulated from this call on, which comes before the warm-up.
WATCH = 0x7A110004
#: How far from PyTorch's an output may be, relative to its largest magnitude.
TOLERANCE = 1e-3

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Arguments:
    """The command line.

    Attributes:
        model: the network's file.
        threads: number of threads that it may use.
        half: whether it shall compute in half precision.
        image: float32 `[1, 3, side, side]`.
        logits: output of PyTorch for `image`, float32 `[1, classes]`; None if it is not known.
    """

    model: Path
    threads: int
    half: bool
    image: Array
    logits: Array | None


def read_arguments(what: str) -> Arguments:
    """Read `MODEL [--threads N] [--half]`, and `image.npy` and `logits.npy`, which `./studies/run export_models` puts beside the model."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file that ./studies/run export_models has made")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="how many threads the network may use (default: 1)")
    parser.add_argument("--half", action="store_true", help="compute in half precision; the distance from PyTorch is only printed")
    given = parser.parse_args()
    image, logits = given.model.parent / "image.npy", given.model.parent / "logits.npy"
    return Arguments(given.model, given.threads, given.half, np.load(image), np.load(logits) if logits.is_file() else None)


def run_marked(run: Callable[[], Array], arguments: Arguments) -> None:
    """Call `run` once to warm up and once marked, print the first values of its output, and end with an error if PyTorch's are others."""
    libc = ctypes.CDLL(None)
    libc.prctl(WATCH, 0, 0, 0, 0)
    run()
    libc.prctl(BEGIN, 0, 0, 0, 0)
    output = run()
    libc.prctl(END, 0, 0, 0, 0)
    values = output.reshape(-1)
    print("output:", *(f"{value:.5f}" for value in values[:5]), "…")
    if arguments.logits is not None:
        difference = float(np.abs(values - arguments.logits.reshape(-1)).max())
        print(f"largest difference from PyTorch: {difference:.1e}")
        allowed = TOLERANCE * float(np.abs(arguments.logits).max())
        if not arguments.half and not difference <= allowed:
            raise SystemExit(f"That is more than {allowed:.1e}.")
