"""Boards are registered with the options of `add_device`, and progress is reported before each step."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from conftest import CommandLine

import tvmmobile as tm
from tvmmobile.devices.board.registered import (
    AdbAddress,
    DeviceFile,
    Facts,
    LinuxCore,
    RegisteredBoard,
    load_device,
    registered_names,
    save_device,
)
from tvmmobile.pipeline import registration
from tvmmobile.system.errors import DeviceUnavailable, UserError
from tvmmobile.tuning.logs.directories import own_logs


def _board() -> RegisteredBoard:
    cores = (LinuxCore(implementer=0x41, part=0xD08, max_hz=1.8e9),)
    facts = Facts(architecture="aarch64", model="Phone", cores=cores, memory_bytes=4 << 30, system="Android 14", kernel="5.15", libc="")
    return RegisteredBoard(address=AdbAddress(serial="abc"), directory="/data/x", runner=(), facts=facts, added="today")


def test_options_are_checked_before_a_board_is_reached() -> None:
    with pytest.raises(UserError, match=r"^give one of `ssh`, `adb` and `local`"):
        tm.add_device("desk")
    with pytest.raises(UserError, match=r"^`directory` relative is not absolute"):
        tm.add_device("desk", adb="serial", directory="relative")
    with pytest.raises(UserError, match=r"^`root` tree is not absolute"):
        tm.add_device("desk", local=True, root="tree")
    with pytest.raises(UserError, match=r"^`port=0` is too small"):
        tm.add_device("desk", ssh="pi@desk", port=0)
    with pytest.raises(UserError, match=r"^`port` is for boards that are reached over SSH"):
        tm.add_device("desk", local=True, port=2222)
    with pytest.raises(UserError, match=r"^`fingerprint` is for boards that are reached over SSH"):
        tm.add_device("desk", adb="serial", fingerprint="SHA256:abc")
    with pytest.raises(UserError, match="cannot be read as words: No closing quotation"):
        tm.add_device("desk", local=True, runner="qemu-aarch64 -L '/opt/sys root")


def test_a_damaged_device_can_be_removed_and_hides_no_other(cli: CommandLine) -> None:
    damaged = save_device(DeviceFile(name="cut", boards=(_board(),)))
    damaged.write_text(damaged.read_text()[:50])
    save_device(DeviceFile(name="whole", boards=(_board(),)))
    listed = cli("device", "list")
    assert listed.code == 1 and listed.out.startswith("whole: Phone at adb abc\n")
    assert "cut.json does not describe a device" in listed.err
    remedy = listed.err.splitlines()[-1]
    assert remedy == "Run: tvmmobile device remove cut --keep-files (and add it again)."
    removed = cli(*remedy.removeprefix("Run: tvmmobile ").partition(" (")[0].split())
    assert removed.code == 0 and registered_names() == ["whole"], removed.err
    assert cli("device", "list").code == 0
    assert cli("device", "remove", "cut", "--keep-files").code == 1


def test_records_of_an_earlier_board_of_that_name_are_named(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "_with_agent", lambda *_: nullcontext(_board()))
    folder = own_logs() / "desk"
    for content, noted in ((None, False), ("", False), ("{}\n", True)):
        if content is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "float32_t1.jsonl").write_text(content)
        added = cli("device", "add", "desk", "--adb", "abc")
        assert added.code == 0 and (f"note: {folder} has records of an earlier desk" in added.err) == noted, added.err
        joined = cli("device", "add", "desk", "--adb", "abd", "--join")
        assert joined.code == 0 and "note:" not in joined.err, joined.err
        tm.remove_device("desk", keep_files=True)


def test_progress_is_reported_before_a_board_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    save_device(DeviceFile(name="desk", boards=(_board(),)))

    def unreachable(_address: object) -> None:
        raise DeviceUnavailable("abc does not answer.")

    monkeypatch.setattr(registration, "connected", unreachable)
    told: list[str] = []
    with pytest.raises(DeviceUnavailable):
        tm.remove_device("desk", on_progress=told.append)
    assert told == ["Removing /data/x from adb abc"] and load_device("desk") is not None
    tm.remove_device("desk", keep_files=True, on_progress=told.append)
    assert len(told) == 1 and load_device("desk") is None


@pytest.mark.parametrize("verb", ["check", "remove"])
def test_a_virtual_board_is_not_to_be_registered(cli: CommandLine, verb: str) -> None:
    """A name with -virtual could not be added."""
    outcome = cli("device", verb, "pi4-virtual")
    assert outcome.code == 1 and outcome.err.endswith(
        "there is nothing to register.\nIt needs no check: tvmmobile tune and bench take it as it is.\n"
    )
