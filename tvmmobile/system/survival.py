"""Ends child processes with their parent, and tries native code that may crash in a child first."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
from collections.abc import Callable

#: Time limit of a trial, by the clock.
_MOST_S = 60
_PR_SET_PDEATHSIG = 1


def survives(call: Callable[[], object]) -> bool:
    """Run a call in a copy of this process, ignoring its result; return false if a signal ended the copy."""
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_MOST_S)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            faulthandler.disable()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what a failed assertion prints
            call()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status)


def die_with_parent() -> None:
    """End this process when the one that started it ends, for whatever reason. Linux only."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
