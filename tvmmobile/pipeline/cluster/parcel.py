"""A job with the files it reads, for a machine that has none of them, and the files that come back.

Machines of a cluster share no folders: paths of a job are made anew below a folder of the worker's, where the files were unpacked.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tvmmobile.devices.protocol import DeviceProfile, Endpoint
from tvmmobile.networks.own.loading import files_of
from tvmmobile.pipeline.build import VariantJob, build_variant
from tvmmobile.pipeline.stages import BenchJob, bench_library
from tvmmobile.running.library import Library
from tvmmobile.running.measure import Agents
from tvmmobile.system.files import write_bytes
from tvmmobile.tuning.database import log_paths
from tvmmobile.tuning.search.trial import TrialJob, run_trial

#: Folders of an unpacked parcel.
_CHECKPOINT, _NETWORK, _LOGS, _OUT, _DUMP = "checkpoint", "network", "logs", "out", "dump"


@dataclass(frozen=True)
class Parcel:
    """A job and what it reads.

    Attributes:
        files: compressed contents by path, relative to wherever they are unpacked.
        board_file: name and text of the file that describes the virtual board, where it is the user's own.
    """

    function: Callable[[Any], Any]
    job: Any
    files: Mapping[str, bytes] = field(repr=False)
    board_file: tuple[str, str] | None = None


@dataclass(frozen=True)
class Delivery:
    """What came of a job.

    Attributes:
        files: compressed contents of what the job wrote, by path.
    """

    result: Any
    files: Mapping[str, bytes] = field(repr=False)


def pack(function: Callable[[Any], Any], job: Any) -> Parcel:
    """A job as it can be sent.

    Raises:
        OSError: a file it needs cannot be read.
    """
    paths = dict(_read_by(function, job))
    files = {name: zlib.compress(path.read_bytes(), 1) for name, path in paths.items()}
    board_file = None
    if isinstance(job, BenchJob | TrialJob):
        profile = job.agents.profile
        job = replace(job, agents=elsewhere(profile))  # ours are of no use there, and their token a secret
        if profile.board_file.endswith(".toml"):
            board_file = Path(profile.board_file).name, Path(profile.board_file).read_text(encoding="utf-8")
    return Parcel(function, job, files, board_file)


def _read_by(function: Callable[[Any], Any], job: Any) -> Iterator[tuple[str, Path]]:
    """The files a job reads: where they go, and where they are."""
    if isinstance(job, VariantJob):
        # One that is no file is the job's to complain of: every path then stays what it is, but for the folder.
        if job.checkpoint is not None and job.checkpoint.is_file():
            yield f"{_CHECKPOINT}/{job.checkpoint.name}", job.checkpoint
        if job.own is not None:
            for path in files_of(job.own):
                yield f"{_NETWORK}/{path.relative_to(job.own.path.parent).as_posix()}", path
        devices = [job.identity.device, *([job.twin.device] if job.twin is not None else [])]
        for number, directory in enumerate(job.logs if function is build_variant else ()):
            for path in (path for device in dict.fromkeys(devices) for path in log_paths(directory, device)):
                yield f"{_LOGS}/{number}/{path.parent.name}/{path.name}", path
    elif isinstance(job, BenchJob):
        for path in (job.library.path, job.library.manifest_path, job.library.reference_path):
            yield f"{_OUT}/{path.name}", path


def unpack(parcel: Parcel, folder: Path) -> Any:
    """Write a parcel's files below `folder`; returns the job with the paths it has there.

    Raises:
        OSError: they cannot be written.
    """
    for name, content in parcel.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zlib.decompress(content))
    job = parcel.job
    if isinstance(job, VariantJob):
        return replace(
            job,
            checkpoint=None if job.checkpoint is None else folder / _CHECKPOINT / job.checkpoint.name,
            own=None if job.own is None else replace(job.own, path=folder / _NETWORK / job.own.path.name),
            logs=tuple(folder / _LOGS / str(number) for number in range(len(job.logs))),
            out=folder / _OUT,
            dump_dir=None if job.dump_dir is None else folder / _DUMP,
        )
    if isinstance(job, BenchJob):
        return replace(job, library=replace(job.library, path=folder / _OUT / job.library.path.name))
    return job


def delivery(job: Any, result: Any, folder: Path) -> Delivery:
    """A result with the files that the job left below `folder`."""
    written: dict[str, bytes] = {}
    if isinstance(job, VariantJob):
        for path in sorted(path for top in (_OUT, _DUMP) for path in (folder / top).glob("*") if path.is_file()):
            written[path.relative_to(folder).as_posix()] = zlib.compress(path.read_bytes(), 1)
    return Delivery(result, written)


def accept(job: Any, delivered: Delivery) -> Any:
    """Write what came back where the job as it was sent wants it; returns the result.

    Raises:
        OSError: it cannot be written.
    """
    if not isinstance(job, VariantJob):
        return delivered.result
    for name, content in delivered.files.items():
        top, _, plain = name.partition("/")
        target = job.out if top == _OUT else job.dump_dir
        assert target is not None
        write_bytes(target / Path(plain).name, zlib.decompress(content))
    if isinstance(delivered.result, Library):
        return replace(delivered.result, path=job.out / delivered.result.path.name)
    return delivered.result


def board_of(parcel: Parcel) -> DeviceProfile | None:
    """The profile of the board that a job runs something on; `None` for one that only builds."""
    chosen: Any = parcel.function
    return parcel.job.agents.profile if chosen in (run_trial, bench_library) else None


def elsewhere(profile: DeviceProfile) -> Agents:
    """Stands for the agents of a board that is started where the job is done."""
    return Agents(profile, Endpoint("", 0, profile.name))
