"""Signals that end a command: none gets lost, and none interrupts code that cannot handle an exception."""

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
    """SIGTERM or SIGHUP arrived; with the exit code that a shell reports for it."""


def terminate(number: int, _frame: object) -> None:
    """Handle SIGTERM and SIGHUP: end the command in order, as Ctrl-C does. Further signals are ignored meanwhile."""
    for other in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise Terminated(128 + number)


@contextmanager
def deferred() -> Iterator[list[int]]:
    """Defer these signals: they are added to the yielded list, and the first of them takes effect at the end.

    For code whose locks would stay locked if an exception left it at the wrong moment, such as Python's futures: the next to wait for
    them would wait for ever. The signals are not blocked, because processes started inside would inherit that.
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
    """Handle these signals at once, and again at the end if the exception they raised was swallowed.

    For libraries that call back into Python where exceptions are swallowed, such as in weak references.
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
    """Install another handler for these signals; restore their own in order at the end."""
    try:
        for number in handlers:
            signal.signal(number, other)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _handlers() -> dict[int, Handler]:
    """Return the handlers that raise; none outside the main thread, where no handler runs.

    Ctrl-C's comes last: once restored, it may raise before the others are.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = ((number, signal.getsignal(number)) for number in ENDING)
    return {number: handler for number, handler in found if callable(handler)}
