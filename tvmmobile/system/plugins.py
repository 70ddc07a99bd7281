"""Imports the user's modules that register schedule templates, precisions or curves: `TVMMOBILE_PLUGINS` names them."""

from __future__ import annotations

import importlib

from tvmmobile.system.environment import plugins
from tvmmobile.system.errors import UserError, one_line, shown


def load_plugins() -> None:
    """Import the modules that the user named, once in a process; raise `UserError` where one cannot be imported."""
    for name in plugins():
        try:
            importlib.import_module(name)
        except Exception as error:  # a module raises anything
            raise UserError(
                f"the module {shown(name)} of TVMMOBILE_PLUGINS cannot be imported: {type(error).__name__}: {one_line(error)}.",
                "Correct the name, install its package, or set PYTHONPATH to its folder.",
            ) from error
