"""A tracker without agents, served by a thread of the test's process."""

from __future__ import annotations

import selectors
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tvmmobile.devices.agents.proof import new_secret
from tvmmobile.devices.agents.tracker import Tracker
from tvmmobile.devices.protocol import Endpoint


@contextmanager
def served_tracker(secret: str | None = None) -> Iterator[Endpoint]:
    """Where it is asked for agents called `pi4`, with a secret of its own unless one is given."""
    selector, secret = selectors.DefaultSelector(), secret or new_secret()
    tracker, running = Tracker(selector, secret), True

    def loop() -> None:
        while running:
            for key, _ in selector.select(0.02):
                tracker.handle(key.data)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield Endpoint("127.0.0.1", tracker.port, "pi4", secret)
    finally:
        running = False
        thread.join()
