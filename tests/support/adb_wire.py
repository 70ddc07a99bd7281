"""adb's wire protocol as asyncio sees it: messages, and streams with one unacknowledged message each way.

The formats are those of `packages/modules/adb/protocol.txt` of Android's source.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

MAX_DATA_BYTES = 1 << 20
VERSION = 0x01000001
CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = (int.from_bytes(name, "little") for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE"))


@dataclass(frozen=True)
class Message:
    """One message; what the two numbers mean depends on the command."""

    command: int
    first: int
    second: int
    data: bytes = b""

    def encode(self) -> bytes:
        """Return the message as it is sent. The sum is that of old hosts, which still check it before they know our version."""
        header = (self.command, self.first, self.second, len(self.data), sum(self.data) & 0xFFFFFFFF if self.command == CNXN else 0)
        return struct.pack("<6I", *header, self.command ^ 0xFFFFFFFF) + self.data


async def read_message(reader: asyncio.StreamReader) -> Message:
    """The next message; raises `EOFError` at the end and `ValueError` for something else."""
    command, first, second, length, _, magic = struct.unpack("<6I", await reader.readexactly(24))
    if magic != command ^ 0xFFFFFFFF or length > MAX_DATA_BYTES:
        raise ValueError("no message of adb")
    return Message(command, first, second, await reader.readexactly(length))


class Stream:
    """One stream of a connection, as a service of the device sees it.

    Args:
        send: sends a message over the connection.
        own, peer: both ends' numbers of the stream; `peer` is 0 until the host accepted it.
        limit: largest number of bytes that the host takes in one message.
    """

    def __init__(self, send: Callable[[Message], Awaitable[None]], own: int, peer: int, limit: int) -> None:
        self._send, self.own, self.peer, self._limit = send, own, peer, limit
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._may_write = asyncio.Event()
        self._ended = False
        self._buffer = bytearray()

    async def accept(self) -> None:
        """Tell the host that the stream is open."""
        self._may_write.set()
        await self._send(Message(OKAY, self.own, self.peer))

    async def read(self) -> bytes:
        """Return the bytes that arrived next; b"" at the end. The host may send more once they were taken."""
        if self._buffer:
            data, self._buffer = bytes(self._buffer), bytearray()
            return data
        data = await self._arrived.get()
        if data is None:
            self._arrived.put_nowait(None)
            return b""
        if not self._ended:
            await self._send(Message(OKAY, self.own, self.peer))
        return data

    async def read_exactly(self, size: int) -> bytes:
        """`size` bytes; raises `EOFError` where there are no more."""
        while len(self._buffer) < size:
            kept, self._buffer = self._buffer, bytearray()
            more = await self.read()
            self._buffer = kept + more
            if not more:
                raise EOFError
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def write(self, data: bytes) -> None:
        """Send all of it; raises `EOFError` where the host has closed the stream."""
        for start in range(0, len(data), self._limit):
            await self._may_write.wait()
            if self._ended:
                raise EOFError
            self._may_write.clear()
            await self._send(Message(WRTE, self.own, self.peer, data[start : start + self._limit]))

    async def opened(self) -> bool:
        """Waits for the host's answer to a stream that the device opened."""
        await self._may_write.wait()
        return not self._ended

    async def close(self) -> None:
        """Tell the host that the stream is over, if it does not know."""
        if not self._ended:
            self.end()
            await self._send(Message(CLSE, self.own, self.peer))

    def end(self) -> None:
        """The host has closed the stream, or is gone."""
        self._ended = True
        self._arrived.put_nowait(None)
        self._may_write.set()

    def take(self, data: bytes) -> None:
        """Data has arrived."""
        self._arrived.put_nowait(data)

    def acknowledge(self, peer: int) -> None:
        """The host is ready for more."""
        self.peer = peer
        self._may_write.set()
