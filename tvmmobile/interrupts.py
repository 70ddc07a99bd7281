"""Signals that raise an exception wherever the program is, kept away from places that cannot bear one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Ctrl-C, `kill`, and a terminal that is closed.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def deferred(*numbers: signal.Signals) -> Iterator[None]:
    """Inside, these signals do nothing yet; the first that arrived takes effect at the end. Without numbers, those that end a command.

    For code whose locks would stay locked if it were left at any moment, as Python's futures are: whoever waits for them next waits for
    ever. The signals are not blocked, which processes that are started inside would inherit.
    """
    handlers = {number: handler for number in numbers or ENDING if callable(handler := signal.getsignal(number))}
    if threading.current_thread() is not threading.main_thread():  # no handler runs here
        handlers = {}
    arrived: list[int] = []
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: arrived.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])
