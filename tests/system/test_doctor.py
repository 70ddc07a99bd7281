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
    doctor.version_of.cache_clear()
    yield tmp_path
    doctor.version_of.cache_clear()


def _program(folder: Path, name: str, says: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)


def test_a_bare_machine_gets_one_command(cli: CommandLine, bare: Path) -> None:
    outcome = cli("doctor")
    assert outcome.code == 1 and outcome.err == ""
    assert "  apt-get install -y qemu-user g++-aarch64-linux-gnu llvm-16 gcc libc6-dev" in outcome.out
    assert [line.split()[:3] for line in outcome.out.splitlines() if "llvm-mca" in line] == [["llvm-mca", "NO", "missing"]]
    assert "Virtual boards alone" not in outcome.out  # nothing builds the agent either


def test_a_wheel_lacks_what_virtual_boards_need_and_no_more(
    cli: CommandLine, bare: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "PREBUILT", tmp_path)
    monkeypatch.setattr(doctor, "_requirements", lambda: ["rich"])
    outcome = cli("doctor")
    assert outcome.code == 1 and "Virtual boards alone need what is missing; compiling and real boards do not." in outcome.out
    assert "  apt-get install -y qemu-user llvm-16 gcc libc6-dev\n" in outcome.out
    rows = {" ".join(line.split()[:-1]) for line in outcome.out.splitlines()}
    assert {row for row in rows if row.startswith("ziglang")} and {row for row in rows if row.startswith("device agent yes ready built")}


@pytest.mark.parametrize("name", [tool.name for tool in doctor.TOOLS if tool.virtual])
def test_one_line_names_all_that_virtual_boards_need(bare: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} is missing; virtual boards need qemu-aarch64, llvm-mca, llvm-mc, cc.\n") as caught:
        doctor.require(name)
    assert caught.value.remedy == "Run: apt-get install -y qemu-user llvm-16 gcc libc6-dev"


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


@pytest.mark.parametrize(
    ("says", "fits"), [("version 7.2.22 (Debian 1:7.2)", True), ("version 8.2.2 (Debian 1:8.2.2)", True), ("version 10.0.13", False)]
)
def test_a_qemu_that_takes_no_plugin_of_ours(bare: Path, says: str, fits: bool) -> None:
    _program(bare, "qemu-aarch64", f"qemu-aarch64 {says}")
    assert doctor.require("qemu-aarch64") == bare / "qemu-aarch64", "without the plugin, any newer one runs programs"
    (row,) = (check for check in doctor.diagnose().checks if check.name == "qemu-aarch64")
    assert row.ok == fits and row.virtual
    if fits:
        assert doctor.qemu_with_plugins() == bare / "qemu-aarch64"
        return
    assert row.found == "version 10.0.13, but modelled boards need 7 or 8"
    assert "qemu-user" not in doctor.diagnose().remedy and doctor.diagnose().remedy.endswith("docker run -it debian:12")
    with pytest.raises(UserError, match=r"version 10\.0\.13, but modelled boards need 7 or 8") as caught:
        doctor.qemu_with_plugins()
    assert "Debian 12" in caught.value.remedy


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


def test_a_cache_far_from_the_root_leaves_the_table_its_columns(
    cli: CommandLine, bare: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TVMMOBILE_CACHE", str(tmp_path / ("x" * 60) / "cache"))
    lines = [line.split() for line in cli("doctor").out.splitlines()]
    assert ["llvm-mca", "NO", "missing"] in [line[:3] for line in lines]
    assert ["cache", "yes", "can", "be", "written"] in [line[:5] for line in lines]


@pytest.mark.parametrize("is_file", [False, True])
def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_file: bool) -> None:
    place = tmp_path / "cache" if is_file else Path("/proc")  # nobody can create anything there, root included
    if is_file:
        place.touch()
    monkeypatch.setenv("TVMMOBILE_CACHE", str(place / "helpers"))
    diagnosis = doctor.diagnose()
    problem = "is not a directory" if is_file else "cannot be written: No such file or directory"
    assert [(check.ok, check.found) for check in diagnosis.checks if check.name == "cache"] == [(False, f"{place} {problem}")]
    assert "export TVMMOBILE_CACHE=" in diagnosis.remedy
