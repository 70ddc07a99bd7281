"""Templates for two layers at once, from planning to a library: one made here for two pointwise layers, and the built-in `separable`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import Lambda, prepared, run_lowered, seeded, unit
from torch import nn

from tvmmobile import schedules
from tvmmobile.devices.protocol import MEASURED
from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.lowering import Lowered, lower
from tvmmobile.graph.network import Network
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.function import kernel_function
from tvmmobile.kernels.reference import expected_output, make_inputs, make_parameters, relative_error
from tvmmobile.schedules import KnobSchedule, Space, Template, template_for, template_named
from tvmmobile.schedules.emit.epilogue import Epilogue, spot_at
from tvmmobile.schedules.emit.kernel import Kernel
from tvmmobile.schedules.space import Knobs
from tvmmobile.schedules.template import EPILOGUE, LAYERS
from tvmmobile.tuning.choice import choose
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.plan import Plan, make_plan
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.regions import candidate_regions

IMAGE = (1, 3, 9, 9)
TARGET = {"kind": "llvm"}


class Pair(Template):
    """Takes two pointwise layers in a row; a pixel's hidden channels never leave its loop."""

    name, version = "pair", 1
    handles = EPILOGUE | LAYERS

    def _space(self, task: Task) -> Space | None:
        """Return one schedule."""
        pointwise = [layer for layer in task.region if isinstance(layer, Conv2d) and layer.is_pointwise and layer.in_layout == "NHWC"]
        if len(pointwise) != 2 or len(task.region) != 2:
            return None
        return Space(self.name, self.version, {"only": (1,)}, lambda knobs: True, {"only": 1})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Nothing."""
        return [0.0]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        """Loops over pixels, channels unrolled."""
        first, second = task.region
        assert isinstance(first, Conv2d) and isinstance(second, Conv2d)
        kernel = Kernel(task)
        hidden, outputs = first.out_channels, second.out_channels
        shapes = {
            "data": first.input_shape,
            "w1": (first.in_channels * hidden,),
            "b1": (hidden,),
            "w2": (hidden * outputs,),
            "b2": (outputs,),
            "output": second.output_shape,
        }
        with kernel.body(**shapes) as (data, w1, b1, w2, b2, output), kernel.T.serial(0, first.height * first.width) as pixel:
            middle = kernel.accumulators(hidden)
            for channel in range(hidden):
                total = b1[channel]
                for k in range(first.in_channels):
                    total = total + data[pixel * first.in_channels + k] * w1[k * hidden + channel]
                kernel.store(middle, Epilogue(kernel, first, {}).finish(total, spot_at(0, 0, channel, 1, 1)), channel, 1)
            for channel in range(outputs):
                total = b2[channel]
                for k in range(hidden):
                    total = total + middle[k] * w2[k * outputs + channel]
                kernel.store(output, Epilogue(kernel, second, {}).finish(total, spot_at(0, 0, channel, 1, 1)), pixel * outputs + channel, 1)
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return them as they are, flat."""
        return [array for layer in parameters for array in (np.ascontiguousarray(layer.weight).ravel(), layer.bias)]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Database:
    """With `Pair` known, and no records yet."""
    monkeypatch.setattr(schedules, "_registered", [Pair()])
    return Database(Identity("nowhere", MEASURED), (), tmp_path / "logs")


def network_of_three() -> nn.Module:
    """Return an image layer, pointwise layers at nodes 1, 2 and 3, and what no template takes."""
    return seeded(*unit(3, 8, 3), *unit(8, 12), *unit(12, 6), *unit(6, 10), Lambda(torch.sin))


def plan_of(network: Network, database: Database) -> tuple[Plan, dict[Task, KnobSchedule]]:
    regions = candidate_regions(network, lambda task: template_for(task) is not None, Task)
    regions = [region for region in regions if region.first == region.last or database.best(region.task) is not None]
    choices = {region.task: choose(region.task, network.nodes[region.first].function, database, TARGET) for region in regions}
    chosen = {task: choice.schedule for task, choice in choices.items()}
    return make_plan(len(network.nodes), regions, lambda task: choices[task].price), chosen  # type: ignore[return-value]


def record_all(network: Network, database: Database, singles_us: float, pairs_us: dict[int, float]) -> None:
    """Prices: one for every layer with a template, and of the pairs by their first node."""
    for index, node in enumerate(network.nodes):
        template = template_for(Task((node.layer,)))
        space = template.space(Task((node.layer,))) if template else None
        if space is not None:
            database.append([Record(Task((node.layer,)), space.default, singles_us)])
        if index in pairs_us:
            task = Task((node.layer, network.nodes[index + 1].layer))
            fused = template_for(task)
            space = fused.space(task) if fused else None
            assert space is not None
            database.append([Record(task, space.default, pairs_us[index])])


def test_candidates_hold_the_chains_a_template_takes(database: Database) -> None:
    network = prepared(network_of_three(), IMAGE)
    regions = candidate_regions(network, lambda task: template_for(task) is not None, Task)
    assert [(region.first, region.last) for region in regions if region.first != region.last] == [(1, 2), (2, 3)]


@pytest.mark.parametrize(
    ("pairs_us", "expected"),
    [
        ({}, [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ({1: 30.0, 2: 21.0}, [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ({1: 15.0, 2: 14.0}, [(0, 0), (1, 1), (2, 3)]),
        ({1: 13.0, 2: 14.0}, [(0, 0), (1, 2), (3, 3)]),
    ],
)
def test_from_plan_to_library(database: Database, tmp_path: Path, pairs_us: dict[int, float], expected: list[tuple[int, int]]) -> None:
    check_plan_and_library(network_of_three(), database, tmp_path, pairs_us, expected)


@pytest.mark.parametrize(
    ("pairs_us", "expected"),
    [
        ({}, [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]),
        ({1: 20.1, 3: 25.0}, [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]),
        ({1: 19.9, 3: 25.0}, [(0, 0), (1, 2), (3, 3), (4, 4)]),
        ({1: 19.9, 3: 12.0}, [(0, 0), (1, 2), (3, 4)]),
    ],
)
def test_separable_blocks_where_they_are_measured_to_pay(
    tmp_path: Path, pairs_us: dict[int, float], expected: list[tuple[int, int]]
) -> None:
    blocks = seeded(*unit(3, 8, 3), *unit(8, 8, 3, groups=8), *unit(8, 12), *unit(12, 12, 3, 2, groups=12), *unit(12, 6), Lambda(torch.sin))
    check_plan_and_library(blocks, Database(Identity("nowhere", MEASURED), (), tmp_path / "logs"), tmp_path, pairs_us, expected)


def check_plan_and_library(
    module: nn.Module, database: Database, folder: Path, pairs_us: dict[int, float], expected: list[tuple[int, int]]
) -> None:
    """With 10 us for every layer alone and `pairs_us` for pairs, the plan is as expected and its library agrees with PyTorch."""
    network = prepared(module, IMAGE)
    record_all(network, database, 10.0, pairs_us)
    plan, chosen = plan_of(network, database)
    # The last node is the one that no template takes.
    assert [(step.first, step.last) for step in plan.steps[:-1]] == expected
    kernels = []
    for step in plan.steps:
        schedule = chosen[step.task]
        constants: list[Array] = []
        if isinstance(schedule, KnobSchedule):
            template = template_named(schedule.template, schedule.version)
            parameters = [node.parameters for node in network.nodes[step.first : step.last + 1]]
            assert template is not None
            constants = template.pack(step.task, schedule.values, tuple(found for found in parameters if found is not None))
        function = kernel_function(step.task, schedule, network.nodes[step.first].function)
        kernels.append(Lowered(step.first, step.last, step.task, function, tuple(constants)))
    image = np.random.default_rng(0).normal(0.0, 1.0, IMAGE).astype(np.float32)
    actual = run_lowered(lower(network, tuple(kernels)), image, folder / "net.so")
    with torch.no_grad():
        assert relative_error(actual, module(torch.from_numpy(image)).numpy()) <= 1e-5


def test_the_reference_of_a_region_is_its_layers_in_a_row() -> None:
    first, second = Conv2d(3, 3, 4, 5, clamp=(0.0, 6.0)), Conv2d(3, 3, 5, 2)
    pair = Task((first, second))
    data, parameters = make_inputs(pair), make_parameters(pair)
    halfway = expected_output(Task((first,)), data, parameters[:1])
    np.testing.assert_array_equal(expected_output(pair, data, parameters), expected_output(Task((second,)), [halfway], parameters[1:]))
    assert pair.macs == first.macs + second.macs and pair.name == f"{first.name}+{second.name}_float32_t1"
