"""Programs over an SSH connection: run to their end, or left running until the connection ends."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import paramiko

from tvmmobile.devices.board.remote import LinkLost
from tvmmobile.devices.board.streams import (
    ENDED_BY_SIGNAL,
    LAST_WORDS_CHARACTERS,
    WRITE_TIMEOUT_S,
    ErrorTail,
    Lines,
    has_ended,
    no_line,
    not_ended,
    not_read,
)
from tvmmobile.devices.ssh.forward import PACKET_BYTES, close_channel, send_all
from tvmmobile.system.errors import DeviceUnavailable

_CHUNK_BYTES = 1 << 18
_JOIN_S = 2.0
_SETTLE_S = 0.2
#: Longest time for a server to notice that earlier programs have ended, and the pause between questions.
_CROWDED_S, _CROWDED_PAUSE_S = 3.0, 0.05


@dataclass(frozen=True)
class Ended:
    """Exit status and standard error of a program that ended."""

    status: int
    stderr: bytes


class IdleWatch:
    """Closes a channel after a while without activity: many of paramiko's waits have no limit.

    Args:
        idle_s: time without activity, in seconds; counted again from each call of `note_activity`.
    """

    def __init__(self, channel: Any, idle_s: float) -> None:
        self._channel, self._idle_s = channel, idle_s
        self._until = time.monotonic() + idle_s
        self._over = threading.Event()
        self.expired = False
        self._thread = threading.Thread(target=self._wait, name="ssh-watch", daemon=True)
        self._thread.start()

    def note_activity(self) -> None:
        """Note activity."""
        self._until = time.monotonic() + self._idle_s

    def cancel(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join(_JOIN_S)

    def _wait(self) -> None:
        while not self._over.wait(max(0.0, self._until - time.monotonic())):
            if time.monotonic() >= self._until:
                self.expired = True
                close_channel(self._channel)
                return


@contextlib.contextmanager
def _watched_session(transport: Any, where: str, idle_s: float) -> Iterator[tuple[Any, IdleWatch]]:
    """Open a session channel that is closed after `idle_s` seconds without `IdleWatch.note_activity`, and at the end."""
    channel = _open_session(transport, where, idle_s)
    watch = IdleWatch(channel, idle_s)
    try:
        yield channel, watch
    finally:
        watch.cancel()
        close_channel(channel)


def _open_session(transport: Any, where: str, timeout_s: float) -> Any:
    """Open a session channel; raise `LinkLost` if the connection is gone, `DeviceUnavailable` if the server refuses another session."""
    deadline = time.monotonic() + _CROWDED_S
    while True:
        asked = time.monotonic()
        try:
            return transport.open_session(timeout=timeout_s)
        except paramiko.SSHException as error:
            # A refusal is a ChannelException, unless another thread was refused at the same time: paramiko keeps one reason for both.
            if is_gone(transport) or time.monotonic() - asked >= timeout_s:
                raise lost(transport, where) from error
            if time.monotonic() > deadline:
                reason = str(getattr(error, "text", "") or error).rstrip(".")
                raise DeviceUnavailable(
                    f"{where} refuses to run another program over its connection: {reason}.",
                    "Set MaxSessions 10, OpenSSH's default, in its sshd_config.",
                ) from error
            time.sleep(_CROWDED_PAUSE_S)
        except (EOFError, OSError) as error:
            raise lost(transport, where) from error


def execute(
    transport: Any,
    where: str,
    words: Sequence[str],
    timeout_s: float,
    stdin: BinaryIO | None = None,
    take: Callable[[bytes], object] | None = None,
    idle: bool = False,
) -> Ended:
    """Run a program to its end.

    Args:
        where: name of the board for messages.
        stdin: the program's input.
        take: called with its standard output, piece by piece.
        idle: true if `timeout_s` counts from the last piece moved either way, not from the start.

    Raises:
        LinkLost: the connection is gone, or the program did not end in time.
        DeviceUnavailable: the server refuses to run another program.
        Exception: whatever `stdin` or `take` raised.
    """
    program = f"{words[0]} on {where}"
    with _watched_session(transport, where, timeout_s) as (channel, watch):
        moved = watch.note_activity if idle else lambda: None
        errors: list[bytes] = []
        problems: list[Exception] = []
        threads = [threading.Thread(target=_drain_errors, args=(channel, errors.append), name="ssh-stderr", daemon=True)]
        if stdin is not None:
            threads.append(threading.Thread(target=_feed, args=(channel, stdin, moved, problems), name="ssh-stdin", daemon=True))
        try:
            channel.exec_command(shlex.join(words))
            if stdin is None:
                channel.shutdown_write()
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise not_ended(program, timeout_s) if watch.expired else lost(transport, where) from error
        try:
            for thread in threads:
                thread.start()
            while chunk := channel.recv(_CHUNK_BYTES):
                moved()
                if take is not None:
                    take(chunk)
            channel.status_event.wait()
        except (paramiko.SSHException, EOFError) as error:
            raise lost(transport, where) from error
        finally:
            if not channel.status_event.is_set():
                close_channel(channel)  # otherwise its threads would keep waiting
            for thread in threads:
                thread.join(_JOIN_S)
        if problems:
            raise problems[0]
        if watch.expired:
            raise not_ended(program, timeout_s)
        if channel.exit_status == -1 and is_gone(transport):
            raise lost(transport, where)
        return Ended(ENDED_BY_SIGNAL if channel.exit_status == -1 else channel.exit_status, b"".join(errors))


class SshProcess:
    """Controls a program left running (see `RemoteProcess`).

    Raises:
        LinkLost: the connection is gone, or the server did not start it in time.
        DeviceUnavailable: the server refuses to run another program.
    """

    def __init__(self, transport: Any, where: str, words: Sequence[str], timeout_s: float) -> None:
        self._transport, self._where, self._program = transport, where, f"{words[0]} on {where}"
        self._reading = threading.Lock()
        self._lines, self._errors = Lines(), ErrorTail()
        self._stopped = False
        self._channel = _open_session(transport, where, timeout_s)
        try:
            watch = IdleWatch(self._channel, timeout_s)
            try:
                self._channel.exec_command(shlex.join(words))
            finally:
                watch.cancel()
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise lost(transport, where) from error
        self._drain = threading.Thread(target=_drain_errors, args=(self._channel, self._errors.add), name="ssh-stderr", daemon=True)
        self._drain.start()

    def read_line(self, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        with self._reading:
            return self._lines.next(lambda: self._receive(deadline - time.monotonic(), timeout_s))

    def write(self, content: bytes) -> None:
        deadline = time.monotonic() + WRITE_TIMEOUT_S
        while content:
            if self._channel.exit_status_ready():  # the channel stays open until the last holder of its output has closed that
                raise self._ended()
            try:
                sent = self._channel.send(content)
            except TimeoutError:
                sent = -1  # the reader's time limit, which paramiko applies to both directions
            except Exception as error:  # paramiko raises the error that ended its thread
                raise self._ended() from error
            if sent == 0:
                raise self._ended()
            if sent < 0 and time.monotonic() > deadline:
                raise not_read(self._program)
            content = content[max(0, sent) :]

    def poll(self) -> int | None:
        if not self._channel.exit_status_ready():
            return None
        status: int = self._channel.exit_status
        if status == -1 and not self._stopped and not is_gone(self._transport):
            return ENDED_BY_SIGNAL  # paramiko does not say which
        return status

    def last_words(self) -> str:
        if self._channel.exit_status_ready():
            self._drain.join(_JOIN_S)
        return str(self._errors).strip()[-LAST_WORDS_CHARACTERS:]

    def stop(self) -> None:
        self._stopped = True
        close_channel(self._channel)
        self._drain.join(_JOIN_S)

    def _receive(self, left_s: float, timeout_s: float) -> bytes:
        late = no_line(self._program, timeout_s)
        if left_s <= 0.0:
            raise late
        self._channel.settimeout(left_s)
        try:
            chunk: bytes = self._channel.recv(_CHUNK_BYTES)
        except TimeoutError as error:
            raise late from error
        except Exception as error:  # as in `write`
            raise self._ended() from error
        if not chunk and not self._channel.eof_received and (self._stopped or is_gone(self._transport)):
            raise self._ended()
        return chunk

    def _ended(self) -> LinkLost:
        if is_gone(self._transport):
            return lost(self._transport, self._where)
        return has_ended(self._program)


def is_gone(transport: Any) -> bool:
    """Return whether the connection has ended; wait a moment in case it is about to, because paramiko closes the channels first."""
    if transport.is_active():
        transport.join(_SETTLE_S)
    return not transport.is_alive() or not transport.is_active()


def lost(transport: Any, where: str) -> LinkLost:
    """Return the error for a failure on a connection."""
    if is_gone(transport):
        return LinkLost(f"the connection to {where} was lost")
    return LinkLost(f"{where} did not answer, or refuses to run programs")


def _drain_errors(channel: Any, keep: Callable[[bytes], object]) -> None:
    with contextlib.suppress(Exception):  # the channel's end; the thread that waits for the program reports it
        while True:
            try:
                chunk = channel.recv_stderr(_CHUNK_BYTES)
            except TimeoutError:
                continue  # the limit of who reads standard output
            if not chunk:
                return
            keep(chunk)


def _feed(channel: Any, stdin: BinaryIO, moved: Callable[[], object], problems: list[Exception]) -> None:
    while True:
        try:
            chunk = stdin.read(PACKET_BYTES)
        except OSError as error:
            problems.append(error)
            close_channel(channel)  # not an end that looks like the end of the content
            return
        try:
            if not chunk:
                channel.shutdown_write()
                return
            send_all(channel, chunk)
        except Exception:  # the program ended without reading all of it, or the connection did; who waits for the program finds out
            return
        moved()
