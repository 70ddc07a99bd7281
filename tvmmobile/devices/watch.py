"""Looks after a device's boards while they are measured: waits until they are cool, and says when a run is spoiled."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from tvmmobile.devices.boards import Board
from tvmmobile.devices.connect import connected
from tvmmobile.devices.health import WARM_C, Health, read_health
from tvmmobile.devices.remote import Remote

#: How long a board gets to cool down, and how often it is looked at meanwhile.
COOL_S, COOL_POLL_S = 300.0, 5.0
#: A clock is held down when it is this much below the highest although the governor asks for that.
_CLOCK_SHARE = 0.98


class Watch:
    """Connections to all boards of a device, for their state alone."""

    def __init__(self, boards: Sequence[Board], remotes: Sequence[Remote]) -> None:
        self._boards, self._remotes = boards, remotes

    def read(self) -> tuple[Health, ...]:
        """The boards' state, in their order.

        Raises:
            LinkLost: a connection is gone.
        """
        return tuple(read_health(remote, board) for remote, board in zip(self._remotes, self._boards, strict=True))

    def wait_until_cool(self, limit_s: float = COOL_S, poll_s: float = COOL_POLL_S) -> tuple[Health, ...]:
        """The boards' state once they are cool and nothing holds their clocks down, or `limit_s` have passed.

        Raises:
            LinkLost: a connection is gone.
        """
        deadline = time.monotonic() + limit_s
        while True:
            now = self.read()
            hot = any(health.throttled or (health.temperature_c or 0.0) > WARM_C for health in now)
            if not hot or time.monotonic() >= deadline:
                return now
            time.sleep(poll_s)

    def spoiled(self, before: Sequence[Health], after: Sequence[Health]) -> str:
        """Why what was measured between two states does not count; "" where it does."""
        for board, then, now in zip(self._boards, before, after, strict=True):
            if then.boot != now.boot:
                return "the board was started anew"
            if held := dict.fromkeys((*then.throttled, *now.throttled)):
                return f"its clocks were held down: {', '.join(held)}"
            highest = max(core.max_hz for core in board.facts.cores)
            fastest = max(now.clocks_hz, default=0.0)
            if now.governor == "performance" and 0 < fastest < _CLOCK_SHARE * highest:
                return f"its clock was {fastest / 1e9:g} GHz, not {highest / 1e9:g}"
        return ""


@contextlib.contextmanager
def watching(boards: Sequence[Board]) -> Iterator[Watch]:
    """A watch over boards until the context ends.

    Raises:
        DeviceUnavailable: one cannot be reached, or is lost.
    """
    with contextlib.ExitStack() as stack:
        yield Watch(boards, [stack.enter_context(connected(board.address)) for board in boards])
