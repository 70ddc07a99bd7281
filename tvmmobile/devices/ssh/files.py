"""Files to and from a board by SSH: SFTP where the server has it, else `cat`."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import paramiko

from tvmmobile.devices.board.remote import LinkLost
from tvmmobile.devices.ssh.process import execute, is_gone, lost, watched_session
from tvmmobile.system.files import replacing
from tvmmobile.system.interrupts import deferred

#: A transfer that moves no byte for this long counts as stalled.
STALL_S = 20.0
# The size tells whether all of it came: a connection that breaks looks like the end of the file.
_STORE = """LC_ALL=C; export LC_ALL
if cat > "$1.part" && [ "$(wc -c < "$1.part")" -eq "$3" ] && chmod "$2" "$1.part" && mv -f "$1.part" "$1"; then exit 0; fi
rm -f "$1.part"; exit 1"""


class _NoSftp(Exception):
    """The server has no SFTP, or it failed without a reason."""


def push(transport: Any, where: str, source: Path, target: str) -> None:
    """Copy a file to the board (see `Remote.push`)."""
    with source.open("rb") as stream:
        about = os.fstat(stream.fileno())
        mode = stat.S_IMODE(about.st_mode) & 0o777
        try:
            _store_by_sftp(transport, where, stream, about.st_size, mode, target)
        except _NoSftp:
            stream.seek(0)
            _store_by_shell(transport, where, stream, about.st_size, mode, target)


def pull(transport: Any, where: str, source: str, target: Path) -> None:
    """Copy a file from the board (see `Remote.pull`)."""
    with replacing(target) as temporary, temporary.open("wb") as stream:
        ended = execute(transport, where, ["env", "LC_ALL=C", "cat", "--", source], STALL_S, take=stream.write, idle=True)
        if ended.status != 0:
            raise _reason(ended.stderr, where, source)


def _store_by_sftp(transport: Any, where: str, stream: BinaryIO, size: int, mode: int, target: str) -> None:
    part = f"{target}.part"
    # If a signal's exception interrupted a packet, the server would take the next one for its rest.
    with deferred() as arrived, watched_session(transport, where, STALL_S) as (channel, watch):

        def moved(*_: int) -> None:
            watch.note_activity()
            if arrived:
                raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR), target)

        try:
            channel.invoke_subsystem("sftp")
            sftp = paramiko.SFTPClient(channel)
            try:
                # Confirming compares the size: refused writes are otherwise overlooked.
                sftp.putfo(stream, part, size, callback=moved, confirm=True)
                sftp.chmod(part, mode)
                sftp.posix_rename(part, target)
            except OSError:
                with contextlib.suppress(OSError):
                    sftp.remove(part)
                raise
        except (paramiko.SSHException, paramiko.SFTPError, EOFError, OSError) as error:
            if watch.expired:
                raise LinkLost(f"copying {target} to {where} stalled for {STALL_S:g} s") from error
            if is_gone(transport):
                raise lost(transport, where) from error
            if isinstance(error, OSError) and error.errno:
                raise OSError(error.errno, f"{os.strerror(error.errno)} on {where}", target) from error
            # SFTP has no error number for a full disk and many other failures; the shell's programs name them.
            raise _NoSftp from error


def _store_by_shell(transport: Any, where: str, stream: BinaryIO, size: int, mode: int, target: str) -> None:
    words = ["sh", "-c", _STORE, "sh", target, f"{mode:o}", str(size)]
    ended = execute(transport, where, words, STALL_S, stdin=stream, idle=True)
    if ended.status != 0:
        raise _reason(ended.stderr, where, target)


def _reason(stderr: bytes, where: str, path: str) -> OSError:
    """Return the programs' message, in the C locale, as an exception with an error number."""
    message = stderr.decode(errors="replace").strip()
    numbers = [number for number in errno.errorcode if os.strerror(number) in message]
    if "nonexistent" in message:  # dash's wording
        numbers.append(errno.ENOENT)
    number = numbers[0] if numbers else errno.EIO
    lines = message.splitlines()
    return OSError(number, f"{os.strerror(number)} on {where}" + ("" if numbers or not lines else f" ({lines[-1]})"), path)
