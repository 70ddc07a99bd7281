"""Builds the QEMU plugins, `program.c` or `phases.c` around it, with their headers, into the cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

from filelock import FileLock

from tvmmobile.system.compiled import HOST_FLAGS, compile_here
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.files import filling_cache, replacing

FOLDER = Path(__file__).parent


def build_plugin(phases: bool = False) -> Path:
    """Return the plugin's shared library, compiled if missing; with `phases`, the one that cuts segments into phases.

    Raises:
        UserError: there is no C compiler, or it fails.
    """
    program = FOLDER / "program.c"
    source = FOLDER / "phases.c" if phases else program
    digest = hashlib.sha256(repr(HOST_FLAGS).encode())
    for file in (*dict.fromkeys((source, program)), *sorted(FOLDER.glob("*.h"))):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    path = cache_dir() / f"{source.stem}-{digest.hexdigest()[:16]}.so"
    if path.exists():
        return path
    with filling_cache():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                with replacing(path) as temporary:
                    compile_here(source, temporary, "Compiling a plugin for QEMU")
                    temporary.chmod(0o755)
    return path
