"""A network in Python, with ctypes and NumPy alone: classify.py LIBRARY.so INPUT.f32 THREADS

INPUT is the network's input as raw float32 (tvmmobile run --save-input writes one). Prints the class with the highest score. The library's
manifest, a .json, lies beside it.
"""

from __future__ import annotations

import json
import os
import sys
import weakref
from ctypes import CDLL, POINTER, Structure, byref, c_char_p, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

import numpy as np

INTERFACE = 1  # TVMMOBILE_INTERFACE of the header that these structures follow


class Tensor(Structure):
    """`tvmmobile_tensor`."""

    _fields_ = [("name", c_char_p), ("type", c_char_p), ("layout", c_char_p), ("shape", POINTER(c_int64)), ("rank", c_uint32)]
    _fields_ += [("scale_count", c_uint32), ("bytes", c_size_t), ("scales", c_void_p), ("zero_points", c_void_p), ("axis", c_int32)]


class Description(Structure):
    """`tvmmobile_description`."""

    _fields_ = [("interface", c_uint32), ("threads", c_uint32), ("name", c_char_p), ("version", c_char_p), ("core", c_char_p)]
    _fields_ += [("inputs", POINTER(Tensor)), ("outputs", POINTER(Tensor)), ("input_count", c_uint32), ("output_count", c_uint32)]
    _fields_ += [("workspace_bytes", c_size_t), ("weight_bytes", c_size_t), ("alignment", c_size_t)]


class Options(Structure):
    """`tvmmobile_options`."""

    _fields_ = [("threads", c_uint32), ("spins", c_uint32), ("flags", c_uint32), ("reserved", c_uint32), ("cpus", c_uint64)]
    _fields_ += [("parallel", c_void_p), ("pool", c_void_p), ("create", c_void_p), ("join", c_void_p)]


class Network:
    """A C library, with its inputs and outputs as arrays.

    Raises:
        RuntimeError: the library refuses a call; the message says why.
    """

    def __init__(self, library: str, threads: int = 1) -> None:
        self._c = CDLL(str(Path(library).resolve()))
        self._prefix = json.loads(Path(library).with_suffix(".json").read_text())["c"]["prefix"]
        self._function("describe").restype = POINTER(Description)
        self._function("message").restype = c_char_p
        net = self.description = self._function("describe")().contents
        self._instance = (c_uint64 * 128)()  # must not move, nor be freed before its threads have ended
        self._call("init", INTERFACE, self._instance, byref(Options(threads=threads)))
        self._end = weakref.finalize(self, end, self._function("free"), self._instance, os.getpid())
        self.inputs = [self._tensor(net.inputs[i]) for i in range(net.input_count)]
        self.outputs = [self._tensor(net.outputs[i]) for i in range(net.output_count)]
        self._workspace = self._aligned(net.workspace_bytes)

    def run(self) -> list[np.ndarray]:
        """Compute `outputs` from `inputs`; return `outputs`, which the next run overwrites. Other Python threads run meanwhile."""
        inputs, outputs = ((c_void_p * len(arrays))(*(a.ctypes.data for a in arrays)) for arrays in (self.inputs, self.outputs))
        workspace = c_void_p(self._workspace.ctypes.data), c_size_t(self._workspace.size)
        self._call("run", self._instance, inputs, outputs, *workspace, 0)
        return self.outputs

    def close(self) -> None:
        """End the library's threads, as happens when nothing refers to the network any more."""
        self._end.detach()
        self._call("free", self._instance)

    def _function(self, name):
        return getattr(self._c, f"{self._prefix}_{name}")

    def _call(self, name, *arguments) -> None:
        if code := self._function(name)(*arguments):
            raise RuntimeError(self._function("message")(code).decode())

    def _aligned(self, size: int) -> np.ndarray:
        step = self.description.alignment
        whole = np.zeros(size + step, np.uint8)
        start = -whole.ctypes.data % step
        return whole[start : start + size]

    def _tensor(self, tensor: Tensor) -> np.ndarray:
        return self._aligned(tensor.bytes).view(tensor.type.decode()).reshape(tensor.shape[: tensor.rank])


def end(free, instance, process: int) -> None:
    """End the threads of an instance; a forked process has none of them."""
    if process == os.getpid():
        free(instance)


def main() -> None:
    """Entry point."""
    if len(sys.argv) != 4:
        raise SystemExit(f"usage: {sys.argv[0]} LIBRARY.so INPUT.f32 THREADS")
    network = Network(sys.argv[1], int(sys.argv[3]))
    network.inputs[0].reshape(-1)[:] = np.fromfile(sys.argv[2], network.inputs[0].dtype)
    scores = network.run()[0].reshape(-1)
    print(f"class {scores.argmax()}: {scores.max():.9g}")
    network.close()


if __name__ == "__main__":
    main()
