"""No kernel in integers that ships is slower than the same layer in float32, with the conversions beside it that this would take; nor are
those that come closest, with the schedules that a search begins with.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from log_samples import schedules

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d, Dense, Layer
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.needs import SHAPE
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import compile_kernel
from tvmmobile.kernels.function import kernel_function, packed_constants
from tvmmobile.kernels.reference import make_inputs, make_parameters
from tvmmobile.running.bench import started_agents
from tvmmobile.running.measure import Agents
from tvmmobile.schedules import templates_for
from tvmmobile.schedules.integer_window import is_faster_in_floats
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record

#: What a core can load and store in a cycle, at most: two vectors. A conversion reads or writes a byte and a float for each number.
_BYTES_A_CYCLE, _BYTES_A_NUMBER = 32, 5
#: What is known to be slower; docs/quantisation.md says by how much.
_POOLS = {"pool_5x5_512_int8_t4", "pool_4x4_256_int8_t4"}
_STILL_SLOWER = {
    "pi3bplus-virtual": {
        *_POOLS,
        *(f"conv_{side}x{side}_3x8_k3x3s2x2p1.1.1.1_nchw_from_float32_linear_int8_t1" for side in (128, 160, 192, 224)),
        "conv_128x128_3x8_k3x3s2x2p1.1.1.1_nchw_from_float32_linear_int8_t4",
        "conv_128x128_3x16_k3x3s2x2p1.1.1.1_nchw_from_float32_linear_int8_t1",
        "pw_1x1_16x8_linear_int8_t1",
        "pw_1x1_8x16_hsigmoid_int8_t1",
    },
    "pi4-virtual": {*_POOLS, "conv_128x128_3x8_k3x3s2x2p1.1.1.1_nchw_from_float32_linear_int8_t4", "pw_1x1_16x8_linear_int8_t1"},
    "pi5-virtual": _POOLS,
}


def shape_of(task: Task) -> Hashable:
    """What tasks of the same layer have in common: not bounds, curves, layouts, how it is stored, or a gate."""
    (layer,) = task.region
    kept = SHAPE | {"residual"}
    return task.threads, type(layer), *((field.name, getattr(layer, field.name)) for field in fields(layer) if field.name in kept)


def least_conversions_us(layer: Layer, clock_hz: float, threads: int) -> float:
    """Of its input to float32, and of its output from it."""
    numbers = math.prod(layer.input_shape) + math.prod(layer.output_shape)
    return numbers * _BYTES_A_NUMBER / _BYTES_A_CYCLE / clock_hz / threads * 1e6


def slower(records: Iterable[Record], clock_hz: float) -> list[str]:
    """Layers whose best kernel in int8 is slower than the best in float32 with conversions."""
    best: dict[str, dict[Hashable, tuple[float, Task]]] = defaultdict(dict)
    for record in records:
        if record.latency_us is not None and len(record.task.region) == 1:
            shape = shape_of(record.task)
            found = best[record.task.dtype].get(shape, (math.inf, record.task))
            best[record.task.dtype][shape] = min(found, (record.latency_us, record.task), key=lambda one: one[0])
    told = []
    for shape, (latency_us, task) in best["int8"].items():
        if shape in best["float32"]:
            other = best["float32"][shape][0]
            if latency_us > other + least_conversions_us(task.layer, clock_hz, task.threads):
                told.append(f"{task.name}: {latency_us:.1f} us, and {other:.1f} in float32")
    return told


@pytest.mark.parametrize("device", sorted(path.parent.name for path in SHIPPED_LOGS.glob("*/int8_t1.jsonl")))
def test_no_other_kernel_in_integers_is_slower_than_in_float32(device: str) -> None:
    """Nor is one listed that is not."""
    profile = find_device(device).profile
    database = Database(Identity.of(profile), (SHIPPED_LOGS,), None)
    records = [record for task in database.tasks() for record in database.records(task)]
    assert {one.partition(":")[0] for one in slower(records, profile.clock_hz)} == _STILL_SLOWER[device]


def test_slower_kernels_are_found(tmp_path: Path) -> None:
    """Whatever the bounds and layouts of the float32 kernels are; conversions of 2 × 4096 numbers take 0.7 us at least."""

    def record(layer: Layer, dtype: str, latency_us: float) -> Record:
        task = Task((layer,), dtype)
        return Record(task, schedules(task)[0], latency_us)

    plain, other = Conv2d(8, 8, 64, 64), Dense(64, 64)
    floats = [record(Conv2d(8, 8, 64, 64, clamp=(0.0, 6.0), in_layout="NCHW32c"), "float32", 10.0), record(plain, "float32", 30.0)]
    floats += [record(Conv2d(8, 8, 64, 64, residual=True), "float32", 1.0)]
    assert slower([*floats, record(plain, "int8", 10.6), record(other, "int8", 99.0)], 1.8e9) == []
    assert slower([*floats, record(plain, "int8", 10.8)], 1.8e9) == ["pw_8x8_64x64_linear_int8_t1: 10.8 us, and 10.0 in float32"]


def modelled_us(agents: Agents, layer: Layer, dtype: str, folder: Path) -> float:
    """The fastest of the templates' first schedules, as a trial times it."""
    task = Task((layer,), dtype, 1, agents.profile.machine)
    arrays, library, found = make_inputs(task), folder / "kernel.so", []
    for template in templates_for(task):
        space = template.space(task)
        assert space is not None
        compile_kernel(kernel_function(task, space.default, None), agents.profile.target, library)
        given = packed_constants(task, space.default, make_parameters(task))
        output = np.zeros(layer.output_shape, task.storage[1].numpy)
        timing = agents.kernel_timing(1)
        found.append(agents.measure_kernel(library, task.symbol, [*arrays, *given, output], 60.0, timing).latency.seconds * 1e6)
    return min(found)


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("board", "layer"),
    [
        ("pi4-virtual", Conv2d(32, 32, 3, 16, (3, 3), (2, 2), (1, 1, 1, 1), in_layout="NCHW")),
        ("pi5-virtual", Conv2d(14, 14, 48, 48, (5, 5), (1, 1), (2, 2, 2, 2), 48)),
        ("pi5-virtual", Conv2d(56, 56, 64, 64, (3, 3), (1, 1), (1, 1, 1, 1))),
        ("pi5-virtual", Conv2d(28, 28, 128, 128, (3, 3), (1, 1), (1, 1, 1, 1))),
        ("pi4-virtual", Conv2d(56, 56, 64, 128, (3, 3), (2, 2), (1, 1, 1, 1))),
    ],
    ids=["first convolution", "depthwise", "3x3 of 64", "3x3 of 128", "3x3 with a stride"],
)
def test_what_gains_least_is_no_slower_than_in_float32(board: str, layer: Conv2d, tmp_path: Path) -> None:
    """Of layers of every kind, on the Pi 4, 5 and 3B+, these gained least: a twentieth. The first convolution converts the image itself."""
    integer = replace(layer, reads="float32") if layer.in_layout == "NCHW" else layer
    with started_agents(find_device(board)) as agents:
        assert modelled_us(agents, integer, "int8", tmp_path) < modelled_us(agents, layer, "float32", tmp_path)


@pytest.mark.virtual
@pytest.mark.parametrize(("board", "side", "channels"), [("pi4-virtual", 28, 64), ("pi4-virtual", 28, 128), ("pi3bplus-virtual", 28, 64)])
def test_what_stays_in_float32_is_faster_there(board: str, side: int, channels: int, tmp_path: Path) -> None:
    """By Winograd's algorithm, on cores without dot products."""
    layer = Conv2d(side, side, channels, channels, (3, 3), (1, 1), (1, 1, 1, 1))
    with started_agents(find_device(board)) as agents:
        assert is_faster_in_floats(Task((layer,), "int8", machine=agents.profile.machine))
        assert modelled_us(agents, layer, "float32", tmp_path) < modelled_us(agents, layer, "int8", tmp_path)


@pytest.mark.parametrize(
    ("mcpu", "layer"),
    [
        ("cortex-a76", Conv2d(28, 28, 128, 128, (3, 3), (1, 1), (1, 1, 1, 1))),
        ("cortex-a72", Conv2d(28, 28, 128, 128, (3, 3), (2, 2), (1, 1, 1, 1))),
        ("cortex-a72", Conv2d(55, 55, 16, 64, (3, 3), (1, 1), (1, 1, 1, 1))),
        ("cortex-a72", Conv2d(28, 28, 128, 128)),
    ],
    ids=["SDOT", "stride", "few channels", "1x1"],
)
def test_the_others_do_not_stay(mcpu: str, layer: Conv2d) -> None:
    assert not is_faster_in_floats(Task((layer,), "int8", machine=machine_of(mcpu)))
