"""What `tune`, `compile` and `bench` have in common: checking options before any work, and where logs are."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmmobile.system.environment import SHIPPED_LOGS, user_data_dir
from tvmmobile.system.errors import UserError

if TYPE_CHECKING:
    from tvmmobile.devices.protocol import Device, DeviceProfile
    from tvmmobile.networks.models.spec import ModelSpec
    from tvmmobile.networks.own.files import OwnFile
    from tvmmobile.pipeline.build import VariantJob
    from tvmmobile.running.bench import Bench
    from tvmmobile.system.workers import WorkerPool

TARGETS = ("arm",)
#: What PyTorch's generator takes.
_MOST_SEED = 2**63 - 1

Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", metavar="FILE", help="State dict to load weights from; default: weights generated from --seed."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, max=_MOST_SEED, help="Seed for generated weights and for the search.")]
Logs = Annotated[
    Path | None,
    typer.Option(
        "--logs",
        metavar="DIR",
        file_okay=False,
        help="Read and write tuning logs only in DIR; default: read the shipped logs and your own.",
    ),
]
DumpIr = Annotated[
    Path | None, typer.Option("--dump-ir", metavar="DIR", file_okay=False, help="Write the Relax module after each graph pass to DIR.")
]
RequireHardware = Annotated[bool, typer.Option("--require-hardware", help="Exit with code 3 if the device is a virtual board.")]

Dask = Annotated[
    str | None,
    typer.Option(
        "--dask",
        metavar="ADDRESS",
        help="Run jobs on the Dask cluster with this scheduler, tcp://HOST:PORT; jobs for a registered board still run here.",
    ),
]
Pin = Annotated[bool, typer.Option("--pin", help="Pin the board's clocks at their maximum during the run, where permitted.")]


@dataclass(frozen=True)
class LogDirs:
    """Where tuning records are read from, and where new ones go."""

    sources: tuple[Path, ...]
    target: Path

    @property
    def all(self) -> tuple[Path, ...]:
        """Every directory that is read."""
        return tuple(dict.fromkeys((*self.sources, self.target)))


def log_dirs(logs: Path | None, fresh: bool, out: Path) -> LogDirs:
    """The log directories that the options ask for.

    `--logs DIR` is that directory alone; `--fresh` an empty one under `out` (an older one is set aside); without either, the
    shipped logs are read and the user's own read and written.
    """
    if fresh and logs is not None:
        raise UserError("--fresh and --logs exclude each other.", "Give one of them.")
    if fresh:
        return LogDirs((), out / "tuning_logs")
    if logs is not None:
        return LogDirs((), logs)
    return LogDirs((SHIPPED_LOGS,), user_data_dir() / "tuning_logs")


def set_aside(directory: Path) -> None:
    """Rename a directory out of the way, so that nothing in it is lost."""
    if directory.exists():
        directory.rename(directory.with_name(f"{directory.name}.{time.strftime('%Y%m%d-%H%M%S')}"))


def check_target(target: str) -> None:
    """Raises `UserError` for an architecture that is not known."""
    if target not in TARGETS:
        raise UserError(f"target {target!r} is not known.", f"Give --target one of: {', '.join(TARGETS)}.")


def check_writable(directory: Path, option: str) -> None:
    """Raises `UserError` unless `directory` can be written, or created; leaves nothing behind."""
    existing = directory.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"{option} {directory}: {existing} is not a directory.", f"Name another directory with {option}.")
    try:  # permissions do not tell all: root has every one of them, also where nothing can be created
        os.rmdir(tempfile.mkdtemp(prefix=".tvmmobile-", dir=existing))
    except OSError as error:
        raise UserError(
            f"{option} {directory}: {existing} cannot be written: {error.strerror}.", f"Name another directory with {option}."
        ) from error


def check_threads(threads: int, profile: DeviceProfile) -> None:
    """Raises `UserError` for a thread count the device cannot run."""
    if threads > profile.cores:
        raise UserError(f"{threads} threads are more than the {profile.cores} cores of {profile.board}.", "Give a smaller --threads.")


@dataclass(frozen=True)
class Request:
    """Which variants to compile, for what, from which weights and logs: the options that `tune` and `compile` share."""

    target: str
    model: str
    alphas: Sequence[float] | None
    resolutions: Sequence[int] | None
    activation: str | None
    classes: int
    threads: int
    out: Path
    checkpoint: Path | None
    seed: int
    logs: LogDirs
    dump_ir: Path | None

    def jobs(self, profile: DeviceProfile) -> list[VariantJob]:
        """One job per variant, after checking everything that can be checked before any work.

        Raises:
            UserError: an option is wrong, a directory cannot be written, or the linker is missing.
        """
        from tvmmobile.kernels.codegen import linker
        from tvmmobile.networks.own.files import own_file
        from tvmmobile.pipeline.build import VariantJob
        from tvmmobile.tuning.database import Identity
        from tvmmobile.tuning.search.twin import twin_identity

        check_target(self.target)
        own = own_file(self.model)
        check_threads(self.threads, profile)
        check_writable(self.out, "--out")
        if self.dump_ir is not None:
            check_writable(self.dump_ir, "--dump-ir")
        linker(profile.target)
        specs = self._built_in() if own is None else self._own(own)
        twin = twin_identity(profile)
        return [
            VariantJob(
                spec=spec,
                checkpoint=self.checkpoint,
                seed=self.seed,
                dtype="float32",
                threads=self.threads,
                identity=Identity(profile.name, profile.model_hash),
                logs=self.logs.all,
                target=profile.target,
                out=self.out,
                dump_dir=self.dump_ir / spec.variant if self.dump_ir else None,
                twin=twin,
                own=own,
            )
            for spec in specs
        ]

    def _built_in(self) -> Sequence[ModelSpec]:
        from tvmmobile.networks.models.registry import grid

        return grid(self.model, self.alphas or (), self.resolutions or (), self.activation, self.classes)

    def _own(self, file: OwnFile) -> Sequence[ModelSpec]:
        """Loads the network here already, so that whatever is wrong with it is said before any work."""
        from tvmmobile.networks.models.published import IMAGENET_CLASSES
        from tvmmobile.networks.own.loading import own_specs

        for option, given in (
            ("--alpha", any(alpha != 1.0 for alpha in self.alphas or ())),
            ("--activation", self.activation is not None),
            ("--classes", self.classes != IMAGENET_CLASSES),
        ):
            if given:
                raise UserError(f"{option} is for built-in networks; {file} is as it is.", f"Leave {option} away, or change the file.")
        return own_specs(file, self.resolutions or (), self.checkpoint, self.seed)


def worker_count(jobs: int, boards: int | None = None) -> int:
    """Worker processes: one per core this process may use, at most one per job.

    With `boards`, those that measure while others build: one more for each, since it waits for the board nearly all the time. And no more
    than two of the others for each: who comes third waits for two measurements, which its deadline allows for.
    """
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, jobs)) if boards is None else boards + min(cores, 2 * boards)


@contextmanager
def started_workers(count: int, boards: int | None, dask: str | None) -> Iterator[WorkerPool]:
    """Workers while the context lasts.

    Args:
        count: of processes, on this machine.
        boards: how many boards work is measured on that only this machine reaches; `None` for none.
        dask: the address of a Dask scheduler, whose workers do the rest, if any.

    Raises:
        UserError, DeviceUnavailable: see `ClusterWorkers`.
    """
    from tvmmobile.system.workers import Workers

    if dask is None:
        with Workers(count) as workers:
            yield workers
        return
    from tvmmobile.pipeline.cluster.pool import ClusterWorkers, check_address

    check_address(dask)
    with ExitStack() as held:
        here = None if boards is None else held.enter_context(Workers(count))
        yield held.enter_context(ClusterWorkers(dask, here))


@contextmanager
def started_bench(device: Device, workers: WorkerPool, dask: str | None, repeat: int, warmup: int) -> Iterator[Bench]:
    """The device's bench while the context lasts; a virtual board that a Dask cluster works with is started there.

    Raises:
        DeviceUnavailable, UserError: see `Device.started`.
    """
    from tvmmobile.running import bench

    if dask is not None and device.boards is None:
        from tvmmobile.pipeline.cluster.parcel import elsewhere

        yield bench.Bench(elsewhere(device.profile), workers)
    else:
        with bench.started_bench(device, workers, repeat, warmup) as started:
            yield started
