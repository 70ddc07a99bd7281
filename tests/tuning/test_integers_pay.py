"""No kernel in integers that ships is slower than the same layer in float32, with the conversions beside it that this would take."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import fields
from pathlib import Path

import pytest
from log_samples import schedules

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d, Dense, Layer
from tvmmobile.graph.needs import SHAPE
from tvmmobile.graph.tasks import Task
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record

#: What a core can load and store in a cycle, at most: two vectors. A conversion reads or writes a byte and a float for each number.
_BYTES_A_CYCLE, _BYTES_A_NUMBER = 32, 5


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
def test_no_kernel_in_integers_is_slower_than_in_float32(device: str) -> None:
    profile = find_device(device).profile
    database = Database(Identity.of(profile), (SHIPPED_LOGS,), None)
    records = [record for task in database.tasks() for record in database.records(task)]
    assert slower(records, profile.clock_hz) == []


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
