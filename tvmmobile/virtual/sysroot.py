"""An AArch64 Python with other people's wheels, put together without root rights, that runs under QEMU as it would on the board."""

from __future__ import annotations

import compileall
import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tvmmobile.system.environment import cache_dir
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import filling_cache, made_once
from tvmmobile.system.programs import run_tool
from tvmmobile.virtual.board import Board

#: Debian's packages: Python, and the libraries that wheels take for granted.
PACKAGES = ("python3", "libstdc++6", "libgomp1")
#: pip takes these literally: it does not know that 2_28 includes the older ones.
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64", "any")
#: Where the wheels go; Debian's Python looks there by itself.
SITE = "usr/local/lib/python{version}/dist-packages"
DOWNLOAD_TIMEOUT_S = 1200


def python_sysroot(board: Board, requirements: Sequence[str] = (), say: Callable[[str], None] | None = None) -> Path:
    """A folder with an AArch64 Python and the wheels of `requirements`, built in the cache if it is not there yet.

    It has its own `proc/cpuinfo` and `sys/devices/system/cpu`, those of the board: libraries choose kernels and thread counts by them.
    QEMU runs `usr/bin/python3` in it with `-L` and this folder.

    Args:
        board: whose core the program shall find.
        requirements: as pip takes them, such as `ncnn==1.0.20261020`; dependencies are not followed. Pin versions: what is built for a
            requirement is kept.
        say: called with a sentence when there is something to wait for.

    Raises:
        UserError: apt-get, dpkg-deb or pip is missing or fails.
    """
    recipe = json.dumps([PACKAGES, PLATFORMS, sorted(requirements), cpuinfo(board), 1])
    folder = cache_dir() / f"sysroot-{board.name}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    with filling_cache(), made_once(folder) as made:
        if made is not None:
            (say or (lambda _sentence: None))("Building an AArch64 Python in the cache (once, about a minute) …")
            _unpack_debian(made.parent, made)
            _unpack_wheels(made.parent, made, requirements)
            _describe_cores(made, board)
    return folder


def cpuinfo(board: Board) -> str:
    """The board's /proc/cpuinfo as far as libraries read it.

    Raises:
        UserError: the core's ID register is not known.
    """
    if not board.midr:
        raise UserError(f"{board.name} has no midr, which tells programs their core.", "Set midr in its file (docs/virtual-boards.md).")
    fields = f"CPU variant\t: {board.midr >> 20 & 0xF:#x}\nCPU part\t: {board.midr >> 4 & 0xFFF:#x}\nCPU revision\t: {board.midr & 0xF}\n\n"
    core = f"BogoMIPS\t: 108.00\nFeatures\t: {board.features}\nCPU implementer\t: {board.midr >> 24:#x}\nCPU architecture: 8\n{fields}"
    return "".join(f"processor\t: {number}\n{core}" for number in range(board.cores))


def _unpack_debian(scratch: Path, root: Path) -> None:
    """Debian's Python with all it depends on, by an apt-get that knows of no installed package and keeps its state in `scratch`."""
    for name in ("apt-get", "dpkg-deb"):
        if shutil.which(name) is None:
            raise UserError(f"{name} is missing; it is needed to build an AArch64 Python.", "Run this on Debian or Ubuntu.")
    for name in ("state/lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    apt = ["apt-get", "-q", "-y", "-o", f"Dir::State={scratch}/state", "-o", f"Dir::State::status={scratch}/status"]
    apt += ["-o", f"Dir::Cache={scratch}/cache", "-o", "APT::Architecture=arm64", "-o", "APT::Architectures::=arm64"]
    apt += ["-o", "APT::Sandbox::User=root"]  # its own user may not look into this folder
    remedy = "Check that this machine's apt-get reaches a Debian mirror that has arm64."
    run_tool([*apt, "update"], "Reading Debian's list of packages", remedy, DOWNLOAD_TIMEOUT_S)
    packages = [*apt, "install", "--download-only", "--no-install-recommends", *PACKAGES]
    run_tool(packages, "Downloading Python for AArch64", remedy, DOWNLOAD_TIMEOUT_S)
    for package in sorted((scratch / "cache/archives").glob("*.deb")):
        run_tool(["dpkg-deb", "-x", str(package), str(root)], f"Unpacking {package.name}", "Run it again.")


def _unpack_wheels(scratch: Path, root: Path, requirements: Sequence[str]) -> None:
    version = _python_version(root)
    site = root / SITE.format(version=version)
    site.mkdir(parents=True, exist_ok=True)
    if requirements:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", version, "--dest", str(scratch / "wheels")]
        command += [word for platform in PLATFORMS for word in ("--platform", platform)]
        what = f"Downloading {', '.join(requirements)} for AArch64"
        run_tool([*command, *requirements], what, "Check that these packages have AArch64 wheels, and their versions.", DOWNLOAD_TIMEOUT_S)
        for wheel in sorted((scratch / "wheels").glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        # Byte code is the same on all machines of one Python version; under QEMU and a cache simulation, compiling takes long.
        compileall.compile_dir(site, quiet=2, workers=1)


def _python_version(root: Path) -> str:
    found = [path.name.removeprefix("python") for path in (root / "usr/bin").glob("python3.*")]
    versions = [version for version in found if version.replace(".", "").isdigit()]
    if len(versions) != 1:
        raise UserError(f"Debian's packages hold {len(versions)} Pythons; one was expected.", "Run it again.")
    return versions[0]


def _describe_cores(root: Path, board: Board) -> None:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(cpuinfo(board), encoding="ascii")
    cores = root / "sys/devices/system/cpu"
    cores.mkdir(parents=True, exist_ok=True)
    for name in ("possible", "present", "online"):
        (cores / name).write_text(f"0-{board.cores - 1}\n" if board.cores > 1 else "0\n", encoding="ascii")
