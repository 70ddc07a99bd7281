"""Option types that verbs share, so that one word means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tvmmobile.cli.generated import word_of
from tvmmobile.cli.network import Variants
from tvmmobile.pipeline.options.option import HelpOrder
from tvmmobile.pipeline.options.run import RunOptions
from tvmmobile.system.errors import UserError

TARGETS = ("arm",)

Alphas = Annotated[list[float] | None, word_of(Variants, "alpha")]
Resolutions = Annotated[
    list[int] | None, typer.Option("--resolution", metavar="SIDE", help="Input side in pixels, such as 160; may be given more than once.")
]
Target = Annotated[str, typer.Option("--target", metavar="NAME", help="Target architecture: arm (AArch64 with NEON).")]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="Registered board, or else virtual board, such as pi4 or pi4-virtual.")
]
#: Help of an option that chooses one device where there are several.
ONE_DEVICE = "Restrict to this device; default: all devices."
DeviceFilter = Annotated[str | None, typer.Option("--device", metavar="NAME", help=ONE_DEVICE)]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Board, such as pi4 (default); given more than once, or with commas: one library with the kernels of each, for C.",
    ),
]
Libraries = Annotated[list[Path], typer.Argument(metavar="LIBRARY", help="Compiled libraries, or a directory that holds them.")]
DeviceName = Annotated[str, typer.Argument(metavar="NAME", help="Device name, such as pi4.")]
Out = Annotated[Path, word_of(RunOptions, "out")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
RequireHardware = Annotated[
    bool, typer.Option("--require-hardware", help="Exit with code 3 if the device is a virtual board."), HelpOrder.DEVICE
]
Pin = Annotated[
    bool, typer.Option("--pin", help="Pin the board's clocks at their maximum during the run, where permitted."), HelpOrder.DEVICE
]
HistoryFile = Annotated[
    Path | None,
    typer.Option("--history", metavar="FILE", dir_okay=False, help="Add the results to a history; see tvmmobile history."),
    HelpOrder.OUT,
]
Commit = Annotated[
    str | None,
    typer.Option("--commit", metavar="COMMIT", help="Commit of the results in the history; default: the checked-out one."),
    HelpOrder.OUT,
]


def check_target(target: str) -> None:
    """Raise `UserError` for an architecture that is not known."""
    if target not in TARGETS:
        raise UserError(f"target {target!r} is not known.", f"Give --target one of: {', '.join(TARGETS)}.")


def names_of(devices: list[str] | None) -> list[str]:
    """Return the names of devices that were given one by one, or several with commas; the Pi 4's without any."""
    return [name.strip() for each in devices or ["pi4"] for name in each.split(",") if name.strip()]
