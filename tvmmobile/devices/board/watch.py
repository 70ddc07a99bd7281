"""Monitors a device's boards during measurements: waits until they are cool, and reports when a run is spoiled."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from tvmmobile.devices.board.connect import connect, described
from tvmmobile.devices.board.health import CLOCK_SHARE, WARM_C, Health, capped, read_health
from tvmmobile.devices.board.link import PAUSE_S, RECONNECT_S
from tvmmobile.devices.board.registered import RegisteredBoard
from tvmmobile.devices.board.remote import LinkLost, Remote
from tvmmobile.system.errors import DeviceUnavailable

#: Longest time for a board to cool down, and the interval of checks.
COOL_S, COOL_POLL_S = 300.0, 5.0
#: How long a cool board gets to lift a cap on its clocks: a thermal one it lifts, a power-saving mode's it does not.
CAP_S = 30.0


class BoardWatch:
    """Reads the state of all boards of a device, over separate connections; lost ones are made again.

    Args:
        reconnect_s: longest outage of a board.
    """

    def __init__(self, boards: Sequence[RegisteredBoard], reconnect_s: float = RECONNECT_S) -> None:
        self._boards, self._reconnect_s = boards, reconnect_s
        self._remotes: dict[int, Remote] = {}

    def read(self) -> tuple[Health, ...]:
        """Return the boards' state, in their order; raise `DeviceUnavailable` if one is away, and stays so."""
        return tuple(self._read(index, board) for index, board in enumerate(self._boards))

    def wait_until_cool(self, limit_s: float = COOL_S, poll_s: float = COOL_POLL_S) -> tuple[Health, ...]:
        """Return the boards' state once they are cool and nothing holds their clocks down, or `limit_s` have passed; see `read`."""
        deadline, patience = (time.monotonic() + seconds for seconds in (limit_s, CAP_S))
        while True:
            now = self.read()
            hot = any(health.throttled or (health.temperature_c or 0.0) > WARM_C for health in now)
            held = time.monotonic() < patience and any(capped(health, board) for health, board in zip(now, self._boards, strict=True))
            if not (hot or held) or time.monotonic() >= deadline:
                return now
            time.sleep(poll_s)

    def spoiled(self, before: Sequence[Health], after: Sequence[Health]) -> str:
        """Return why measurements between two states do not count; "" if they do."""
        for board, then, now in zip(self._boards, before, after, strict=True):
            if then.boot != now.boot:
                return "the board was started anew"
            if held := dict.fromkeys((*then.throttled, *now.throttled)):
                return f"its clocks were held down: {', '.join(held)}"
            if cap := capped(then, board) or capped(now, board):
                return f"its clock was {cap}"
            highest = max(core.max_hz for core in board.facts.cores)
            fastest = max(now.clocks_hz, default=0.0)
            if now.governor == "performance" and 0 < fastest < CLOCK_SHARE * highest:
                return f"its clock was {fastest / 1e9:g} GHz, not {highest / 1e9:g}"
        return ""

    def close(self) -> None:
        """End all connections."""
        while self._remotes:
            self._remotes.popitem()[1].close()

    def _read(self, index: int, board: RegisteredBoard) -> Health:
        deadline = time.monotonic() + self._reconnect_s
        while True:
            try:
                if index not in self._remotes:
                    self._remotes[index] = connect(board.address)
                return read_health(self._remotes[index], board)
            except (LinkLost, DeviceUnavailable) as error:
                if remote := self._remotes.pop(index, None):
                    remote.close()
                if time.monotonic() > deadline:
                    place = described(board.address)
                    reason = str(error).splitlines()[0]  # a remedy may follow
                    remedy = "Finished measurements are kept; run it again."
                    raise DeviceUnavailable(f"{place} does not answer: {reason}", remedy) from error
            time.sleep(PAUSE_S)


@contextlib.contextmanager
def watching(boards: Sequence[RegisteredBoard]) -> Iterator[BoardWatch]:
    """Watch over boards until the context ends."""
    watch = BoardWatch(boards)
    try:
        yield watch
    finally:
        watch.close()
