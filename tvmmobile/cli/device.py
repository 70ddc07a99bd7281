"""`tvmmobile device`: boards that are reached by SSH or adb, or this machine."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tvmmobile.cli.options import DeviceName
from tvmmobile.cli.validate import validate

if TYPE_CHECKING:
    from tvmmobile.devices.board.registered import RegisteredBoard

device = typer.Typer(add_completion=False, rich_markup_mode=None)

device.command("validate")(validate)


@device.callback()
def _group() -> None:
    """Manage boards and phones: add, list, check, validate, remove."""


@device.command("add")
def add(
    name: DeviceName,
    ssh: Annotated[str | None, typer.Option("--ssh", metavar="[USER@]HOST", help="Board to reach over SSH.")] = None,
    adb: Annotated[str | None, typer.Option("--adb", metavar="SERIAL", help="Phone to reach over adb; HOST:PORT over the network.")] = None,
    local: Annotated[bool, typer.Option("--local", help="This machine itself, if it is AArch64 Linux.")] = False,
    port: Annotated[int | None, typer.Option("--port", metavar="N", min=1, max=65535, help="Port of the SSH server.")] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option("--fingerprint", metavar="SHA256:…", help="Expected host key; without it you are asked to confirm the key."),
    ] = None,
    directory: Annotated[str | None, typer.Option("--directory", metavar="DIR", help="Directory for the agent on the board.")] = None,
    runner: Annotated[str, typer.Option("--runner", metavar="WORDS", help="Command prefix for the agent, such as an emulator.")] = "",
    root: Annotated[str, typer.Option("--root", metavar="DIR", help="Directory on the board whose proc and sys describe it.")] = "/",
    clock: Annotated[
        float | None, typer.Option("--clock", metavar="GHZ", min=0.1, max=10, help="Maximum clock in GHz, if the board does not report it.")
    ] = None,
    join: Annotated[bool, typer.Option("--join", help="Add another board to an existing device; they share the work.")] = False,
) -> None:
    """Register a board or phone: probe it and install the agent.

    The board needs an SSH server (or adb, or --local), sh and sha256sum; no root, Python or internet.
    """
    from tvmmobile.devices.board.manage import add_device

    added = add_device(
        name,
        ssh=ssh,
        adb=adb,
        local=local,
        port=port,
        fingerprint=fingerprint,
        directory=directory,
        runner=runner,
        root=root,
        clock_ghz=clock,
        join=join,
        confirm_host_key=_confirm_host_key,
        on_progress=lambda sentence: typer.echo(f"{sentence} …", err=True),
    )
    _print_board(name, added.board)
    typer.echo(f"Written: {added.file}")


def _confirm_host_key(destination: str, fingerprint: str) -> bool:
    if not sys.stdin.isatty():
        return False
    typer.echo(f"The host key of {destination} is {fingerprint}.", err=True)
    return typer.confirm("Is that the board?", err=True)


def _print_board(name: str, board: RegisteredBoard) -> None:
    from tvmmobile.devices.board.connect import described
    from tvmmobile.devices.board.hardware import fastest_cores
    from tvmmobile.results.report.wording import clock

    facts = board.facts
    part, count, clock_hz = fastest_cores(board)
    others = len(facts.cores) - count
    system = facts.system + (f" (API {facts.api_level})" if facts.api_level is not None else "")
    lines = [
        f"{name}: {facts.model or part.product or 'a board'} at {described(board.address)}",
        f"  {count} × {part.cpu} at {clock(clock_hz)}" + (f" and {others} slower cores" if others else ""),
        f"  {facts.memory_bytes / 2**30:.1f} GiB of memory, {', '.join(filter(None, (system, f'Linux {facts.kernel}', facts.libc)))}",
    ]
    if board.emulator:
        lines.append(f"  programs run through {shlex.join(board.runner) or board.emulator}, so latencies are emulated")
    typer.echo("\n".join(lines))


@device.command("list")
def list_devices() -> None:
    """List the registered devices."""
    from tvmmobile.devices.board.registered import load_device, registered_names

    names = registered_names()
    if not names:
        typer.echo("No device is registered; docs/virtual-boards.md lists the virtual boards.")
    for name in names:
        found = load_device(name)
        for board in found.boards if found else ():
            _print_board(name, board)


@device.command("check")
def check(name: DeviceName) -> None:
    """Check a device: link, agent, a small library, sources of noise."""
    from tvmmobile.pipeline.selftest import BoardReport, check_device

    def show(board: BoardReport) -> None:
        typer.echo(f"{board.place}: answers in {board.round_trip_ms:.1f} ms; {board.state}")

    result = check_device(name, show)
    typer.echo(f"agent: {result.megabytes_per_s:.0f} MB/s to the board; a test library computes what PyTorch computes, {result.latency}")
    for board in result.boards:
        for note in board.disturbances:
            typer.echo(f"note: {note}")
    typer.echo(f"{name} is ready.")


@device.command("remove")
def remove(
    name: DeviceName,
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Leave the agent on the boards, which then need not answer.")] = False,
) -> None:
    """Remove the agent from a device's boards and forget them."""
    from tvmmobile.devices.board.manage import remove_device

    remove_device(name, keep_files, typer.echo)
    typer.echo(f"{name} is removed; its tuning logs are kept.")
