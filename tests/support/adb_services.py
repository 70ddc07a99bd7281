"""An Android device's services on a stream that adb opened: shells, file transfer and connections to its ports.

After `daemon/shell_service.cpp`, `daemon/file_sync_service.cpp` and `SYNC.TXT` of Android's adb.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from adb_wire import Stream

_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_CHUNK = 65536


@dataclass
class Device:
    """A device as its services see it.

    Attributes:
        root: commands start here, and `system/bin` in it is the first folder with programs.
        full: whether files no longer fit.
        sessions: sessions of commands that may still run.
    """

    root: Path
    full: bool = False
    sessions: set[int] = field(default_factory=set)

    def environment(self) -> dict[str, str]:
        """Return the environment of commands."""
        programs = f"{self.root}/system/bin:/usr/bin:/bin"
        return {"PATH": programs, "HOME": "/", "TMPDIR": f"{self.root}/data/local/tmp", "ANDROID_ROOT": f"{self.root}/system"}


async def shell(device: Device, stream: Stream, command: str, packets: bool) -> None:
    """Run a command; with `packets`, its streams stay apart and its exit status follows them (shell protocol v2).

    When the host closes the stream, the command gets SIGHUP and its pipes are closed.
    """
    process = subprocess.Popen(
        ["/bin/sh", *(["-c", command] if command else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if packets else subprocess.STDOUT,
        cwd=device.root,
        env=device.environment(),
        start_new_session=True,
    )
    device.sessions.add(process.pid)
    ended = _ended(process)
    async with contextlib.AsyncExitStack() as pipes:
        stdin = await _writer(process.stdin, pipes)
        copies = [
            asyncio.create_task(_copy_out(stream, kind if packets else None, await _reader(pipe, pipes)))
            for kind, pipe in ((_STDOUT, process.stdout), (_STDERR, process.stderr))
            if pipe is not None
        ]
        feeding = asyncio.create_task(_feed(stream, stdin, packets))
        written = asyncio.create_task(asyncio.wait(copies))
        try:
            await asyncio.wait([feeding, written], return_when=asyncio.FIRST_COMPLETED)
            if written.done() and not any(copy.exception() for copy in copies):
                await ended
                status = process.wait()
                if packets:
                    await stream.write(struct.pack("<BIB", _EXIT, 1, status if status >= 0 else 128 - status))
        finally:
            for task in (feeding, written, *copies):
                task.cancel()
            await asyncio.gather(feeding, written, *copies, return_exceptions=True)
            if process.poll() is None:
                process.send_signal(signal.SIGHUP)
    await ended
    process.wait()
    if not session_lives(process.pid):
        device.sessions.discard(process.pid)


def session_lives(leader: int) -> bool:
    """Return whether anything of a command still runs."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def _ended(process: subprocess.Popen[bytes]) -> asyncio.Future[None]:
    """Done once the process has ended."""
    loop = asyncio.get_running_loop()
    future, handle = loop.create_future(), os.pidfd_open(process.pid)
    loop.add_reader(handle, lambda: future.done() or future.set_result(None))

    def forget(_: object) -> None:
        loop.remove_reader(handle)
        os.close(handle)

    future.add_done_callback(forget)
    return future


async def _reader(pipe: IO[bytes], pipes: contextlib.AsyncExitStack) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    pipes.callback(transport.close)
    return reader


async def _writer(pipe: IO[bytes] | None, pipes: contextlib.AsyncExitStack) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(lambda: asyncio.streams.FlowControlMixin(loop), pipe)
    pipes.callback(lambda: transport.is_closing() or transport.abort())
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _copy_out(stream: Stream, kind: int | None, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(_CHUNK):
        await stream.write(data if kind is None else struct.pack("<BI", kind, len(data)) + data)


async def _feed(stream: Stream, writer: asyncio.StreamWriter, packets: bool) -> None:
    """Returns once the host has closed the stream."""
    with contextlib.suppress(EOFError):
        while True:
            if packets:
                kind, size = struct.unpack("<BI", await stream.read_exactly(5))
                data = await stream.read_exactly(size)
            else:
                kind, data = _STDIN, await stream.read()
                if not data:
                    return
            with contextlib.suppress(OSError):  # the program no longer reads
                if kind == _CLOSE_STDIN:
                    writer.close()
                elif kind == _STDIN and not writer.is_closing():
                    writer.write(data)
                    await writer.drain()


async def sync(device: Device, stream: Stream) -> None:
    """Requests of file transfer until QUIT."""
    while True:
        name, size = struct.unpack("<4sI", await stream.read_exactly(8))
        if name == b"QUIT":
            return
        if size > 1024:
            await _fail(stream, "path too long")
            return
        path = os.fsdecode(await stream.read_exactly(size))
        if name == b"SEND":
            await _receive_file(device, stream, path)
        elif name == b"RECV":
            await _send_file(stream, path)
        elif name in (b"STAT", b"STA2", b"LST2"):
            await stream.write(_status(name, path))
        elif name == b"LIST":
            await _list(stream, path)
        else:
            await _fail(stream, f"unknown command {name!r}")
            return


async def _fail(stream: Stream, message: str) -> None:
    data = message.encode()
    await stream.write(struct.pack("<4sI", b"FAIL", len(data)) + data)


async def _receive_file(device: Device, stream: Stream, target: str) -> None:
    """After a failure the rest is read all the same, as adbd does for hosts that do not look for an answer before the end."""
    path, _, mode = target.rpartition(",")
    problem, file = "", None
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)  # noqa: SIM115
    except OSError as error:
        problem = f"couldn't create file: {error.strerror}"
    if problem:
        await _fail(stream, problem)
    while True:
        name, size = struct.unpack("<4sI", await stream.read_exactly(8))
        if name == b"DONE":
            break
        data = await stream.read_exactly(size)
        if file is None:
            continue
        try:
            if device.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            file.write(data)
        except OSError as error:
            file.close()
            file = None
            os.unlink(path)
            await _fail(stream, f"write failed: {error.strerror}")
    if file is not None:
        os.fchmod(file.fileno(), int(mode) & 0o777)
        file.close()
        os.utime(path, (size, size))
        await stream.write(struct.pack("<4sI", b"OKAY", 0))


async def _send_file(stream: Stream, path: str) -> None:
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        await _fail(stream, f"open failed: {error.strerror}")
        return
    with file:
        while data := file.read(_CHUNK):
            await stream.write(struct.pack("<4sI", b"DATA", len(data)) + data)
    await stream.write(struct.pack("<4sI", b"DONE", 0))


def _status(name: bytes, path: str) -> bytes:
    try:
        found = os.stat(path) if name == b"STA2" else os.lstat(path)
        problem = 0
    except OSError as error:
        found, problem = os.stat_result((0,) * 10), error.errno or 0
    if name == b"STAT":
        return struct.pack("<4sIII", name, found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime) & 0xFFFFFFFF)
    numbers = (found.st_dev, found.st_ino, found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_size)
    return struct.pack("<4sIQQIIIIQqqq", name, problem, *numbers, int(found.st_atime), int(found.st_mtime), int(found.st_ctime))


async def _list(stream: Stream, path: str) -> None:
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            found = entry.stat(follow_symlinks=False)
            name = os.fsencode(entry.name)
            numbers = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime), len(name))
            await stream.write(struct.pack("<4sIIII", b"DENT", *numbers) + name)
    await stream.write(struct.pack("<4sIIII", b"DONE", 0, 0, 0, 0))


async def splice(stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy both ways until one side ends; then what that side had sent is still delivered."""

    async def out() -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := await reader.read(1 << 20):
                await stream.write(data)

    async def into() -> None:
        with contextlib.suppress(OSError):
            while data := await stream.read():
                writer.write(data)
                await writer.drain()

    tasks = [asyncio.create_task(out()), asyncio.create_task(into())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        writer.close()
