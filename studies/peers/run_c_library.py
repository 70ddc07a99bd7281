"""One run of one of tvmmobile's C libraries by ctypes: `run_c_library.py LIBRARY.so [--threads N]`.

`region` is that of examples/virtual-run. The caller's arrays are aligned as the library asks, so nothing is copied. The structures
repeat those of examples/native/classify.py: importing that program would add its imports to what `./studies/run start_up` counts.
"""

from __future__ import annotations

import ctypes
import re

import numpy as np
from region import Array, read_arguments, run_marked

INTERFACE = 1


class CTensor(ctypes.Structure):
    """The beginning of the header's `tvmmobile_tensor`."""

    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("name", "type", "layout")),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        *((name, ctypes.c_uint32) for name in ("rank", "scale_count")),
        ("bytes", ctypes.c_size_t),
    )


class CDescription(ctypes.Structure):
    """The header's `tvmmobile_description`."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("interface", "threads")),
        *((name, ctypes.c_char_p) for name in ("name", "version", "core")),
        *((name, ctypes.POINTER(CTensor)) for name in ("inputs", "outputs")),
        *((name, ctypes.c_uint32) for name in ("input_count", "output_count")),
        *((name, ctypes.c_size_t) for name in ("workspace_bytes", "weight_bytes", "alignment")),
    )


class COptions(ctypes.Structure):
    """The header's `tvmmobile_options`; zeros mean the defaults."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("threads", "spins", "flags", "reserved")),
        ("cpus", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in ("parallel", "pool", "create", "join")),
    )


def aligned(size: int, alignment: int) -> Array:
    """Uninitialised bytes that begin at a multiple of `alignment`."""
    memory = np.empty(size + alignment, np.uint8)
    begin = -memory.ctypes.data % alignment
    return memory[begin : begin + size]


arguments = read_arguments(__doc__)
library = ctypes.CDLL(str(arguments.model))
# Function names begin with the network's name: the file's without precision and threads.
prefix = re.sub("[^0-9A-Za-z]", "_", arguments.model.stem.rsplit("_", 2)[0])
describe, init, function = (getattr(library, f"{prefix}_{name}") for name in ("describe", "init", "run"))
describe.restype = ctypes.POINTER(CDescription)
function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32)
network = describe()[0]

image, logits = (aligned(tensors[0].bytes, network.alignment).view(np.float32) for tensors in (network.inputs, network.outputs))
image[:] = arguments.image.ravel()
workspace = aligned(network.workspace_bytes, network.alignment)
instance = (ctypes.c_uint64 * 128)()
if code := init(INTERFACE, instance, ctypes.byref(COptions(threads=arguments.threads))):
    raise SystemExit(f"init returns {code}.")
inputs, outputs = (ctypes.c_void_p * 1)(image.ctypes.data), (ctypes.c_void_p * 1)(logits.ctypes.data)
call = (instance, inputs, outputs, workspace.ctypes.data, network.workspace_bytes, 0)


def run() -> Array:
    """Run the network once, from the caller's image to an array of logits."""
    if code := function(*call):
        raise SystemExit(f"run returns {code}.")
    return logits


run_marked(run, arguments)
