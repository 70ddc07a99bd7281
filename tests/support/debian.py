"""What tests take from Debian's AArch64 packages, in as few downloads as possible."""

from __future__ import annotations

from pathlib import Path

from tvmmobile.virtual.sysroot import debian_folder


def musl_and_jni() -> Path:
    """musl with its headers, and Android's jni.h."""
    return debian_folder(("android-libnativehelper-dev", "musl", "musl-dev"))


def java() -> Path:
    """OpenJDK 17 for AArch64, without a screen, and what it needs to start."""
    return debian_folder(("libc6", "libgcc-s1", "libstdc++6", "openjdk-17-jre-headless", "zlib1g"))
