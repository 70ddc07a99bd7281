"""Boards behind an SSH server, by paramiko."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any

import paramiko

from tvmmobile.devices.board.registered import SshAddress
from tvmmobile.devices.board.remote import RUN_TIMEOUT_S, Completed, LinkLost
from tvmmobile.devices.board.streams import Running
from tvmmobile.devices.ssh import files as ssh_files
from tvmmobile.devices.ssh.config import route_to
from tvmmobile.devices.ssh.forward import Forwards
from tvmmobile.devices.ssh.link import Link
from tvmmobile.devices.ssh.login import log_in
from tvmmobile.devices.ssh.process import SshProcess, execute, is_gone, lost
from tvmmobile.devices.ssh.shell import check_shell
from tvmmobile.system.errors import DeviceUnavailable

CONNECT_TIMEOUT_S = 10.0
ALIVE_TIMEOUT_S = 3.0
#: Time for the first program, however long the login took.
_SHELL_S = 5.0
#: At once; OpenSSH allows ten sessions a connection (MaxSessions), of which programs left running take some.
_SHORT_SESSIONS = 6


def connect_ssh(address: SshAddress, timeout_s: float = CONNECT_TIMEOUT_S) -> SshRemote:
    """Connect to a board and log in with the keys of the ssh agent and of `~/.ssh`, as `~/.ssh/config` says; asks for nothing.

    Args:
        timeout_s: time for all of it, from looking up the name; a ConnectTimeout in `~/.ssh/config` makes it shorter.

    Raises:
        DeviceUnavailable: it cannot be reached, has another host key than the address, does not let the user in or runs no programs.
    """
    deadline = time.monotonic() + timeout_s
    route = route_to(address.destination, address.port)
    remote = SshRemote(log_in(route, address.host_key, timeout_s), route.host)
    try:
        check_shell(remote, route, max(_SHELL_S, deadline - time.monotonic()))
    except BaseException:
        remote.close()
        raise
    return remote


class SshRemote:
    """Runs programs and copies files on a board over SSH (see `Remote`).

    Args:
        link: logged in; closed with this.
        where: the board's name in messages.
    """

    def __init__(self, link: Link, where: str) -> None:
        self._link, self._where = link, where
        self._transport = link.transport
        self._forwards = Forwards(link.transport)
        self._sessions = threading.BoundedSemaphore(_SHORT_SESSIONS)
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._askers: list[threading.Thread] = []
        self._probe: Future[object] | None = None
        self._running: Running[SshProcess] = Running()

    def run(self, words: Sequence[str], stdin: bytes = b"", timeout_s: float = RUN_TIMEOUT_S) -> Completed:
        output = bytearray()
        with self._session(timeout_s):
            ended = execute(self._transport, self._where, words, timeout_s, stdin=io.BytesIO(stdin) if stdin else None, take=output.extend)
        return Completed(ended.status, output.decode(errors="replace"), ended.stderr.decode(errors="replace"))

    def start(self, words: Sequence[str]) -> SshProcess:
        return self._running.add(SshProcess(self._transport, self._where, words, RUN_TIMEOUT_S))

    def push(self, source: Path, target: str) -> None:
        with self._session(RUN_TIMEOUT_S):
            ssh_files.push(self._transport, self._where, source, target)

    def pull(self, source: str, target: Path) -> None:
        with self._session(RUN_TIMEOUT_S):
            ssh_files.pull(self._transport, self._where, source, target)

    def forward(self, port: int) -> int:
        if is_gone(self._transport):
            raise lost(self._transport, self._where)
        return self._forwards.listen(port)

    def reverse(self, port: int) -> int:
        def ask() -> int:
            board_port: int = self._transport.request_port_forward("127.0.0.1", 0, handler=self._forwards.take_channel)
            self._forwards.accept_reversed(board_port, port)
            return board_port

        try:
            with self._lock:
                answer = self._ask(ask)
            opened: int = answer.result(RUN_TIMEOUT_S)
            return opened
        except FutureTimeoutError as error:
            raise LinkLost(f"{self._where} did not answer within {RUN_TIMEOUT_S:g} s") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            if is_gone(self._transport):
                raise lost(self._transport, self._where) from error
            raise DeviceUnavailable(f"{self._where} refuses to forward ports.", "Set AllowTcpForwarding yes in its sshd_config.") from error

    def alive(self) -> bool:
        if not self._transport.is_active():
            return False
        with self._lock:
            # A pending question is not asked again: its answer will do.
            if self._probe is None or self._probe.done():
                self._probe = self._ask(lambda: self._transport.global_request("keepalive@openssh.com"))
            probe = self._probe
        try:
            probe.result(ALIVE_TIMEOUT_S)
        except Exception:  # no answer in time, or the end of the connection, for which paramiko raises many kinds of errors
            return False
        return bool(self._transport.is_active())

    def close(self) -> None:
        self._link.close()
        self._forwards.close()
        with self._lock:
            askers, self._askers = self._askers, []
        self._running.stop()
        for asker in askers:
            asker.join(ALIVE_TIMEOUT_S)

    def _ask(self, question: Callable[[], Any]) -> Future[Any]:
        """Put a question to the server, in a thread: paramiko has no limit for the answer, and takes one at a time. Holding the lock."""
        answer: Future[Any] = Future()

        def work() -> None:
            with self._asking:
                try:
                    answer.set_result(question())
                except Exception as error:  # any error is raised in the asking thread
                    answer.set_exception(error)

        thread = threading.Thread(target=work, name="ssh-ask", daemon=True)
        self._askers = [*(other for other in self._askers if other.is_alive()), thread]
        thread.start()
        return answer

    @contextlib.contextmanager
    def _session(self, timeout_s: float) -> Iterator[None]:
        if not self._sessions.acquire(timeout=timeout_s):
            raise LinkLost(f"{self._where} is busy with {_SHORT_SESSIONS} other programs")
        try:
            yield
        finally:
            self._sessions.release()
