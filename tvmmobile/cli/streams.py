"""The standard streams as a caller may leave them: closed, in an encoding without our characters, on a full disk."""

from __future__ import annotations

import codecs
import contextlib
import errno
import fcntl
import io
import os
import sys
from typing import Any, TextIO


def _bytes_or_question_mark(error: UnicodeError) -> tuple[str | bytes, int]:
    """Handle one character: a surrogate that stands for a byte of a file's name becomes that byte, any other `?`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    one = UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    try:
        return codecs.lookup_error("surrogateescape")(one)
    except UnicodeEncodeError:
        return codecs.replace_errors(one)


#: Handlers of errors that print any text, for those of Python that do not: without a locale, Python keeps file names' bytes
#: and refuses other characters.
_REPLACING = {"strict": "replace", "surrogateescape": "tvmmobile.bytes_or_question_mark"}
codecs.register_error(_REPLACING["surrogateescape"], _bytes_or_question_mark)


class _Stdout(io.FileIO):
    """Writes to stdout, and remembers if that fails."""

    def write(self, data: Any, /) -> int:
        """Implement `io.FileIO.write`."""
        try:
            return super().write(data)
        except OSError as error:
            error.filename = "standard output"
            raise


class _Stderr(io.FileIO):
    """Writes to stderr, and discards what does not fit on its disk: a run's results matter more than what it says of its progress."""

    def write(self, data: Any, /) -> int:
        """Implement `io.FileIO.write`."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return memoryview(data).nbytes


def prepare() -> None:
    """Open closed streams, and those for the wrong direction, on the null device; print `?` for characters not in stdout's encoding, and
    nothing on stderr once its disk is full.

    Otherwise, the next file to be opened here, or in a process started from here, would become stdout or stderr, and get what libraries
    print.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if not _is_open(number, os.O_WRONLY if mode == "r" else os.O_RDONLY):
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)
            if nowhere > number:  # else it took the free number
                os.close(nowhere)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            raw = io.FileIO(number, mode, closefd=False)
            buffered = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
            setattr(sys, name, io.TextIOWrapper(buffered, encoding="utf-8", errors="replace"))
    before = sys.stdout
    if isinstance(before, io.TextIOWrapper):
        before.flush()
        errors = before.errors or "strict"
        lines = before.line_buffering or before.write_through
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Stdout(1, "w", closefd=False)), before.encoding, _REPLACING.get(errors, errors), line_buffering=lines
        )
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.flush()
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(_Stderr(2, "w", closefd=False)),
            sys.stderr.encoding,
            sys.stderr.errors,
            line_buffering=True,
            write_through=True,
        )


def _is_open(number: int, wrong: int) -> bool:
    """Return whether a file descriptor is open, but not for the `wrong` direction: where stderr is closed, bash opens its script there."""
    try:
        return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != wrong
    except OSError:
        return False


def fails(stream: TextIO) -> bool:
    """Return whether output cannot be written; the rest is then discarded."""
    try:
        stream.flush()
    except OSError:
        silence(stream)
        return True
    return False


def complain(message: str, remedy: str) -> None:
    """Print on stderr what failed, and what to do about it, each as a line; an empty remedy has none."""
    with contextlib.suppress(OSError):  # stderr may be on a full disk, too
        print(f"tvmmobile: {message}", *([remedy] if remedy else []), sep="\n", file=sys.stderr)
    fails(sys.stderr)


def silence(stream: TextIO) -> None:
    """Discard the rest of the output, and the interpreter's last flush."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
