"""adb as a way to a board: the real `adb` program and its server, and a device that speaks its wire protocol (`adb_daemon.py`)."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from phones import ADB, Phone, adb, adb_servers, private_adb_server, switched_on

from tvmmobile.devices.adb.files import error_number
from tvmmobile.devices.adb.remote import AdbRemote, connect_adb, devices
from tvmmobile.devices.board.registered import AdbAddress
from tvmmobile.devices.board.remote import LinkLost, Remote
from tvmmobile.system.environment import adb_server_port
from tvmmobile.system.errors import DeviceUnavailable, ExitCode, UserError

pytestmark = pytest.mark.skipif(ADB is None, reason="there is no adb program; apt-get install -y adb")

AWKWARD = ["a b", "$(echo no)", "`echo no`", "'", '"', "\\", "*", "~", "a\nb", "", "ü€", "-n", "$HOME", ";", "&", "#x"]
BIG = bytes(range(256)) * (8 << 12)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with private_adb_server(tmp_path_factory.mktemp("adb")) as port:
        yield port
    assert not adb_servers(port)


@pytest.fixture
def phone(server: int, tmp_path: Path) -> Iterator[Phone]:
    with switched_on(tmp_path / "phone") as phone:
        yield phone


@pytest.fixture
def remote(phone: Phone) -> Iterator[AdbRemote]:
    remote = connect_adb(phone.address)
    yield remote
    remote.close()


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def echo_server() -> Iterator[int]:
    """A port of this machine that sends back the SHA-256 of what it is sent and then the same bytes, once 8 MB are there."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    received = receive(connection, len(BIG))
                    connection.sendall(hashlib.sha256(received).digest() + received)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def receive(connection: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size and (arrived := connection.recv(1 << 20)):
        content += arrived
    return bytes(content)


def exchange(port: int) -> None:
    """8 MB there and back again."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(BIG)
        assert receive(connection, 32 + len(BIG)) == hashlib.sha256(BIG).digest() + BIG


def listening(processes: list[psutil.Process]) -> dict[int, str]:
    """Port → address of everything the processes listen on."""
    found = (place.laddr for process in processes for place in process.net_connections("tcp") if place.status == psutil.CONN_LISTEN)
    return {place.port: place.ip for place in found}


def of(phone: Phone) -> list[psutil.Process]:
    return [psutil.Process(phone.process.pid), *adb_servers(adb_server_port())]


def test_it_is_a_remote(remote: AdbRemote) -> None:
    as_remote: Remote = remote
    assert as_remote.alive()


def test_the_server_is_started_and_the_device_connected(phone: Phone) -> None:
    if adb_servers(adb_server_port()):
        adb("kill-server")
    wait_until(lambda: not adb_servers(adb_server_port()))
    remote = connect_adb(phone.address)
    assert devices() == [(phone.address.serial, "device")]
    assert remote.run(["getprop", "ro.product.cpu.abilist"]).stdout == "arm64-v8a,armeabi-v7a,armeabi\n"
    remote.close()
    again = connect_adb(phone.address)
    assert again.alive()
    again.close()


def test_status_output_and_errors_stay_apart(remote: AdbRemote) -> None:
    done = remote.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.status, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert remote.run(["sh", "-c", "kill -9 $$"]).status == 128 + 9
    missing = remote.run(["no-such-program"])
    assert missing.status == 127 and "no-such-program" in missing.stderr and missing.stdout == ""
    assert remote.run(["printf", "\\377"]).stdout == "\ufffd"


def test_words_arrive_as_they_are(remote: AdbRemote) -> None:
    assert remote.run(["printf", "%s|", *AWKWARD]).stdout == "".join(f"{word}|" for word in AWKWARD)
    with pytest.raises(LinkLost, match="too long"):
        remote.run(["echo", "x" * 70000])


def test_standard_input(remote: AdbRemote) -> None:
    assert remote.run(["cat"]).stdout == ""
    assert (
        remote.run(["cat"], stdin=BIG[: 1 << 20].replace(b"\xff", b"x").replace(b"\x80", b"y")[:128] * 4096).stdout
        == BIG[:128].decode() * 4096
    )
    assert remote.run(["sha256sum"], stdin=BIG).stdout.split()[0] == hashlib.sha256(BIG).hexdigest()
    assert remote.run(["sh", "-c", "echo done; exit 3"], stdin=BIG).status == 3, "input that nobody reads"


def test_a_program_that_takes_too_long(remote: AdbRemote, phone: Phone) -> None:
    start = time.monotonic()
    with pytest.raises(LinkLost, match=r"did not end within 0\.5 s"):
        remote.run(["sleep", "600"], timeout_s=0.5)
    assert time.monotonic() - start < 2
    wait_until(lambda: not phone.commands())
    assert remote.alive()


def test_a_started_program(remote: AdbRemote, phone: Phone) -> None:
    process = remote.start(["sh", "-c", 'echo ready; while read line; do echo "<$line>"; echo "saw $line" >&2; done; exit 4'])
    assert process.read_line(10) == "ready"
    assert process.poll() is None
    process.write(b"one\ntwo\n")
    assert [process.read_line(10), process.read_line(10)] == ["<one>", "<two>"]
    wait_until(lambda: process.last_words() == "saw one\nsaw two")
    with pytest.raises(LinkLost, match="no line within"):
        process.read_line(0.05)
    process.end_input()
    assert process.read_line(10) == ""
    wait_until(lambda: process.poll() == 4)
    with pytest.raises(LinkLost, match="has ended"):
        process.write(b"more\n")
    process.stop()
    assert process.poll() == 4


def test_stopping_and_closing_end_programs(remote: AdbRemote, phone: Phone) -> None:
    stopped = remote.start(["sleep", "600"])
    remote.start(["cat"])
    remote.start(["sh", "-c", "trap '' HUP; cat; sleep 0.2"])
    wait_until(lambda: len(phone.commands()) == 4)
    stopped.stop()
    wait_until(lambda: len(phone.commands()) == 3)
    assert stopped.poll() == -1
    remote.close()
    wait_until(lambda: not phone.commands())
    with pytest.raises(LinkLost, match="closed"):
        remote.run(["true"])
    assert not remote.alive()


def test_several_threads(remote: AdbRemote) -> None:
    said: list[str] = []
    threads = [threading.Thread(target=lambda n=n: said.append(remote.run(["echo", str(n)]).stdout)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, said)) == list(range(12))


def test_files_there_and_back(remote: AdbRemote, phone: Phone, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.write_bytes(BIG)
    here.chmod(0o755)
    there = f"{phone.board}/with space, comma 'and' ü"
    remote.push(here, there)
    assert Path(there).read_bytes() == BIG and Path(there).stat().st_mode & 0o777 == 0o755
    assert os.listdir(phone.board) == [Path(there).name]
    back = tmp_path / "folder" / "back"
    remote.pull(there, back)
    assert back.read_bytes() == BIG
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
    here.write_bytes(BIG)
    there.write_text("old")
    phone.order("full")
    with pytest.raises(OSError, match="No space left") as caught:
        remote.push(here, str(there))
    assert caught.value.errno == errno.ENOSPC
    assert there.read_text() == "old" and os.listdir(phone.board) == ["there"]
    phone.order("empty")
    remote.push(here, str(there))
    assert there.read_bytes() == BIG


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
    assert error_number("what?") == errno.EIO


def test_forwarded_ports(remote: AdbRemote, phone: Phone) -> None:
    with echo_server() as port:
        here, there = remote.forward(port), remote.reverse(port)
        assert len({port, here, there}) == 3
        exchange(here)
        exchange(there)
        exchange(here)
        assert remote.alive()
        places = listening(of(phone))
        assert {here, there, phone.port, adb_server_port()} == set(places)
        assert set(places.values()) == {"127.0.0.1"}
        other = connect_adb(phone.address)
        others = other.forward(port)
        remote.close()
        wait_until(lambda: {phone.port, adb_server_port(), others} == set(listening(of(phone))))
        exchange(others)
        other.close()
        wait_until(lambda: {phone.port, adb_server_port()} == set(listening(of(phone))))
        assert adb("forward", "--list") == ""


def test_a_port_that_nobody_listens_on(remote: AdbRemote) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed: int = free.getsockname()[1]
    for port in (remote.forward(closed), remote.reverse(closed)):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    assert remote.alive()


def test_a_cut_is_noticed_at_once(remote: AdbRemote, phone: Phone, tmp_path: Path) -> None:
    process = remote.start(["cat"])
    waiting = remote.start(["sleep", "600"])
    remote.forward(9)
    threading.Timer(0.2, phone.order, ["cut"]).start()
    start = time.monotonic()
    with pytest.raises(LinkLost, match="connection is gone"):
        waiting.read_line(60)
    with pytest.raises(LinkLost):
        remote.run(["true"])
    here = tmp_path / "here"
    here.write_bytes(b"x")
    with pytest.raises(LinkLost):
        remote.push(here, f"{phone.board}/x")
    with pytest.raises(LinkLost):
        remote.pull(f"{phone.board}/x", here)
    with pytest.raises(LinkLost):
        remote.forward(9)
    with pytest.raises(LinkLost):
        remote.reverse(9)
    assert not remote.alive()
    assert waiting.poll() == -1
    wait_until(lambda: process.poll() == -1)
    with pytest.raises(LinkLost):
        process.write(b"x")
    remote.close()
    assert time.monotonic() - start < 3
    wait_until(lambda: not phone.commands())


def test_a_cut_during_a_command(remote: AdbRemote, phone: Phone) -> None:
    threading.Timer(0.2, phone.order, ["cut"]).start()
    start = time.monotonic()
    with pytest.raises(LinkLost, match="connection is gone"):
        remote.run(["sleep", "600"], timeout_s=60)
    assert time.monotonic() - start < 3


def test_a_cut_during_a_transfer(remote: AdbRemote, phone: Phone, tmp_path: Path) -> None:
    here = tmp_path / "here"
    with here.open("wb") as file:
        file.truncate(1 << 30)
    threading.Timer(0.1, phone.order, ["cut"]).start()
    start = time.monotonic()
    with pytest.raises(LinkLost, match="connection ended"):
        remote.push(here, f"{phone.board}/there")
    assert time.monotonic() - start < 5
    assert os.listdir(phone.board) == ["there.part"]


def test_what_adb_connects_to_anew_is_not_the_same(remote: AdbRemote, phone: Phone) -> None:
    """adb's server connects again by itself; what was forwarded is gone then."""
    remote.forward(9)
    phone.order("cut")
    phone.order("back")
    wait_until(lambda: devices() == [(phone.address.serial, "device")])
    assert not remote.alive()
    with pytest.raises(LinkLost, match="connected to it anew"):
        remote.run(["true"])
    again = connect_adb(phone.address)
    assert again.alive()
    again.close()


def test_a_silent_device(remote: AdbRemote, phone: Phone) -> None:
    phone.order("silent")
    start = time.monotonic()
    assert not remote.alive()
    assert time.monotonic() - start < 4
    with pytest.raises(LinkLost, match="does not answer"):
        remote.run(["true"], timeout_s=0.5)
    with pytest.raises(DeviceUnavailable, match=r"did not answer within 1 s\.\n.*reconnect"):
        connect_adb(phone.address, timeout_s=1)
    phone.order("speak")
    assert remote.alive()


def test_a_device_that_never_spoke(phone: Phone) -> None:
    phone.order("silent")
    start = time.monotonic()
    with pytest.raises(DeviceUnavailable, match=phone.address.serial) as caught:
        connect_adb(phone.address, timeout_s=1)
    assert time.monotonic() - start < 5
    assert caught.value.remedy and caught.value.exit_code is ExitCode.DEVICE_UNAVAILABLE
    phone.order("speak")


def test_a_device_that_does_not_trust_this_computer(server: int, tmp_path: Path) -> None:
    with switched_on(tmp_path / "phone", "--authorize") as phone:
        with pytest.raises(DeviceUnavailable, match=r"does not trust this computer\.\n.*accept"):
            connect_adb(phone.address)
        assert int(phone.order("keys")) >= 1
        phone.order("accept")
        wait_until(lambda: devices() == [(phone.address.serial, "device")])
        remote = connect_adb(phone.address)
        assert remote.alive()
        remote.close()
        adb("disconnect", phone.address.serial)
        keys = phone.order("keys")
        remote = connect_adb(phone.address)  # its signature is accepted now
        assert phone.order("keys") == keys
        remote.close()
        phone.order("refuse")
        with switched_on(tmp_path / "other", "--authorize") as other:
            other.order("refuse")
            with pytest.raises(DeviceUnavailable, match="does not trust"):
                connect_adb(other.address)


def test_unknown_devices(remote: AdbRemote, phone: Phone) -> None:
    with pytest.raises(DeviceUnavailable, match=rf"no device R58M123; it knows {phone.address.serial} \(device\)\.\n.*adb devices"):
        connect_adb(AdbAddress(serial="R58M123"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    with pytest.raises(DeviceUnavailable, match=r"cannot be reached: .*refused"):
        connect_adb(AdbAddress(serial=f"127.0.0.1:{closed}"))


def test_offline(remote: AdbRemote, phone: Phone) -> None:
    phone.order("cut")
    wait_until(lambda: devices() != [(phone.address.serial, "device")])
    with pytest.raises(DeviceUnavailable, match=f"{phone.address.serial} is offline") as caught:
        connect_adb(phone.address, timeout_s=1)
    assert "adb -s" in caught.value.remedy


def test_a_device_that_comes_back_in_time(remote: AdbRemote, phone: Phone) -> None:
    remote.reverse(9)
    assert remote.alive()
    phone.order("cut")
    wait_until(lambda: devices() != [(phone.address.serial, "device")])
    threading.Timer(0.5, phone.order, ["back"]).start()
    again = connect_adb(phone.address)
    assert again.alive() and not remote.alive()
    again.close()


def test_a_transfer_that_stands_still(remote: AdbRemote, phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmmobile.devices.adb.remote.STALL_TIMEOUT_S", 0.5)
    here = tmp_path / "here"
    with here.open("wb") as file:
        file.truncate(1 << 30)
    threading.Timer(0.1, phone.order, ["silent"]).start()
    start = time.monotonic()
    with pytest.raises(LinkLost, match="nothing moved in time"):
        remote.push(here, f"{phone.board}/there")
    assert time.monotonic() - start < 4
    phone.order("speak")


def test_no_adb_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with private_adb_server(tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(DeviceUnavailable, match=r"adb is not installed on this machine\.\nRun: apt-get install -y adb"):
            devices()
        (tmp_path / "adb").write_text("#!/bin/sh\necho 'adb: no luck' >&2\nexit 1\n")
        (tmp_path / "adb").chmod(0o755)
        with pytest.raises(DeviceUnavailable, match=r"cannot start its server on port \d+: adb: no luck\."):
            devices()


def test_a_server_that_is_open_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `adb -a nodaemon server`; what listens here is not really adb, which it would not do to open to others."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(listener.getsockname()[1]))
        with pytest.raises(DeviceUnavailable, match=r"takes connections from other machines(.|\n)*adb kill-server"):
            devices()


def test_a_server_that_ends(phone: Phone) -> None:
    remote = connect_adb(phone.address)
    process = remote.start(["sleep", "600"])
    adb("kill-server")
    with pytest.raises(LinkLost):
        process.read_line(10)
    assert not remote.alive()
    remote.close()
    wait_until(lambda: not adb_servers(adb_server_port()))


def test_something_else_on_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(listener.getsockname()[1]))

        def serve() -> None:
            listener.accept()[0].close()  # the first one only looks whether there is a server
            connection, _ = listener.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(DeviceUnavailable, match="does not answer"):
            devices()
        thread.join()


@pytest.mark.parametrize("text", ["no", "0", "65536", "-1"])
def test_a_port_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", text)
    with pytest.raises(UserError, match="ANDROID_ADB_SERVER_PORT"):
        adb_server_port()


def test_a_process_that_dies_leaves_no_program_behind(phone: Phone, server: int, repository: Path) -> None:
    script = (
        "import os, sys; from tvmmobile.devices.adb.remote import connect_adb; from tvmmobile.devices.board.registered import AdbAddress\n"
        "remote = connect_adb(AdbAddress(serial=sys.argv[1])); process = remote.start(['sh', '-c', 'echo on; cat'])\n"
        "assert process.read_line(10) == 'on'; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, phone.address.serial], cwd=repository, check=False)
    assert done.returncode == -9
    wait_until(lambda: not phone.commands())


def test_the_phone_takes_what_it_starts_along(server: int, tmp_path: Path) -> None:
    with switched_on(tmp_path / "phone") as phone:
        remote = connect_adb(phone.address)
        remote.start(["sh", "-c", "trap '' HUP; sleep 600"])
        wait_until(lambda: len(phone.commands()) == 2)
        left = phone.commands()
    assert psutil.wait_procs(left, timeout=5)[1] == []
    remote.close()
    assert phone.address.serial not in dict(devices())
