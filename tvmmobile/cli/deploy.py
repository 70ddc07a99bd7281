"""`tvmmobile deploy`: compiled libraries, and the runtime they need, on registered boards."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmmobile.cli.options import Device

if TYPE_CHECKING:
    from tvmmobile.devices.board.registered import DeviceFile, RegisteredBoard
    from tvmmobile.running.library import Library


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
    from tvmmobile.devices.registry import find_device
    from tvmmobile.system.errors import UserError

    board = find_device(device)
    file: DeviceFile | None = getattr(board, "file", None)
    if file is None:
        name = device.removesuffix("-virtual").removesuffix(".toml")
        raise UserError(
            f"{board.profile.name} is a virtual board: there is nothing to deploy to.",
            f"Run the library with tvmmobile run, or add a board: tvmmobile device add {Path(name).name} --ssh USER@HOST",
        )
    if to is not None and (not to.startswith("/") or len(to.rstrip("/")) == 0):
        raise UserError(f"--to {to} is not a folder's absolute path.", "Give a path that begins with a slash, such as /home/pi/models.")
    found = _found(libraries, file)
    for place in file.boards:
        _deploy_to(place, (to or f"{place.directory}/models").rstrip("/"), found)
    typer.echo(f"From here, with an image:\n  {shlex.join(['tvmmobile', 'run', str(found[0].path), 'IMAGE', '--device', file.name])}")


def _found(paths: Sequence[Path], file: DeviceFile) -> list[Library]:
    """The libraries, checked; a directory stands for all in it."""
    from tvmmobile.devices.board.hardware import profile_of
    from tvmmobile.pipeline.run import check_cores
    from tvmmobile.running.library import find_libraries
    from tvmmobile.system.errors import UserError

    profile = profile_of(file.name, file.boards[0])
    files = [each for path in paths for each in (sorted(path.glob("*.so")) if path.is_dir() else [path])]
    # One by one: libraries of several thread counts may be deployed together.
    found = [find_libraries([each])[0] for each in dict.fromkeys(files)] or find_libraries(paths)
    for library in found:
        check_cores(library, profile)
        twins = [other.path for other in found if other.path.name == library.path.name]
        if len(twins) > 1:
            raise UserError(f"{twins[0]} and {twins[1]} have one name.", "Deploy them into different folders with --to.")
        core = library.manifest().get("target", {}).get("mcpu")
        if core != profile.mcpu:
            typer.echo(f"note: {library.path.name} was compiled for {core}; {file.name} has {profile.mcpu}.", err=True)
    return found


def _deploy_to(board: RegisteredBoard, folder: str, libraries: Sequence[Library]) -> None:
    """Push to one board and say what is there now."""
    from tvmmobile.devices.agent.build import build_bundle
    from tvmmobile.devices.board.connect import connected, described
    from tvmmobile.devices.board.deploy import program_words, push_files, runtime_files

    files = runtime_files(build_bundle(lambda sentence: typer.echo(f"{sentence} …", err=True)))
    # A manifest goes after its library: where both are, they belong together.
    for library in libraries:
        files |= {path.name: path for path in (library.path, library.manifest_path)}
    with connected(board.address) as remote:
        pushed = push_files(remote, folder, files)
    sent = sum(files[name].stat().st_size for name in pushed)
    typer.echo(f"{described(board.address)}: {f'{len(pushed)} files pushed ({sent / 1e6:.1f} MB)' if pushed else 'nothing has changed'}")
    for library in libraries:
        typer.echo(f"  {folder}/{library.path.name}" + ("" if library.path.name in pushed else " (was there)"))
    command = shlex.join([*board.runner, *program_words(folder), "./classify", f"{folder}/{libraries[0].path.name}", "INPUT.f32"])
    typer.echo(f"There, with a program of your own, such as examples/deploy/classify.cc:\n  {command}")
