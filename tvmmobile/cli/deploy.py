"""`tvmmobile deploy`: compiled libraries, and what they need, on registered boards."""

from __future__ import annotations

import shlex
from typing import Any

import typer

from tvmmobile.cli.generated import with_cli_options
from tvmmobile.cli.options import Device, Libraries
from tvmmobile.pipeline.options.compiled import DeployOptions


@with_cli_options(DeployOptions)
def deploy(libraries: Libraries, device: Device = "pi4", **chosen: Any) -> None:
    """Copy libraries, with what they need there, to a device's boards.

    C libraries come with a program that runs one on its reference input and compares; others with TVM's runtime, for your own programs.
    Files are compared by SHA-256; unchanged ones are not sent again.
    """
    from tvmmobile.cli.progress import Shown
    from tvmmobile.pipeline.deploy import deploy as run
    from tvmmobile.results.report.wording import plural

    for done in run(libraries, device, **chosen, listener=Shown()):
        sent = f"{plural(len(done.pushed), 'file')} pushed ({done.pushed_bytes / 1e6:.1f} MB)" if done.pushed else "nothing has changed"
        typer.echo(f"{done.board}: {sent}" + ("; every library agrees with its reference" if chosen["verify"] else ""))
        for library in done.libraries:
            typer.echo(f"  {done.folder}/{library.path.name}" + ("" if library.path.name in done.pushed else " (unchanged)"))
        first = done.libraries[0]
        for is_c, one in {each.is_c: each for each in reversed(done.libraries)}.items():
            checks = "against its reference" if is_c else "with your own program, such as examples/deploy/classify.cc"
            typer.echo(f"On the board, {checks}:\n  {shlex.join(done.words(one))}")
    typer.echo(f"From this machine, with an image:\n  {shlex.join(['tvmmobile', 'run', str(first.path), 'IMAGE', '--device', device])}")
