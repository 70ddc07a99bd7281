"""A compiled network: arrays in, arrays out. Needs NumPy alone, from 1.19 on, and Python from 3.9 on."""

from __future__ import annotations

import json
import os
import threading
import weakref
from ctypes import CDLL, POINTER, Structure, byref, c_char_p, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_INTERFACE = 1  # TVMMOBILE_INTERFACE of the header that these structures follow
_RGB = 1
_INSTANCE_WORDS = 128
_FASTEST_THREADS = 4  # flag of the options; the instance's third word is how many they are
_LONGEST_RUN_S = 10.0
_NETWORKS: weakref.WeakSet[Network] = weakref.WeakSet()


class _Tensor(Structure):
    """`tvmmobile_tensor`."""

    _fields_ = (
        *(("name", c_char_p), ("type", c_char_p), ("layout", c_char_p), ("shape", POINTER(c_int64)), ("rank", c_uint32)),
        *(("scale_count", c_uint32), ("bytes", c_size_t), ("scales", c_void_p), ("zero_points", c_void_p), ("axis", c_int32)),
    )


class _Description(Structure):
    """`tvmmobile_description`."""

    _fields_ = (
        *(("interface", c_uint32), ("threads", c_uint32), ("name", c_char_p), ("version", c_char_p), ("core", c_char_p)),
        *(("inputs", POINTER(_Tensor)), ("outputs", POINTER(_Tensor)), ("input_count", c_uint32), ("output_count", c_uint32)),
        *(("workspace_bytes", c_size_t), ("weight_bytes", c_size_t), ("alignment", c_size_t)),
    )


class _Options(Structure):
    """`tvmmobile_options`."""

    _fields_ = (
        *(("threads", c_uint32), ("spins", c_uint32), ("flags", c_uint32), ("reserved", c_uint32), ("cpus", c_uint64)),
        *(("parallel", c_void_p), ("pool", c_void_p), ("create", c_void_p), ("join", c_void_p)),
    )


class _Image(Structure):
    """`tvmmobile_image`."""

    _fields_ = (
        *(("format", c_uint32), ("width", c_uint32), ("height", c_uint32), ("turns", c_uint32)),
        *(("planes", c_void_p * 3), ("strides", c_size_t * 3), ("chroma_step", c_uint32), ("reserved", c_uint32)),
    )


class Port(NamedTuple):
    """An input or output of a network.

    Attributes:
        layout: order of the axes, such as `NCHW`; "" if they have no letters.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str


class Network:
    """A network with memory and threads of its own. Threads of the program may share one: their calls wait for one another.

    Args:
        library: path of the `.so`; its manifest, a `.json`, lies beside it.
        threads: number of threads that share the work; default: as many as it was compiled for. 0: as many as are fastest on this CPU, by
            what was known when it was compiled.

    Raises:
        RuntimeError: the library refuses, such as where the CPU lacks instructions; the message says why.
    """

    def __init__(self, library: str | Path, threads: int | None = None) -> None:
        path = Path(library).resolve()
        entries = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["c"]
        self._c, self._prefix, self._takes_pictures = CDLL(str(path)), entries["prefix"], bool(entries.get("image"))
        self._function("describe").restype = POINTER(_Description)
        self._function("message").restype = c_char_p
        self._description = self._function("describe")().contents
        about = self._description
        self.threads = about.threads if threads is None else threads
        self.inputs = tuple(map(_port, about.inputs[: about.input_count]))
        self.outputs = tuple(map(_port, about.outputs[: about.output_count]))
        self._lock, self._process = threading.RLock(), 0
        self._end: weakref.finalize[Any, Any] | None = None
        self._workspace = self._aligned(about.workspace_bytes)
        self._state: Array | None = None
        self._arrays = [self._tensor(port) for port in self.inputs]
        _NETWORKS.add(self)
        with self._lock:
            self._ready()

    def run(self, *inputs: npt.ArrayLike) -> Any:
        """Compute the outputs: one array, or a tuple where there are several.

        Args:
            inputs: arrays as `inputs` describes them; axes of length 1 in front may be missing. A network that was compiled with
                `--image` also takes one picture: `uint8`, `[height, width, 3]`, RGB.

        Raises:
            ValueError: an input has another shape, there are too few or too many, or a number is beyond the network's type of integers.
            TypeError: an input's numbers are not of a type that can become the network's.
        """
        given = [np.asarray(array) for array in inputs]
        with self._lock:
            self._ready()
            outputs = [self._tensor(port) for port in self.outputs]
            if len(given) == 1 and self._is_picture(given[0]):
                self._run_picture(given[0], outputs)
            else:
                self._run(given, outputs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def reset(self) -> None:
        """Set the states of a recurrent network to zeros, before a new sequence."""
        with self._lock:
            self._ready()
            self._reset()

    def close(self) -> None:
        """End the network's threads, as happens when nothing refers to it any more. It starts them again if it is used again."""
        with self._lock:
            if self._end is not None:
                self._end()

    def __enter__(self) -> Network:
        """Return the network itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End its threads."""
        self.close()

    def _ready(self) -> None:
        """Initialise an instance, unless this process has one: threads do not live on in a forked child."""
        process = os.getpid()
        if self._end is not None and self._end.alive and self._process == process:
            return
        instance = (c_uint64 * _INSTANCE_WORDS)()
        flags = 0 if self.threads else _FASTEST_THREADS
        self._call("init", _INTERFACE, instance, byref(_Options(threads=self.threads, flags=flags)))
        self.threads = self.threads or instance[2]
        self._instance, self._process = instance, process
        self._end = weakref.finalize(self, _end, self._function("free"), instance, self._lock, process)
        self._reset()

    def _reset(self) -> None:
        if not hasattr(self._c, f"{self._prefix}_state_bytes"):
            return
        if self._state is None:
            self._function("state_bytes").restype = c_size_t
            self._state = self._aligned(self._function("state_bytes")())
        self._call("reset", self._instance, c_void_p(self._state.ctypes.data), c_size_t(self._state.size))

    def _run(self, given: list[Array], outputs: list[Array]) -> None:
        if len(given) != len(self.inputs):
            raise ValueError(f"the network has {len(self.inputs)} inputs, and {len(given)} are given")
        for array, port, goal in zip(given, self.inputs, self._arrays):  # noqa: B905 - Python 3.9 has no `strict`
            if array.shape != port.shape[len(port.shape) - array.ndim :] or any(
                extent != 1 for extent in port.shape[: -array.ndim or None]
            ):
                raise ValueError(f"{port.name} has the shape {list(port.shape)}, not {list(array.shape)}" + self._advice(array))
            if not _can_become(array.dtype, goal.dtype):
                raise TypeError(f"{port.name} is {port.dtype}, not {array.dtype}" + self._advice(array))
            with np.errstate(invalid="ignore"):
                goal[...] = array.reshape(port.shape)
            if goal.dtype.kind != "f" and not np.array_equal(goal, array.reshape(port.shape)):
                raise ValueError(f"{port.name} holds numbers that are not {port.dtype}")
        self._call("run", self._instance, _pointers(self._arrays), _pointers(outputs), *self._room(self._workspace), 0)

    def _run_picture(self, picture: Array, outputs: list[Array]) -> None:
        pixels = np.ascontiguousarray(picture)
        height, width, _ = pixels.shape
        room = self._function("image_workspace")
        room.restype = c_size_t
        size = room(c_uint32(width), c_uint32(height))
        if self._workspace.size < size:
            self._workspace = self._aligned(size)
        image = _Image(format=_RGB, width=width, height=height, planes=(c_void_p * 3)(pixels.ctypes.data))
        self._call("run_image", self._instance, byref(image), _pointers(outputs), *self._room(self._workspace), 0)

    def _is_picture(self, array: Array) -> bool:
        return self._takes_pictures and array.dtype == np.uint8 and array.ndim == 3 and array.shape[-1] == 3

    def _advice(self, array: Array) -> str:
        """Return how to give a picture to the network."""
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or self._takes_pictures:
            return ""
        return "; only networks compiled with --image take pictures of 8 bits"

    def _function(self, name: str) -> Any:
        return getattr(self._c, f"{self._prefix}_{name}")

    def _call(self, name: str, *arguments: Any) -> None:
        if code := self._function(name)(*arguments):
            raise RuntimeError(self._function("message")(code).decode())

    @staticmethod
    def _room(workspace: Array) -> tuple[c_void_p, c_size_t]:
        return c_void_p(workspace.ctypes.data), c_size_t(workspace.size)

    def _aligned(self, size: int) -> Array:
        step = self._description.alignment
        whole = np.zeros(size + step, np.uint8)
        start = -whole.ctypes.data % step
        return whole[start : start + size]

    def _tensor(self, port: Port) -> Array:
        dtype = np.dtype(port.dtype)
        size = int(np.prod(port.shape, dtype=np.int64)) * dtype.itemsize
        return self._aligned(size).view(dtype).reshape(port.shape)


def _unlock_all() -> None:
    """Give networks of a forked child locks of their own: the thread that held one is not there."""
    for network in _NETWORKS:
        network._lock = threading.RLock()


os.register_at_fork(after_in_child=_unlock_all)


def _end(free: Any, instance: Any, lock: Any, process: int) -> None:
    """End the threads of an instance, whose memory lives until then; a forked child has none of them."""
    if process == os.getpid() and lock.acquire(timeout=_LONGEST_RUN_S):  # when Python exits, a daemon thread may be in a run
        free(instance)
        lock.release()


def _can_become(given: np.dtype[Any], own: np.dtype[Any]) -> bool:
    """Tell whether an array's type may become a network's: integers are then compared, number by number."""
    return np.can_cast(given, own, "same_kind") if own.kind == "f" else given.kind in "biuf"


def _port(tensor: _Tensor) -> Port:
    return Port(tensor.name.decode(), tuple(tensor.shape[: tensor.rank]), tensor.type.decode(), tensor.layout.decode())


def _pointers(arrays: list[Array]) -> Any:
    return (c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
