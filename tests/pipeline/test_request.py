"""A run's request is checked before any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from deployed import make_library

from tvmmobile.devices.registry import find_device
from tvmmobile.graph.precision import INT8
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec, OwnSpec
from tvmmobile.networks.signature import Port
from tvmmobile.pipeline.deploy import deploy
from tvmmobile.pipeline.job import VariantJob, variant_job
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.request import devices_of, jobs_of
from tvmmobile.pipeline.rescore import rescore_logs
from tvmmobile.pipeline.stages.preparing import collect_variants
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.logs.directories import log_dirs
from tvmmobile.tuning.regions import VariantTasks
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.program import run_program


def test_devices_are_named_once() -> None:
    assert [device.profile.name for device in devices_of(["pi4", "pi5"])] == ["pi4-virtual", "pi5-virtual"]
    with pytest.raises(UserError, match="no device was given") as caught:
        devices_of([])
    assert caught.value.remedy.startswith("Name one of: ") and "pi4" in caught.value.remedy
    with pytest.raises(UserError, match="names pi5-virtual twice") as caught:
        devices_of(["pi4", "pi5", "pi5-virtual"])
    assert caught.value.remedy == "Name each board once."


@pytest.mark.parametrize(("given", "said"), [({"keep": 0}, "0 records cannot be kept"), ({"jobs": 0}, "`jobs=0` cannot score")])
def test_counts_of_a_rescoring_begin_at_one(given: dict[str, int], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{said}") as caught:
        rescore_logs("pi4-virtual", tmp_path, **given)
    assert f"Give `{next(iter(given))}=1` or more" in caught.value.remedy


def test_networks_have_names_of_their_own(tmp_path: Path) -> None:
    """Two modules of one class would be written to one file."""
    first, second = (Model(OwnSpec.of("ResNet", contents * 64, (Port("x", (1, 3, 32, 32)),), (Port("y", (1, 10)),))) for contents in "ab")
    profile, logs = find_device("pi4-virtual").profile, log_dirs(tmp_path)
    other = replace(first, spec=replace(first.spec, name="Other"))
    assert len(jobs_of([first, other], profile, LibraryOptions(), tmp_path, logs, None)) == 2
    for same in ([first, second], [first, other, first]):
        with pytest.raises(UserError, match=r"^two networks are called ResNet") as caught:
            jobs_of(same, profile, LibraryOptions(), tmp_path, logs, None)
        assert "name=" in caught.value.remedy


@pytest.mark.parametrize("limit", [None, "30dB"])
def test_layers_that_are_chosen_by_their_latency_need_the_logs(tmp_path: Path, limit: str | None) -> None:
    """All stages of `tune` keep the choice of the first one."""
    options = LibraryOptions(precision=INT8, calibrate=tmp_path, max_drop=limit)
    job = variant_job(Model(ModelSpec()), find_device("pi4-virtual").profile, (tmp_path,), tmp_path, options)
    sent: list[VariantJob] = []

    class Workers:
        def run(self, _: object, jobs: list[VariantJob], __: float) -> list[tuple[VariantJob, VariantTasks]]:
            sent.extend(jobs)
            return [(job, VariantTasks(0, (), {})) for job in jobs]

    collect_variants(Workers(), [job], lambda _: None)  # type: ignore[arg-type]
    assert [each.logs for each in sent] == [() if limit is None else (tmp_path,)] and sent[0].returns_prepared


def test_a_virtual_board_to_deploy_to_may_be_a_name_or_a_device(tmp_path: Path) -> None:
    for device in ("pi4-virtual", find_device("pi4-virtual")):
        with pytest.raises(UserError, match=r"^pi4-virtual is a virtual board: there is nothing to deploy to") as caught:
            deploy(make_library(tmp_path), device)
        assert caught.value.remedy.endswith("tvmmobile device add pi4 --ssh USER@HOST")


def test_programs_take_a_boards_name(tmp_path: Path) -> None:
    for board in ("pi4", "pi4-virtual", load_board("pi4")):
        with pytest.raises(UserError, match="has 4 cores, not 5"):
            run_program(board, ["program"], threads=5)
