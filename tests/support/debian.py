"""The files that tests take from Debian's AArch64 packages, in as few downloads as possible."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tvmmobile.system.environment import cache_dir
from tvmmobile.system.files import filling_cache, made_once
from tvmmobile.system.programs import run_tool
from tvmmobile.virtual.debian_packages import DOWNLOAD_TIMEOUT_S, NO_MIRROR, apt_words, recipe_digest, unpack_archives


def debian_folder(packages: Sequence[str], architecture: str = "arm64", release: str = "") -> Path:
    """Unpack Debian's packages of these names, by default for AArch64, without their dependencies, once, into a folder in the cache.

    Args:
        release: Debian's name of the one to take them from; by default what apt's own sources say.

    Raises:
        UserError: apt-get or dpkg-deb is missing or fails.
    """
    folder = cache_dir() / f"debian-{recipe_digest([sorted(packages), *([architecture] if architecture != 'arm64' else [])])}"
    with filling_cache(), made_once(folder) as made:
        if made is not None:
            apt, archives = apt_words(made.parent, release, architecture), made.parent / "archives"
            archives.mkdir()
            run_tool(
                [*apt, "download", *packages],
                f"Downloading {', '.join(packages)} for {architecture}",
                NO_MIRROR,
                DOWNLOAD_TIMEOUT_S,
                archives,
            )
            unpack_archives(archives, made)
    return folder


def musl_and_jni() -> Path:
    """musl with its headers, and Android's jni.h."""
    return debian_folder(("android-libnativehelper-dev", "musl", "musl-dev"))


def java() -> Path:
    """OpenJDK 17 for AArch64, without a screen, and what it needs to start."""
    return debian_folder(("libc6", "libgcc-s1", "libstdc++6", "openjdk-17-jre-headless", "zlib1g"))
