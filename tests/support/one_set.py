"""C libraries with one set of kernels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvmmobile.native.library import Written, write_sets
from tvmmobile.native.sets import LoweredSet
from tvmmobile.native.source import Description


def write_library(
    module: Any,
    target: Mapping[str, Any],
    description: Description,
    path: Path,
    archive: bool = False,
    separate: frozenset[str] = frozenset(),
    device: str = "",
) -> Written:
    """Write a library with one set of kernels, see `LoweredSet`; the rest as `write_sets`."""
    return write_sets([LoweredSet(module, target, separate, device)], description, path, archive).whole
