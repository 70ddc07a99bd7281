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

C = {"prefix": "mobilenet", "workspace_bytes": 640}


def test_a_c_librarys_manifest_says_how_it_is_called(tmp_path: Path) -> None:
    program = calling(make_library(tmp_path, format="c", c=C)).c
    assert program is not None and (program.prefix, program.workspace_bytes, program.output_shapes) == ("mobilenet", 640, ((1, 10),))
    assert program.adapter.is_file()


def test_other_libraries_are_none(tmp_path: Path) -> None:
    library = make_library(tmp_path)
    assert calling(library).c is None
    library.with_suffix(".json").unlink()
    assert calling(library).c is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"c": C | {"prefix": "x; rm"}}, "the prefix of its functions is 'x; rm'"),
        ({"c": C | {"workspace_bytes": "640"}}, "its workspace has '640' bytes"),
        ({"c": {"prefix": "mobilenet"}}, "'workspace_bytes' is missing"),
        ({"c": C | {"interface": 2}}, "its C interface has version 2, and this tvmmobile calls version 1"),
        ({"c": C | {"image": {"mean": [0.5] * 3}}}, "what it does to images is {'mean'"),
        ({"c": C | {"image": {"mean": [0.5] * 3, "std": [1, 0, 1]}}}, "what it does to images is {'mean'"),
        ({"c": C | {"image": {"mean": [0.5] * 2, "std": [1, 1, 1]}}}, "what it does to images is {'mean'"),
        ({"c": C, "version": 2}, "its version is 2, and this tvmmobile reads 1"),
        ({"c": C, "format": "rust"}, "its format is 'rust', which this tvmmobile does not know"),
        ({"c": C, "output": {"shape": [1, 11]}}, r"the shape of its output is \[1, 11\]"),
        ({"c": C, "sha256": None}, "sha256 is not text"),
    ],
)
def test_a_bad_manifest_is_named(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    library = make_library(tmp_path, **{"format": "c", **changes})
    with pytest.raises(UserError, match=rf"\.json is not a manifest of tvmmobile: {complaint}") as refused:
        calling(library)
    assert refused.value.remedy == "Compile the library again."


def test_nothing_is_started_for_a_bad_manifest(tmp_path: Path) -> None:
    """And what is said is not taken for the library's crash."""
    library = make_library(tmp_path, format="c")
    profile: DeviceProfile = find_device("pi4-virtual").profile
    with pytest.raises(UserError, match="is not a manifest of tvmmobile: 'c' is missing"):
        Agents(profile, None).outputs(library, [], 1, 1)  # type: ignore[arg-type]
