"""A job for workers of any kind, in a module that needs nothing else of the tests'."""

from __future__ import annotations

import os
import signal
import time


def misbehave(kind: str) -> str:
    """Does what it is told, and returns that."""
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hang":
        time.sleep(600)
    return kind
