"""Files to and from a phone; errors by their messages."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from phones import PATTERN, Phone

from tvmmobile.devices.adb.remote import AdbRemote
from tvmmobile.devices.board.remote import LinkLost
from tvmmobile.devices.board.storage import error_number


def test_files_there_and_back(remote: AdbRemote, phone: Phone, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.write_bytes(PATTERN)
    here.chmod(0o755)
    there = f"{phone.board}/with space, comma 'and' ü"
    remote.push(here, there)
    assert Path(there).read_bytes() == PATTERN and Path(there).stat().st_mode & 0o777 == 0o755
    assert os.listdir(phone.board) == [Path(there).name]
    back = tmp_path / "folder" / "back"
    remote.pull(there, back)
    assert back.read_bytes() == PATTERN
    here.write_bytes(b"")
    remote.push(here, there)
    remote.pull(there, back)
    assert back.read_bytes() == b""


def test_files_that_cannot_be_copied(remote: AdbRemote, phone: Phone, tmp_path: Path) -> None:
    back = tmp_path / "folder" / "back"
    with pytest.raises(FileNotFoundError) as missing:
        remote.pull(f"{phone.board}/nothing", back)
    assert missing.value.filename == f"{phone.board}/nothing"
    assert os.listdir(back.parent) == []
    with pytest.raises(FileNotFoundError):
        remote.push(back, f"{phone.board}/x")
    back.write_text("x")
    Path(phone.board, "file").write_text("old")
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        remote.push(back, f"{phone.board}/file/below")
    assert remote.alive() and Path(phone.board, "file").read_text() == "old"


def test_a_full_disk(remote: AdbRemote, phone: Phone, tmp_path: Path) -> None:
    here, there = tmp_path / "here", Path(phone.board, "there")
    here.write_bytes(PATTERN)
    there.write_text("old")
    phone.order("full")
    with pytest.raises(OSError, match="No space left") as caught:
        remote.push(here, str(there))
    assert caught.value.errno == errno.ENOSPC
    assert there.read_text() == "old" and os.listdir(phone.board) == ["there"]
    phone.order("empty")
    remote.push(here, str(there))
    assert there.read_bytes() == PATTERN


def test_a_full_disk_that_is_not_called_so(remote: AdbRemote, phone: Phone, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.write_text("content")
    phone.program("mv", "echo 'mv: strange' >&2; exit 1")
    with pytest.raises(OSError, match="strange") as caught:
        remote.push(here, f"{phone.board}/x")
    assert caught.value.errno == errno.EIO
    phone.program("df", "echo 'Filesystem 1K-blocks Used Available Use% Mounted on'; echo '/dev/block/dm-1 9 9 0 100% /data'")
    with pytest.raises(OSError, match="strange") as caught:
        remote.push(here, f"{phone.board}/x")
    assert caught.value.errno == errno.ENOSPC and os.listdir(phone.board) == []


def test_messages_have_numbers() -> None:
    assert error_number("couldn't create file: Permission denied\n") == errno.EACCES
    assert error_number("mkdirs failed: Read-only file system") == errno.EROFS
    assert error_number("what?", errno.EIO) == errno.EIO and error_number("what?") == 0


def check_lost(remote: AdbRemote, phone: Phone, here: Path, order: str, why: str, seconds: float) -> None:
    """The phone gets an order while a gigabyte is on its way, and the transfer ends with an error within a time."""
    with here.open("wb") as file:
        file.truncate(1 << 30)
    threading.Timer(0.1, phone.order, [order]).start()
    start = time.monotonic()
    with pytest.raises(LinkLost, match=why):
        remote.push(here, f"{phone.board}/there")
    assert time.monotonic() - start < seconds


def test_a_cut_during_a_transfer(remote: AdbRemote, phone: Phone, tmp_path: Path) -> None:
    check_lost(remote, phone, tmp_path / "here", "cut", "connection ended", 5)
    assert os.listdir(phone.board) == ["there.part"]


def test_a_transfer_that_stands_still(remote: AdbRemote, phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmmobile.devices.adb.remote.STALL_TIMEOUT_S", 0.5)
    check_lost(remote, phone, tmp_path / "here", "silent", "nothing moved in time", 4)
    phone.order("speak")
