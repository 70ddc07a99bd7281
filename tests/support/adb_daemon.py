"""A device that speaks adb's wire protocol over TCP, on 127.0.0.1 only; `adb connect` takes it for a phone.

    python tests/support/adb_daemon.py --root DIR [--authorize]

Commands run on this machine, in DIR, with programs from DIR/system/bin first; file names are those of this machine, so that boards of tests
belong below DIR/data/local/tmp. The first line on standard output is the port. Every line on standard input is an order; "ok" answers it:

    cut                drop every connection, and refuse new ones until `back`
    back               take connections again
    silent / speak     stop, and resume, reading and writing; connections stay open
    ask / refuse       ask for a signature before a connection is taken; a key that is offered waits for `accept`, or is never accepted
    accept             the user agrees to every key that was offered
    full / empty       files no longer fit, or do again
    set NAME=VALUE     a property, as `getprop` tells it
    keys               answers with the number of keys that were offered

It ends at the end of standard input, and with it everything it started.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path

from adb_services import Device, session_lives, shell, splice, sync
from adb_wire import AUTH, CLSE, CNXN, MAX_DATA_BYTES, OKAY, OPEN, VERSION, WRTE, Message, Stream, read_message
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

BANNER = b"device::ro.product.name=test;ro.product.model=Test;ro.product.device=test;features=shell_v2,cmd,stat_v2"
PROPERTIES = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 6",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
}
_TOKEN, _SIGNATURE, _PUBLIC_KEY = 1, 2, 3
_GETPROP = """#!/bin/sh
# `getprop NAME` prints a property, "" where there is none; without a name, all of them.
folder=$(dirname "$0")/../properties
if [ $# -eq 0 ]; then
    for file in "$folder"/*; do echo "[$(basename "$file")]: [$(cat "$file")]"; done
elif [ -f "$folder/$1" ]; then cat "$folder/$1"; else echo; fi
"""
_DUMPSYS = """#!/bin/sh
[ "$1" = battery ] || { echo "Can't find service: $1"; exit 0; }
printf 'Current Battery Service state:\\n  AC powered: false\\n  USB powered: true\\n  level: 80\\n  scale: 100\\n  temperature: 281\\n'
"""


def public_key(text: bytes) -> RSAPublicKey:
    """The key that a host offers: base64 of its size, a constant, the modulus and another constant as 32-bit words, and the exponent."""
    blob = base64.b64decode(text.split(b" ")[0])
    size = 4 * int.from_bytes(blob[:4], "little")
    return RSAPublicNumbers(int.from_bytes(blob[-4:], "little"), int.from_bytes(blob[8 : 8 + size], "little")).public_key()


class Phone:
    """The device and what may go wrong with it."""

    def __init__(self, root: Path) -> None:
        self.device = Device(root)
        self.authorize = False
        self.refuse = False
        self.away = False
        self.offered: list[RSAPublicKey] = []
        self.accepted: list[RSAPublicKey] = []
        self.agreed = asyncio.Event()
        self.speaking = asyncio.Event()
        self.speaking.set()
        self.connections: set[Connection] = set()
        programs = root / "system" / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        (root / "data" / "local" / "tmp").mkdir(parents=True, exist_ok=True)
        for name, text in (("getprop", _GETPROP), ("dumpsys", _DUMPSYS)):
            if not (programs / name).exists():
                (programs / name).write_text(text)
                (programs / name).chmod(0o755)
        for name, value in PROPERTIES.items():
            self.set_property(name, value)

    def set_property(self, name: str, value: str) -> None:
        """Set the value that `getprop NAME` prints from now on."""
        folder = self.device.root / "system" / "properties"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(value + "\n")

    def order(self, line: str) -> str:
        """Carry out one order; returns the answer."""
        word, _, rest = line.partition(" ")
        if word in ("cut", "back"):
            self.away = word == "cut"
            for connection in list(self.connections) if self.away else []:
                connection.writer.transport.abort()
        elif word in ("silent", "speak"):
            (self.speaking.set if word == "speak" else self.speaking.clear)()
        elif word in ("ask", "refuse"):
            self.authorize, self.refuse = True, word == "refuse"
        elif word == "accept":
            self.accepted += self.offered
            self.agreed.set()
        elif word in ("full", "empty"):
            self.device.full = word == "full"
        elif word == "set":
            self.set_property(*rest.split("=", 1))
        elif word == "keys":
            return str(len(self.offered))
        else:
            return f"unknown order {line!r}"
        return "ok"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a host, to its end."""
        connection = Connection(self, reader, writer)
        self.connections.add(connection)
        try:
            if not self.away:
                await connection.run()
        except (EOFError, OSError, ValueError, asyncio.CancelledError):
            pass  # the host is gone, or speaks something else; or the device is switched off
        finally:
            self.connections.discard(connection)
            connection.end()


class Connection:
    """A host that is connected."""

    def __init__(self, phone: Phone, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._phone, self._reader, self.writer = phone, reader, writer
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._limit = 4096
        self._tasks: set[asyncio.Task[None]] = set()
        #: What listens on the device for the host: port → server and the host's service.
        self._reversed: dict[int, tuple[asyncio.Server, str]] = {}

    async def run(self) -> None:
        """Greet, then carry out what the host asks for."""
        greeting = await self._receive()
        if greeting.command != CNXN:
            raise ValueError("no host")
        self._limit = min(greeting.second, MAX_DATA_BYTES)
        if self._phone.authorize:
            await self._authorize()
        await self._send(Message(CNXN, VERSION, MAX_DATA_BYTES, BANNER))
        while True:
            await self._handle(await self._receive())

    def end(self) -> None:
        """Close everything that belongs to this connection."""
        for stream in self._streams.values():
            stream.end()
        for server, _ in self._reversed.values():
            server.close()
        self.writer.transport.abort()

    async def _receive(self) -> Message:
        message = await read_message(self._reader)
        await self._phone.speaking.wait()
        return message

    async def _send(self, message: Message) -> None:
        await self._phone.speaking.wait()
        self.writer.write(message.encode())
        await self.writer.drain()

    async def _authorize(self) -> None:
        """Returns once the host has proved to own a key that the user has accepted."""
        while True:
            token = os.urandom(20)
            await self._send(Message(AUTH, _TOKEN, 0, token))
            answer = await self._receive()
            if answer.first == _SIGNATURE and any(_signed(key, token, answer.data) for key in self._phone.accepted):
                return
            if answer.first == _PUBLIC_KEY:
                self._phone.offered.append(public_key(answer.data.rstrip(b"\0")))
                self._phone.agreed.clear()
                await self._phone.agreed.wait()
                if not self._phone.refuse:
                    return

    async def _handle(self, message: Message) -> None:
        stream = self._streams.get(message.second)
        if message.command == OPEN:
            service = message.data.rstrip(b"\0").decode(errors="surrogateescape")
            self._spawn(self._service(self._new_stream(message.first), service))
        elif stream is None:
            pass
        elif message.command == OKAY:
            stream.acknowledge(message.first)
        elif message.command == WRTE:
            stream.take(message.data)
        elif message.command == CLSE:
            stream.end()

    def _new_stream(self, peer: int) -> Stream:
        stream = Stream(self._send, self._next, peer, self._limit)
        self._streams[self._next] = stream
        self._next += 1
        return stream

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _service(self, stream: Stream, name: str) -> None:
        """A stream that the host has opened, to its end."""
        kind, _, rest = name.partition(":")
        with contextlib.suppress(EOFError, OSError):
            if kind == "tcp":
                await self._to_port(stream, int(rest))
            elif kind.split(",")[0] in ("shell", "exec"):
                await stream.accept()
                await shell(self._phone.device, stream, rest, packets="v2" in kind.split(","))
            elif kind == "sync":
                await stream.accept()
                await sync(self._phone.device, stream)
            elif kind == "reverse":
                await stream.accept()
                await stream.write(await self._reverse(rest))
            else:
                await self._refuse(stream)
        with contextlib.suppress(OSError):
            await stream.close()
        self._streams.pop(stream.own, None)

    async def _refuse(self, stream: Stream) -> None:
        stream.end()
        await self._send(Message(CLSE, 0, stream.peer))

    async def _to_port(self, stream: Stream, port: int) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MAX_DATA_BYTES)
        except OSError:
            await self._refuse(stream)
            return
        await stream.accept()
        await splice(stream, reader, writer)

    async def _reverse(self, request: str) -> bytes:
        """Return a device's answer: OKAY or FAIL, and text with its length."""
        verb, _, rest = request.partition(":")
        if verb == "list-forward":
            return _text("".join(f"host tcp:{port} {service}\n" for port, (_, service) in self._reversed.items()))
        if verb == "killforward-all":
            for port in list(self._reversed):
                self._reversed.pop(port)[0].close()
            return b"OKAY"
        if verb == "killforward":
            found = self._reversed.pop(_port(rest), None)
            if found is None:
                return b"FAIL" + _text(f"listener '{rest}' not found")
            found[0].close()
            return b"OKAY"
        if verb != "forward":
            return b"FAIL" + _text(f"unknown request {verb}")
        local, _, service = rest.removeprefix("norebind:").partition(";")
        try:
            server = await asyncio.start_server(
                lambda *pair: self._to_host(service, *pair), "127.0.0.1", _port(local), limit=MAX_DATA_BYTES
            )
        except OSError as error:
            return b"FAIL" + _text(f"cannot bind listener: {error.strerror}")
        port = server.sockets[0].getsockname()[1]
        self._reversed[port] = (server, service)
        return b"OKAY" + (_text(str(port)) if _port(local) == 0 else b"")

    async def _to_host(self, service: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Something on the device has connected to a port that leads to the host."""
        stream = self._new_stream(0)
        with contextlib.suppress(EOFError, OSError):
            await self._send(Message(OPEN, stream.own, 0, service.encode() + b"\0"))
            if await stream.opened():
                await splice(stream, reader, writer)
                await stream.close()
        writer.close()
        self._streams.pop(stream.own, None)


def _signed(key: RSAPublicKey, token: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, token, PKCS1v15(), Prehashed(hashes.SHA1()))
    except InvalidSignature:
        return False
    return True


def _port(place: str) -> int:
    kind, _, number = place.partition(":")
    if kind != "tcp":
        raise ValueError("only TCP ports are forwarded")
    return int(number)


def _text(text: str) -> bytes:
    return f"{len(text):04x}{text}".encode()


async def main() -> None:
    """Entry point of the program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--authorize", action="store_true", help="the order `ask` from the start")
    arguments = parser.parse_args()
    phone = Phone(arguments.root.resolve())
    phone.authorize = arguments.authorize
    server = await asyncio.start_server(phone.serve, "127.0.0.1", 0, limit=2 * MAX_DATA_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    try:
        while line := await orders.readline():
            print(phone.order(line.decode().rstrip("\n")), flush=True)
    finally:
        server.close()
        for session in filter(session_lives, phone.device.sessions):
            os.killpg(session, signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main())
