"""Boards: each file is read, figures that no board has are refused by file and field, and only calibrated boards can be tuned for."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_boards import PI4, own_board

from tvmmobile.devices.registry import find_device
from tvmmobile.system.errors import DeviceUnavailable, ExitCode, UserError
from tvmmobile.virtual.board import board_names, load_board, read_board
from tvmmobile.virtual.sysroot import cpuinfo


def test_all_boards_can_be_read() -> None:
    assert board_names() == ["pi3bplus", "pi4", "pi4-1500", "pi5", "rk3399-a72"]
    boards = [load_board(name) for name in board_names()]
    assert len({board.digest for board in boards}) == len(boards)
    for board in boards:
        assert cpuinfo(board).count("processor\t: ") == board.cores


def test_what_the_shipped_logs_rest_on() -> None:
    """A change of the pi4's values makes all shipped logs worthless: not without new ones."""
    assert load_board("pi4").digest[:16] == "9ef44f885175308b"


def test_boards_that_differ_in_their_clock() -> None:
    def rest(board: str) -> dict[str, object]:
        return load_board(board).model_dump(exclude={"name", "board", "clock_hz"})

    assert rest("pi4") == rest("pi4-1500") and load_board("pi4").clock_hz != load_board("pi4-1500").clock_hz


@pytest.mark.parametrize(
    ("figure", "instead", "complaint"),
    [
        ("clock_hz = 1.8e9", "", "clock_hz: field required"),
        ("clock_hz = 1.8e9", "clock_hz = 1800", "clock_hz: input should be greater than or equal to 100000000 (it is 1800"),
        ("clock_hz = 1.8e9", "clock_hz = -1.8e9", "clock_hz: input should be greater"),
        ("clock_hz = 1.8e9", "clock_hz = nan", "clock_hz: input should be"),
        ("clock_hz = 1.8e9", "clock_hz = inf", "clock_hz: input should be less"),
        ("clock_hz = 1.8e9", 'clock_hz = "fast"', "clock_hz: input should be a valid number (it is 'fast')"),
        ("cores = 4", "cores = 0", "cores: input should be greater than 0 (it is 0)"),
        ("cores = 4", "cores = true", "cores: input should be a valid integer"),
        ("cores = 4", "cores = 4.5", "cores: input should be a valid integer (it is 4.5)"),
        ("load_ports = 1 ", "load_ports = -1 ", "core.load_ports: input should be greater than 0 (it is -1)"),
        ("load_ports = 1 ", "load_ports = 100 ", "core.load_ports: input should be less than or equal to 16 (it is 100)"),
        ("l1d_bytes = 32768", "l1d_bytes = 32000", "caches: l1d_bytes = 32000 do not give a power of two of sets"),
        (
            "l2_bytes = 1048576",
            "l2_kib = 1024",
            "caches.l2_bytes: field required; caches.l2_kib: extra inputs are not permitted (it is 1024)",
        ),
        ("copy_bytes_per_s = 2570.6e6", "copy_bytes_per_s = 2570.6", "memory.copy_bytes_per_s: input should be greater than or equal to 1"),
        ("copy_bytes_per_s = 2570.6e6", "copy_bytes_per_s = 25e9", "memory: copy_bytes_per_s = 2.5e+10 is more than half of peak"),
        ("latency_ns = 126.6", "latency_ns = 0.1266e-6", "memory.latency_ns: input should be greater than or equal to 1 (it is 1.266e-07"),
        ("l2_cycles = 16 ", "l3_bytes = 2097152\nl2_cycles = 16 ", "caches: a third level needs l3_bytes, l3_ways and l3_cycles"),
        ('mcpu = "cortex-a72"', 'mcpu = ""', "mcpu: string should have at least 1 character"),
        ('name = "pi4"', 'name = "pi5"', "name is 'pi5'"),
        ("[caches]", "[caches", "is not a TOML file"),
        ("cores = 4", f"cores = {'9' * 5000}", "is not a TOML file: Exceeds the limit"),
        ("cores = 4", f"cores = {'[' * 5000}{']' * 5000}", "is not a TOML file"),
        ("cores = 4", f"{'a' * 5000} = 4", "cores: field required; 'aaa"),
        ('mcpu = "cortex-a72"', f"mcpu = {['x' * 5000]}", "mcpu: input should be a valid string"),
    ],
)
def test_an_absurd_figure_is_refused_by_file_and_field(tmp_path: Path, figure: str, instead: str, complaint: str) -> None:
    assert figure in PI4
    path = tmp_path / "pi4.toml"
    path.write_text(PI4.replace(figure, instead, 1), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_board(path)
    assert caught.value.message.startswith("pi4.toml ") and complaint in caught.value.message and caught.value.remedy
    assert "\n" not in caught.value.message or "TOML" in caught.value.message


def test_uncalibrated_boards_are_no_devices(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="mine is not calibrated") as caught:
        find_device(own_board(tmp_path, mcpu='"cortex-a55"'))
    assert caught.value.exit_code is ExitCode.DEVICE_UNAVAILABLE and "virtual run --board" in caught.value.remedy


def test_devices_that_are_offered() -> None:
    assert find_device("pi4-1500").profile.clock_hz == 1.5e9
    names = "pi3bplus, pi3bplus-virtual, pi4, pi4-virtual, pi4-1500, pi4-1500-virtual, pi5, pi5-virtual, rk3399-a72, rk3399-a72-virtual"
    with pytest.raises(UserError, match=rf"Known devices: {names}$"):
        find_device("pi44")


def test_a_board_of_the_users_own_is_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_board(tmp_path, clock_hz="2.0e9")
    monkeypatch.chdir(tmp_path)
    profile = find_device("mine.toml").profile
    assert profile.name == "mine-virtual" and profile.clock_hz == 2.0e9
    assert load_board(profile.board_file).clock_hz == 2.0e9 and Path(profile.board_file).is_absolute()
    assert profile.origin.model not in (None, find_device("pi4").profile.origin.model)
    with pytest.raises(UserError, match=r"There is no board file other\.toml"):
        find_device("other.toml")
