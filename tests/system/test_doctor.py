"""`tvmmobile doctor` and `require`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CommandLine

from tvmmobile.system import doctor
from tvmmobile.system.errors import UserError


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine with no programs at all but those put into the folder."""
    monkeypatch.setenv("PATH", str(tmp_path))
    doctor._version_of.cache_clear()
    yield tmp_path
    doctor._version_of.cache_clear()


def _program(folder: Path, name: str, says: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)


def test_a_bare_machine_gets_one_command(cli: CommandLine, bare: Path) -> None:
    outcome = cli("doctor")
    assert outcome.code == 1 and outcome.err == ""
    assert "  apt-get install -y qemu-user g++-aarch64-linux-gnu llvm-16 gcc libc6-dev" in outcome.out
    assert [line.split()[:3] for line in outcome.out.splitlines() if "llvm-mca" in line] == [["llvm-mca", "NO", "missing"]]


def test_require_names_the_remedy(bare: Path) -> None:
    with pytest.raises(UserError, match="llvm-mca is missing") as caught:
        doctor.require("llvm-mca")
    assert caught.value.remedy == "Run: apt-get install -y llvm-16"


@pytest.mark.parametrize(
    ("says", "fits"),
    [
        ("Debian LLVM version 14.0.6", False),
        ("Debian LLVM version 16.0.6", True),
        ("Ubuntu LLVM version 18.1.3", True),
        ("no number", False),
    ],
)
def test_llvm_is_16_or_newer(bare: Path, says: str, fits: bool) -> None:
    _program(bare, "llvm-mca", says)
    if fits:
        assert doctor.require("llvm-mca") == bare / "llvm-mca"
    else:
        with pytest.raises(UserError, match="16 or newer is needed"):
            doctor.require("llvm-mca")


def test_a_versioned_name_wins_over_an_old_plain_one(bare: Path) -> None:
    _program(bare, "llvm-mca", "LLVM version 14.0.6")
    _program(bare, "llvm-mca-17", "LLVM version 17.0.1")
    assert doctor.require("llvm-mca").name == "llvm-mca-17"


def test_a_wrong_python_package_is_in_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_requirements", lambda: ["rich>=1000", "typer", "no-such-package==1.0"])
    diagnosis = doctor.diagnose()
    assert not diagnosis.ok
    assert diagnosis.remedy.endswith("pip install 'rich>=1000' no-such-package==1.0")


def test_little_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_FREE_DISK_GB", 1e9)
    diagnosis = doctor.diagnose()
    assert [check.found[:4] for check in diagnosis.checks if check.name == "disk"] == ["only"]
    assert "df -h" in diagnosis.remedy
