"""Jobs on a Dask cluster, with the interface of `workers.Workers`.

The scheduler at the given address is trusted: Dask executes whatever its scheduler receives, and its answers are unpickled here. So both
ends need certificates (TLS), unless Dask's own configuration explicitly waives them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import pickle
import queue
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Self

from tvmmobile.pipeline.cluster.parcel import Delivery, accept, pack
from tvmmobile.pipeline.cluster.worker import PACKAGES, Order, check_versions, versions_here
from tvmmobile.pipeline.stages.timing import bench_library
from tvmmobile.system.environment import debug_level
from tvmmobile.system.errors import DeviceUnavailable, UserError, one_line
from tvmmobile.system.workers import JOBS_EACH, Job, Result, WorkerError, WorkerPool
from tvmmobile.tuning.search.trial import Built, Outcome, build_trial, measure_trial, run_trial

#: Time limits for the scheduler to answer, and to have a worker.
CONNECT_S = 30.0
#: Interval of checks of the cluster, and how long it may be without any worker while it has our work.
LOOK_S, WITHOUT_WORKERS_S = 2.0, 60.0
_CLOSE_S = 5.0
_ADDRESS = re.compile(r"(tcp|tls)://(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(\d{1,5})")
_NO_MORE = object()
_CERTIFICATES = "For tls://, name its certificates in Dask's own configuration (distributed.comm.tls); see its documentation."


class ClusterWorkers:
    """The workers of a Dask cluster.

    Args:
        address: the scheduler's, `tcp://HOST:PORT`, or `tls://HOST:PORT` with certificates from Dask's own configuration.
        here: processes of this machine, for jobs on boards that only this machine can reach; without them, jobs that need a board run on
            virtual boards that the workers start.
        connect_s: longest time for the scheduler to answer.

    Raises:
        UserError: the address is invalid or not encrypted, certificates do not match, Dask is not installed, or a worker has other versions
            than this machine.
        DeviceUnavailable: the scheduler does not answer, or has no workers.
    """

    def __init__(self, address: str, here: WorkerPool | None = None, connect_s: float = CONNECT_S) -> None:
        self.address, self._here = address, here
        self._client = _connected(address, connect_s)
        try:
            self._versions = versions_here()
            self._threads: Mapping[str, int] = {}
            self._looked_at = self._seen_at = time.monotonic()
            self._check_workers(connect_s)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def count(self) -> int:
        """Threads of all Dask workers; at least 1."""
        return max(1, sum(self._threads.values()))

    def stop(self) -> None:
        """Leave the cluster and cancel jobs that have not begun. Its workers, and the boards they started, stay."""
        with contextlib.suppress(Exception):  # it may have left already
            self._client.close(_CLOSE_S)

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job], timeout_s: float) -> Iterator[tuple[Job, Result | WorkerError]]:
        """Implement `WorkerPool.run`; a dead worker's job goes to another. Raises `DeviceUnavailable` if scheduler or all workers end."""
        if self._here is None:
            return self._run_there(function, jobs, timeout_s)
        chosen: Any = function
        if chosen is run_trial:
            return self._run_in_halves(jobs, timeout_s)
        return self._here.run(function, jobs, timeout_s) if chosen is bench_library else self._run_there(function, jobs, timeout_s)

    def _run_in_halves(self, jobs: Iterable[Any], timeout_s: float) -> Iterator[tuple[Any, Any]]:
        """Build candidates on the cluster, and measure them from here."""
        here = self._here
        assert here is not None

        def built() -> Iterator[Built]:
            # No further ahead than the boards can measure: later proposals depend on more measurements.
            for job, result in self._run_there(build_trial, jobs, timeout_s, JOBS_EACH * here.count, builds=True):
                yield Built(job, Outcome(None, error=str(result)) if isinstance(result, WorkerError) else result)

        for candidate, outcome in here.run(measure_trial, built(), timeout_s):
            yield candidate.job, outcome

    def _run_there(
        self, function: Callable[[Any], Any], jobs: Iterable[Any], timeout_s: float, most: float = math.inf, builds: bool = False
    ) -> Iterator[tuple[Any, Any]]:
        source, ended, carrier = iter(jobs), queue.SimpleQueue[Any](), _carrier()
        pending: dict[str, tuple[Any, Any]] = {}
        try:
            while True:
                while len(pending) < min(most, JOBS_EACH * self.count) and (job := next(source, _NO_MORE)) is not _NO_MORE:
                    order = pickle.dumps(Order(pack(function, job, builds), timeout_s, self._versions))
                    future = self._client.submit(carrier, order, pure=False)
                    pending[future.key] = future, job
                    future.add_done_callback(ended.put)
                if not pending:
                    return
                future, job = pending.pop(self._next(ended).key)
                delivered = self._result(future)
                del future  # the cluster keeps a result as long as somebody refers to it
                yield job, accept(job, delivered)
        finally:
            if pending:
                with contextlib.suppress(Exception):  # the cluster may be gone
                    self._client.cancel([future for future, _ in pending.values()])

    def _next(self, ended: queue.SimpleQueue[Any]) -> Any:
        """Return the next future that has ended."""
        self._seen_at = time.monotonic()
        while True:
            if time.monotonic() - self._looked_at > LOOK_S:
                self._look()
            with contextlib.suppress(queue.Empty):
                return ended.get(timeout=LOOK_S)

    def _look(self) -> None:
        """Look up the workers, which may come and go at any time."""
        try:
            self._threads = self._client.sync(self._client.scheduler.ncores, callback_timeout=CONNECT_S)
        except Exception as error:  # a lost connection raises errors of any kind
            raise self._gone() from error
        self._looked_at = time.monotonic()
        if self._threads:
            self._seen_at = self._looked_at
        if self._looked_at - self._seen_at > WITHOUT_WORKERS_S:
            raise DeviceUnavailable(
                f"the Dask scheduler {self.address} has had no workers for {WITHOUT_WORKERS_S:g} s.",
                f"Start some with: dask worker {self.address} --nthreads 1; then run the same command again, finished work is kept.",
                again=True,
            )

    def _result(self, future: Any) -> Delivery:
        from distributed.scheduler import KilledWorker

        if future.status in ("cancelled", "lost"):
            raise self._gone()
        try:
            delivered: Delivery = future.result()
        except CancelledError as error:
            raise self._gone() from error
        except KilledWorker as error:
            raise DeviceUnavailable(
                f"the Dask workers that were given one job died one after another; the last was {error.last_worker.address}.",
                "Look at their logs (they usually ran out of memory), then run the same command again; finished work is kept.",
                again=True,
            ) from error
        except ModuleNotFoundError as error:
            raise UserError(
                f"a Dask worker of {self.address} has no module {error.name}.",
                "Install the same tvmmobile on every machine of the cluster.",
            ) from error
        return delivered

    def _gone(self) -> DeviceUnavailable:
        return DeviceUnavailable(
            f"the Dask scheduler {self.address} went away.",
            "Run the same command again once it is back; finished work is kept.",
            again=True,
        )

    def _check_workers(self, within_s: float) -> None:
        """Wait for the first worker, and check the versions of all."""
        import importlib.metadata

        deadline = time.monotonic() + within_s
        self._look()
        while not self._threads:
            if time.monotonic() > deadline:
                raise DeviceUnavailable(
                    f"the Dask scheduler {self.address} has no workers.", f"Start some with: dask worker {self.address} --nthreads 1"
                )
            time.sleep(0.1)
            self._look()
        # Functions of the standard library, so that the answer does not depend on the versions in question.
        found = {name: self._client.run(importlib.metadata.version, name, on_error="return") for name in PACKAGES}
        for worker in self._threads:
            answers = {name: versions.get(worker) for name, versions in found.items()}
            if not any(version is None for version in answers.values()):  # otherwise it has just left
                installed = {name: version if isinstance(version, str) else "not installed" for name, version in answers.items()}
                check_versions(self._versions, installed, worker)


def _carrier() -> Callable[[bytes], Delivery]:
    """Return the function that Dask runs: it is pickled by value, because it belongs to no module, so that a scheduler needs only Dask."""

    def carried(order: bytes) -> Delivery:
        import pickle

        from tvmmobile.pipeline.cluster.worker import serve

        return serve(pickle.loads(order))

    return carried


def check_address(address: str) -> None:
    """Raise `UserError` unless it is the address of a scheduler."""
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found.group(3)) < 65536:
        raise UserError(
            f"--dask {address} is not the address of a Dask scheduler.", "Give it as Dask prints it: tcp://HOST:PORT, or tls://HOST:PORT."
        )


def _check_encrypted(address: str, required: bool | None) -> None:
    """Raise `UserError` for an address without TLS, unless Dask's configuration, `None` by default, says that it is not required."""
    if address.startswith("tcp://") and required is not False:
        raise UserError(
            f"{address} is not encrypted: anybody who can reach it can run code there and, through its answers, here.",
            "Use tls:// with certificates (docs/devices.md says how), or, if nobody else can reach it, run first: "
            "export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=False",
        )


async def _greet(address: str, connect_s: float, arguments: Mapping[str, Any]) -> None:
    """Exchange greetings with the scheduler. A `Client` waits for ever for one that accepts connections and does not answer."""
    from distributed.comm import connect

    comm = await connect(address, timeout=connect_s, **arguments)
    comm.abort()


def _certificates() -> Mapping[str, Any]:
    """Return Dask's connection settings with certificates loaded; raise `UserError` if they cannot be loaded."""
    from distributed.security import Security

    try:
        arguments: Mapping[str, Any] = Security().get_connection_args("client")
    except OSError as error:  # OpenSSL's as well
        raise UserError(f"the certificates in Dask's configuration cannot be loaded: {one_line(error)}.", _CERTIFICATES) from error
    return arguments


def _refused(address: str, error: OSError) -> str:
    """Return the reason why one end of a connection does not trust the other; "" if it failed for another reason."""
    from distributed.comm import CommClosedError

    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return f"it has another certificate: {one_line(error.__cause__)}"
    if address.startswith("tls://") and isinstance(error, CommClosedError):
        return "it ended the connection, as it does where it does not know the certificate"
    return ""


def _connected(address: str, connect_s: float) -> Any:
    """Return a client of the scheduler; it opens no listening port and no dashboard."""
    check_address(address)
    try:
        import dask
        import distributed
    except ImportError as error:
        raise UserError(f"--dask needs Dask: {error}.", "Run: python -m pip install 'tvmmobile[cluster]'") from error
    _check_encrypted(address, dask.config.get("distributed.comm.require-encryption", None))
    if not debug_level():  # our own message replaces its log of connections that end
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
    dask.config.set({"distributed.admin.large-graph-warning-threshold": "10GB"})  # libraries travel with their jobs
    certificates = _certificates()
    try:
        asyncio.run(asyncio.wait_for(_greet(address, connect_s, certificates), connect_s))
        return distributed.Client(address, timeout=connect_s, set_as_default=False)
    except OSError as error:
        if reason := _refused(address, error):
            raise UserError(f"the Dask scheduler {address} cannot be reached: {reason}.", _CERTIFICATES) from error
        raise DeviceUnavailable(
            f"the Dask scheduler {address} did not answer within {connect_s:g} s.",
            "Start one with: dask scheduler --host ADDRESS; or leave out --dask to use only this machine.",
        ) from error
    except (TypeError, ValueError, RuntimeError, ImportError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"the Dask scheduler {address} cannot be reached: {reason}.", _CERTIFICATES) from error
