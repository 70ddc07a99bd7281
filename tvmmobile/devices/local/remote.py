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
from tvmmobile.system.environment import login_environment
from tvmmobile.system.files import replacing

_LAST_WORDS_CHARACTERS = 600
_CHUNK_BYTES = 1 << 16
_WRITE_TIMEOUT_S = 30.0
#: Time for a program to end after its input has: pin.py's guard restores the governors then. After that, and after SIGTERM, as long again.
_STOP_S = 3.0
#: What a shell reports for a program that is missing, and for one that may not be executed.
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
#: A shell's exit status for a program that a signal ended is this and the signal's number.
_BY_SIGNAL = 128


class LocalRemote:
    """Runs programs and copies files on this machine (see `Remote`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: list[LocalProcess] = []

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
                raise LinkLost(f"{words[0]} did not end within {timeout_s:g} s") from error
            finally:
                if process.poll() is None:  # also after Ctrl-C
                    _signal(process, signal.SIGKILL)
        return Completed(_status(process.returncode), output.decode(errors="replace"), errors.decode(errors="replace"))

    def start(self, words: Sequence[str]) -> LocalProcess:
        try:
            process = LocalProcess(words)
        except OSError as error:
            raise LinkLost(f"{words[0]} does not start: {error.strerror}") from error
        with self._lock:
            self._processes = [*(other for other in self._processes if other.poll() is None), process]
        return process

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
        with self._lock:
            processes, self._processes = self._processes, []
        for process in processes:
            process.stop()


class LocalProcess:
    """Controls a program left running (see `RemoteProcess`); raises `OSError` if it does not start."""

    def __init__(self, words: Sequence[str]) -> None:
        self._name = words[0]
        self._process = _started(words)
        assert self._process.stdin is not None and self._process.stdout is not None and self._process.stderr is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        self._received, self._errors = b"", bytearray()
        self._drain = threading.Thread(target=self._keep_errors, args=(self._process.stderr,), name="local-stderr", daemon=True)
        self._drain.start()

    def read_line(self, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._received:
            if not self._ready(self._stdout, False, deadline):
                raise LinkLost(f"{self._name} wrote no line within {timeout_s:g} s")
            chunk = os.read(self._stdout.fileno(), _CHUNK_BYTES)
            if not chunk:
                break
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line.decode(errors="replace")

    def write(self, content: bytes) -> None:
        deadline = time.monotonic() + _WRITE_TIMEOUT_S
        while content:
            if not self._ready(self._stdin, True, deadline):
                raise LinkLost(f"{self._name} did not read its input within {_WRITE_TIMEOUT_S:g} s")
            try:
                content = content[os.write(self._stdin.fileno(), content) :]
            except BrokenPipeError as error:
                raise LinkLost(f"{self._name} has ended") from error

    def poll(self) -> int | None:
        status = self._process.poll()
        return None if status is None else _status(status)

    def last_words(self) -> str:
        if self._process.poll() is not None:
            self._drain.join(_STOP_S)
        return self._errors.decode(errors="replace").strip()[-_LAST_WORDS_CHARACTERS:]

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
        waiting = select.poll()  # knows no limit of file numbers
        waiting.register(pipe, select.POLLOUT if writing else select.POLLIN)
        return bool(waiting.poll(max(0.0, deadline - time.monotonic()) * 1e3))

    def _keep_errors(self, stderr: IO[bytes]) -> None:
        with stderr:
            while chunk := os.read(stderr.fileno(), _CHUNK_BYTES):
                self._errors += chunk
                del self._errors[: -4 * _LAST_WORDS_CHARACTERS]


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
    if process.poll() is None:  # otherwise its number may be another's by now
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def _status(returncode: int) -> int:
    return returncode if returncode >= 0 else _BY_SIGNAL - returncode
