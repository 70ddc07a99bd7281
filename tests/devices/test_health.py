"""A board's sensors, clocks and cores as its files describe them: no agent, no server."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from pi4_tree import write_pi4_tree

from tvmmobile.devices.board import watch as watch_module
from tvmmobile.devices.board.health import Health, disturbances, read_health
from tvmmobile.devices.board.probe import probe
from tvmmobile.devices.board.registered import LocalAddress, RegisteredBoard
from tvmmobile.devices.board.watch import COOL_S, COOLING_S, BoardWatch
from tvmmobile.devices.local.machine import machine_id
from tvmmobile.devices.local.remote import LocalRemote


def board_of(root: Path) -> RegisteredBoard:
    """Return this machine as a board that a tree describes."""
    facts = probe(LocalRemote(), str(root), emulated=True)
    return RegisteredBoard(address=LocalAddress(machine=machine_id()), directory="/nowhere", root=str(root), facts=facts, added="")


def write_sensor(root: Path, zone: int, kind: str, reading: str) -> None:
    folder = root / f"sys/class/thermal/thermal_zone{zone}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "type").write_text(f"{kind}\n")
    (folder / "temp").write_text(f"{reading}\n")


def test_a_sensor_that_always_says_100_degrees(tmp_path: Path) -> None:
    """As on Nvidia's Jetson boards: nothing waits for it, and no report shows it."""
    root = write_pi4_tree(tmp_path)
    write_sensor(root, 0, "CPU-therm", "45000")
    write_sensor(root, 4, "PMIC-Die", "100000")
    board = board_of(root)
    health = read_health(LocalRemote(), board)
    assert board.facts.temperature_c == health.temperature_c == 45.0
    assert not any("°C" in note for note in disturbances(health, board))
    write_sensor(root, 15, "GPU-therm", "71000")
    assert read_health(LocalRemote(), board).temperature_c == 71.0


@pytest.mark.parametrize(
    ("readings", "throttled", "waited_s"),
    [
        ((100.0,) * 1000, (), COOLING_S),
        ((*(90.0 - 0.25 * index for index in range(1000)),), (), 400.0),  # 80 steps of 5 s until 70 °C
        ((100.0,) * 1000, ("throttled",), COOL_S),
    ],
    ids=["constant", "cooling", "throttled"],
)
def test_a_board_gets_time_for_as_long_as_it_cools(
    readings: tuple[float, ...], throttled: tuple[str, ...], waited_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    states = count()
    monkeypatch.setattr(watch_module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    watch = BoardWatch([board_of(write_pi4_tree(tmp_path))])
    monkeypatch.setattr(watch, "read", lambda: (Health(temperature_c=readings[next(states)], throttled=throttled),))
    watch.wait_until_cool(limit_s=max(COOL_S, waited_s))
    assert now[0] == waited_s
