"""Packs a job with its input files for a machine that lacks them, and returns the output files.

A cluster's machines do not share folders: a job's paths are moved below a folder of the worker, where the files were unpacked.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from tvmmobile.devices.protocol import DeviceProfile, Endpoint
from tvmmobile.devices.virtual_board import STRETCH
from tvmmobile.running.measure import Agents
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import write_bytes


@runtime_checkable
class UsesFiles(Protocol):
    """A job that declares which files it reads and writes."""

    def reads(self) -> Mapping[str, Path]:
        """Return the files that the job reads, by path below the folder that `moved` is given."""

    def writes(self) -> Mapping[str, Path]:
        """Return the folders that the job writes to, by name below the folder that `moved` is given."""

    def moved(self, folder: Path) -> Self:
        """Return this job with all its paths below `folder`."""


@runtime_checkable
class UsesBoard(Protocol):
    """A job, a dataclass, that runs something on a board."""

    agents: Agents


@dataclass(frozen=True)
class Parcel:
    """A job and what it reads: compressed contents by relative path, the profile of the board it runs on (`None` if it only builds), and
    name and text of the file of a virtual board of the user's own.
    """

    function: Callable[[Any], Any]
    job: Any
    files: Mapping[str, bytes] = field(repr=False)
    profile: DeviceProfile | None = None
    board_file: tuple[str, str] | None = None


@dataclass(frozen=True)
class Delivery:
    """The result of a job; `files` holds the compressed files that it wrote, by path."""

    result: Any
    files: Mapping[str, bytes] = field(repr=False)


def pack(function: Callable[[Any], Any], job: Any, builds: bool = False) -> Parcel:
    """Pack a job for sending; `builds`: it needs no board. Raises `UserError` if a file it needs cannot be read."""
    paths = job.reads() if isinstance(job, UsesFiles) else {}
    try:
        files = {name: zlib.compress(path.read_bytes(), 1) for name, path in paths.items()}
    except OSError as error:
        raise UserError(
            f"{error.filename} cannot be read: {error.strerror}.", "Leave the files of a run as they are until it ends."
        ) from error
    if not isinstance(job, UsesBoard):
        return Parcel(function, job, files)
    profile = job.agents.profile
    job = replace(job, agents=elsewhere(profile))  # type: ignore[type-var]  # ours are of no use there, and their secret is ours
    path = Path(profile.board_file)
    board_file = (path.name, path.read_text(encoding="utf-8")) if path.suffix == ".toml" else None
    return Parcel(function, job, files, None if builds else profile, board_file)


def unpack(parcel: Parcel, folder: Path) -> Any:
    """Write a parcel's files below `folder` and return the job with the paths it has there; raise `OSError` where that fails."""
    for name, content in parcel.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zlib.decompress(content))
    return parcel.job.moved(folder) if isinstance(parcel.job, UsesFiles) else parcel.job


def delivery(job: Any, result: Any) -> Delivery:
    """Return a result with the files that the job wrote."""
    folders = job.writes() if isinstance(job, UsesFiles) else {}
    written = {f"{name}/{path.name}": path for name, folder in folders.items() for path in sorted(folder.glob("*")) if path.is_file()}
    return Delivery(result, {name: zlib.compress(path.read_bytes(), 1) for name, path in written.items()})


def accept(job: Any, delivered: Delivery) -> Any:
    """Write the returned files where the original job expects them, and return the result; raise `OSError` on failure."""
    for name, content in delivered.files.items():
        top, _, plain = name.partition("/")
        write_bytes(job.writes()[top] / Path(plain).name, zlib.decompress(content))
    return delivered.result


def elsewhere(profile: DeviceProfile) -> Agents:
    """Return a placeholder for the agents of a board that is started where the job runs."""
    return Agents(profile, Endpoint("", 0, profile.name, stretch=STRETCH if profile.origin.modelled else 1.0))
