"""Runs another program in half precision: `run_half.py PROGRAM.py MODEL [--threads N]`.

The programs of examples/virtual-run end with an error if their output is 1e-3 off PyTorch's. Here the error is printed, and bench_peers
judges it.
"""

from __future__ import annotations

import math
import runpy
import sys

import region

region.TOLERANCE = math.inf
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
