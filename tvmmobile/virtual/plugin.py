"""Builds the QEMU plugin that counts blocks (`blocks.c`) into the cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

from filelock import FileLock

from tvmmobile.agent.tools import run_tool
from tvmmobile.doctor import require
from tvmmobile.environment import cache_dir
from tvmmobile.files import replacing

SOURCE = Path(__file__).parent / "blocks.c"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-fvisibility=hidden")


def build_plugin() -> Path:
    """The plugin's shared library, compiled if it is not there yet.

    Raises:
        UserError: there is no C compiler, or it fails.
    """
    digest = hashlib.sha256(SOURCE.read_bytes() + repr(FLAGS).encode()).hexdigest()[:16]
    path = cache_dir() / f"blocks-{digest}.so"
    if path.exists():
        return path
    compiler = str(require("cc"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            with replacing(path) as temporary:
                run_tool(
                    [compiler, *FLAGS, str(SOURCE), "-o", str(temporary)],
                    "Compiling the block counter",
                    "Run: apt-get install -y gcc libc6-dev",
                )
                temporary.chmod(0o755)
    return path
