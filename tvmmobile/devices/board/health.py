"""Conditions that may disturb a measurement: clocks, temperature, throttling, governor, load."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tvmmobile.devices.board.parts import fastest
from tvmmobile.devices.board.probe import number_in, read_files, temperature_files, temperatures_in
from tvmmobile.devices.board.registered import LinuxCore, RegisteredBoard
from tvmmobile.devices.board.remote import Remote

#: Bits with which the Raspberry Pi's firmware reports what is limiting its clocks now (vcgencmd get_throttled).
_PI_FLAGS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
#: Android's THERMAL_STATUS_LIGHT and above (android.os.PowerManager); at "none", 0, nothing is throttled.
_ANDROID_STATUS = {1: "light", 2: "moderate", 3: "severe", 4: "critical", 5: "emergency", 6: "shutdown"}
#: Above this, boards are near the temperature at which they throttle (80 °C on a Raspberry Pi).
WARM_C = 70.0
#: Load of other programs that counts as a disturbance.
_BUSY_LOAD = 0.5
#: A clock counts as throttled if it is this much below its maximum.
CLOCK_SHARE = 0.98
_STEADY_GOVERNORS = ("performance", "userspace")


@dataclass(frozen=True)
class Health:
    """State of a board at one moment.

    Attributes:
        temperature_c: the hottest sensor; `None` without a sensor.
        clocks_hz: current clock of each core; 0 if not reported.
        caps_hz: current limit of each core's clock, which a warm phone lowers (`scaling_max_freq`); 0 if not reported.
        throttled: reasons for lowered clocks, in words; empty if there are none or the board does not report them.
        governor: cpufreq governor of the first core; "" without one.
        load: load average of the last minute; `None` if not reported.
        boot: identifies this start of the board.
    """

    temperature_c: float | None = None
    clocks_hz: tuple[float, ...] = ()
    caps_hz: tuple[float, ...] = ()
    throttled: tuple[str, ...] = field(default=())
    governor: str = ""
    load: float | None = None
    boot: str = ""


def read_temperatures(remote: Remote, board: RegisteredBoard) -> dict[str, float]:
    """Read all sensors, in °C, by the names of their thermal zones."""
    root = board.root.rstrip("/")
    return temperatures_in(read_files(remote, temperature_files(root)), root)


def read_health(remote: Remote, board: RegisteredBoard, constant: Mapping[str, float] | None = None) -> Health:
    """Read the board's current state; `constant` has stuck sensors with their readings (as in `read_temperatures`), which are ignored until
    they change.
    """
    root = board.root.rstrip("/")
    cpu = f"{root}/sys/devices/system/cpu"
    clocks, caps = (
        [f"{cpu}/cpu{number}/cpufreq/{name}" for number in board.facts.core_numbers] for name in ("scaling_cur_freq", "scaling_max_freq")
    )
    governor, load, boot = f"{cpu}/cpu0/cpufreq/scaling_governor", f"{root}/proc/loadavg", f"{root}/proc/sys/kernel/random/boot_id"
    files = read_files(remote, [*clocks, *caps, *temperature_files(root), governor, load, boot])
    first = files[load].split(" ")[0]
    counting = [reading for zone, reading in temperatures_in(files, root).items() if (constant or {}).get(zone) != reading]
    return Health(
        temperature_c=max(counting, default=None),
        clocks_hz=tuple((number_in(files[path]) or 0) * 1e3 for path in clocks),
        caps_hz=tuple((number_in(files[path]) or 0) * 1e3 for path in caps),
        throttled=_throttled(remote, board),
        governor=files[governor],
        load=float(first) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", first) else None,
        boot=files[boot],
    )


def _throttled(remote: Remote, board: RegisteredBoard) -> tuple[str, ...]:
    if board.facts.api_level is not None:
        done = remote.run(["dumpsys", "thermalservice"])
        found = re.search(r"Thermal Status: ([0-9]{1,3})", done.stdout)
        status = _ANDROID_STATUS.get(int(found[1])) if found else None
        return (f"thermal status {status}",) if status else ()
    if not board.facts.model.startswith("Raspberry Pi"):
        return ()
    done = remote.run(["vcgencmd", "get_throttled"])
    found = re.search(r"throttled=0x([0-9a-fA-F]+)", done.stdout)
    bits = int(found[1], 16) if found and done.status == 0 else 0
    return tuple(words for bit, words in _PI_FLAGS.items() if bits >> bit & 1)


def capped(health: Health, board: RegisteredBoard) -> str:
    """Describe how far the clock of the fastest cores is throttled; "" if it is not, or if the board does not report it."""
    indices = fastest(board.facts.cores)
    highest = board.facts.cores[indices[0]].max_hz
    caps = [health.caps_hz[index] for index in indices if index < len(health.caps_hz) and health.caps_hz[index]]
    return f"capped at {min(caps) / 1e9:g} of {highest / 1e9:g} GHz" if caps and min(caps) < CLOCK_SHARE * highest else ""


def with_clock(board: RegisteredBoard, limits_hz: Sequence[float], clock_hz: float) -> RegisteredBoard:
    """Return a board with a clock that the user gives, for cores that report none or are fixed at this lower one.

    Args:
        limits_hz: the present limit of each core's clock, as in `Health.caps_hz`.
    """

    def clocked(core: LinuxCore, limit_hz: float) -> LinuxCore:
        fixed = clock_hz < core.max_hz and abs(limit_hz - clock_hz) < (1 - CLOCK_SHARE) * clock_hz
        return core.model_copy(update={"max_hz": clock_hz}) if fixed or not core.max_hz else core

    cores = tuple(map(clocked, board.facts.cores, limits_hz))
    return board.model_copy(update={"facts": board.facts.model_copy(update={"cores": cores})})


def disturbances(health: Health, board: RegisteredBoard) -> list[str]:
    """Return disturbances of measurements, one sentence each with a remedy."""
    found = []
    if health.throttled:
        found.append(f"Its clocks are held down: {', '.join(health.throttled)}. Cool it, and give it a power supply that is strong enough.")
    if cap := capped(health, board):
        cure = "Cool it, end its power-saving mode, or raise scaling_max_freq. To measure at that clock, add it again with --clock."
        found.append(f"Its fastest clock is {cap}. {cure}")
    if health.temperature_c is not None and health.temperature_c > WARM_C:
        found.append(f"It is {health.temperature_c:.0f} °C warm. Wait, or cool it.")
    if health.governor and health.governor not in _STEADY_GOVERNORS:
        found.append(
            f"Its governor is {health.governor!r}, which changes clocks as it goes. --pin sets 'performance' where that is permitted."
        )
    if health.load is not None and health.load > _BUSY_LOAD:
        found.append(f"Other programs keep it busy (load {health.load:.1f}). End them.")
    if not health.governor and not any(health.clocks_hz):
        found.append(
            "It tells neither clocks nor governor, as behind a hypervisor: runs may differ more, so regress repeats them more often."
        )
    if board.emulator:
        found.append(f"Its programs run in an emulator ({board.emulator}): times say nothing about the board.")
    return found
