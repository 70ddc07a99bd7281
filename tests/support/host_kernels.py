"""Runs a schedule's kernel on the host, every array between guard bands."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings

from tvmmobile.graph.layers import Array, Layer
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import compile_kernel
from tvmmobile.kernels.function import kernel_function
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters, relative_error
from tvmmobile.schedules import KnobSchedule, Space, template_for, template_named

#: With few of LLVM's passes: tests ask here what kernels compute, not how fast, and are built in two thirds of the time.
HOST = {"kind": "llvm", "opt-level": 0}
#: With conversions of half precision, which LLVM else does number by number: a kernel then takes minutes to build.
HALF = {**HOST, "mattr": ["+avx2", "+f16c"]} if platform.machine() == "x86_64" else {**HOST, "mattr": ["+fullfp16"]}
#: Elements before and after each array; a multiple of TVM's alignment of 64 bytes.
GUARD = 256
#: NaNs with a payload of their own, by bytes of an element: arithmetic on them gives NaN, and a store over them is seen whatever the value.
#: A byte may have any value: where it is not stored, it is wrong.
SENTINELS = {1: np.uint8(0x81), 2: np.uint16(0x7EEF), 4: np.uint32(0x7FC0BEEF), 8: np.uint64(0x7FF800000000BEEF)}
_NUMBER = itertools.count()


def examples(count: int) -> settings:
    """Return the same examples in every run, half of them without `--all`; a kernel takes 0.1 to 0.5 s to build."""
    shown = count if settings.get_current_profile_name() == "all" else -(-count // 2)
    checks = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)
    return settings(max_examples=shown, derandomize=True, database=None, deadline=None, suppress_health_check=checks)


class Guarded:
    """An array in the middle of a larger one that is filled with NaN."""

    def __init__(self, content: Array) -> None:
        size, line = content.size, 64 // content.itemsize
        self._sentinel = SENTINELS[content.itemsize]
        self._whole = np.empty(2 * GUARD + size + line, content.dtype)
        self._bits(self._whole)[:] = self._sentinel
        aligned = GUARD + (-(self._whole.ctypes.data // content.itemsize + GUARD)) % line
        self._inner = slice(aligned, aligned + size)
        self.array = self._whole[self._inner].reshape(content.shape)
        self.array[...] = content
        self._before = self._whole.copy()

    def _bits(self, array: Array) -> Array:
        return array.view(self._sentinel.dtype)

    def clear(self) -> None:
        """Fill the array itself with the guard's value."""
        self._bits(self.array)[...] = self._sentinel

    @property
    def untouched(self) -> bool:
        """True if the guard bands hold what they held."""
        inside = np.zeros(self._whole.shape, bool)
        inside[self._inner] = True
        same = self._bits(self._whole) == self._bits(self._before)
        return bool((same | inside).all())

    @property
    def unwritten(self) -> int:
        """Elements of the array itself that still hold the guard's value, unless they are bytes."""
        return 0 if self.array.itemsize == 1 else int((self._bits(self._whole[self._inner]) == self._sentinel).sum())

    @property
    def unchanged(self) -> bool:
        """True if nothing at all was written."""
        return bool((self._bits(self._whole) == self._bits(self._before)).all())


def run_on_host(task: Task, schedule: KnobSchedule, path: Path) -> float:
    """Build one schedule into `path`, run it as `kernel_on_host` does, and return its error relative to the output's largest magnitude."""
    data = make_inputs(task)
    return relative_error(kernel_on_host(task, schedule, path)(data), expected_output(task, data, make_parameters(task)))


def kernel_on_host(task: Task, schedule: KnobSchedule, path: Path) -> Callable[[Sequence[Array]], Array]:
    """Build one schedule into `path`; returns a function from the inputs that `make_inputs` lists to the output.

    The function asserts that every output element is written, and nothing else.
    """
    import tvm

    template = template_named(schedule.template, schedule.version)
    assert template is not None
    half = min(stored.bytes for stored in (task.precision, *task.storage)) == 2
    compile_kernel(kernel_function(task, schedule, None), HALF if half else HOST, path)
    constants = template.pack(task, schedule.values, make_parameters(task))
    kernel = tvm.runtime.load_module(str(path))[task.symbol]

    def run(data: Sequence[Array]) -> Array:
        inputs = [Guarded(array) for array in (*data, *constants)]
        output = Guarded(np.empty(task.region[-1].output_shape, task.storage[1].numpy))
        output.clear()
        kernel(*[tvm.runtime.from_dlpack(guarded.array) for guarded in (*inputs, output)])
        assert output.unwritten == 0, f"{output.unwritten} of {output.array.size} outputs are not written"
        assert output.untouched, "wrote before or after the output"
        assert all(guarded.unchanged for guarded in inputs), "wrote to an input"
        return output.array

    return run


def check_schedule(task: Task, space: Space, choice: int, tolerance: float, folder: Path) -> None:
    """One schedule of the whole space, not only of what the pruning keeps, computes what PyTorch computes."""
    schedules = list(space.unpruned())
    schedule = schedules[choice % len(schedules)]
    assert run_on_host(task, schedule, folder / f"kernel{next(_NUMBER)}.so") <= tolerance, f"{task.name} {schedule}"


def check_layer(layer: Layer, threads: int, choice: int, name: str, folder: Path) -> None:
    """The template of that name takes the layer, and one schedule of its whole space computes what PyTorch computes, within 1e-5."""
    task = Task((layer,), threads=threads)
    template = template_for(task)
    assert template is not None and template.name == name
    space = template.space(task)
    assert space is not None
    check_schedule(task, space, choice, 1e-5, folder)
