"""Libraries → the boards of a registered device, with TVM's runtime for programs of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.devices.agent.build import build_bundle
from tvmmobile.devices.board.connect import connected, described
from tvmmobile.devices.board.hardware import profile_of
from tvmmobile.devices.board.install import program_words, push_files, runtime_files
from tvmmobile.devices.board.registered import DeviceFile
from tvmmobile.pipeline.listener import QUIET, Listener
from tvmmobile.pipeline.request import device_of
from tvmmobile.pipeline.run import check_cores
from tvmmobile.running.library import Library, find_libraries
from tvmmobile.running.manifest import VM
from tvmmobile.system.errors import UserError


@dataclass(frozen=True)
class Deployment:
    """What is on one board now.

    Attributes:
        board: its address, in words.
        folder: where the libraries are.
        libraries: all that were asked for.
        pushed: names of the files that were not there yet.
        pushed_bytes: of these.
        program: words before a program of the user's own on the board.
    """

    board: str
    folder: str
    libraries: tuple[Library, ...]
    pushed: tuple[str, ...]
    pushed_bytes: int
    program: tuple[str, ...]


def deploy(paths: Sequence[str | Path], device: str = "pi4", to: str | None = None, listener: Listener = QUIET) -> list[Deployment]:
    """Copy compiled libraries to every board of a device; files that are there already are not sent again.

    Args:
        paths: of libraries, or of directories of them.
        device: the name of a registered one.
        to: a folder on the board; without it, one that is removed together with the device.
        listener: hears what takes long, and of libraries for another core.

    Raises:
        UserError: the device is virtual, or a library cannot run on it.
        DeviceUnavailable: a board cannot be reached.
    """
    board = device_of(device)
    file: DeviceFile | None = getattr(board, "file", None)
    if file is None:
        name = device.removesuffix("-virtual").removesuffix(".toml")
        raise UserError(
            f"{board.profile.name} is a virtual board: there is nothing to deploy to.",
            f"Run the library with tvmmobile run, or add a board: tvmmobile device add {Path(name).name} --ssh USER@HOST",
        )
    if to is not None and (not to.startswith("/") or len(to.rstrip("/")) == 0):
        raise UserError(f"--to {to} is not a folder's absolute path.", "Give a path that begins with a slash, such as /home/pi/models.")
    libraries = _found([Path(path) for path in paths], file, listener)
    files = runtime_files(build_bundle(lambda sentence: listener.said(f"{sentence} …")))
    # A manifest goes after its library: where both are, they belong together.
    for library in libraries:
        files |= {path.name: path for path in (library.path, library.manifest_path)}
    deployed = []
    for place in file.boards:
        folder = (to or f"{place.directory}/models").rstrip("/")
        with connected(place.address) as remote:
            pushed = tuple(push_files(remote, folder, files))
        sent, program = sum(files[name].stat().st_size for name in pushed), (*place.runner, *program_words(folder))
        deployed.append(Deployment(described(place.address), folder, tuple(libraries), pushed, sent, program))
    return deployed


def _found(paths: Sequence[Path], file: DeviceFile, listener: Listener) -> list[Library]:
    """The libraries, checked; a directory stands for all in it."""
    profile = profile_of(file.name, file.boards[0])
    files = [each for path in paths for each in (sorted(path.glob("*.so")) if path.is_dir() else [path])]
    # One by one: libraries of several thread counts may be deployed together.
    found = [find_libraries([each])[0] for each in dict.fromkeys(files)] or find_libraries(paths)
    for library in found:
        check_cores(library, profile)
        twins = [other.path for other in found if other.path.name == library.path.name]
        if len(twins) > 1:
            raise UserError(f"{twins[0]} and {twins[1]} have the same name.", "Deploy them into different folders with --to.")
        if library.manifest().get("format", VM) != VM:
            raise UserError(f"{library.path} is a C library, which needs no runtime.", "Copy it to the board as it is.")
        core = library.manifest()["target"]["mcpu"]
        if core != profile.mcpu:
            listener.said(f"note: {library.path.name} was compiled for {core}; {file.name} has {profile.mcpu}.")
    return found
