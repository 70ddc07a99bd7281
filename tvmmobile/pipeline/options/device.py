"""Options of a board that is registered."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

from tvmmobile.pipeline.options.option import Options, option
from tvmmobile.system.errors import UserError


def _absolute(flag: str) -> Callable[[str | None], str | None]:
    """Return the parser of a directory on the board, which raises `UserError` for a relative one: agents run in other folders."""

    def parsed(directory: str | None) -> str | None:
        if directory is not None and not directory.startswith("/"):
            raise UserError(f"{flag} {directory} is not absolute.", "Give a path that begins with a slash.")
        return directory

    return parsed


def _words(text: str) -> tuple[str, ...]:
    """Return a command's words, as a shell reads them; raise `UserError` for quotes that do not end."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(f"--runner {text} cannot be read as words: {error}.", "Close the quotes, as in a shell.") from error


@dataclass(frozen=True)
class DeviceOptions(Options):
    """Options of `add_device`: the board's address in one of three forms, and facts that the board does not report."""

    ssh: str | None = option(None, "--ssh [USER@]HOST", "Board to reach over SSH.")
    adb: str | None = option(None, "--adb SERIAL", "Phone to reach over adb; HOST:PORT over the network.")
    local: bool = option(False, "--local", "This machine itself, if it is AArch64 Linux.")
    port: int | None = option(None, "--port N", "Port of the SSH server.", typer_settings={"min": 1, "max": 65535})
    fingerprint: str | None = option(None, "--fingerprint SHA256:…", "Expected host key; without it you are asked to confirm the key.")
    directory: str | None = option(None, "--directory DIR", "Directory for the agent on the board.", parse=_absolute("--directory"))
    runner: tuple[str, ...] = option("", "--runner WORDS", "Command prefix for the agent, such as an emulator.", parse=_words)
    root: str = option("/", "--root DIR", "Directory on the board whose proc and sys describe it.", parse=_absolute("--root"))
    clock_ghz: float | None = option(
        None,
        "--clock GHZ",
        "Maximum clock in GHz, if the board does not report it or is fixed at a lower one.",
        typer_settings={"min": 0.1, "max": 10},
    )
    join: bool = option(False, "--join", "Add another board to an existing device; they share the work.")


class DeviceArguments(TypedDict, total=False):
    """For type checkers: the keywords of calls that take `DeviceOptions`; a test holds them equal."""

    ssh: str | None
    adb: str | None
    local: bool
    port: int | None
    fingerprint: str | None
    directory: str | None
    runner: str
    root: str
    clock_ghz: float | None
    join: bool
