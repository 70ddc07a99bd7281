"""A disk with the Python packages that tvmmobile needs, for AArch64, made once in the cache; and its own wheel."""

from __future__ import annotations

import compileall
import sys
from pathlib import Path

from conftest import REPOSITORY

from tvmmobile.system.environment import cache_dir
from tvmmobile.system.files import filling_cache, made_once, sha256_of
from tvmmobile.system.programs import run_tool
from tvmmobile.virtual.sysroot import DOWNLOAD_TIMEOUT_S, PLATFORMS, _digest

LOCK = REPOSITORY / "scripts/requirements.lock"
#: PyPI's newest build for AArch64 that needs no CUDA; the lock's is on PyTorch's own index.
TORCH = "torch==2.10.0"
#: Of the Python in Debian's release.
PYTHON = "3.11"
_INDEX = "Check that pip reaches a package index that has wheels for AArch64."


def packages_disk() -> Path:
    """The disk's file: what the lock files name is in its root, as for `PYTHONPATH`.

    Raises:
        UserError: pip or mke2fs fails.
    """
    folder = cache_dir() / f"booted-packages-{_digest([sha256_of(LOCK), TORCH, PLATFORMS])}"
    with filling_cache(), made_once(folder) as made:
        if made is not None:
            site = made.parent / "site"
            _install(site, "-r", str(LOCK))
            _install(site, TORCH)
            if sys.version_info[:2] == tuple(map(int, PYTHON.split("."))):  # its byte code is the same on all machines
                compileall.compile_dir(site, quiet=2, workers=1)
            words = ["/sbin/mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(site), str(made / "disk")]
            run_tool([*words, f"{_size_kib(site) * 5 // 4}k"], "Making the disk", "Free some gigabytes of disk.")
    return folder / "disk"


def own_wheel(folder: Path) -> Path:
    """tvmmobile's wheel, built in that folder; raises `UserError`."""
    run_tool([sys.executable, str(REPOSITORY / "scripts/build_wheel.py"), "--out", str(folder)], "Building the wheel", "Run it again.")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _install(folder: Path, *what: str) -> None:
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps"]
    words += ["--only-binary=:all:", "--python-version", PYTHON, "--target", str(folder)]
    words += [word for platform in PLATFORMS for word in ("--platform", platform)]
    run_tool([*words, *what], "Installing Python packages for AArch64", _INDEX, DOWNLOAD_TIMEOUT_S)


def _size_kib(folder: Path) -> int:
    return sum(-(-path.lstat().st_size // 4096) * 4 + 1 for path in folder.rglob("*"))
