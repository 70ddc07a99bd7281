"""Files to and from a board by SSH, with the shell's programs: SFTP is missing on small boards, and has no number for most errors."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

from tvmmobile.devices.board.storage import error_number
from tvmmobile.devices.ssh.process import execute
from tvmmobile.system.files import replacing

#: A transfer that moves no byte for this long counts as stalled.
STALL_S = 20.0
# The size shows whether all of the file arrived: a broken connection looks like the end of the file.
_STORE = (
    'LC_ALL=C; export LC_ALL; cat > "$1.part" && [ "$(wc -c < "$1.part")" -eq "$3" ] && chmod "$2" "$1.part" && mv -f "$1.part" "$1" '
    '|| { rm -f "$1.part"; exit 1; }'
)


def push(transport: Any, where: str, source: Path, target: str) -> None:
    """Copy a file to the board (see `Remote.push`)."""
    with source.open("rb") as stream:
        about = os.fstat(stream.fileno())
        words = ["sh", "-c", _STORE, "sh", target, f"{stat.S_IMODE(about.st_mode) & 0o777:o}", str(about.st_size)]
        ended = execute(transport, where, words, STALL_S, stdin=stream, idle=True)
    if ended.status != 0:
        raise _reason(ended.stderr, where, target)


def pull(transport: Any, where: str, source: str, target: Path) -> None:
    """Copy a file from the board (see `Remote.pull`)."""
    with replacing(target) as temporary, temporary.open("wb") as stream:
        ended = execute(transport, where, ["env", "LC_ALL=C", "cat", "--", source], STALL_S, take=stream.write, idle=True)
        if ended.status != 0:
            raise _reason(ended.stderr, where, source)


def _reason(stderr: bytes, where: str, path: str) -> OSError:
    """Return the programs' message, in the C locale, as an exception with an error number."""
    message = stderr.decode(errors="replace").strip()
    known = error_number(message, errno.ENOENT if "nonexistent" in message else 0)  # dash's wording
    number, lines = known or errno.EIO, message.splitlines()
    return OSError(number, f"{os.strerror(number)} on {where}" + ("" if known or not lines else f" ({lines[-1]})"), path)
