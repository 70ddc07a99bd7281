"""The tracker alone, in this process: TVM's protocol, odd clients, and clients that leave."""

from __future__ import annotations

import json
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tvmmobile.devices.agents.tracker import PING, PUT, REQUEST, SUCCESS, SUMMARY, TRACKER_MAGIC, UPDATE_INFO, Tracker
from tvmmobile.devices.protocol import Endpoint
from tvmmobile.devices.registry import find_device
from tvmmobile.system.errors import DeviceUnavailable, ExitCode, UserError


@pytest.fixture
def port() -> Iterator[int]:
    selector = selectors.DefaultSelector()
    tracker, running = Tracker(selector), True

    def loop() -> None:
        while running:
            for key, _ in selector.select(0.02):
                tracker.handle(key.data)

    thread = threading.Thread(target=loop)
    thread.start()
    yield tracker.port
    running = False
    thread.join()


class Client:
    """A connection that has greeted the tracker."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=2)
        self.sock.sendall(struct.pack("<i", TRACKER_MAGIC))
        assert struct.unpack("<i", self.sock.recv(4))[0] == TRACKER_MAGIC

    def send(self, message: Any) -> None:
        text = json.dumps(message).encode()
        self.sock.sendall(struct.pack("<i", len(text)) + text)

    def receive(self) -> Any:
        (size,) = struct.unpack("<i", self.sock.recv(4, socket.MSG_WAITALL))
        return json.loads(self.sock.recv(size, socket.MSG_WAITALL))

    def ask(self, message: Any) -> Any:
        self.send(message)
        return self.receive()


def offer(port: int, match_key: str) -> Client:
    server = Client(port)
    assert server.ask([UPDATE_INFO, {"key": "server:pi4", "addr": ["127.0.0.1", 9]}]) == SUCCESS
    assert server.ask([PUT, "pi4", [9, match_key], "127.0.0.1"]) == SUCCESS
    return server


def test_an_offer_goes_to_one_client(port: int) -> None:
    server = offer(port, "pi4:1")
    assert Client(port).ask([REQUEST, "pi4", "", 1]) == [SUCCESS, ["127.0.0.1", 9, "pi4:1"]]
    assert server.ask([7]) == []


def test_a_client_waits_for_an_offer(port: int) -> None:
    client = Client(port)
    client.send([REQUEST, "pi4", "", 1])
    server = offer(port, "pi4:2")
    assert client.receive()[1][2] == "pi4:2"
    server.sock.close()


def test_an_agent_that_left_is_not_offered(port: int) -> None:
    offer(port, "pi4:gone").sock.close()
    other = offer(port, "pi4:here")
    assert Client(port).ask([REQUEST, "pi4", "", 1])[1][2] == "pi4:here"
    assert [info["key"] for info in other.ask([SUMMARY])[1]["server_info"]] == ["server:pi4"]


def test_a_client_that_left_takes_no_agent(port: int) -> None:
    impatient = Client(port)
    impatient.send([REQUEST, "pi4", "", 1])
    impatient.sock.close()
    server = offer(port, "pi4:3")
    assert Client(port).ask([REQUEST, "pi4", "", 1])[1][2] == "pi4:3"
    assert server.ask([PING]) == SUCCESS


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        struct.pack("<ii", TRACKER_MAGIC, -5),
        struct.pack("<ii", TRACKER_MAGIC, 4) + b"{{{{",
        struct.pack("<ii", TRACKER_MAGIC, 50_000) + b"[" * 50_000,
    ],
)
def test_nonsense_only_ends_its_own_connection(port: int, nonsense: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=2) as sock:
        sock.sendall(nonsense)
        while sock.recv(64):
            pass
    assert Client(port).ask([PING]) == SUCCESS


def test_devices_are_found_by_name() -> None:
    profile = find_device("pi4").profile
    assert (profile.origin.kind, profile.mcpu, profile.cores, profile.machine.fma_lanes_per_cycle) == ("modelled", "cortex-a72", 4, 4)
    assert profile.target == {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72", "num-cores": 4}
    assert find_device("pi4-virtual").profile.name == "pi4-virtual"
    with pytest.raises(UserError, match=r"no device 'pi44'(.|\n)*pi4, pi4-virtual"):
        find_device("pi44")
    with pytest.raises(DeviceUnavailable) as caught:
        find_device("pi4", require_hardware=True)
    assert caught.value.exit_code is ExitCode.DEVICE_UNAVAILABLE


def test_a_token_is_not_printed() -> None:
    assert "secret" not in repr(Endpoint("127.0.0.1", 1, "pi4", "secret"))
