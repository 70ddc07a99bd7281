"""Connections to a phone: forwarded ports, cuts, silence, trust, and phones that are not there."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from phones import PATTERN, Phone, adb, adb_servers, switched_on
from waiting import wait_until

from tvmmobile.devices.adb.remote import AdbRemote, connect_adb, devices
from tvmmobile.devices.board.registered import AdbAddress
from tvmmobile.devices.board.remote import LinkLost, Remote
from tvmmobile.system.environment import adb_server_port
from tvmmobile.system.errors import DeviceUnavailable, ExitCode


@contextlib.contextmanager
def echo_server() -> Iterator[int]:
    """A port of this machine that sends back the SHA-256 of what it is sent and then the same bytes, once 8 MB are there."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    received = receive(connection, len(PATTERN))
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
        connection.sendall(PATTERN)
        assert receive(connection, 32 + len(PATTERN)) == hashlib.sha256(PATTERN).digest() + PATTERN


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
        # adb calls a device unauthorized just before it offers its key.
        wait_until(lambda: int(phone.order("keys")) >= 1)
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
