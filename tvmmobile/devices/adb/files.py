"""Files to and from an Android device: the requests SEND and RECV of adb's sync service (`SYNC.TXT` of Android's adb)."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from typing import IO

from tvmmobile.devices.adb.server import Gone, receive, send
from tvmmobile.devices.board.storage import error_number

_CHUNK_BYTES = 65536  # the most that adbd accepts and sends


def send_file(connection: socket.socket, source: IO[bytes], target: str, mode: int) -> None:
    """Write a file of the device, with these permission bits. The connection is to `sync:` and has a timeout.

    Raises:
        NoAnswer, Gone: nothing moved in time, or the connection is gone.
        OSError: the device cannot write the file, or `source` cannot be read.
    """
    _request(connection, b"SEND", os.fsencode(target) + b",%d" % (0o100000 | mode))
    while chunk := source.read(_CHUNK_BYTES):
        if select.select([connection], [], [], 0)[0]:
            break  # the device sends its reason for refusing the rest
        send(connection, struct.pack("<4sI", b"DATA", len(chunk)) + chunk)
    else:
        send(connection, struct.pack("<4sI", b"DONE", int(time.time()) & 0xFFFFFFFF))
    _answer(connection, target)


def receive_file(connection: socket.socket, source: str, target: IO[bytes]) -> None:
    """Read a file of the device. The connection is to `sync:` and has a timeout.

    Raises:
        NoAnswer, Gone: nothing moved in time, or the connection is gone.
        OSError: the device cannot read the file, or `target` cannot be written.
    """
    _request(connection, b"RECV", os.fsencode(source))
    while size := _answer(connection, source):
        target.write(receive(connection, size))


def _request(connection: socket.socket, name: bytes, content: bytes) -> None:
    send(connection, struct.pack("<4sI", name, len(content)) + content)


def _answer(connection: socket.socket, path: str) -> int:
    """Return the size of the data that follows; 0 at the end."""
    name, size = struct.unpack("<4sI", receive(connection, 8))
    if name in (b"DATA", b"FAIL") and size > _CHUNK_BYTES:
        raise Gone(f"{size} bytes at once are not how adb answers")
    if name == b"DATA":
        return int(size)
    if name in (b"DONE", b"OKAY"):
        return 0
    reason = receive(connection, size).decode(errors="replace") if name == b"FAIL" else f"unexpected answer {name!r}"
    raise OSError(error_number(reason, errno.EIO), reason, path)
