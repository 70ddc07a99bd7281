"""A run's request is checked before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from deployed import make_library

from tvmmobile.devices.registry import find_device
from tvmmobile.pipeline.deploy import deploy
from tvmmobile.pipeline.request import devices_of
from tvmmobile.pipeline.rescore import rescore_logs
from tvmmobile.system.errors import UserError
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


def test_a_virtual_board_to_deploy_to_may_be_a_name_or_a_device(tmp_path: Path) -> None:
    for device in ("pi4-virtual", find_device("pi4-virtual")):
        with pytest.raises(UserError, match=r"^pi4-virtual is a virtual board: there is nothing to deploy to") as caught:
            deploy(make_library(tmp_path), device)
        assert caught.value.remedy.endswith("tvmmobile device add pi4 --ssh USER@HOST")


def test_programs_take_a_boards_name(tmp_path: Path) -> None:
    for board in ("pi4", "pi4-virtual", load_board("pi4")):
        with pytest.raises(UserError, match="has 4 cores, not 5"):
            run_program(board, ["program"], threads=5)
