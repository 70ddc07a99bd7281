"""A small RPC tracker that speaks TVM's protocol (`tvm/rpc/tracker.py`), for one process and one event loop.

TVM's own tracker answers everybody, takes seconds to import, binds all interfaces by default and leaves a worker behind when its parent is
killed. This one answers only peers that know the run's secret. A connection begins with `TRACKER_MAGIC` and a nonce; the tracker answers
with both of its own and its proof. Every message after that is a length, a tag and JSON (`proof.Seal`).

Standard library only: it starts in a process of its own within tens of milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import struct
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tvmmobile.devices.agents.proof import BYTES, Seal, nonce, proof, tracker_seal

#: Differs from TVM's, whose clients would wait for ever for an answer.
TRACKER_MAGIC = 0x746D7401
MAX_MESSAGE_BYTES = 1 << 20
#: Longest message of a peer that has not yet proved itself.
MAX_FIRST_MESSAGE_BYTES = 4096
#: Most peers that have not yet proved themselves; beyond that, the oldest is dropped.
MOST_STRANGERS = 64
SUCCESS, PING, PUT, REQUEST, UPDATE_INFO, SUMMARY, PENDING_MATCH_KEYS = 0, 1, 3, 4, 5, 6, 7


@dataclass(frozen=True, eq=False)
class ForwardedPort:
    """Leads to the tracker from one board's agents, whose own ports are forwarded to other ports here.

    Attributes:
        listener: socket that the agents register at.
        place: maps an agent's port on the board to the port here that leads to it; raises if there is none.
    """

    listener: socket.socket
    place: Callable[[int], int]

    @property
    def port(self) -> int:
        """The tracker's port on 127.0.0.1."""
        return int(self.listener.getsockname()[1])


@dataclass(eq=False)
class _Peer:
    """One connection: a server that offers itself, or a client that asks for one. `seal` is set once nonces are exchanged, and
    `proven` is true once it has sent a message that requires the secret.
    """

    sock: socket.socket
    address: str
    gate: ForwardedPort | None = None
    received: bytearray = field(default_factory=bytearray)
    seal: Seal | None = None
    proven: bool = False
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Offer:
    """A server waiting for a client that presents `match_key`."""

    peer: _Peer
    address: str
    port: int
    match_key: str


class Tracker:
    """Pairs clients with agents of the key they ask for, first come, first served.

    Args:
        selector: the event loop's; call `handle` with each ready key whose `data` is this tracker's.
        secret: the run's, 64 hexadecimal digits.

    Raises:
        ValueError: the secret has another length or other characters.
    """

    def __init__(self, selector: selectors.BaseSelector, secret: str) -> None:
        self._selector, self._key = selector, bytes.fromhex(secret)
        if len(self._key) != BYTES:
            raise ValueError(f"a tracker's secret has {2 * BYTES} digits")
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._peers: dict[_Peer, None] = {}  # in order of arrival
        self._offers: dict[str, deque[_Offer]] = defaultdict(deque)
        self._requests: dict[str, deque[_Peer]] = defaultdict(deque)
        selector.register(self._listener, selectors.EVENT_READ, None)

    def open_gate(self, place: Callable[[int], int]) -> ForwardedPort:
        """Open another port for registrations, see `ForwardedPort`."""
        gate = ForwardedPort(socket.create_server(("127.0.0.1", 0), backlog=64), place)
        gate.listener.setblocking(False)
        self._selector.register(gate.listener, selectors.EVENT_READ, gate)
        return gate

    def handle(self, data: Any) -> None:
        """Handle one ready socket: `data` is the selector key's, None for the listener."""
        if data is None or isinstance(data, ForwardedPort):
            self._accept(data)
        else:
            self._receive(data)

    def servers(self, gate: ForwardedPort | None = None) -> int:
        """Count the connected agents; only those of one gate, if given."""
        return sum(1 for peer in list(self._peers) if gate in (None, peer.gate) and str(peer.info.get("key", "")).startswith("server:"))

    def _accept(self, gate: ForwardedPort | None) -> None:
        with contextlib.suppress(OSError):
            sock, address = (gate.listener if gate else self._listener).accept()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = _Peer(sock, address[0], gate)
            self._peers[peer] = None
            self._selector.register(sock, selectors.EVENT_READ, peer)
            strangers = [peer for peer in self._peers if not peer.proven]
            if len(strangers) > MOST_STRANGERS:
                self._drop(strangers[0])

    def _receive(self, peer: _Peer) -> None:
        try:
            chunk = peer.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._drop(peer)
            return
        peer.received += chunk
        try:
            self._consume(peer)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OSError, struct.error):
            self._drop(peer)  # the peer speaks another protocol or is gone: either way this connection is over

    def _consume(self, peer: _Peer) -> None:
        while peer in self._peers and len(peer.received) >= 4:
            (number,) = struct.unpack_from("<i", peer.received)
            if peer.seal is None:
                if number != TRACKER_MAGIC:
                    raise ValueError("no tracker client")
                if len(peer.received) < 4 + BYTES:
                    return
                self._greet(peer, bytes(peer.received[4 : 4 + BYTES]))
                del peer.received[: 4 + BYTES]
                continue
            if not BYTES < number <= (MAX_MESSAGE_BYTES if peer.proven else MAX_FIRST_MESSAGE_BYTES):
                raise ValueError("message size out of range")
            if len(peer.received) < 4 + number:
                return
            message = json.loads(peer.seal.opened(bytes(peer.received[4 : 4 + number])))
            peer.proven = True
            del peer.received[: 4 + number]
            self._answer(peer, message)

    def _greet(self, peer: _Peer, theirs: bytes) -> None:
        ours = nonce()
        peer.seal = tracker_seal(self._key, theirs, ours, at_tracker=True)
        peer.sock.sendall(struct.pack("<i", TRACKER_MAGIC) + ours + proof(self._key, "tracker", theirs, ours))

    def _answer(self, peer: _Peer, message: list[Any]) -> None:
        code = message[0]
        if code == PUT:
            key, (port, match_key) = message[1], message[2]
            address = message[3] if len(message) > 3 and message[3] is not None else peer.address
            if peer.gate is not None:
                address, port = "127.0.0.1", peer.gate.place(port)
            self._offers[key].append(_Offer(peer, address, port, match_key))
            self._send(peer, SUCCESS)
            self._pair(key)
        elif code == REQUEST:
            self._requests[message[1]].append(peer)
            self._pair(message[1])
        elif code == UPDATE_INFO:
            peer.info.update(message[1])
            self._send(peer, SUCCESS)
        elif code == PENDING_MATCH_KEYS:
            self._send(peer, [offer.match_key for queue in self._offers.values() for offer in queue if offer.peer is peer])
        elif code == SUMMARY:
            queues = {k: {"free": len(self._offers[k]), "pending": len(self._requests[k])} for k in {*self._offers, *self._requests}}
            servers = [p.info for p in self._peers if str(p.info.get("key", "")).startswith("server")]
            self._send(peer, [SUCCESS, {"queue_info": queues, "server_info": servers}])
        elif code == PING:
            self._send(peer, SUCCESS)
        else:
            raise ValueError("unknown request")

    def _pair(self, key: str) -> None:
        offers, requests = self._offers[key], self._requests[key]
        while offers and requests:
            peer, offer = requests.popleft(), offers.popleft()
            try:
                self._send(peer, [SUCCESS, [offer.address, offer.port, offer.match_key]])
            except OSError:
                offers.appendleft(offer)
                self._drop(peer)

    def _send(self, peer: _Peer, value: Any) -> None:
        if peer.seal is None:
            raise ValueError("a peer that has not greeted")
        message = peer.seal.closed(json.dumps(value).encode())
        peer.sock.sendall(struct.pack("<i", len(message)) + message)

    def _drop(self, peer: _Peer) -> None:
        if peer not in self._peers:
            return
        del self._peers[peer]
        self._selector.unregister(peer.sock)
        peer.sock.close()
        for queue in self._requests.values():
            while peer in queue:
                queue.remove(peer)
        for key, offers in self._offers.items():
            self._offers[key] = deque(offer for offer in offers if offer.peer is not peer)
