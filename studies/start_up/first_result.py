"""Runs one of the programs that run a network, but marks its start-up: `first_result.py MODEL [--threads N]`.

TVMMOBILE_PROGRAM is the program, TVMMOBILE_REGION what is marked: `import` its imports, `load` all from there to its first result: the
network is read, made ready and run once. Python, NumPy and the image are there before; the comparison with PyTorch comes after.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import region

libc = ctypes.CDLL(None)
importing = os.environ["TVMMOBILE_REGION"] == "import"
arguments = region.read_arguments(__doc__)


def begin_loading(_what: str) -> region.Arguments:
    """Replaces `read_arguments`, which a program calls after its imports."""
    libc.prctl(region.END if importing else region.BEGIN, 0, 0, 0, 0)
    return arguments


def run_once(run: Callable[[], region.Array], _arguments: region.Arguments) -> None:
    """Replaces `run_marked`."""
    output = run()
    if not importing:
        libc.prctl(region.END, 0, 0, 0, 0)
    difference = np.abs(output.reshape(-1) - arguments.logits.reshape(-1)).max()
    print(f"largest difference from PyTorch: {difference:.1e}")


region.read_arguments, region.run_marked = begin_loading, run_once
program = Path(os.environ["TVMMOBILE_PROGRAM"])
code = compile(program.read_text(encoding="utf-8"), str(program), "exec")
if importing:
    libc.prctl(region.BEGIN, 0, 0, 0, 0)
exec(code, {"__name__": "__main__", "__doc__": ""})
