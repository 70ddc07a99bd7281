"""Imports names of a package on first use, so that importing the package itself takes no time."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def places(package: str) -> dict[str, tuple[str, str]]:
    """Map each name in a package's `__init__.pyi` (`from MODULE import NAME as KNOWN`) to its module and its name there."""
    stub = Path(str(sys.modules[package].__file__)).with_suffix(".pyi").read_text(encoding="utf-8")
    return {known: (module, name) for module, name, known in re.findall(r"^from (\S+) import (\w+) as (\w+)", stub, re.MULTILINE)}


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` for the names in its stub."""
    known, names = places(package), vars(sys.modules[package])

    def load(name: str) -> Any:
        if name not in known:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = known[name]
        names[name] = getattr(import_module(module), attribute)
        return names[name]

    return load, lambda: sorted({*names, *known})
