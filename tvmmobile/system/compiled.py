"""Compiled forms of our C files, built once for all processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from tvmmobile.system.doctor import require
from tvmmobile.system.environment import PREBUILT, cache_dir
from tvmmobile.system.files import filling_cache, replacing
from tvmmobile.system.programs import run_tool

_HOST_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-fvisibility=hidden")


def host_library(source: Path, title: str, headers: Sequence[Path] = ()) -> Path:
    """Return a C file as a shared library for this machine (`built_once`); raise `UserError`, with `title`, if it cannot be compiled."""

    def build(output: Path) -> None:
        run_tool([str(require("cc")), *_HOST_FLAGS, str(source), "-o", str(output)], title, "Run: apt-get install -y gcc libc6-dev")

    return built_once(source, ".so", _HOST_FLAGS, build, headers)


def built_once(
    source: Path, suffix: str, flags: Sequence[str], build: Callable[[Path], object], headers: Sequence[Path] = (), variant: str = ""
) -> Path:
    """Return the compiled form of one of our C files: prebuilt from a wheel, or from the cache, where it is built if needed.

    Args:
        flags: flags; the cached file is named after them and the files' contents.
        build: writes it.
        headers: header files that it includes.
        variant: is in the name of what is not ready built.
    """
    digest = hashlib.sha256(repr(tuple(flags)).encode() + b"".join(file.read_bytes() for file in (source, *headers))).hexdigest()
    ready = PREBUILT / f"{source.stem}-{digest[:16]}{suffix}"
    if ready.is_file():
        return ready
    path = cache_dir() / f"{source.stem}{variant}-{digest[:16]}{suffix}"
    if not path.exists():
        with filling_cache(), replacing(path) as temporary:
            build(temporary)
    return path
