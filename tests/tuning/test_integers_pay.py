"""No kernel in integers that ships is slower than the same layer in float32, with the conversions beside it that this would take; nor are
those that come closest, with the schedules that a search begins with.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from log_samples import schedules

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d, Dense, Layer
from tvmmobile.graph.machine import machine_of
from tvmmobile.graph.needs import shape_of
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.codegen import compile_kernel
from tvmmobile.kernels.function import kernel_function, packed_constants
from tvmmobile.kernels.reference import make_inputs, make_parameters
from tvmmobile.quantisation.prepare import is_faster_in_floats
from tvmmobile.running.bench import started_agents
from tvmmobile.running.measure import Agents
from tvmmobile.schedules import templates_for
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record

#: What a core can load and store in a cycle, at most: two vectors. A conversion reads or writes a byte and a float for each number.
_BYTES_A_CYCLE, _BYTES_A_NUMBER = 32, 5


def form_of(task: Task) -> Hashable:
    """Return the properties that tasks of the same layer share: not bounds, curves, layouts, how it is stored, or a gate."""
    (layer,) = task.region
    kept = shape_of(type(layer)) | {"residual"}
    return task.threads, type(layer), *((field.name, getattr(layer, field.name)) for field in fields(layer) if field.name in kept)


def least_conversions_us(task: Task, clock_hz: float, least_us: float) -> float:
    """Return the time to convert a layer's input to float32, which takes a kernel of its own, and its output from it. Images need none,
    and what reads them converts what it stores.
    """
    if getattr(task.layer, "reads", ""):
        return 0.0
    read, written = (
        math.prod(shape) * _BYTES_A_NUMBER / _BYTES_A_CYCLE / clock_hz / task.threads * 1e6
        for shape in (task.layer.input_shape, task.layer.output_shape)
    )
    return max(read, least_us) + written


def slower(records: Sequence[Record], clock_hz: float) -> list[str]:
    """Layers whose best kernel in int8 is slower than the best in float32, with conversions; no kernel of these takes less time than the
    fastest one.
    """
    timed = [(record.latency_us, record.task) for record in records if record.latency_us is not None]
    least = {threads: min(latency for latency, task in timed if task.threads == threads) for threads in {task.threads for _, task in timed}}
    best: dict[str, dict[Hashable, tuple[float, Task]]] = defaultdict(dict)
    for latency, task in timed:
        if len(task.region) == 1 and not getattr(task.layer, "sparse", ()):  # of other layers: those with zeros among their weights
            shape = form_of(task)
            best[task.dtype][shape] = min(best[task.dtype].get(shape, (math.inf, task)), (latency, task), key=lambda one: one[0])
    sentences = []
    for shape, (latency, task) in best["int8"].items():
        if shape in best["float32"] and not is_faster_in_floats(task):
            other = best["float32"][shape][0]
            if latency > other + least_conversions_us(task, clock_hz, least[task.threads]):
                sentences.append(f"{task.name}: {latency:.1f} us, and {other:.1f} in float32")
    return sentences


@pytest.mark.parametrize("device", sorted(path.parent.name for path in SHIPPED_LOGS.glob("*/int8_t1.jsonl")))
def test_no_other_kernel_in_integers_is_slower_than_in_float32(device: str) -> None:
    profile = find_device(device).profile
    database = Database(Identity.of(profile), (SHIPPED_LOGS,), None)
    records = [record for task in database.tasks() for record in database.records(task)]
    assert slower([replace(record, task=replace(record.task, machine=profile.machine)) for record in records], profile.clock_hz) == []


def test_slower_kernels_are_found(tmp_path: Path) -> None:
    """Whatever the bounds and layouts of the float32 kernels are. The fastest kernel takes 1 us, and so does a
    conversion of the input; that of the output takes 0.36 at least, and images need none.
    """

    def record(layer: Layer, dtype: str, latency_us: float) -> Record:
        task = Task((layer,), dtype)
        return Record(task, schedules(task)[0], latency_us)

    plain, other = Conv2d(8, 8, 64, 64), Dense(64, 64)
    floats = [record(Conv2d(8, 8, 64, 64, clamp=(0.0, 6.0), in_layout="NCHW32c"), "float32", 10.0), record(plain, "float32", 30.0)]
    floats += [record(Conv2d(8, 8, 64, 64, residual=True), "float32", 1.0)]
    assert slower([*floats, record(plain, "int8", 10.9), record(other, "int8", 99.0)], 1.8e9) == []
    assert slower([*floats, record(plain, "int8", 11.5)], 1.8e9) == ["pw_8x8_64x64_linear_int8_t1: 11.5 us, and 10.0 in float32"]
    image = Conv2d(16, 16, 3, 8, (3, 3), (2, 2), (1, 1, 1, 1), in_layout="NCHW")
    pair = record(image, "float32", 5.0), record(replace(image, reads="float32"), "int8", 5.1)
    assert len(slower([*floats, *pair], 1.8e9)) == 1


def modelled_us(agents: Agents, layer: Layer, dtype: str, folder: Path) -> float:
    """Return the fastest of the templates' first schedules, as a trial times it."""
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
        ("pi4-virtual", Conv2d(32, 32, 3, 32, (7, 7), (2, 2), (3, 3, 3, 3), in_layout="NCHW")),
        ("pi3bplus-virtual", Conv2d(32, 32, 3, 32, (7, 7), (2, 2), (3, 3, 3, 3), in_layout="NCHW")),
        ("pi5-virtual", Conv2d(14, 14, 48, 48, (5, 5), (1, 1), (2, 2, 2, 2), 48)),
        pytest.param("pi5-virtual", Conv2d(56, 56, 64, 64, (3, 3), (1, 1), (1, 1, 1, 1)), marks=pytest.mark.long),
        pytest.param("pi5-virtual", Conv2d(28, 28, 128, 128, (3, 3), (1, 1), (1, 1, 1, 1)), marks=pytest.mark.long),
        ("pi4-virtual", Conv2d(56, 56, 64, 128, (3, 3), (2, 2), (1, 1, 1, 1))),
    ],
    ids=["first convolution", "first of 7x7", "first of 7x7, in order", "depthwise", "3x3 of 64", "3x3 of 128", "3x3 with a stride"],
)
def test_what_gains_least_is_no_slower_than_in_float32(board: str, layer: Conv2d, tmp_path: Path) -> None:
    """Layers of every kind on the Pi 4, 5 and 3B+: these gained least, a twentieth. The first convolution converts the image itself."""
    integer = replace(layer, reads="float32") if layer.in_layout == "NCHW" else layer
    with started_agents(find_device(board)) as agents:
        assert modelled_us(agents, integer, "int8", tmp_path) < modelled_us(agents, layer, "float32", tmp_path)


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("board", "side", "channels"),
    [("pi4-virtual", 28, 64), pytest.param("pi4-virtual", 28, 128, marks=pytest.mark.long), ("pi3bplus-virtual", 28, 64)],
)
def test_what_stays_in_float32_is_faster_there(board: str, side: int, channels: int, tmp_path: Path) -> None:
    """By Winograd's algorithm, on cores without dot products."""
    layer = Conv2d(side, side, channels, channels, (3, 3), (1, 1), (1, 1, 1, 1))
    with started_agents(find_device(board)) as agents:
        assert is_faster_in_floats(Task((layer,), "int8", machine=agents.profile.machine))
        assert modelled_us(agents, layer, "float32", tmp_path) < modelled_us(agents, layer, "int8", tmp_path)


@pytest.mark.virtual
@pytest.mark.parametrize("channels", [8, 32])
def test_an_image_stays_in_float32_on_cores_in_order(channels: int, tmp_path: Path) -> None:
    """Its kernel stores integers."""
    layer = Conv2d(64, 64, 3, channels, (3, 3), (2, 2), (1, 1, 1, 1), in_layout="NCHW")
    integer, rounding = replace(layer, reads="float32"), replace(layer, writes="int8")
    with started_agents(find_device("pi3bplus-virtual")) as agents:
        assert is_faster_in_floats(Task((integer,), "int8", machine=agents.profile.machine))
        assert modelled_us(agents, rounding, "float32", tmp_path) < 0.95 * modelled_us(agents, integer, "int8", tmp_path)


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
