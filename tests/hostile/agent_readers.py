"""Readers of the messages between trackers, clients and agents: before a proof, and after it, when only the content can be wrong."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hostile.file_readers import Prepared
from hostile.fuzzing import Reader
from hostile.peer_readers import read_from_peer

from tvmmobile.devices.agents.proof import BYTES, new_secret, nonce, proof, tracker_seal
from tvmmobile.devices.agents.relay import AGENT_MAGIC, NotProven, prove
from tvmmobile.devices.agents.rpc import LinkError, TrackerLink, _request_agent
from tvmmobile.devices.agents.tracker import PENDING_MATCH_KEYS, PING, PUT, REQUEST, SUCCESS, SUMMARY, TRACKER_MAGIC, UPDATE_INFO, Tracker
from tvmmobile.devices.protocol import Endpoint

_SECRET = new_secret()
_KEY = bytes.fromhex(_SECRET)
#: For what has been sent within this process.
_WAIT_S = 2.0


class _Loop:
    """A tracker and its event loop, run by hand."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.tracker = Tracker(self.selector, _SECRET)

    def turn(self, until: Callable[[], bool]) -> None:
        """Handle what is ready, and what comes until that holds."""
        while ready := self.selector.select(0 if until() else _WAIT_S):
            for key, _ in ready:
                self.tracker.handle(key.data)

    def connected(self) -> socket.socket:
        """A new client's connection, accepted."""
        client = socket.create_connection(("127.0.0.1", self.tracker.port), timeout=2.0)
        self.turn(lambda: bool(self.tracker._peers))
        return client

    def end(self, client: socket.socket) -> None:
        """The client goes; nothing of it may be left."""
        client.close()
        self.turn(lambda: not self.tracker._peers)
        assert not self.tracker._peers and not any(self.tracker._offers.values()) and not any(self.tracker._requests.values())
        self.tracker._offers.clear()
        self.tracker._requests.clear()


def _strangers(_folder: Path) -> Prepared:
    """Whoever connects to a tracker and knows no secret."""
    loop = _Loop()

    def read(content: bytes) -> object:
        client = loop.connected()
        with contextlib.suppress(OSError):
            client.sendall(content[: 1 << 16])
        loop.turn(lambda: True)
        assert not any(peer.proven for peer in loop.tracker._peers)
        loop.end(client)
        return None

    greeting = struct.pack("<i", TRACKER_MAGIC) + bytes(range(BYTES))
    return [greeting, greeting + struct.pack("<i", BYTES + 3) + bytes(BYTES) + b"[1]"], read


def _messages(_folder: Path) -> Prepared:
    """A tracker reads messages of a peer that has proved itself: a JSON value a line, each sealed here."""
    loop = _Loop()

    def read(content: bytes) -> object:
        client = loop.connected()
        ours = nonce()
        client.sendall(struct.pack("<i", TRACKER_MAGIC) + ours)
        loop.turn(lambda: any(peer.seal for peer in loop.tracker._peers))
        answer = client.recv(4 + 2 * BYTES, socket.MSG_WAITALL)
        seal = tracker_seal(_KEY, ours, answer[4 : 4 + BYTES], at_tracker=False)
        for line in content[: 1 << 15].split(b"\n")[:20]:
            message = seal.closed(line)
            with contextlib.suppress(OSError):
                client.sendall(struct.pack("<i", len(message)) + message)
            loop.turn(lambda: True)
        loop.end(client)
        return None

    messages = (
        [UPDATE_INFO, {"key": "server:pi4", "addr": ["127.0.0.1", 9090]}],
        [PUT, "pi4", [9090, "pi4:0a1b"], "127.0.0.1"],
        [PENDING_MATCH_KEYS],
        [SUMMARY],
        [PING],
        [REQUEST, "pi4", "", 1],
    )
    return [b"\n".join(json.dumps(message).encode() for message in messages)], read


def _tracker_answers(_folder: Path) -> Prepared:
    """A client reads an answer of its own run's tracker."""
    listener = socket.create_server(("127.0.0.1", 0))
    frames = [b""]

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                theirs = connection.recv(4 + BYTES, socket.MSG_WAITALL)[4:]
                ours = nonce()
                connection.sendall(struct.pack("<i", TRACKER_MAGIC) + ours + proof(_KEY, "tracker", theirs, ours))
                (size,) = struct.unpack("<i", connection.recv(4, socket.MSG_WAITALL))
                connection.recv(size, socket.MSG_WAITALL)
                message = tracker_seal(_KEY, theirs, ours, at_tracker=True).closed(frames[0])
                connection.sendall(struct.pack("<i", len(message)) + message)

    threading.Thread(target=serve, daemon=True).start()
    endpoint = Endpoint("127.0.0.1", listener.getsockname()[1], "pi4", _SECRET)

    def read(content: bytes) -> object:
        frames[0] = content[: 1 << 16]
        return _request_agent(endpoint, 5.0)

    return [json.dumps([SUCCESS, ["127.0.0.1", 9090, "pi4:0a1b"]]).encode()], read


def _impostor_tracker(_folder: Path) -> Prepared:
    """A client reads answers of a tracker that does not know the secret."""

    def use(connection: socket.socket) -> object:
        link = TrackerLink.__new__(TrackerLink)
        link.sock, link._deadline = connection, time.monotonic() + _WAIT_S
        return link._greet(_KEY)

    answer = struct.pack("<i", TRACKER_MAGIC) + bytes(2 * BYTES)
    return [answer], _refused(read_from_peer(use))


def _impostor_agent(_folder: Path) -> Prepared:
    """A client reads answers of an agent that does not know the secret."""
    read = read_from_peer(lambda connection: prove(connection, _KEY, "pi4:0a1b", 60.0))
    return [bytes(2 * BYTES) + struct.pack("<i", AGENT_MAGIC)], _refused(read)


def _refused(read: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """The reader, which must never believe what it is told."""

    def checked(content: bytes) -> object:
        try:
            read(content)
        except (ValueError, OSError, NotProven):
            return None
        raise AssertionError("who knows no secret was believed")

    return checked


READERS = (
    Reader("tracker-strangers", "bytes", _strangers, (), cost=2),
    Reader("tracker-messages", "lines", _messages, (), cost=6),
    Reader("tracker-answers", "json", _tracker_answers, (LinkError,), cost=4),
    Reader("impostor-tracker", "bytes", _impostor_tracker, ()),
    Reader("impostor-agent", "bytes", _impostor_agent, ()),
)
