"""docs/compatibility.md names the versions that the code has, and says truly which others are read."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tvmmobile.accuracy import evaluation_file
from tvmmobile.devices.agent import build
from tvmmobile.devices.board.registered import DeviceFile
from tvmmobile.gate import comparison
from tvmmobile.history import file as history_file
from tvmmobile.history import tables
from tvmmobile.native.source import interface_version
from tvmmobile.results import file, validation
from tvmmobile.running.manifest import MANIFEST_VERSION
from tvmmobile.system.environment import TVM_FFI_VERSION, TVM_VERSION
from tvmmobile.tuning import records

GUIDE = Path(__file__).resolve().parents[2] / "docs/compatibility.md"
ROWS = {cells[0]: cells for line in GUIDE.read_text(encoding="utf-8").splitlines() if len(cells := line.strip("| ").split(" | ")) == 5}


@pytest.mark.parametrize(
    ("what", "version"),
    [
        ("interface of C libraries", interface_version()),
        ("manifest of a library", MANIFEST_VERSION),
        ("line of a tuning log", f"{records.FORMAT}, compacted {records.COMPACTED}"),
        ("results and baselines (`report.json`)", file.FORMAT),
        ("comparison (`compare --json`)", comparison.FORMAT),
        ("history of results (`history.sqlite`)", history_file.FORMAT),
        ("history as JSON (`history.json`)", tables.FORMAT),
        ("evaluation (`evaluation.json`)", evaluation_file.FORMAT),
        ("validation of a board", validation.FORMAT),
        ("registered device", DeviceFile.model_fields["version"].default),
    ],
)
def test_versions_are_those_of_the_code(what: str, version: object) -> None:
    assert ROWS[what][1] == str(version)


def test_older_results_that_are_read() -> None:
    """tests/results/test_file.py reads one."""
    older = " and ".join(str(version) for version in file.READABLE if version != file.FORMAT)
    assert ROWS["results and baselines (`report.json`)"][3] == f"{older} are read"


def test_timing_models_know_nothing_of_tvm() -> None:
    """Their hashes and the modelled latency of a library therefore survive an upgrade of TVM."""
    for path in (GUIDE.parents[1] / "tvmmobile/virtual").rglob("*.py"):
        assert not re.search(r"TVM_VERSION|TVM_FFI_VERSION|^ *(import|from) tvm\b", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_another_tvm_is_another_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is built, and replaces the old one on boards."""
    before = build.bundle_path()
    assert [wheel.requirement for wheel in build.WHEELS] == [f"apache-tvm=={TVM_VERSION}", f"apache-tvm-ffi=={TVM_FFI_VERSION}"]
    monkeypatch.setattr(build, "WHEELS", tuple(replace(wheel, requirement=f"{wheel.requirement}.post9") for wheel in build.WHEELS))
    assert build.bundle_path() != before


def test_every_version_has_a_row() -> None:
    """Every constant in the code that versions a file or an interface."""
    package = GUIDE.parents[1] / "tvmmobile"
    found = [
        path
        for path in package.rglob("*.py")
        if re.search(r"^(FORMAT|MANIFEST_VERSION)\b.* = ", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert {path.relative_to(package).as_posix() for path in found} == {
        "accuracy/evaluation_file.py",
        "gate/comparison.py",
        "history/file.py",
        "history/tables.py",
        "results/file.py",
        "results/validation.py",
        "running/manifest.py",
        "tuning/records.py",
    }
