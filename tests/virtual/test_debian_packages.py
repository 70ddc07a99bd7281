"""Packages for AArch64 come from where this system has them, and are unpacked as on installed systems."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tvmmobile.virtual import debian_packages
from tvmmobile.virtual.debian_packages import apt_words, unpack_archives

UBUNTU = {"ID": "ubuntu", "UBUNTU_CODENAME": "noble"}


@pytest.mark.parametrize(
    ("system", "machine", "architecture", "ports"),
    [
        (UBUNTU, "x86_64", "arm64", True),
        (UBUNTU, "x86_64", "amd64", False),
        (UBUNTU, "aarch64", "arm64", False),
        ({"ID": "debian"}, "x86_64", "arm64", False),
    ],
)
def test_ubuntu_has_aarch64_among_its_ports(
    system: dict[str, str], machine: str, architecture: str, ports: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its usual mirrors, which an x86 machine's sources name, lack the architecture: apt-get update fails there."""
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    commands: list[Sequence[str]] = []
    monkeypatch.setattr(debian_packages, "run_tool", lambda words, *_: commands.append(words))
    words = apt_words(tmp_path, "", architecture)
    assert commands == [[*words, "update"]]
    sources = tmp_path / "sources.list"
    assert sources.exists() == (f"Dir::Etc::SourceList={sources}" in words) == ports
    if ports:
        lines = sources.read_text().splitlines()
        assert [line.split()[3] for line in lines] == ["noble", "noble-updates", "noble-security"]
        assert all(line.split()[2] == "http://ports.ubuntu.com/ubuntu-ports" for line in lines)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
@pytest.mark.parametrize(("folder", "linked"), [("usr/lib", True), ("lib", False)])
def test_programs_find_their_loader(folder: str, linked: bool, tmp_path: Path) -> None:
    """It is `/lib/ld-linux-aarch64.so.1`, and lies in `/usr/lib` in the packages of Ubuntu 24.04 and Debian 13."""
    package, root = tmp_path / "libc6", tmp_path / "root"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN/control").write_text("Package: libc6\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: test\n")
    (package / folder).mkdir(parents=True)
    (package / folder / "ld-linux-aarch64.so.1").write_text("loader")
    (tmp_path / "archives").mkdir()
    root.mkdir()
    subprocess.run(["dpkg-deb", "--build", str(package), str(tmp_path / "archives/libc6.deb")], check=True, capture_output=True)
    unpack_archives(tmp_path / "archives", root)
    assert (root / "lib/ld-linux-aarch64.so.1").read_text() == "loader" and (root / "lib").is_symlink() == linked
