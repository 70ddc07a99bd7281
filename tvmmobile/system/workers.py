"""Persistent worker processes: a job that hangs or kills its worker fails alone, and none outlives its parent."""

from __future__ import annotations

import errno
import importlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from multiprocessing import resource_tracker, spawn
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, cast

import pebble

from tvmmobile.system.environment import debug_level, environment, take_over
from tvmmobile.system.interrupts import deferred

Job = TypeVar("Job")
Result = TypeVar("Result")
#: How long a signal may wait until it takes effect.
_LOOK_S = 0.1
#: A disk with less than this left is full for a library.
_FULL_BYTES = 4 << 20
#: Jobs taken from their source for each worker: one it works on, and one that waits, so that it need not.
JOBS_EACH = 2
_NO_MORE = object()
#: What worker processes are called.
_WORKER = "tvmmobile worker"
_preparation = spawn.get_preparation_data


class WorkerError(Exception):
    """A job came to no end: its worker died, or it took too long. The message says which, in a line."""


class WorkerPool(Protocol):
    """Whatever runs jobs: `Workers` in processes of this machine, `cluster.ClusterWorkers` on others."""

    @property
    def count(self) -> int:
        """Jobs that are worked on at the same time."""

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job], timeout_s: float) -> Iterator[tuple[Job, Result | WorkerError]]:
        """Apply a module-level function to all jobs; yields each job with its result as soon as it is there.

        A worker that dies or exceeds `timeout_s` gives a `WorkerError` in place of a result; what `function` itself raises is raised here.

        Args:
            jobs: taken only as far as there are workers for them, so that what has been yielded may decide what comes next.
        """


class Workers:
    """A pool of processes with the compiler and PyTorch loaded.

    They are forked from a process that has loaded them once (`multiprocessing`'s fork server, which ends after this one).

    Args:
        count: how many.
        preload: modules that every worker imports before its first job, such as one that registers schedule templates of its own.
        folder: for temporary files; without it, the system's.
    """

    def __init__(self, count: int, preload: Sequence[str] = (), folder: Path | None = None) -> None:
        self.count = count
        self._starts = _Starts()
        # The workers' temporary files have one place, because a worker that is killed leaves its own behind.
        self._scratch = tempfile.mkdtemp(prefix="tvmmobile-workers-", dir=folder)
        self._pool = pebble.ProcessPool(
            max_workers=count,
            context=self._starts,
            initializer=_initialize,
            initargs=(environment(), self._scratch, tuple(preload)),
        )
        try:
            # A worker whose start is broken off prints a traceback. Libraries have threads that block nothing and take signals.
            with deferred(), _deaf_to_terminal():
                assert self._pool.active  # asking starts its threads and processes
        except BaseException:  # Ctrl-C above all
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End every worker, whatever it is doing, and remove their temporary files."""
        with deferred():
            try:
                self._pool.stop()
                self._starts.end()
                self._pool.join()
            finally:
                shutil.rmtree(self._scratch, ignore_errors=True)

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job], timeout_s: float) -> Iterator[tuple[Job, Result | WorkerError]]:
        """See `WorkerPool.run`."""
        source = iter(jobs)
        pending: dict[Any, Job] = {}
        try:
            while True:
                while len(pending) < JOBS_EACH * self.count and (job := next(source, _NO_MORE)) is not _NO_MORE:
                    with deferred():
                        pending[self._pool.schedule(function, args=(job,), timeout=timeout_s)] = cast(Job, job)
                if not pending:
                    return
                with deferred():
                    done, _ = wait(list(pending), timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                for future in done:
                    with deferred():
                        result = self._result(future, timeout_s)
                    yield pending.pop(future), result
        finally:
            with deferred():
                for future in pending:
                    future.cancel()

    def _result(self, future: Any, timeout_s: float) -> Any:
        try:
            return future.result()
        except FutureTimeout:
            return WorkerError(f"not done within {timeout_s:.0f} s")
        except pebble.ProcessExpired as error:
            if shutil.disk_usage(self._scratch).free < _FULL_BYTES:  # LLVM ends the process when it cannot write
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._scratch) from error
            return WorkerError(f"its worker process died (exit code {error.exitcode})")


class _Starts(ForkServerContext):
    """Starts a pool's processes, until it ends them all.

    A pool puts new workers in the place of those whose jobs were cancelled, even while it stops; such a worker would find the pool's
    semaphores gone and print a traceback.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_forkserver_preload(["tvmmobile.system.preloaded"])
        self.lock = threading.Lock()
        self.started: list[_Process] = []
        self.ended = False

    def Process(self, *args: Any, **kwargs: Any) -> _Process:  # type: ignore[override]  # noqa: N802
        """See `multiprocessing.Process`."""
        return _Process(self, *args, **kwargs)

    def end(self) -> None:
        """End whatever was started; nothing starts any more."""
        with self.lock:
            self.ended = True
        for process in self.started:
            process.kill()


def _prepared(name: str) -> dict[str, Any]:
    """What multiprocessing tells a new process of this one; ours are not told the user's program, which they would run once more."""
    told = _preparation(name)
    return {key: value for key, value in told.items() if not (name == _WORKER and key.startswith("init_main_from"))}


class _Process(ForkServerProcess):
    def __init__(self, starts: _Starts, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = _WORKER
        self._starts: _Starts | None = starts

    def start(self) -> None:
        """See `multiprocessing.Process`; raises `OSError` where the pool is ending."""
        starts, self._starts = self._starts, None  # it does not go along to the process
        assert starts is not None
        with starts.lock:
            if starts.ended:
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            spawn.get_preparation_data = _prepared
            super().start()
            starts.started.append(self)


def worker_count(jobs: int, boards: int | None = None) -> int:
    """Worker processes: one per core this process may use, at most one per job.

    With `boards`, those that measure while others build: one more for each, since it waits for the board nearly all the time. And no more
    than two of the others for each: who comes third waits for two measurements, which its deadline allows for.
    """
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, jobs)) if boards is None else boards + min(cores, 2 * boards)


@contextmanager
def _deaf_to_terminal() -> Iterator[None]:
    """Threads and processes started inside, and those they start, never hear Ctrl-C or a hang-up: their parent ends them, in order.

    A Python that is interrupted while it starts, before any of our code runs, would print a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()  # it unblocks SIGINT as it starts
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _initialize(inherited: Mapping[str, str], scratch: str, preload: Sequence[str]) -> None:
    """Leave Ctrl-C to the parent, die with it, take over its environment, and load the compiler before the first job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    take_over({**inherited, "TMPDIR": scratch})
    tempfile.tempdir = scratch
    if not debug_level():  # a compiler that crashes prints its stack; the reason reaches the parent without it
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
    import torch
    import tvm  # noqa: F401

    torch.set_num_threads(1)
    for name in preload:
        importlib.import_module(name)


def _die_with_parent() -> None:
    """The parent, which is not the process that this one was forked from."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
