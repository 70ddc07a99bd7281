"""Opaque functions as stages: values against NumPy, on one thread and several, and which functions are not taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_kernels import HOST

from tvmmobile.devices.protocol import MEASURED
from tvmmobile.graph.layers import Opaque
from tvmmobile.graph.stages import stages_of
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels import elementary
from tvmmobile.kernels.codegen import compile_kernel
from tvmmobile.kernels.function import kernel_function, packed_constants
from tvmmobile.kernels.serial import TraceSchedule, task_from_json, task_to_json
from tvmmobile.schedules import template_for
from tvmmobile.tuning.choice import choose
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity

Arrays = list[Any]


def reversed_front(x: Any) -> Any:
    from tvm import topi

    return topi.concatenate([topi.strided_slice(x, [0, 6], [x.shape[0], -100], [1, -1]), x], 1)


def mean_of_squares(x: Any) -> Any:
    from tvm import topi

    return topi.sqrt(topi.sum(topi.multiply(x, x), -1, True) / x.shape[1] + 1e-3)


def steps_of_int8(x: Any) -> Any:
    from tvm import te, topi

    return topi.cast(topi.minimum(topi.maximum(topi.round(x * te.const(9.7, "float32")), -128.0), 127.0), "int8")


#: What TVM computes of some tensors, what NumPy does, and the extents of the tensors.
CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "reflect": (reversed_front, lambda x: np.concatenate([x[:, 6::-1], x], 1), ((3, 45),)),
    "pad": (
        lambda x: _topi().nn.pad(_topi().exp(x), [1, 0, 2], [0, 1, 3], 0.5),
        lambda x: np.pad(np.exp(x), [(1, 0), (0, 1), (2, 3)], constant_values=0.5),
        ((2, 3, 21),),
    ),
    "replicate": (lambda x: _topi().nn.replicate_pad(x, [0, 4], [0, 5]), lambda x: np.pad(x, [(0, 0), (4, 5)], "edge"), ((3, 37),)),
    "join": (
        lambda *parts: _topi().concatenate([*parts, parts[0]], 1),
        lambda *parts: np.concatenate([*parts, parts[0]], 1),
        ((2, 3, 9), (2, 1, 9), (2, 8, 9)),
    ),
    "transpose": (
        lambda x, y: _topi().transpose(x * y, [2, 0, 1]),
        lambda x, y: (x * y).transpose(2, 0, 1),
        ((5, 13, 6), (13, 6)),
    ),
    "frames": (
        lambda x, y: _topi().transpose(_topi().reshape(x, [6, 17, 4, 5]), [0, 3, 2, 1]) * y,
        lambda x, y: x.reshape(6, 17, 4, 5).transpose(0, 3, 2, 1) * y,
        ((6, 340), (4, 17)),
    ),
    "doubles": (
        lambda x: _topi().transpose(_topi().cast(x, "float64")),
        lambda x: x.T.astype(np.float64),
        ((5, 7),),
    ),
    "mean": (lambda x: x / mean_of_squares(x), lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-3), ((7, 53),)),
    "columns": (lambda x: x - _topi().max(x, 1, True), lambda x: x - x.max(1, keepdims=True), ((3, 6, 27),)),
    "least of all": (lambda x: _topi().min(x) - 1.0, lambda x: x.min() - 1, ((5, 3, 7),)),
    "sum of two axes": (lambda x: _topi().sum(x, [0, 2]), lambda x: x.sum((0, 2)), ((4, 5, 9),)),
    "scalar": (lambda x: _topi().sum(x * x + 1.0), lambda x: np.asarray((x * x + 1).sum()), ((3,),)),
    "choice": (
        lambda x, y: _topi().where(_topi().less(x, y), _topi().log(x * x), y),
        lambda x, y: np.where(x < y, np.log(x * x), y),
        ((9, 11), (1, 11)),
    ),
    "gate": (lambda x, y: x * _topi().sigmoid(y), lambda x, y: x / (1 + np.exp(-y)), ((9, 11), (11,))),
    "large rows": (lambda x: x / mean_of_squares(x), lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-3), ((97, 113),)),
    "large": (lambda x, y: _topi().tanh(x) + y, lambda x, y: np.tanh(x) + y, ((130, 70), (70,))),
    "int8": (steps_of_int8, lambda x: np.clip(np.rint(x * np.float32(9.7)), -128, 127).astype(np.int8), ((6, 43),)),
}


def _topi() -> Any:
    from tvm import topi

    return topi


def function_of(build: Callable[..., Any], shapes: tuple[tuple[int, ...], ...]) -> Any:
    """Return the function that TVM makes of a computation, before it is scheduled."""
    from tvm import te

    inputs = [te.placeholder([te.const(extent, "int64") for extent in shape], name=f"x{number}") for number, shape in enumerate(shapes)]
    return te.create_prim_func([*inputs, build(*inputs)])


def task_of(function: Any, threads: int = 1) -> Task:
    """Return the task of an opaque layer with this function."""
    shapes = [tuple(int(extent) for extent in parameter.ty.shape) for parameter in function.params]
    return Task((Opaque("made", "0" * 12, tuple(shapes[:-1]), shapes[-1], stages_of(function) is not None),), threads=threads)


@pytest.mark.parametrize("name", CASES)
def test_values(name: str, tmp_path: Path) -> None:
    import tvm

    elementary.register()
    build, expected, shapes = CASES[name]
    function = function_of(build, shapes)
    data = [np.random.default_rng(number).normal(0.3, 2.0, shape).astype(np.float32) for number, shape in enumerate(shapes)]
    wanted = np.asarray(expected(*data))
    for threads, vectors in ((1, 1), (1, 2), (3, 4)):
        task = task_of(function, threads)
        template = template_for(task)
        assert template is not None
        space = template.space(task)
        assert space is not None
        schedule = space.schedule({"vectors": vectors})
        path = tmp_path / f"{threads}.so"
        compile_kernel(kernel_function(task, schedule, function), HOST, path)
        output = tvm.runtime.tensor(np.full(wanted.shape, 77, wanted.dtype))
        arguments = [*data, *packed_constants(task, schedule, ())]
        tvm.runtime.load_module(str(path))[task.symbol](*map(tvm.runtime.tensor, arguments), output)
        np.testing.assert_allclose(output.numpy(), wanted, rtol=2e-6, atol=2e-6 * float(np.abs(wanted).max()))


def test_functions_that_are_no_stages() -> None:
    from tvm import topi

    product = function_of(topi.matmul, ((4, 5), (5, 6)))
    indices = function_of(lambda x: topi.argmax(x, 1), ((4, 5),))
    doubled = function_of(lambda x: _doubled(x, 12), ((4,),))
    assert [stages_of(one) for one in (product, indices, doubled)] == [None] * 3
    for function in (product, indices):
        assert template_for(task_of(function)) is None


def test_a_tensor_that_a_call_computes_is_no_stage() -> None:
    """TVM's sort is a call of its runtime; what reads its result is no function of the inputs alone."""
    assert stages_of(function_of(lambda x: _topi().negative(_topi().sort(x)), ((3, 8),))) is None


def _doubled(x: Any, times: int) -> Any:
    """Return a chain whose every step reads the one before it twice, and a neighbour."""
    from tvm import te

    for _ in range(times):
        before = x
        x = te.compute(before.shape, lambda place: before[place] * before[(place + 1) % 4])  # noqa: B023
    return x


def test_a_function_is_not_computed_for_every_reader() -> None:
    build, _, shapes = CASES["gate"]
    found = stages_of(function_of(build, shapes))
    assert found is not None and [stage.elements for stage in found] == [11, 99]


def test_schedules_without_records(tmp_path: Path) -> None:
    from tvm import topi

    database = Database(Identity("nowhere", MEASURED), (), tmp_path)
    staged, product = function_of(topi.exp, ((4, 5),)), function_of(topi.matmul, ((4, 5), (5, 6)))
    chosen = [choose(task_of(one), one, database, HOST).schedule for one in (staged, product)]
    assert str(chosen[0]) == "stages@1(vectors=2)" and isinstance(chosen[1], TraceSchedule)


def test_a_log_says_that_a_function_has_stages() -> None:
    """Older logs do not, but speak of the same task."""
    task = Task((Opaque("mean", "0" * 12, ((4,),), (4,), staged=True),))
    assert template_for(task_from_json(task_to_json(task))) is not None
    assert task == replace(task, region=(Opaque("mean", "0" * 12, ((4,),), (4,)),))
