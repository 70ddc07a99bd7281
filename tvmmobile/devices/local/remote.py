"""This machine as a board: its programs are subprocesses, its files are files, and its ports are this machine's."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tvmmobile.devices.board.remote import RUN_TIMEOUT_S, Completed, LinkLost
from tvmmobile.devices.board.streams import (
    ENDED_BY_SIGNAL,
    LAST_WORDS_CHARACTERS,
    WRITE_TIMEOUT_S,
    ErrorTail,
    Lines,
    Running,
    has_ended,
    no_line,
    not_ended,
    not_read,
)
from tvmmobile.system.environment import login_environment
from tvmmobile.system.files import replacing

_CHUNK_BYTES = 1 << 16
#: Time for a program to end after its input has ended, when pin.py's guard restores the governors; and the same time again after SIGTERM.
_STOP_S = 3.0
#: What a shell reports for a program that is missing, and for one that may not be executed.
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


class LocalRemote:
    """Runs programs and copies files on this machine (see `Remote`)."""

    def __init__(self) -> None:
        self._running: Running[LocalProcess] = Running()

    def run(self, words: Sequence[str], stdin: bytes = b"", timeout_s: float = RUN_TIMEOUT_S) -> Completed:
        try:
            process = _started(words)
        except (FileNotFoundError, PermissionError) as error:
            status = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
            return Completed(status, "", f"{words[0]}: {error.strerror}")
        with process:
            try:
                output, errors = process.communicate(stdin, timeout_s)
            except subprocess.TimeoutExpired as error:
                raise not_ended(words[0], timeout_s) from error
            finally:
                if process.poll() is None:  # also after Ctrl-C
                    _signal(process, signal.SIGKILL)
        return Completed(_status(process.returncode), output.decode(errors="replace"), errors.decode(errors="replace"))

    def start(self, words: Sequence[str]) -> LocalProcess:
        try:
            return self._running.add(LocalProcess(words))
        except OSError as error:
            raise LinkLost(f"{words[0]} does not start: {error.strerror}") from error

    def push(self, source: Path, target: str) -> None:
        mode = stat.S_IMODE(source.stat().st_mode)
        with replacing(Path(target)) as temporary:
            shutil.copyfile(source, temporary)
        Path(target).chmod(mode)

    def pull(self, source: str, target: Path) -> None:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)

    def forward(self, port: int) -> int:
        return port

    def reverse(self, port: int) -> int:
        return port

    def alive(self) -> bool:
        return True

    def close(self) -> None:
        self._running.stop()


class LocalProcess:
    """Controls a program left running (see `RemoteProcess`); raises `OSError` if it does not start."""

    def __init__(self, words: Sequence[str]) -> None:
        self._name = words[0]
        self._process = _started(words)
        assert self._process.stdin is not None and self._process.stdout is not None and self._process.stderr is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        self._lines, self._errors = Lines(), ErrorTail()
        self._drain = threading.Thread(target=self._keep_errors, args=(self._process.stderr,), name="local-stderr", daemon=True)
        self._drain.start()

    def read_line(self, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s

        def receive() -> bytes:
            if not self._ready(self._stdout, False, deadline):
                raise no_line(self._name, timeout_s)
            return os.read(self._stdout.fileno(), _CHUNK_BYTES)

        return self._lines.next(receive)

    def write(self, content: bytes) -> None:
        deadline = time.monotonic() + WRITE_TIMEOUT_S
        while content:
            if not self._ready(self._stdin, True, deadline):
                raise not_read(self._name)
            try:
                content = content[os.write(self._stdin.fileno(), content) :]
            except BrokenPipeError as error:
                raise has_ended(self._name) from error

    def poll(self) -> int | None:
        status = self._process.poll()
        return None if status is None else _status(status)

    def last_words(self) -> str:
        if self._process.poll() is not None:
            self._drain.join(_STOP_S)
        return str(self._errors).strip()[-LAST_WORDS_CHARACTERS:]

    def stop(self) -> None:
        """Close its input, which ends it, and end it by signals if it does not; never raises."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                _signal(self._process, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
                break
        self._drain.join(_STOP_S)
        with contextlib.suppress(OSError):
            self._stdout.close()

    def _ready(self, pipe: IO[bytes], writing: bool, deadline: float) -> bool:
        """Wait for a pipe until the deadline; raise `LinkLost` once the program was stopped."""
        if pipe.closed:
            raise LinkLost(f"{self._name} was stopped")
        waiting = select.poll()  # `poll` has no limit on file descriptors
        waiting.register(pipe, select.POLLOUT if writing else select.POLLIN)
        return bool(waiting.poll(max(0.0, deadline - time.monotonic()) * 1e3))

    def _keep_errors(self, stderr: IO[bytes]) -> None:
        with stderr:
            while chunk := os.read(stderr.fileno(), _CHUNK_BYTES):
                self._errors.add(chunk)


def _started(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a program as a login's would be: with a plain environment, and out of reach of this terminal's Ctrl-C."""
    return subprocess.Popen(
        list(words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env=login_environment(),
        start_new_session=True,
    )


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a program and what it started in its session."""
    if process.poll() is None:  # otherwise its process id may have been reused
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def _status(returncode: int) -> int:
    return returncode if returncode >= 0 else ENDED_BY_SIGNAL - returncode
