"""Monitors a device's boards during measurements: waits until they are cool, and reports when a run is spoiled."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Sequence

from tvmmobile.devices.board.connect import connect, described
from tvmmobile.devices.board.health import CLOCK_SHARE, WARM_C, Health, capped, read_health, read_temperatures
from tvmmobile.devices.board.link import PAUSE_S, RECONNECT_S
from tvmmobile.devices.board.registered import RegisteredBoard
from tvmmobile.devices.board.remote import LinkLost, Remote
from tvmmobile.system.errors import DeviceUnavailable

#: Longest time for a board to cool down, and the interval of checks.
COOL_S, COOL_POLL_S = 300.0, 5.0
#: A board that has not cooled by this many degrees in this time stays warm, or has a stuck sensor.
COOLING_C, COOLING_S = 1.0, 60.0
#: A sensor whose reading does not change in that time is ignored if it is warmer than all others by this many degrees.
_APART_C = 20.0
#: Time for a cool board to lift a cap on its clocks; it lifts a thermal cap, but not that of a power-saving mode.
CAP_S = 30.0
#: State of a board that does not answer while others do.
_AWAY = Health()


class BoardWatch:
    """Reads the state of all boards of a device, over separate connections; lost ones are made again.

    A board that never answered, or that stays away, is left out while others answer: these do its work.

    Args:
        reconnect_s: longest outage of a board.
    """

    def __init__(self, boards: Sequence[RegisteredBoard], reconnect_s: float = RECONNECT_S) -> None:
        self._boards, self._reconnect_s = boards, reconnect_s
        self._remotes: dict[int, Remote] = {}
        #: Boards that have answered and are waited for, and when those left out are asked again.
        self._present: set[int] = set()
        self._asked_again: dict[int, float] = {}
        #: For each board, the readings of stuck sensors, by the names of their zones.
        self._constant: list[dict[str, float]] = [{} for _ in boards]

    def read(self) -> tuple[Health, ...]:
        """Return the boards' states in order, empty for those left out; raise `DeviceUnavailable` if all boards stay unreachable."""
        deadline = time.monotonic() + self._reconnect_s
        while True:
            faults: dict[int, Exception] = {}
            states = tuple(self._read(index, faults) for index in range(len(self._boards)))
            answered = any(state is not _AWAY for state in states)
            late = time.monotonic() > deadline
            if answered and (late or not faults.keys() & self._present):
                self._present -= faults.keys()
                self._asked_again |= dict.fromkeys(faults, time.monotonic() + self._reconnect_s)
                return states
            if late:
                index, error = next(iter(faults.items()))
                reason = str(error).splitlines()[0]  # a remedy may follow
                remedy = "Finished measurements are kept; run it again."
                raise DeviceUnavailable(f"{described(self._boards[index].address)} does not answer: {reason}", remedy) from error
            if not answered:
                self._asked_again.clear()
            time.sleep(PAUSE_S)

    def wait_until_cool(self, limit_s: float = COOL_S, poll_s: float = COOL_POLL_S) -> tuple[Health, ...]:
        """Return the boards' state once they are cool, or no longer cool down, and nothing holds their clocks down; see `read`.

        It returns after `limit_s` in any case.
        """
        deadline, patience, cooling_until = (time.monotonic() + seconds for seconds in (limit_s, CAP_S, COOLING_S))
        coolest = [math.inf] * len(self._boards)
        readings: list[list[dict[str, float]]] = [[] for _ in self._boards]
        while True:
            now = self.read()
            for index, temperature in enumerate(health.temperature_c or 0.0 for health in now):
                if temperature <= coolest[index] - COOLING_C:
                    coolest[index], cooling_until = temperature, time.monotonic() + COOLING_S
            hot = [index for index, health in enumerate(now) if (health.temperature_c or 0.0) > WARM_C and index in self._remotes]
            for index in hot:
                with contextlib.suppress(LinkLost, DeviceUnavailable):
                    told = read_temperatures(self._remotes[index], self._boards[index])
                    readings[index].append({zone: one for zone, one in told.items() if self._constant[index].get(zone) != one})
            warm = time.monotonic() < cooling_until and any((health.temperature_c or 0.0) > WARM_C for health in now)
            if hot and time.monotonic() >= cooling_until and any(self._found_constant(index, readings[index]) for index in hot):
                continue
            held = time.monotonic() < patience and any(capped(health, board) for health, board in zip(now, self._boards, strict=True))
            if not (warm or held or any(health.throttled for health in now)) or time.monotonic() >= deadline:
                return now
            time.sleep(poll_s)

    def _found_constant(self, index: int, readings: Sequence[dict[str, float]]) -> bool:
        """Return whether a board has a stuck sensor whose reading is far from the others'; it is ignored from now on."""
        found = {}
        for zone, reading in (readings[-1] if len(readings) > 1 else {}).items():
            others = max((one for each in readings for other, one in each.items() if other != zone), default=0.0)
            if reading > max(WARM_C, others + _APART_C) and all(each.get(zone) == reading for each in readings):
                found[zone] = reading
        for zone, reading in found.items():
            place = described(self._boards[index].address)
            print(f"tvmmobile: {zone} of {place} always says {reading:g} °C, unlike its other sensors; it does not count.", file=sys.stderr)
        self._constant[index] |= found
        return bool(found)

    def spoiled(self, before: Sequence[Health], after: Sequence[Health]) -> str:
        """Return why measurements between two states do not count; "" if they do."""
        for board, then, now in zip(self._boards, before, after, strict=True):
            if _AWAY in (then, now):
                continue
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

    def _read(self, index: int, faults: dict[int, Exception]) -> Health:
        """Return a board's state; `_AWAY` if it is not asked, or does not answer, with the reason in `faults`."""
        if time.monotonic() < self._asked_again.get(index, 0.0):
            return _AWAY
        try:
            if index not in self._remotes:
                self._remotes[index] = connect(self._boards[index].address)
            state = read_health(self._remotes[index], self._boards[index], self._constant[index])
        except (LinkLost, DeviceUnavailable) as error:
            if remote := self._remotes.pop(index, None):
                remote.close()
            faults[index] = error
            return _AWAY
        self._present.add(index)
        return state


@contextlib.contextmanager
def watching(boards: Sequence[RegisteredBoard]) -> Iterator[BoardWatch]:
    """Watch over boards until the context ends."""
    watch = BoardWatch(boards)
    try:
        yield watch
    finally:
        watch.close()
