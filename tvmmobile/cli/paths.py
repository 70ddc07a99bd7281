"""Refuses empty paths, such as those of shell variables that are not set: Python takes them for the current folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, get_args

from tvmmobile.system.errors import UserError


def refuse_empty_paths(command: Any) -> None:
    """Let each option and argument of a Typer command, or of the commands in a group, that takes paths refuse an empty one."""
    for parameter in command.params:
        annotation = parameter.type_descriptor.annotation
        if Path in (annotation, *get_args(annotation)):
            parameter.process_value = partial(_checked, parameter, parameter.process_value)
    for verb in getattr(command, "commands", {}).values():
        refuse_empty_paths(verb)


def _checked(parameter: Any, process: Any, context: Any, given: Any) -> Any:
    if "" in (given if isinstance(given, list | tuple) else [given]):
        name = parameter.opts[-1] if parameter.opts[-1].startswith("-") else parameter.metavar.rstrip(".")
        raise UserError(f"{name} is empty.", "Name a file or a directory; . is the current one.")
    return process(context, given)
