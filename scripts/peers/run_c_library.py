"""One run of a C library of tvmmobile's by ctypes: `run_c_library.py LIBRARY.so [--threads N]`; its manifest lies beside it.

`region` is that of examples/virtual-run. The caller's arrays begin at a cache line, as the library asks: nothing is copied.
"""

from __future__ import annotations

import ctypes
import json
import math

import numpy as np
from region import Array, read_arguments, run_marked

ALIGNMENT = 64
#: Of an instance and of the options, in bytes, with room for what later interfaces add. Zeros stand for the defaults.
INSTANCE_BYTES, OPTIONS_BYTES = 1024, 256


def aligned(count: int, dtype: type[np.generic]) -> Array:
    """An array of elements from a cache line on; not written yet."""
    size = count * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + size].view(dtype)


arguments = read_arguments(__doc__)
manifest = json.loads(arguments.model.with_suffix(".json").read_text(encoding="utf-8"))
prefix, workspace_bytes, shape = manifest["c"]["prefix"], manifest["c"]["workspace_bytes"], manifest["output"]["shape"]
image, logits = aligned(arguments.image.size, np.float32), aligned(math.prod(shape), np.float32)
image[:] = arguments.image.ravel()
workspace, instance = aligned(workspace_bytes, np.uint8), aligned(INSTANCE_BYTES, np.uint8)

library = ctypes.CDLL(str(arguments.model))
describe, init, function = (getattr(library, f"{prefix}_{name}") for name in ("describe", "init", "run"))
describe.restype = ctypes.POINTER(ctypes.c_uint32)  # a description begins with the interface's version
options = (ctypes.c_uint32 * (OPTIONS_BYTES // 4))(arguments.threads)  # which is what options begin with
if code := init(describe()[0], ctypes.c_void_p(instance.ctypes.data), options):
    raise SystemExit(f"init returns {code}.")
inputs, outputs = (ctypes.c_void_p * 1)(image.ctypes.data), (ctypes.c_void_p * 1)(logits.ctypes.data)
function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32)
call = (instance.ctypes.data, inputs, outputs, workspace.ctypes.data, workspace_bytes, 0)


def run() -> Array:
    if code := function(*call):
        raise SystemExit(f"run returns {code}.")
    return logits


run_marked(run, arguments)
