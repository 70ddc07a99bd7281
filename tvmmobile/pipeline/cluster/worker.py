"""The code in a Dask worker: every job runs in its own process, on the worker's own virtual board.

The processes and the board start with the first job that needs them and stay until the worker ends, however it ends. A job that hangs or
crashes takes down one of those processes, never the worker, so the death of a worker does not incriminate its job.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.metadata
import multiprocessing
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.devices.registry import find_device
from tvmmobile.pipeline.cluster.parcel import Delivery, Parcel, delivery, unpack
from tvmmobile.running.measure import Agents
from tvmmobile.system.errors import DeviceUnavailable, UserError
from tvmmobile.system.workers import Workers
from tvmmobile.tuning.search.trial import Outcome

#: Packages whose versions must agree on all machines for equal results.
PACKAGES = ("tvmmobile", "apache-tvm", "apache-tvm-ffi", "torch", "numpy")


@dataclass(frozen=True)
class Order:
    """A parcel with its conditions: the job's own timeout, and the versions of `PACKAGES` on the machine that ordered it."""

    parcel: Parcel
    timeout_s: float
    versions: Mapping[str, str]


def versions_here() -> dict[str, str]:
    """Return the versions of `PACKAGES` as they are installed here."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def check_versions(here: Mapping[str, str], there: Mapping[str, str], where: str) -> None:
    """Raise `UserError` unless two machines have the same versions of `PACKAGES`."""
    different = [name for name in PACKAGES if here.get(name) != there.get(name)]
    if different:
        words = [", ".join(f"{name} {versions.get(name)}" for name in different) for versions in (there, here)]
        raise UserError(
            f"the Dask worker {where} has {words[0]}; this machine has {words[1]}.",
            "Install the same versions on every machine of the cluster, and start its workers again.",
        )


def serve(order: Order) -> Delivery:
    """Do one job; return its result, perhaps a `WorkerError`. Raises `UserError` if this worker cannot, and the job's errors."""
    where, site = _own_site()
    check_versions(order.versions, versions_here(), where)
    with tempfile.TemporaryDirectory(prefix="tvmmobile-job-", dir=site.folder) as name:
        folder = Path(name)
        job = unpack(order.parcel, folder)
        profile = order.parcel.profile
        if profile is not None:
            try:
                place = site.place(profile, order.parcel.board_file)
            except UserError as error:
                message, remedy = error.as_typed
                raise UserError(f"on the Dask worker {where}: {message}", remedy, error.exit_code, error.again) from error
            job = replace(job, agents=place.agents)
        try:
            ((_, result),) = site.processes.run(order.parcel.function, [job], order.timeout_s)
        except DeviceUnavailable:
            if profile is not None:
                site.give_up(profile)
            raise
        if profile is not None and isinstance(result, Outcome) and result.final:
            site.give_up(profile)  # its host process is gone; the next job starts another, so nothing is final
            result = replace(result, final=False)
        return delivery(job, result)


@dataclass(frozen=True)
class _Place:
    """A board of this worker: its agents, with the board's profile on this machine, and a function that stops it."""

    agents: Agents
    held: contextlib.ExitStack = field(repr=False)


class _Site:
    """The processes and boards of this worker, which takes `slots` jobs at a time; Dask removes `folder`, its place for temporary files."""

    def __init__(self, slots: int, folder: Path) -> None:
        self._slots, self.folder = slots, folder
        self._lock = threading.Lock()
        self._places: dict[DeviceProfile, _Place] = {}
        self._all = contextlib.ExitStack()
        _may_have_children()
        self.processes = self._all.enter_context(Workers(slots, folder=folder))
        atexit.register(self.close)

    def place(self, profile: DeviceProfile, board_file: tuple[str, str] | None) -> _Place:
        """Return the board of that profile, started if needed; raise `UserError` if another board is here, or it cannot be started."""
        with self._lock:
            if profile not in self._places:
                self._places[profile] = self._start(profile, board_file)
            return self._places[profile]

    def give_up(self, profile: DeviceProfile) -> None:
        """Stop a board that no longer works, unless already stopped."""
        with self._lock:
            place = self._places.pop(profile, None)
        if place is not None:
            place.held.close()

    def close(self) -> None:
        """End everything."""
        with self._lock:
            for place in self._places.values():
                place.held.close()
            self._places.clear()
            self._all.close()

    def _start(self, profile: DeviceProfile, board_file: tuple[str, str] | None) -> _Place:
        name = profile.name
        if board_file is not None:
            path = self.folder / (profile.origin.model or "") / board_file[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(board_file[1], encoding="utf-8")
            name = str(path)
        board = find_device(name)
        here = board.profile
        if replace(here, board_file="") != replace(profile, board_file=""):
            raise UserError(
                f"{profile.name} has timing model {here.origin.model}, not {profile.origin.model}.",
                "Install the same tvmmobile and the same llvm-mca on every machine of the cluster, and start its workers again.",
            )
        held = contextlib.ExitStack()
        return _Place(Agents(here, held.enter_context(board.started(self._slots))), held)


_SITE_LOCK = threading.Lock()


def _own_site() -> tuple[str, _Site]:
    """Return the address of the Dask worker that this runs in, and its site."""
    from distributed import get_worker

    worker: Any = get_worker()
    with _SITE_LOCK:
        return str(worker.address), _only_site(int(worker.state.nthreads), Path(worker.local_directory))


@functools.lru_cache(maxsize=1)
def _only_site(slots: int, folder: Path) -> _Site:
    return _Site(slots, folder)


def _may_have_children() -> None:
    """Allow this process to start others through multiprocessing, which a nanny forbids its Dask workers.

    The nanny makes it a "daemon" in multiprocessing's sense, whose children nobody would end. Ours end by themselves when their parent
    does (PR_SET_PDEATHSIG), and there is no public way to lift the mark.
    """
    vars(multiprocessing.current_process())["_config"]["daemon"] = False
