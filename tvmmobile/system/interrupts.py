"""Signals that end a command, kept from getting lost and away from places that cannot bear an exception."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Handler = Callable[[int, Any], Any]
#: A terminal that is closed, `kill`, and Ctrl-C.
ENDING = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


class Terminated(SystemExit):
    """SIGTERM or SIGHUP arrived; the code is the one that a shell reports for it."""


def terminate(number: int, _frame: object) -> None:
    """Handler of SIGTERM and SIGHUP: ends the command in order, as Ctrl-C does. What follows of them does not disturb that."""
    for other in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise Terminated(128 + number)


@contextmanager
def deferred() -> Iterator[list[int]]:
    """Inside, these signals only enter the list that is yielded; the first of them takes effect at the end.

    For code whose locks would stay locked if it were left at any moment, as Python's futures are: whoever waits for them next waits for
    ever. The signals are not blocked, which processes that are started inside would inherit.
    """
    arrived: list[int] = []
    try:
        with _replaced(_handlers(), lambda number, _: arrived.append(number)):
            yield arrived
    finally:
        if arrived:
            signal.raise_signal(arrived[0])


@contextmanager
def insisted() -> Iterator[None]:
    """These signals take effect at once, and once more at the end if what they raised did not get there.

    For libraries that call Python back from where no exception gets through, such as weak references.
    """
    handlers, arrived = _handlers(), list[int]()

    def note(number: int, frame: object) -> None:
        arrived.append(number)
        handlers[number](number, frame)

    try:
        with _replaced(handlers, note):
            yield
    finally:
        if arrived:
            handlers[arrived[0]](arrived[0], None)


@contextmanager
def _replaced(handlers: Mapping[int, Handler], other: Handler) -> Iterator[None]:
    """Another handler in the place of these, which come back in their order."""
    try:
        for number in handlers:
            signal.signal(number, other)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _handlers() -> dict[int, Handler]:
    """Those that raise something; none in another thread than the main one, where no handler runs.

    Ctrl-C's is the last: once it is there again, it may raise before the rest of them is.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = ((number, signal.getsignal(number)) for number in ENDING)
    return {number: handler for number, handler in found if callable(handler)}
