"""`tvmmobile device`: boards that are reached by SSH or adb, or this machine."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmmobile.cli import streams
from tvmmobile.cli.generated import with_cli_options
from tvmmobile.cli.options import DeviceName
from tvmmobile.cli.validate import validate
from tvmmobile.pipeline.options.device import DeviceOptions

if TYPE_CHECKING:
    from tvmmobile.devices.board.registered import RegisteredBoard

device = typer.Typer(add_completion=False, rich_markup_mode=None)

device.command("validate")(validate)


@device.callback()
def _group() -> None:
    """Manage boards and phones: add, list, check, validate, remove."""


@device.command("add")
@with_cli_options(DeviceOptions)
def add(name: DeviceName, **chosen: Any) -> None:
    """Register a board or phone: probe it and install the agent.

    The board needs an SSH server (or adb, or --local), sh and sha256sum; no root, Python or internet.
    """
    from tvmmobile.pipeline.registration import add_device

    added = add_device(name, **chosen, confirm_host_key=_confirm_host_key, on_progress=_print_step)
    _print_board(name, added.board)
    if added.earlier_logs is not None:
        typer.echo(
            f"note: {added.earlier_logs} has records of an earlier {name}, which count as this board's. "
            "If that was another board, move the folder away.",
            err=True,
        )
    typer.echo(f"Written: {added.file}")


def _print_step(sentence: str) -> None:
    typer.echo(f"{sentence} …", err=True)


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
    from tvmmobile.system.errors import ExitCode, UserError

    names, damaged = registered_names(), False
    if not names:
        typer.echo("No device is registered; docs/virtual-boards.md lists the virtual boards.")
    for name in names:
        try:
            found = load_device(name)
        except UserError as error:
            message, remedy = error.as_typed
            streams.complain(f"error: {message}", remedy)
            damaged = True
            continue
        for board in found.boards if found else ():
            _print_board(name, board)
    if damaged:
        raise typer.Exit(ExitCode.USAGE)


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
    from tvmmobile.pipeline.registration import remove_device

    remove_device(name, keep_files, _print_step)
    typer.echo(f"{name} is removed; its tuning logs are kept.")
