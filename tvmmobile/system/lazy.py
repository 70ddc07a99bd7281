"""Imports names of a package on first use, so that importing the package itself takes no time."""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False  # `typing` would be imported before a command can handle Ctrl-C
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def places(package: str) -> dict[str, tuple[str, str]]:
    """Map each name in a package's `__init__.pyi` (`from MODULE import NAME as KNOWN`) to its module and its name there."""
    import re
    from pathlib import Path

    stub = Path(str(sys.modules[package].__file__)).with_suffix(".pyi").read_text(encoding="utf-8")
    return {known: (module, name) for module, name, known in re.findall(r"^from (\S+) import (\w+) as (\w+)", stub, re.MULTILINE)}


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` for the names in its stub."""
    names = vars(sys.modules[package])
    stub: dict[str, tuple[str, str]] = {}

    def all_places() -> dict[str, tuple[str, str]]:
        if not stub:
            stub.update(places(package))
        return stub

    def load(name: str) -> Any:
        known = {} if name.startswith("__") else all_places()
        if name not in known:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = known[name]
        names[name] = getattr(import_module(module), attribute)
        return names[name]

    return load, lambda: sorted({*names, *all_places()})
