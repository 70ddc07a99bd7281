"""Waiting for something that happens elsewhere, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(holds: Callable[[], bool], what: str = "a condition", timeout_s: float = 15.0) -> None:
    """Return once `holds()`; fail if that takes longer than `timeout_s`, naming `what` was waited for."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.02)
