"""Persistent worker processes: a job that hangs or kills its worker fails alone, and none outlives its parent."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, forkserver, resource_tracker, spawn
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import pebble

from tvmmobile.system.emulators import slowdown
from tvmmobile.system.environment import debug_level, environment, take_over, torch_cache
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import check_space, filling_cache
from tvmmobile.system.interrupts import deferred
from tvmmobile.system.plugins import load_plugins
from tvmmobile.system.scratch import place_sockets, scratch
from tvmmobile.system.survival import die_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")
#: Longest time until a signal takes effect.
_LOOK_S = 0.1
#: Jobs taken from their source per worker: one in work, and one ready to follow at once.
JOBS_EACH = 2
_NO_MORE = object()
#: Longest time until a worker's death is noticed.
_NOTICED_S = 0.3
#: Number of times that workers may die during start-up, and that a job may be lost while it runs alone.
_MOST_STARTS = _MOST_TRIES = 3
#: Pause between attempts to start workers. A large process that was killed takes a while to die.
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)
#: Name of worker processes.
_WORKER = "tvmmobile worker"
_preparation = spawn.get_preparation_data
#: Held while a process is started, so that no other thread sees that this one is no daemon meanwhile.
_STARTING = threading.Lock()


class WorkerError(Exception):
    """A job did not finish: its worker died, or it took too long. The one-line message says which.

    Attributes:
        code: the exit code of a worker that died.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class WorkerPool(Protocol):
    """Runs jobs: `Workers` in processes on this machine, `cluster.ClusterWorkers` on others."""

    @property
    def count(self) -> int:
        """Number of jobs that run at the same time."""

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job], timeout_s: float) -> Iterator[tuple[Job, Result | WorkerError]]:
        """Apply a module-level function to all jobs; yield each job with its result as it finishes.

        A worker that dies or exceeds `timeout_s` gives a `WorkerError` in place of a result; what `function` itself raises is raised here.

        Args:
            jobs: taken only as workers become free, so that later jobs may depend on earlier results.
            timeout_s: longest time for a job on a normal machine; an emulated one gets more time (`slowdown`).
        """


@contextmanager
def processor_limit(seconds: float) -> Iterator[None]:
    """End this process, a worker, once it has used that much processor time in the context: the job's result is a `WorkerError`.

    A signal ends it where the compiler does not return to Python.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds * slowdown())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


class Workers:
    """A pool of processes with the compiler and PyTorch loaded.

    They are forked from a process that has loaded them once (`multiprocessing`'s fork server, which ends after this one). Where one of them
    dies, all of them are started again, and the jobs they had are tried once more, one at a time: a job is only blamed if its worker dies
    while it is alone. Something else may be the cause, such as the kernel when memory runs out.

    Args:
        count: number of processes.
        folder: folder for temporary files; without it, the system's.

    Raises:
        UserError: no process can be started, or the cache cannot be written.
    """

    def __init__(self, count: int, folder: Path | None = None) -> None:
        self.count = count
        with filling_cache(torch_cache()):
            torch_cache().mkdir(parents=True, exist_ok=True)  # an interrupted import of PyTorch could not be repaired later
        # The workers' temporary files have one place, because a worker that is killed leaves its own behind.
        self._held = ExitStack()
        self._scratch = str(self._held.enter_context(scratch("workers", folder)))
        self._lock = threading.Lock()
        self._failed_starts = 0
        try:
            self._pool = self._started()
        except BaseException:  # Ctrl-C above all
            self._held.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End every worker, whatever it is doing, and remove their temporary files."""
        with deferred(), self._lock:
            try:
                self._pool.stop()
            finally:
                self._held.close()

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job], timeout_s: float) -> Iterator[tuple[Job, Result | WorkerError]]:
        source, suspects = iter(jobs), deque[_RunningJob]()
        timeout_s *= slowdown()
        pending: dict[Any, _RunningJob] = {}
        try:
            while True:
                while (one := self._next(source, pending, suspects)) is not None:
                    with deferred():
                        pending[self._scheduled(function, one, timeout_s)] = one
                if not pending:
                    return
                with deferred():
                    wait(list(pending), timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                    self._replace_if_lost()
                for future in [future for future, one in pending.items() if future.done() or one.pool is not self._pool]:
                    with deferred():
                        result = self._result(future, timeout_s)
                    one = pending.pop(future)
                    if isinstance(result, _WorkerDied) and not one.to_blame(result):
                        one.alone += 1
                        suspects.append(one)
                    else:
                        yield one.job, result
        finally:
            with deferred():
                for future in pending:
                    future.cancel()

    def _next(self, source: Iterator[Any], pending: Mapping[Any, _RunningJob], suspects: deque[_RunningJob]) -> _RunningJob | None:
        """Return a job to start now: any while workers are free, or a suspect once nothing else is running."""
        if suspects:
            return suspects.popleft() if not pending else None
        if any(one.alone for one in pending.values()) or len(pending) >= JOBS_EACH * self.count:
            return None
        job = next(source, _NO_MORE)
        return None if job is _NO_MORE else _RunningJob(job)

    def _scheduled(self, function: Callable[[Any], Any], one: _RunningJob, timeout_s: float) -> Any:
        while True:
            with self._lock:
                one.pool = self._pool
                try:
                    return self._pool.processes.schedule(function, args=(one.job,), timeout=timeout_s)
                except RuntimeError:
                    if not self._pool.lost():
                        raise
            self._replace_if_lost()

    def _replace_if_lost(self) -> None:
        """Start the workers again where one of them died; raise `UserError` if they die before they can work."""
        with self._lock:
            if not self._pool.lost():
                return
            time.sleep(_NOTICED_S)
            self._failed_starts = 0 if self._pool.was_ready() else self._failed_starts + 1
            if self._failed_starts == _MOST_STARTS:
                raise UserError(
                    f"worker processes died {_MOST_STARTS} times while they started.",
                    "Look at the kernel's log (dmesg): it kills processes when memory runs out. TVMMOBILE_DEBUG=1 shows what they print.",
                )
            self._pool.stop()
            self._pool = self._started()

    def _started(self) -> _Pool:
        """Start processes. The process that they fork from may be dying; once dead, it is started again."""
        for pause_s in _PAUSES_S:
            with suppress(UserError):
                return _Pool(self.count, self._scratch)
            time.sleep(pause_s)
        return _Pool(self.count, self._scratch)

    def _result(self, future: Any, timeout_s: float) -> Any:
        if not future.done():
            return _WorkerDied("its worker processes were ended")
        try:
            return future.result()
        except FutureTimeout:
            return WorkerError(f"not done within {timeout_s:.0f} s")
        except BrokenProcessPool:
            return _WorkerDied("its worker processes died")
        except pebble.ProcessExpired as error:
            if error.exitcode == -signal.SIGPROF:
                return WorkerError("it took too much processor time")
            check_space(Path(self._scratch))  # LLVM ends the process when it cannot write
            return _WorkerDied(f"its worker process died (exit code {error.exitcode})", error.exitcode)
        except Exception:
            check_space(Path(self._scratch))
            raise


class _WorkerDied(WorkerError):
    """A job's worker died, with this exit code, or the job was lost with the worker of another one."""


@dataclass
class _RunningJob:
    """A running job; `alone` counts its attempts without other running jobs."""

    job: Any
    pool: _Pool | None = None
    alone: int = 0

    def to_blame(self, died: _WorkerDied) -> bool:
        """Return whether the job itself probably killed its worker."""
        return self.alone > 0 and (died.code is not None or self.alone >= _MOST_TRIES)


class _Pool:
    """Processes that take jobs, until one of them dies by itself or they are stopped."""

    def __init__(self, count: int, scratch: str) -> None:
        self._starts = _Starts()
        self._stopped = False
        place_sockets()
        with _deaf_to_terminal():
            self._ready = self._starts.Semaphore(0)
        arguments = environment(), scratch, self._ready
        self.processes = pebble.ProcessPool(count, context=self._starts, initializer=_initialize, initargs=arguments)
        try:
            # A worker interrupted during start-up prints a traceback. Libraries have threads that block no signals and receive them.
            with deferred(), _deaf_to_terminal():
                assert self.processes.active  # the first submission starts its threads and processes
        except BrokenProcessPool as error:
            self.stop()
            raise UserError(f"worker processes cannot be started: {error.__cause__ or error}.", "Run: tvmmobile doctor") from error
        except BaseException:  # Ctrl-C above all
            self.stop()
            raise

    def lost(self) -> bool:
        """Return whether a process died by itself."""
        return not self._stopped and (self._starts.lost() or not self.processes.active)

    def was_ready(self) -> bool:
        """Return whether some process could work."""
        return self._ready.acquire(block=False)

    def stop(self) -> None:
        """End every process."""
        self._stopped = True
        with deferred():
            self.processes.stop()
            self._starts.end()
            self.processes.join()


class _Starts(ForkServerContext):
    """Starts a pool's processes, until `end` stops them all.

    A pool replaces workers whose jobs were cancelled, even while it stops; such a worker would find the pool's semaphores gone and
    print a traceback.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_forkserver_preload(["tvmmobile.system.preloaded"])
        self.lock = threading.Lock()
        self.started: list[_Process] = []
        self.ended = False

    def Process(self, *args: Any, **kwargs: Any) -> _Process:  # type: ignore[override]  # noqa: N802
        return _Process(self, *args, **kwargs)

    def lost(self) -> bool:
        """Return whether a process ended unasked. This does not read its exit code, which only the first reader gets."""
        with self.lock:
            return bool(connection.wait([process.sentinel for process in self.started if not process.ended_by_us], 0))

    def end(self) -> None:
        """End whatever was started; nothing starts any more."""
        with self.lock:
            self.ended = True
        for process in self.started:
            process.kill()


def _prepared(name: str) -> dict[str, Any]:
    """Return multiprocessing's data for a new process; ours do not get the user's main program, which they would run again."""
    data = _preparation(name)
    return {key: value for key, value in data.items() if not (name == _WORKER and key.startswith("init_main_from"))}


class _Process(ForkServerProcess):
    def __init__(self, starts: _Starts, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = _WORKER
        self.ended_by_us = False
        vars(self)["_config"].pop("tempdir", None)  # its own sockets go with its other temporary files
        self._starts: _Starts | None = starts

    def start(self) -> None:
        """Start the process; raise `OSError` if the pool is ending."""
        starts, self._starts = self._starts, None  # it is not pickled for the process
        assert starts is not None
        with starts.lock:
            if starts.ended:
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            spawn.get_preparation_data = _prepared
            with _as_parent():
                super().start()
            starts.started.append(self)

    def terminate(self) -> None:
        self.ended_by_us = True
        super().terminate()

    def kill(self) -> None:
        self.ended_by_us = True
        super().kill()


@contextmanager
def _as_parent() -> Iterator[None]:
    """Let this process start others, even where it is a daemon, as in a user's `multiprocessing.Pool`.

    Daemons may not have children because these would outlive them; ours end with their parent.
    """
    settings: dict[str, Any] = vars(multiprocessing.current_process())["_config"]
    with _STARTING:
        daemon = settings.pop("daemon", None)
        try:
            yield
        finally:
            if daemon is not None:
                settings["daemon"] = daemon


def _forget_fork_server() -> None:
    """Let a copy of this process start a fork server of its own: it cannot wait for its parent's, as `multiprocessing` would try."""
    server: Any = vars(forkserver)["_forkserver"]
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
    server.__init__()


os.register_at_fork(after_in_child=_forget_fork_server)


def worker_count(jobs: int, boards: int | None = None) -> int:
    """Return the number of worker processes: one per core this process may use, at most one per job.

    With `boards`, some measure while others build: one more for each board, since it mostly waits. At most two builders per board:
    a third would wait for two measurements, which its deadline allows for.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has none
    return max(1, min(cores, jobs)) if boards is None else boards + min(cores, 2 * boards)


@contextmanager
def _deaf_to_terminal() -> Iterator[None]:
    """Make threads and processes started inside, and theirs, ignore Ctrl-C and hang-ups: their parent ends them in order.

    A Python that is interrupted while it starts, before any of our code runs, would print a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()  # it unblocks SIGINT when it starts
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _initialize(inherited: Mapping[str, str], scratch: str, ready: Semaphore) -> None:
    """Leave Ctrl-C to the parent, die with it, take over its environment, and load the compiler and plugins before the first job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        die_with_parent()  # die with the process it was forked from: whoever kills that one means us, too
    threading.Thread(target=_die_with_parent, daemon=True).start()
    take_over({**inherited, "TMPDIR": scratch})
    tempfile.tempdir = scratch
    if not debug_level():  # a compiler that crashes prints its stack; the reason reaches the parent without it
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
    import torch
    import tvm  # noqa: F401

    torch.set_num_threads(1)
    load_plugins()
    ready.release()


def _die_with_parent() -> None:
    """End with the parent, which is not the process that this one was forked from."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
