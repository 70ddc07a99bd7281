"""`tvmmobile device`: boards that are reached by SSH or adb."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tvmmobile.devices.board.registered import AdbAddress, DeviceFile, RegisteredBoard, SshAddress

device = typer.Typer(add_completion=False, rich_markup_mode=None)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Device name, such as pi4.")]


@device.callback()
def _group() -> None:
    """Manage the boards and phones to measure on."""


@device.command("add")
def add(
    name: _Name,
    ssh: Annotated[str | None, typer.Option("--ssh", metavar="[USER@]HOST", help="Board to reach over SSH.")] = None,
    adb: Annotated[str | None, typer.Option("--adb", metavar="SERIAL", help="Phone to reach over adb; HOST:PORT over the network.")] = None,
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
    """Register a board or a phone: probe it, install the agent, save its address.

    The board needs an SSH server (or adb), sh and sha256sum; no root, Python
    or internet.
    """
    from tvmmobile.devices.board.registered import DeviceFile, check_name, load_device, save_device
    from tvmmobile.system.errors import UserError

    check_name(name)
    if (ssh is None) == (adb is None):
        raise UserError("Give one of --ssh and --adb.", "Such as: tvmmobile device add pi4 --ssh pi@raspberrypi.local")
    known = load_device(name)
    if known is not None and not join:
        raise UserError(f"{name} is registered already.", f"tvmmobile device remove {name}, or --join for another board of that name.")
    if known is None and join:
        raise UserError(f"{name} is not registered yet.", "Leave out --join.")
    address = _ssh_address(ssh, port, fingerprint) if ssh is not None else _adb_address(str(adb))
    board = _add_board(address, directory, tuple(shlex.split(runner)), root, clock)
    if known is not None:
        _check_alike(name, known.boards[0], board)
    path = save_device(DeviceFile(name=name, boards=(*(known.boards if known else ()), board)))
    _print_board(name, board)
    typer.echo(f"Written: {path}")


def _ssh_address(destination: str, port: int | None, fingerprint: str | None) -> SshAddress:
    """The address, once its host key is agreed to."""
    from tvmmobile.devices.board.connect import CONNECT_TIMEOUT_S
    from tvmmobile.devices.board.registered import SshAddress
    from tvmmobile.devices.ssh.keys import host_key_of
    from tvmmobile.system.errors import DeviceUnavailable

    key = host_key_of(destination, port, CONNECT_TIMEOUT_S)
    if fingerprint is not None and fingerprint != key.fingerprint:
        raise DeviceUnavailable(
            f"{destination} has the host key {key.fingerprint}, not {fingerprint}.",
            "Ask whoever set it up; on the board: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        )
    if key.known == "changed":
        raise DeviceUnavailable(
            f"The host key of {destination} is not the one in your known_hosts; it is now {key.fingerprint}.",
            "If the board was set up anew, remove the old key: ssh-keygen -R HOST",
        )
    if key.known == "unknown" and fingerprint is None and not _agreed(destination, key.fingerprint):
        raise DeviceUnavailable(
            f"The host key of {destination} is not known, and nobody agreed to it: {key.fingerprint}.",
            f"If it is the board's, give --fingerprint {key.fingerprint}",
        )
    return SshAddress(destination=destination, port=port, host_key=key.text)


def _agreed(destination: str, fingerprint: str) -> bool:
    if not sys.stdin.isatty():
        return False
    typer.echo(f"The host key of {destination} is {fingerprint}.", err=True)
    return typer.confirm("Is that the board?", err=True)


def _adb_address(serial: str) -> AdbAddress:
    from tvmmobile.devices.board.registered import AdbAddress

    return AdbAddress(serial=serial)


def _add_board(
    address: SshAddress | AdbAddress, directory: str | None, runner: tuple[str, ...], root: str, clock: float | None
) -> RegisteredBoard:
    """Look at the board and put the agent there."""
    from datetime import UTC, datetime

    from tvmmobile.devices.agent.build import build_bundle
    from tvmmobile.devices.board.connect import connected
    from tvmmobile.devices.board.install import home_directory, install_agent
    from tvmmobile.devices.board.probe import probe
    from tvmmobile.devices.board.registered import RegisteredBoard
    from tvmmobile.system.errors import UserError

    if directory is not None and not directory.startswith("/"):
        raise UserError(f"--directory {directory} is not absolute.", "Give a path that begins with a slash.")
    bundle = build_bundle(_note)
    with connected(address) as remote:
        facts = probe(remote, root, emulated=bool(runner))
        if clock is not None:
            facts = facts.model_copy(
                update={"cores": tuple(core if core.max_hz else core.model_copy(update={"max_hz": clock * 1e9}) for core in facts.cores)}
            )
        if not all(core.max_hz for core in facts.cores):
            raise UserError("The board does not tell how fast its cores can be.", "Give their highest clock: --clock 1.8")
        directory = directory or home_directory(remote)
        install_agent(remote, directory, bundle, _note)
    added = datetime.now(UTC).isoformat(timespec="seconds")
    return RegisteredBoard(address=address, directory=directory, runner=runner, root=root, facts=facts, added=added)


def _note(sentence: str) -> None:
    typer.echo(f"{sentence} …", err=True)


def _check_alike(name: str, first: RegisteredBoard, board: RegisteredBoard) -> None:
    from tvmmobile.system.errors import UserError

    if (first.facts.cores, first.runner) != (board.facts.cores, board.runner):
        raise UserError(f"This board's cores are not those of {name}.", "Boards of one name must be alike; give it a name of its own.")


def _print_board(name: str, board: RegisteredBoard) -> None:
    from tvmmobile.devices.board.connect import described
    from tvmmobile.devices.board.hardware import fastest_cores

    facts = board.facts
    part, count, clock_hz = fastest_cores(board)
    others = len(facts.cores) - count
    system = facts.system + (f" (API {facts.api_level})" if facts.api_level is not None else "")
    lines = [
        f"{name}: {facts.model or 'a board'} at {described(board.address)}",
        f"  {count} × {part.cpu} at {clock_hz / 1e9:g} GHz" + (f" and {others} slower cores" if others else ""),
        f"  {facts.memory_bytes / 2**30:.1f} GiB of memory, {', '.join(filter(None, (system, f'Linux {facts.kernel}', facts.libc)))}",
    ]
    if board.runner:
        lines.append(f"  its programs run through {shlex.join(board.runner)}: times are emulated")
    typer.echo("\n".join(lines))


@device.command("list")
def list_devices() -> None:
    """List the registered devices."""
    from tvmmobile.devices.board.registered import load_device, registered_names

    names = registered_names()
    if not names:
        typer.echo("No device is registered; pi3bplus, pi4 and pi5 are virtual boards.")
    for name in names:
        found = load_device(name)
        for board in found.boards if found else ():
            _print_board(name, board)


@device.command("check")
def check(name: _Name) -> None:
    """Check that a device works: link, agent, a small library, sources of noise."""
    from tvmmobile.pipeline.selftest import check_board, check_device

    found = _registered(name)
    from tvmmobile.devices.board.connect import connected, described

    notes: list[str] = []
    for board in found.boards:
        with connected(board.address) as remote:
            report = check_board(remote, board)
        typer.echo(f"{described(board.address)}: answers in {report.round_trip_ms:.1f} ms; {report.state}")
        notes += report.disturbances
    result = check_device(found)
    typer.echo(f"agent: {result.megabytes_per_s:.0f} MB/s to the board; a test library computes what PyTorch computes, {result.latency}")
    for note in notes:
        typer.echo(f"note: {note}")
    typer.echo(f"{name} is ready.")


@device.command("remove")
def remove(
    name: _Name,
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Leave the agent on the boards, which then need not answer.")] = False,
) -> None:
    """Remove the agent from a device's boards and forget them."""
    from tvmmobile.devices.board.connect import connected, described
    from tvmmobile.devices.board.install import remove_folder
    from tvmmobile.devices.board.registered import forget_device

    found = _registered(name)
    for board in found.boards if not keep_files else ():
        with connected(board.address) as remote:
            remove_folder(remote, board.directory)
        typer.echo(f"Removed {board.directory} from {described(board.address)}.")
    forget_device(name)
    typer.echo(f"{name} is forgotten; its tuning logs stay.")


def _registered(name: str) -> DeviceFile:
    from tvmmobile.devices.board.registered import load_device, registered_names
    from tvmmobile.system.errors import UserError

    found = load_device(name)
    if found is None:
        known = ", ".join(registered_names()) or "none"
        raise UserError(f"{name} is not registered.", f"Registered: {known}. Add it: tvmmobile device add {name} --ssh USER@HOST")
    return found
