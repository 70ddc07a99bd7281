"""Persistent worker processes: a candidate that hangs or kills its worker fails alone, and none outlives its parent."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, wait
from concurrent.futures import TimeoutError as FutureTimeout
from types import TracebackType
from typing import Any, Self

import pebble

from tvmmobile.search.trial import Job, Outcome, run_trial

#: For building and running one candidate; the run alone has its own, shorter deadline on the device.
TRIAL_TIMEOUT_S = 90.0
_PR_SET_PDEATHSIG = 1


class Workers:
    """A pool that runs trials in parallel.

    Args:
        count: worker processes.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = pebble.ProcessPool(
            max_workers=count, context=multiprocessing.get_context("spawn"), initializer=_initialize, initargs=(os.getpid(),)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._pool.close()
        else:
            self._pool.stop()
        self._pool.join()

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Run all jobs; yields each with its outcome as soon as it is there."""
        pending: dict[Any, Job] = {self._pool.schedule(run_trial, args=(job,), timeout=TRIAL_TIMEOUT_S): job for job in jobs}
        try:
            while pending:
                done, _ = wait(list(pending), return_when=FIRST_COMPLETED)
                for future in done:
                    yield pending.pop(future), _outcome(future)
        finally:
            for future in pending:
                future.cancel()


def _outcome(future: Any) -> Outcome:
    try:
        outcome: Outcome = future.result()
    except FutureTimeout:
        return Outcome(None, error=f"neither built nor measured within {TRIAL_TIMEOUT_S:.0f} s")
    except (pebble.ProcessExpired, CancelledError) as error:
        return Outcome(None, error=f"its worker died: {error}")
    return outcome


def _initialize(parent: int) -> None:
    """Leave Ctrl-C to the parent, die with it, and load the compiler before the first trial is timed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before the call above
        os._exit(1)
    import torch
    import tvm  # noqa: F401

    torch.set_num_threads(1)
