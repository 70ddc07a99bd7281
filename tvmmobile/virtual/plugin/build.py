"""Builds the QEMU plugins, `program.c` or `phases.c` around it, with their headers, into the cache."""

from __future__ import annotations

from pathlib import Path

from tvmmobile.system.compiled import host_library

FOLDER = Path(__file__).parent


def build_plugin(phases: bool = False) -> Path:
    """Return the plugin's shared library, compiled if missing; with `phases`, the one that cuts segments into phases.

    Raises:
        UserError: there is no C compiler, or it fails.
    """
    program = FOLDER / "program.c"
    source, parts = (FOLDER / "phases.c", (program,)) if phases else (program, ())
    return host_library(source, "Compiling a plugin for QEMU", (*parts, *sorted(FOLDER.glob("*.h"))))
