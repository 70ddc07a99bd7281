"""How a C library is called is read from its manifest, with the checks that every other reader of manifests makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from deployed import make_library

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.devices.registry import find_device
from tvmmobile.running.measure import Agents
from tvmmobile.running.networks import calling
from tvmmobile.system.errors import UserError

BOARD = find_device("pi4").profile
C = {"prefix": "mobilenet", "workspace_bytes": 640}


def test_a_c_librarys_manifest_says_how_it_is_called(tmp_path: Path) -> None:
    program = calling(make_library(tmp_path, format="c", c=C), BOARD).c
    assert program is not None and (program.prefix, program.workspace_bytes, program.output_shapes) == ("mobilenet", 640, ((1, 10),))
    assert program.adapter.is_file()


def test_other_libraries_are_none(tmp_path: Path) -> None:
    library = make_library(tmp_path)
    assert calling(library, BOARD).c is None
    library.with_suffix(".json").unlink()
    assert calling(library, BOARD).c is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"c": C | {"prefix": "x; rm"}}, r"c\.prefix: string should match pattern"),
        ({"c": C | {"workspace_bytes": "640"}}, r"c\.workspace_bytes: input should be a valid integer \(it is '640'\)"),
        ({"c": {"prefix": "mobilenet"}}, r"c\.workspace_bytes is missing"),
        ({"c": C | {"interface": 2}}, r"c\.interface: this tvmmobile calls version 1, not 2"),
        ({"c": C | {"image": {"mean": [0.5] * 3}}}, r"c\.image\.std is missing"),
        ({"c": C | {"image": {"mean": [0.5] * 3, "std": [1, 0, 1]}}}, r"c\.image: "),
        ({"c": C | {"image": {"mean": [0.5] * 2, "std": [1, 1, 1]}}}, r"c\.image\.mean\[2\] is missing"),
        ({"c": C, "version": 2}, "version: this tvmmobile reads 1, not 2"),
        ({"c": C, "format": "rust"}, r"format: input should be 'vm' or 'c' \(it is 'rust'\)"),
        ({"c": C, "output": {"shape": [1, 11]}}, r"the shape of its output is \[1, 11\]"),
        ({"c": C, "sha256": None}, "sha256: input should be a valid string"),
    ],
)
def test_a_bad_manifest_is_named(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    library = make_library(tmp_path, **{"format": "c", **changes})
    with pytest.raises(UserError, match=rf"\.json is not a manifest of tvmmobile: {complaint}") as refused:
        calling(library, BOARD)
    assert refused.value.remedy == "Compile the library again."


def test_nothing_is_started_for_a_bad_manifest(tmp_path: Path) -> None:
    """The message is not mistaken for a crash of the library."""
    library = make_library(tmp_path, format="c")
    profile: DeviceProfile = find_device("pi4-virtual").profile
    with pytest.raises(UserError, match="is not a manifest of tvmmobile: c is missing"):
        Agents(profile, None).outputs(library, [], 1, 1)  # type: ignore[arg-type]
