"""Files to and from a board behind SSH."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_disk import mounted_disk
from ssh_server import Server
from waiting import wait_until

from tvmmobile.devices.board.remote import LinkLost
from tvmmobile.devices.ssh.remote import SshRemote, connect_ssh

NASTY = 'it\'s "$(touch pwned)" `id` ; & * \\ \t.bin'


def test_files_there_and_back(own: Callable[..., Server], tmp_path: Path) -> None:
    server = own()
    source, folder = tmp_path / NASTY, tmp_path / "on the 'board'"
    folder.mkdir()
    source.write_bytes(os.urandom(3_000_001))
    source.chmod(0o750)
    target = folder / NASTY
    target.write_bytes(b"an older one")
    back = tmp_path / "back" / NASTY
    remote = connect_ssh(server.address)
    try:
        remote.push(source, str(target))
        assert target.read_bytes() == source.read_bytes()
        assert target.stat().st_mode & 0o777 == 0o750
        remote.pull(str(target), back)
        assert back.read_bytes() == source.read_bytes()
        assert [path.name for path in folder.iterdir()] == [NASTY]
        (tmp_path / "empty").touch()
        remote.push(tmp_path / "empty", str(target))
        remote.pull(str(target), back)
        assert back.read_bytes() == b""
    finally:
        remote.close()
    assert not (server.home / "pwned").exists()


def test_a_file_without_a_size_can_be_pulled(remote: SshRemote, tmp_path: Path) -> None:
    remote.pull("/proc/self/status", tmp_path / "status")
    assert (tmp_path / "status").read_text().startswith("Name:")


def test_files_that_cannot_be_copied(own: Callable[..., Server], tmp_path: Path) -> None:
    server = own()
    source = tmp_path / "source"
    source.write_bytes(b"content")
    remote = connect_ssh(server.address)
    try:
        with pytest.raises(OSError, match="No such file") as caught:
            remote.push(source, str(tmp_path / "nowhere" / "file"))
        assert caught.value.errno == errno.ENOENT
        with pytest.raises(FileNotFoundError):
            remote.push(tmp_path / "missing", str(tmp_path / "file"))
        back = tmp_path / "back"
        back.write_bytes(b"as it was")
        with pytest.raises(FileNotFoundError, match="No such file or directory on 127"):
            remote.pull(str(tmp_path / "missing"), back)
        with pytest.raises(IsADirectoryError):
            remote.pull(str(tmp_path), back)
        assert back.read_bytes() == b"as it was"
        with pytest.raises(OSError, match="file"):
            remote.pull(str(source), source / "below a file")
        assert remote.run(["true"]).status == 0
    finally:
        remote.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_disk(tmp_path / "small disk", "1m") as folder:
        yield folder


def test_a_full_disk(own: Callable[..., Server], small_disk: Path, tmp_path: Path) -> None:
    server = own()
    big, target = tmp_path / "big", small_disk / "file"
    big.write_bytes(bytes(1_500_000))
    target.write_bytes(b"as it was")
    remote = connect_ssh(server.address)
    try:
        with pytest.raises(OSError, match="No space left on device on 127") as caught:
            remote.push(big, str(target))
    finally:
        remote.close()
    assert caught.value.errno == errno.ENOSPC
    assert target.read_bytes() == b"as it was"
    assert [path.name for path in small_disk.iterdir()] == ["file"]


def test_a_connection_that_breaks_while_a_file_is_copied(own: Callable[..., Server], tmp_path: Path) -> None:
    server = own()
    big, target, part = tmp_path / "big", tmp_path / "target", tmp_path / "target.part"
    with big.open("wb") as stream:
        stream.truncate(1 << 30)
    target.write_bytes(b"as it was")
    remote = connect_ssh(server.address)

    def cut() -> None:
        wait_until(lambda: part.exists() and part.stat().st_size > 0, "the copy to begin")
        server.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        with pytest.raises(LinkLost, match="was lost"):
            remote.push(big, str(target))
    finally:
        cutter.join()
        remote.close()
    wait_until(lambda: not part.exists(), "the rest to be removed")
    assert target.read_bytes() == b"as it was"


def test_ctrl_c_while_a_file_is_copied(own: Callable[..., Server], tmp_path: Path) -> None:
    server, part = own(), tmp_path / "target.part"
    with (tmp_path / "big").open("wb") as stream:
        stream.truncate(1 << 30)
    remote = connect_ssh(server.address)

    def interrupt() -> None:
        wait_until(lambda: part.exists() and part.stat().st_size > 0, "the copy to begin")
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            remote.push(tmp_path / "big", str(tmp_path / "target"))
        assert remote.run(["true"]).status == 0, "the connection is as good as before"
    finally:
        interrupter.join()
        remote.close()
    wait_until(lambda: not part.exists(), "the rest to be removed")
    assert not (tmp_path / "target").exists()
