"""Copies libraries, and everything that the user's programs or a check need, to the boards of a registered device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from tvmmobile.devices.agent.build import build_bundle, loader_words
from tvmmobile.devices.board.connect import connected, described
from tvmmobile.devices.board.hardware import HardwareDevice, profile_of
from tvmmobile.devices.board.install import RUNTIME_FOLDER, check_separators, make_directory, push_files, runtime_files
from tvmmobile.devices.board.registered import DeviceFile, RegisteredBoard
from tvmmobile.devices.board.remote import Remote
from tvmmobile.devices.protocol import Device
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.kernels.ranked import ranking_of
from tvmmobile.pipeline.agreement import agreement, disagreement, failure_of, session_timeout_s
from tvmmobile.pipeline.listener import QUIET, Listener, tell
from tvmmobile.pipeline.options.call import with_options
from tvmmobile.pipeline.options.compiled import DeployArguments, DeployOptions
from tvmmobile.pipeline.request import device_of
from tvmmobile.pipeline.run import check_cores
from tvmmobile.pipeline.sentences import unchecked_note
from tvmmobile.running.bench import started_agents
from tvmmobile.running.emulation import check_options
from tvmmobile.running.library import Library, find_libraries
from tvmmobile.running.measure import MeasureError
from tvmmobile.running.networks import DISAGREES, checker
from tvmmobile.system.arguments import one_or_several
from tvmmobile.system.errors import Disagreement, UserError
from tvmmobile.virtual.board import VIRTUAL_SUFFIX

_CHECK = f"{RUNTIME_FOLDER}/check"
#: A library, its path, or that of a directory of them.
Given = Library | str | Path


@dataclass(frozen=True)
class Deployment:
    """The state of one board after deployment.

    Attributes:
        board: address of the board, in words.
        folder: folder of the libraries.
        libraries: all requested libraries.
        pushed: names of the files that were missing on the board.
        pushed_bytes: bytes of the pushed libraries.
        program: the command's words before the user's own program on the board.
    """

    board: str
    folder: str
    libraries: tuple[Library, ...]
    pushed: tuple[str, ...]
    pushed_bytes: int
    program: tuple[str, ...]

    def words(self, library: Library) -> list[str]:
        """Return the command that runs `library` on the board: C libraries on the reference input, others with the user's `classify`."""
        place = f"{self.folder}/{library.path.name}"
        if library.is_c:
            options = [] if library.tolerance == FLOAT32.network_tolerance else check_options(library)
            return [*self.program, f"{self.folder}/{_CHECK}", *options, place, library.facts.program.prefix]
        return [*self.program, "./classify", place, "INPUT.f32"]


@with_options(DeployOptions)
def deploy(
    libraries: Given | Sequence[Given], device: str | Device = "pi4", *, listener: Listener = QUIET, **options: Unpack[DeployArguments]
) -> list[Deployment]:
    """Copy compiled libraries to every board of a device; unchanged files are not sent again.

    Args:
        libraries: libraries that `compile` or `open_libraries` returned, or paths of libraries or of directories of them; one or several.
        device: name of a registered board, or a device from `find_device`; default: `pi4`, if it is registered: the virtual Raspberry Pi 4
            takes no copies.
        options: see `DeployOptions`, which `help` lists.
        listener: hears what takes long, and of libraries for another core.

    Returns:
        One deployment per board of the device, in the order in which the boards were added.

    Raises:
        UserError: the device is virtual, or a library cannot run on it.
        DeviceUnavailable: a board cannot be reached.
        Disagreement: a library does not run on a board, or does not compute what PyTorch computes; it stays where it is.
    """
    settings, board = DeployOptions.of(options), device_of(device)
    file: DeviceFile | None = getattr(board, "file", None)
    if file is None:
        name = board.profile.name.removesuffix(VIRTUAL_SUFFIX)
        raise UserError(
            f"{board.profile.name} is a virtual board: there is nothing to deploy to.",
            f"Run the library with tvmmobile run, or add a board: tvmmobile device add {name} --ssh USER@HOST",
        )
    if settings.to is not None and (not settings.to.startswith("/") or len(settings.to.rstrip("/")) == 0):
        raise UserError(
            f"--to {settings.to} is not a folder's absolute path.", "Give a path that begins with a slash, such as /home/pi/models."
        )
    check_separators("--to", settings.to)
    found = _found(
        [library.path if isinstance(library, Library) else Path(library) for library in one_or_several(libraries)], file, listener
    )
    files = _files(found, listener)
    deployed = []
    for place in file.boards:
        folder = (settings.to or f"{place.directory}/models").rstrip("/")
        with connected(place.address) as remote:
            if settings.to is None:
                make_directory(remote, place.directory)
            pushed = tuple(push_files(remote, folder, files))
            sent, program = sum(files[name].stat().st_size for name in pushed), (*place.runner, *loader_words(f"{folder}/{RUNTIME_FOLDER}"))
            done = Deployment(described(place.address), folder, tuple(found), pushed, sent, program)
            unsure = (
                [library for library in found if not (library.is_c and _agrees_there(remote, done, library))] if settings.verify else []
            )
        _check_through_agents(file, place, unsure)
        deployed.append(done)
    return deployed


def _files(libraries: Sequence[Library], listener: Listener) -> dict[str, Path]:
    """Return the files for the board, by their place in the folder; a manifest follows the library that it describes."""
    kinds = {library.is_c for library in libraries}
    files = runtime_files(build_bundle(lambda sentence: tell(listener, f"{sentence} …")), tvm=False in kinds)
    if True in kinds:
        files[_CHECK] = checker()
    for library in libraries:
        parts = [library.path, *([library.header_path, library.reference_path] if library.is_c else []), library.manifest_path]
        files |= {path.name: path for path in parts}
    return files


def _agrees_there(remote: Remote, deployment: Deployment, library: Library) -> bool:
    """Run a deployed C library on the board with the deployed files; raise `Disagreement` if it is wrong.

    Returns:
        False if rows that are sorted by a score do not match the reference one by one, in which case this machine has to judge them.
    """
    done = remote.run([*deployment.words(library), str(library.threads), "0"], timeout_s=session_timeout_s(library))
    if done.status == DISAGREES and library.reference_path.is_file() and ranking_of(library.reference()[1]) is not None:
        return False
    if done.status == DISAGREES:
        raise disagreement(library, deployment.board, _line(done.stdout, "error ") or "check does not say how far")
    if done.status != 0:
        reason, core = _line(done.stderr) or f"status {done.status}", ", ".join(library.facts.cores)
        raise Disagreement(f"{library.path.name} does not run on {deployment.board}: {reason}.", f"It was compiled for {core}.")
    return True


def _line(text: str, begin: str = "") -> str:
    """Return the last line of a board's output with this prefix, "" if there is none; its characters are made printable for errors."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip() and line.startswith(begin)), "")


def _check_through_agents(file: DeviceFile, place: RegisteredBoard, libraries: Sequence[Library]) -> None:
    """Run libraries on a board in sessions of its agent, and compare their outputs here; raise `Disagreement`."""
    if not libraries:
        return
    with started_agents(HardwareDevice(file.model_copy(update={"boards": (place,)})), timed=False) as agents:
        for library in libraries:
            inputs, expected = library.reference()
            try:
                (outputs,) = agents.outputs(library.path, [inputs], library.threads, session_timeout_s(library))
            except MeasureError as error:
                raise failure_of(library, agents.profile, error) from error
            agreement(library, outputs, expected, described(place.address))


def _found(paths: Sequence[Path], file: DeviceFile, listener: Listener) -> list[Library]:
    """Return the libraries, checked."""
    profile = profile_of(file.name, file.boards[0])
    found = find_libraries(paths)
    for library in found:
        check_cores(library, profile)
        if library.is_c and not library.header_path.is_file():
            raise UserError(f"{library.header_path} does not exist.", "Compile the library again: tvmmobile compile")
        manifest = library.facts
        if remark := unchecked_note(library.path.name, manifest):
            tell(listener, remark)
        cores = manifest.cores
        if not any(map(profile.has_core, cores)):
            tell(listener, f"note: {library.path.name} was compiled for {', '.join(cores)}; {file.name} has {profile.mcpu}.")
    return found
