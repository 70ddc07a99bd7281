"""`tvmmobile deploy`: compiled libraries, and the runtime they need, on registered boards."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tvmmobile.cli.options import Device


def deploy(
    libraries: Annotated[list[Path], typer.Argument(metavar="LIBRARY…", help="Compiled libraries, or a directory that holds them.")],
    device: Device = "pi4",
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="DIR", help="Target directory on the board; default: one removed together with the device."),
    ] = None,
) -> None:
    """Copy compiled libraries to every board of a device, with TVM's runtime for your own programs.

    Files are compared by SHA-256; unchanged ones are not sent again.
    """
    from tvmmobile.cli.progress import Shown
    from tvmmobile.pipeline.deploy import deploy as run
    from tvmmobile.results.report.wording import plural

    for done in run(libraries, device, to, Shown()):
        sent = f"{plural(len(done.pushed), 'file')} pushed ({done.pushed_bytes / 1e6:.1f} MB)" if done.pushed else "nothing has changed"
        typer.echo(f"{done.board}: {sent}")
        for library in done.libraries:
            typer.echo(f"  {done.folder}/{library.path.name}" + ("" if library.path.name in done.pushed else " (unchanged)"))
        first = done.libraries[0].path
        command = shlex.join([*done.program, "./classify", f"{done.folder}/{first.name}", "INPUT.f32"])
        typer.echo(f"On the board, with your own program, such as examples/deploy/classify.cc:\n  {command}")
    typer.echo(f"From this machine, with an image:\n  {shlex.join(['tvmmobile', 'run', str(first), 'IMAGE', '--device', device])}")
