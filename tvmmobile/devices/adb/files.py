"""Files to and from an Android device: the requests SEND and RECV of adb's sync service (`SYNC.TXT` of Android's adb).

adbutils has them too, but drops the device's reason for a failure, and neither notices a device that no longer answers.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from typing import IO

from tvmmobile.devices.board.remote import LinkLost

_CHUNK_BYTES = 65536  # the most that adbd takes


def send_file(connection: socket.socket, source: IO[bytes], target: str, mode: int) -> None:
    """Write a file of the device, with these permission bits. The connection is to `sync:` and has a timeout.

    Raises:
        LinkLost: the connection is gone, or nothing moved in time.
        OSError: the device cannot write the file, or `source` cannot be read.
    """
    _request(connection, b"SEND", os.fsencode(target) + b",%d" % (0o100000 | mode))
    while chunk := source.read(_CHUNK_BYTES):
        if select.select([connection], [], [], 0)[0]:
            break  # the device says why it will not have the rest
        _send(connection, struct.pack("<4sI", b"DATA", len(chunk)) + chunk)
    else:
        _send(connection, struct.pack("<4sI", b"DONE", int(time.time()) & 0xFFFFFFFF))
    _answer(connection, target)


def receive_file(connection: socket.socket, source: str, target: IO[bytes]) -> None:
    """Read a file of the device. The connection is to `sync:` and has a timeout.

    Raises:
        LinkLost: the connection is gone, or nothing moved in time.
        OSError: the device cannot read the file, or `target` cannot be written.
    """
    _request(connection, b"RECV", os.fsencode(source))
    while size := _answer(connection, source):
        target.write(_receive(connection, size))


def error_number(message: str) -> int:
    """The error that a device's message ends with, in the words of `strerror`; EIO for any other."""
    return next((number for number in errno.errorcode if message.strip().endswith(os.strerror(number))), errno.EIO)


def _request(connection: socket.socket, name: bytes, content: bytes) -> None:
    _send(connection, struct.pack("<4sI", name, len(content)) + content)


def _answer(connection: socket.socket, path: str) -> int:
    """How much data follows; 0 at the end."""
    name, size = struct.unpack("<4sI", _receive(connection, 8))
    if name == b"DATA":
        return int(size)
    if name in (b"DONE", b"OKAY"):
        return 0
    said = _receive(connection, size).decode(errors="replace") if name == b"FAIL" else f"unexpected answer {name!r}"
    raise OSError(error_number(said), said, path)


def _send(connection: socket.socket, content: bytes) -> None:
    try:
        connection.sendall(content)
    except OSError as error:
        raise _lost(error) from error


def _receive(connection: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        try:
            arrived = connection.recv(size - len(content))
        except OSError as error:
            raise _lost(error) from error
        if not arrived:
            raise LinkLost("the connection ended")
        content += arrived
    return bytes(content)


def _lost(error: OSError) -> LinkLost:
    return LinkLost("nothing moved in time" if isinstance(error, TimeoutError) else "the connection ended")
