"""TVM's client is led to an agent by this process alone, and hears answers alone."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tvmmobile.devices.agents.proof import nonce
from tvmmobile.devices.agents.relay import AGENT_MAGIC, RPC_MAGIC, NotProven, Relay, prove

#: TVM's packet codes: kCallFunc, kReturn.
CALL, RETURN = 3, 4


@pytest.fixture
def relay() -> Iterator[tuple[Relay, socket.socket]]:
    """A relay, and the agent's end of what it leads to."""
    ours, agent = socket.socketpair()
    opened = Relay(ours, time.monotonic() + 5)
    agent.settimeout(2)
    yield opened, agent
    opened.close()
    agent.close()


def greeting(key: str) -> bytes:
    line = f"client:{key}".encode()
    return struct.pack("<ii", RPC_MAGIC, len(line)) + line


def connected(relay: Relay) -> socket.socket:
    """Return a connection that is made as TVM's client makes it."""
    client = socket.create_connection(("127.0.0.1", relay.port), 2)
    client.sendall(greeting(relay.key))
    assert received(client, 8 + len("server:relay"))[:4] == struct.pack("<i", RPC_MAGIC)
    return client


def received(connection: socket.socket, count: int) -> bytes:
    """Return this many bytes, however they arrive: sockets with a timeout do not wait for all of them."""
    found = b""
    while len(found) < count and (piece := connection.recv(count - len(found))):
        found += piece
    return found


def test_requests_and_answers_are_carried_and_the_connection_is_handed_over(relay: tuple[Relay, socket.socket]) -> None:
    lead, agent = relay
    with connected(lead) as client:
        for _ in range(2):
            client.sendall(b"request")
            assert agent.recv(7) == b"request"
            answer = struct.pack("<Qi", 10, RETURN) + b"answer"
            for piece in (answer[:3], answer[3:15], answer[15:]):
                agent.sendall(piece)
            assert received(client, len(answer)) == answer
        lead.hand_over()
        client.setblocking(True)
        client.sendall(b"more")
        assert agent.recv(4) == b"more"
        agent.sendall(b"directly")
        assert received(client, 8) == b"directly"


@pytest.mark.parametrize("packet", [struct.pack("<Qi", 100, CALL), struct.pack("<Qi", 8, 6), struct.pack("<Qi", 0, RETURN)])
def test_a_request_never_reaches_the_client(relay: tuple[Relay, socket.socket], packet: bytes) -> None:
    lead, agent = relay
    with connected(lead) as client:
        client.sendall(b"request")
        assert agent.recv(7) == b"request"
        agent.sendall(packet)
        assert client.recv(100) == b""


def test_who_connects_without_the_key_is_not_served(relay: tuple[Relay, socket.socket]) -> None:
    lead, agent = relay
    strangers = [socket.create_connection(("127.0.0.1", lead.port), 2) for _ in range(20)]
    for stranger in strangers[10:]:
        stranger.sendall(greeting("0" * len(lead.key)))
    with connected(lead) as client:
        client.sendall(b"request")
        assert agent.recv(7) == b"request"
    for stranger in strangers:
        with stranger:
            assert stranger.recv(1) == b""


def test_a_client_that_never_comes_ends_at_the_deadline() -> None:
    ours, agent = socket.socketpair()
    relay = Relay(ours, time.monotonic() + 0.05)
    time.sleep(0.1)
    with agent, pytest.raises(ConnectionResetError, match="has gone"):
        relay.hand_over()
    relay.close()


def test_other_connections_from_the_same_port_are_left_alone(relay: tuple[Relay, socket.socket]) -> None:
    """The kernel may give one local port to connections to different places."""
    lead, agent = relay
    with socket.create_server(("127.0.0.1", 0)) as other, socket.socket() as same, socket.socket() as client:
        for sock in (same, client):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        same.bind(("127.0.0.1", 0))
        client.bind(same.getsockname())
        same.connect(other.getsockname())
        client.connect(("127.0.0.1", lead.port))
        client.sendall(greeting(lead.key))
        assert received(client, 20)
        lead.hand_over()
        client.sendall(b"here")
        assert agent.recv(4) == b"here"
        there, _ = other.accept()
        with there:
            same.sendall(b"there")
            assert there.recv(5) == b"there"


def test_a_client_says_no_more_than_its_nonce_to_whoever_proves_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(nonce() + nonce())
        with pytest.raises(NotProven, match="did not prove"):
            prove(ours, bytes(32), "offer", 5)
        received = theirs.recv(1000)
        assert len(received) == 36 and received[:4] == struct.pack("<i", AGENT_MAGIC)
