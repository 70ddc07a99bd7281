"""The tracker alone, in this process: TVM's protocol, odd clients, and clients that leave."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from served_tracker import served_tracker

from tvmmobile.devices.agents.rpc import TrackerLink
from tvmmobile.devices.agents.tracker import MOST_STRANGERS, PING, PUT, REQUEST, SUCCESS, SUMMARY, TRACKER_MAGIC, UPDATE_INFO
from tvmmobile.devices.protocol import Endpoint
from tvmmobile.devices.registry import find_device
from tvmmobile.system.errors import DeviceUnavailable, ExitCode, UserError

NONCE = bytes(32)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A tracker of this process, and its run's secret."""
    with served_tracker() as served:
        yield served


def client(endpoint: Endpoint) -> TrackerLink:
    return TrackerLink(endpoint, time.monotonic() + 2)


def offer(endpoint: Endpoint, match_key: str) -> TrackerLink:
    server = client(endpoint)
    assert server.ask([UPDATE_INFO, {"key": "server:pi4", "addr": ["127.0.0.1", 9]}]) == SUCCESS
    assert server.ask([PUT, "pi4", [9, match_key], "127.0.0.1"]) == SUCCESS
    return server


def test_an_offer_goes_to_one_client(endpoint: Endpoint) -> None:
    server = offer(endpoint, "pi4:1")
    assert client(endpoint).ask([REQUEST, "pi4", "", 1]) == [SUCCESS, ["127.0.0.1", 9, "pi4:1"]]
    assert server.ask([7]) == []


def test_a_client_waits_for_an_offer(endpoint: Endpoint) -> None:
    waiting: list[str] = []
    thread = threading.Thread(target=lambda: waiting.append(client(endpoint).ask([REQUEST, "pi4", "", 1])[1][2]))
    thread.start()
    time.sleep(0.05)
    assert waiting == []
    server = offer(endpoint, "pi4:2")
    thread.join(2)
    assert waiting == ["pi4:2"]
    server.sock.close()


def test_an_agent_that_left_is_not_offered(endpoint: Endpoint) -> None:
    offer(endpoint, "pi4:gone").sock.close()
    other = offer(endpoint, "pi4:here")
    assert client(endpoint).ask([REQUEST, "pi4", "", 1])[1][2] == "pi4:here"
    assert [info["key"] for info in other.ask([SUMMARY])[1]["server_info"]] == ["server:pi4"]


def test_a_client_that_left_takes_no_agent(endpoint: Endpoint) -> None:
    impatient = TrackerLink(endpoint, time.monotonic() + 0.1)
    with impatient, pytest.raises(TimeoutError):
        impatient.ask([REQUEST, "pi4", "", 1])
    server = offer(endpoint, "pi4:3")
    assert client(endpoint).ask([REQUEST, "pi4", "", 1])[1][2] == "pi4:3"
    assert server.ask([PING]) == SUCCESS


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        struct.pack("<i", TRACKER_MAGIC) + NONCE + struct.pack("<i", -5),
        struct.pack("<i", TRACKER_MAGIC) + NONCE + struct.pack("<i", 36) + NONCE + b"{{{{",
        struct.pack("<i", TRACKER_MAGIC) + NONCE + struct.pack("<i", 50_000) + b"[" * 50_000,
    ],
)
def test_nonsense_only_ends_its_own_connection(endpoint: Endpoint, nonsense: bytes) -> None:
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=2) as sock, contextlib.suppress(ConnectionResetError):
        sock.sendall(nonsense)
        while sock.recv(64):
            pass
    assert client(endpoint).ask([PING]) == SUCCESS


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


@pytest.mark.parametrize("message", [b"null", b"[[]]", b"[4]", b"[99]", b"{", b"[" * 50_000, b"[3,{},[1,2]]"])
def test_nonsense_of_the_runs_own_only_ends_its_own_connection(endpoint: Endpoint, message: bytes) -> None:
    odd = client(endpoint)
    sealed = odd._seal.closed(message)
    odd.sock.sendall(struct.pack("<i", len(sealed)) + sealed)
    with odd, pytest.raises(OSError, match=r"closed the connection|reset"):
        odd.answer()
    assert client(endpoint).ask([PING]) == SUCCESS


def test_strangers_take_no_more_than_their_places(endpoint: Endpoint) -> None:
    agent = offer(endpoint, "pi4:1")
    with contextlib.ExitStack() as held:
        crowd = [held.enter_context(socket.create_connection(("127.0.0.1", endpoint.port), 2)) for _ in range(MOST_STRANGERS + 5)]
        assert crowd[0].recv(1) == b""  # the first has made room
        assert client(endpoint).ask([REQUEST, "pi4", "", 1])[1][2] == "pi4:1"
    assert agent.ask([PING]) == SUCCESS


def test_a_secret_is_not_printed() -> None:
    assert "the words" not in repr(Endpoint("127.0.0.1", 1, "pi4", "the words"))
