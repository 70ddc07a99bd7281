"""A board's sensors, clocks and cores as its files describe them: no agent, no server."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from phone_tree import CORE, EIGHT, LITTLE, write_phone_tree
from pi4_tree import write_pi4_tree

from tvmmobile.devices.board import watch as watch_module
from tvmmobile.devices.board.cores import core_notes, fast_core_words
from tvmmobile.devices.board.health import Health, disturbances, read_health
from tvmmobile.devices.board.probe import probe
from tvmmobile.devices.board.registered import LocalAddress, RegisteredBoard
from tvmmobile.devices.board.remote import RUN_TIMEOUT_S, Completed
from tvmmobile.devices.board.watch import COOL_S, COOLING_S, BoardWatch
from tvmmobile.devices.local.machine import machine_id
from tvmmobile.devices.local.remote import LocalRemote


class _TasksetRemote(LocalRemote):
    """This machine, whose `taskset` accepts cores that it does not have."""

    def run(self, words: Sequence[str], stdin: bytes = b"", timeout_s: float = RUN_TIMEOUT_S) -> Completed:
        """See `Remote.run`."""
        return super().run(words[2:] if words[0] == "taskset" else words, stdin, timeout_s)


def board_of(root: Path) -> RegisteredBoard:
    """Return this machine as a board that a tree describes."""
    facts = probe(LocalRemote(), str(root), emulated=True, architecture="aarch64")
    return RegisteredBoard(address=LocalAddress(machine=machine_id()), directory="/nowhere", root=str(root), facts=facts, added="")


def write_sensor(root: Path, zone: int, kind: str, reading: str) -> None:
    folder = root / f"sys/class/thermal/thermal_zone{zone}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "type").write_text(f"{kind}\n")
    (folder / "temp").write_text(f"{reading}\n")


def test_a_sensor_that_always_says_100_degrees(tmp_path: Path) -> None:
    """Nvidia's Jetson boards have one: nothing waits for it, and no report shows it."""
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


def test_a_sensor_that_never_changes_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it is called, if no other sensor says anything like it; it counts again once it says something else."""
    now, root = [0.0], write_pi4_tree(tmp_path)

    def sleep(seconds: float) -> None:
        now[0] += seconds
        write_sensor(root, 0, "CPU-therm", f"{45000 + 10 * int(now[0])}")

    monkeypatch.setattr(watch_module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    write_sensor(root, 4, "charger", "100000")
    sleep(0)
    with watch_module.watching([board_of(root)]) as watch:
        assert watch.wait_until_cool()[0].temperature_c == 45.6 and now[0] == COOLING_S
        assert watch.wait_until_cool()[0].temperature_c == 45.6 and now[0] == COOLING_S
        assert "thermal_zone4 of this machine always says 100 °C, unlike its other sensors; it does not count." in capsys.readouterr().err
        write_sensor(root, 5, "GPU-therm", "80000")
        write_sensor(root, 6, "modem", "74000")
        assert watch.wait_until_cool()[0].temperature_c == 80 and now[0] == 2 * COOLING_S
        write_sensor(root, 4, "charger", "101000")
        assert watch.read()[0].temperature_c == 101


def test_a_warm_board_whose_sensors_agree_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The board is in the sun, and its sensors report whole degrees."""
    now, root = [0.0], write_pi4_tree(tmp_path)

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(watch_module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    write_sensor(root, 0, "CPU-therm", "78000")
    write_sensor(root, 1, "GPU-therm", "66000")
    with watch_module.watching([board_of(root)]) as watch:
        assert watch.wait_until_cool()[0].temperature_c == 78


def test_cores_that_are_offline_keep_their_numbers(tmp_path: Path) -> None:
    """Masks for `taskset` and the clocks' files go by Linux's numbers. A phone's core 1 is offline, then a server's cores 2 to 16."""
    root = write_phone_tree(tmp_path, EIGHT)
    cpuinfo = root / "proc/cpuinfo"
    sections = cpuinfo.read_text().split("\n\n")
    cpuinfo.write_text("\n\n".join(section for section in sections if "processor\t: 1\n" not in section))
    for number, khz in ((0, 1_700_000), (4, 2_300_000), (7, 2_200_000)):
        (root / f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_cur_freq").write_text(f"{khz}\n")
    remote, board = _TasksetRemote(), board_of(root)
    assert board.facts.core_numbers == (0, 2, 3, 4, 5, 6, 7)
    assert [core.max_hz for core in board.facts.cores] == [1.8e9] * 3 + [2.4e9] * 4
    assert fast_core_words(remote, board) == ["taskset", "f0"] and core_notes(remote, board) == []
    assert read_health(remote, board).clocks_hz == (1.7e9, 1.8e9, 1.8e9, 2.3e9, 2.4e9, 2.4e9, 2.2e9)
    cpuinfo.write_text("".join(CORE.format(index=index, part=LITTLE.part) for index in (0, 1, 17)))
    (root / "sys/devices/system/cpu/cpu17/cpufreq").mkdir(parents=True)
    (root / "sys/devices/system/cpu/cpu17/cpufreq/cpuinfo_max_freq").write_text("3000000\n")
    board = board_of(root)
    assert board.facts.cores[2].max_hz == 3e9 and fast_core_words(remote, board) == ["taskset", "20000"]


def test_cores_without_gaps_are_written_as_before(tmp_path: Path) -> None:
    assert board_of(write_pi4_tree(tmp_path)).facts.numbers == ()
