"""The study ablation: each row's plan lacks its step, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from host_kernels import run_on_host

from studies.kernels import ablation
from tvmmobile import schedules as schedules_of_tvmmobile
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.planning import PlannedVariant
from tvmmobile.running.formats import VM
from tvmmobile.schedules import KnobSchedule
from tvmmobile.system.environment import SHIPPED_LOGS


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, PlannedVariant]:
    folder = tmp_path_factory.mktemp("ablation")
    profile = find_device(ablation.DEVICE).profile
    job = variant_job(Model(ModelSpec("mobilenet_v1", 1.0, 224)), profile, (SHIPPED_LOGS,), folder, LibraryOptions(format=VM))
    job = replace(job, prepared=folder / "prepared")
    return {row.left_out: row.plan(job) for row in ablation.ROWS}


def schedules(planned: PlannedVariant) -> list[KnobSchedule]:
    found = [planned.choices[step.task].schedule for step in planned.steps]
    return [schedule for schedule in found if isinstance(schedule, KnobSchedule)]


def templates(planned: PlannedVariant) -> set[str]:
    return {schedule.template for schedule in schedules(planned)}


def in_blocks(planned: PlannedVariant) -> bool:
    convolutions = [layer for step in planned.steps for layer in step.task.region if isinstance(layer, Conv2d)]
    return any(layout.endswith("c") for layer in convolutions for layout in (layer.in_layout, layer.out_layout))


def test_every_row_leaves_its_step_out(plans: Mapping[str, PlannedVariant]) -> None:
    whole = plans["nothing"]
    assert "strassen" in templates(whole) and "strassen" not in templates(plans["Strassen"]) | templates(plans["both"])
    assert any(step.last > step.first for step in whole.steps)
    assert all(step.last == step.first for row in ("fusion", "both") for step in plans[row].steps)
    assert in_blocks(whole) and not in_blocks(plans["channel blocks"])
    assert plans["memory plan"].left_out and not whole.left_out


def test_rows_within_the_product_change_knobs_alone(plans: Mapping[str, PlannedVariant]) -> None:
    for row in ("cache blocks", "packed weights", "register tile"):
        assert plans[row].steps == plans["both"].steps
    assert {schedule.values["k_block"] for schedule in schedules(plans["cache blocks"]) if schedule.template == "pointwise"} == {0}
    assert "pointwise" in templates(plans["both"]) and "pointwise" not in templates(plans["packed weights"])
    assert {schedule.values["columns"] for schedule in schedules(plans["register tile"]) if schedule.template == "pointwise"} == {8}
    windows = [schedule.values for schedule in schedules(plans["depthwise window"]) if schedule.template == "depthwise"]
    assert windows and all(values["rows"] == values["columns"] == 1 for values in windows)


def test_weights_that_are_not_packed_are_read_as_the_model_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study's own template computes what PyTorch computes."""
    monkeypatch.setattr(schedules_of_tvmmobile, "_registered", [ablation.UnpackedPointwise()])
    task = Task((Conv2d(6, 5, 40, 22, clamp=(0.0, 6.0)),))
    (template,) = schedules_of_tvmmobile._registered
    space = template.space(task)
    assert space is not None
    for number, knobs in enumerate(({}, {"k_block": 32, "n_block": 2, "m_block": 2}, {"rows": 2, "columns": 8})):
        schedule = KnobSchedule(
            template.name, template.version, tuple(({name: space.usual[name] for name in space.options} | knobs).items())
        )
        assert run_on_host(task, schedule, tmp_path / f"kernel{number}.so") < 1e-5, knobs
