"""Keeps a registered device's agents running: connects to each board, starts its agent, and repeats this after an outage."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tvmmobile.devices.agent.build import agent_words
from tvmmobile.devices.agents.tracker import ForwardedPort, Tracker
from tvmmobile.devices.board.connect import connect, described, silent
from tvmmobile.devices.board.cores import fast_core_words
from tvmmobile.devices.board.install import check_runs, install_agent
from tvmmobile.devices.board.lease import RENEW_S, BoardBusy, BoardLease
from tvmmobile.devices.board.pin import pinned
from tvmmobile.devices.board.registered import RegisteredBoard
from tvmmobile.devices.board.remote import LinkLost, Remote, RemoteProcess
from tvmmobile.devices.board.storage import not_stored
from tvmmobile.system.errors import DeviceUnavailable

#: Longest outage before a board is given up: a reboot takes about half a minute.
RECONNECT_S = 90.0
#: Longest time from an agent's start to its registration.
REGISTER_S = 20.0
#: Interval of checks that a board still answers, and the pause between attempts to reach it.
ALIVE_S, PAUSE_S = 3.0, 1.0
#: An agent that ends this often within the window is broken, not killed.
MOST_RESTARTS, RESTART_WINDOW_S = 20, 10.0
#: Time for an agent to end by itself after its tracker has gone.
STOP_S = 3.0
#: The remedy if an agent does not register, by the kind of address (`local`: run the same command again).
_NOT_REGISTERED = {
    "ssh": "Its SSH server must allow port forwarding (AllowTcpForwarding yes).",
    "adb": "Run: adb reconnect",
    "local": "End what keeps this machine busy; then run the same command again.",
}
#: Links of a run take leases one after another, because two may lead to the same board; a link that hangs delays the others only briefly.
_TAKING = threading.Lock()
#: Because of `exec`, the process id is the agent's; the agent itself reads the secret from standard input.
_LAUNCH = 'mkdir -p "$1" && echo "$$" && shift && exec "$@"'


@dataclass(frozen=True)
class AgentPlan:
    """The agent that every board of a device runs.

    Attributes:
        key: agents register under it.
        bundle: the agent's folder on this machine.
        secret: the run's.
        owner, run: owner and run that the lease names.
        pin: hold the boards' clocks at their highest.
    """

    key: str
    bundle: Path
    secret: str = field(repr=False)
    owner: str
    run: str
    pin: bool = False


class BoardLink:
    """Keeps one board's agent running, with a thread of its own from `start` to `stop`.

    Attributes:
        gate: port that its agent registers at.
        problem: reason why the board was given up; `None` if it was not.
        trouble: reason why its agent is not registered just now; `None` if it is.
        installing: true while the agent's files are sent to the board, which takes as long as the network needs.
    """

    def __init__(self, board: RegisteredBoard, plan: AgentPlan, tracker: Tracker) -> None:
        self.board, self.plan, self.tracker = board, plan, tracker
        self.gate: ForwardedPort = tracker.open_gate(self._place)
        self.problem: DeviceUnavailable | None = None
        self.trouble: DeviceUnavailable | None = None
        self.installing = False
        #: True once its agent has registered: ever, and since the last outage.
        self._ready_once = self._ready_lately = False
        self._stopping = threading.Event()
        self._remote: Remote | None = None
        #: Connection and lease while the agent's files may be sent.
        self._sending: tuple[Remote, BoardLease] | None = None
        self._places: dict[int, int] = {}
        self._thread = threading.Thread(target=self._keep, name=f"link {described(board.address)}", daemon=True)

    def start(self) -> None:
        """Start to connect."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the agent, release the board and close the connection; files that are being sent are not waited for."""
        self._stopping.set()
        sending, self._sending = self._sending, None
        if self.installing and sending is not None:
            _release(*sending)
        if not self.installing:
            self._thread.join(timeout_s)

    @property
    def ready(self) -> bool:
        """True once its agent has registered."""
        return self.problem is None and self.tracker.servers(self.gate) > 0

    def _place(self, port: int) -> int:
        """Return the port of this machine that leads to a port of the board."""
        remote = self._remote
        if remote is None:
            raise ValueError("an agent of a connection that has ended")
        if port not in self._places:
            try:
                self._places[port] = remote.forward(port)
            except LinkLost as error:  # only this board is affected, and its link notices it too
                raise ValueError(str(error)) from error
        return self._places[port]

    def _keep(self) -> None:
        away_since = time.monotonic()
        while not self._stopping.is_set():
            try:
                remote = connect(self.board.address)
                try:
                    self._use(remote)
                finally:
                    self._remote = None
                    remote.close()
                return
            except (LinkLost, BoardBusy, DeviceUnavailable) as error:
                self.trouble = self._as_unavailable(error)
                if self._ready_lately:
                    away_since, self._ready_lately = time.monotonic(), False
                # What fails at first contact will fail again a second later. Later failures are most likely a reboot.
                first = not self._ready_once and not isinstance(error, LinkLost)
                if first or isinstance(error, BoardBusy) or time.monotonic() - away_since > RECONNECT_S:
                    self.problem = self.trouble
                    return
            self._stopping.wait(PAUSE_S)

    def _as_unavailable(self, error: Exception) -> DeviceUnavailable:
        if isinstance(error, DeviceUnavailable):
            return error
        if isinstance(error, BoardBusy):
            return busy(self.board, error)
        return silent(self.board.address, f"{described(self.board.address)} does not answer: {error}.")

    def _use(self, remote: Remote) -> None:
        """Take the board, run its agent until this link is stopped, and release the board."""
        lease = BoardLease(lease_path(self.board), self.board.root, self.plan.owner, self.plan.run, self.gate.port)
        alone = _TAKING.acquire(timeout=STOP_S)
        try:
            lease.take(remote)
        finally:
            if alone:
                _TAKING.release()
        try:
            begin = time.monotonic()
            self._sending = remote, lease
            folder = self._install(remote)
            if time.monotonic() - begin > RENEW_S and not self._stopping.is_set():
                lease.take(remote)
            check_runs(remote, folder, self.board.runner)
            self._remote, self._places = remote, {}
            tracker_port = remote.reverse(self.gate.port)
            before = fast_core_words(remote, self.board)
            with pinned(remote, self.board) if self.plan.pin else contextlib.nullcontext():
                self._serve(remote, lease, [*before, *self.board.runner, *agent_words(folder)], tracker_port)
        finally:
            _release(remote, lease)

    def _install(self, remote: Remote) -> str:
        """Make sure that the agent is on the board; return its folder there."""

        def note(sentence: str) -> None:
            self.installing = True
            with contextlib.suppress(OSError):  # the reader of standard error is gone, or its disk is full
                print(f"tvmmobile: {described(self.board.address)}: {sentence} …", file=sys.stderr, flush=True)

        try:
            return install_agent(remote, self.board.directory, self.plan.bundle, note)
        finally:
            self.installing = False

    def _serve(self, remote: Remote, lease: BoardLease, agent: Sequence[str], tracker_port: int) -> None:
        """Run one agent after another until this link is stopped; `agent` begins its command line."""
        ended: list[float] = []
        while not self._stopping.is_set():
            words = self._run_agent(remote, lease, agent, tracker_port)
            now = time.monotonic()
            ended = [then for then in ended if now - then < RESTART_WINDOW_S] + [now]
            if len(ended) > MOST_RESTARTS:
                raise DeviceUnavailable(f"the agent on {described(self.board.address)} keeps exiting: {words or 'no output'}.")

    def _run_agent(self, remote: Remote, lease: BoardLease, agent: Sequence[str], tracker_port: int) -> str:
        """Run one agent until it ends or this link is stopped; return its standard error."""
        work = f"{self.board.directory}/work-{self.plan.run}"
        # While this run holds the lease, other folders are leftovers of outages.
        remote.run(["sh", "-c", 'rm -rf "$1"/work-*', "sh", self.board.directory])
        options = ["--tracker", f"127.0.0.1:{tracker_port}", "--key", self.plan.key, "--work-dir", work]
        process = remote.start(["sh", "-c", _LAUNCH, "sh", work, *agent, *options])
        pid = ""
        try:
            pid = process.read_line(REGISTER_S)
            if not pid:
                raise not_stored(work, process.last_words())
            process.write(self.plan.secret.encode() + b"\n")
            self._wait(process, self._stopping.is_set, lambda: self.tracker.servers(self.gate) > 0)
            self._watch(remote, process, lease, work)
            return process.last_words()
        finally:
            self._end(remote, process, pid, work)

    def _wait(self, process: RemoteProcess, stopped: Callable[[], bool], registered: Callable[[], bool]) -> None:
        deadline = time.monotonic() + REGISTER_S
        while not (stopped() or registered() or process.poll() is not None):
            if time.monotonic() > deadline:
                where, kind = described(self.board.address), self.board.address.kind
                raise DeviceUnavailable(
                    f"the agent on {where} did not register within {REGISTER_S:g} s: {process.last_words() or 'no output'}.",
                    _NOT_REGISTERED[kind],
                    again=kind == "local",
                )
            time.sleep(0.02)
        if registered():
            self._ready_once, self._ready_lately, self.trouble = True, True, None

    def _watch(self, remote: Remote, process: RemoteProcess, lease: BoardLease, work: str) -> None:
        """Return once the agent ends or this link is stopped; raise `DeviceUnavailable` if the board can store nothing any more."""
        renewed = checked = time.monotonic()
        while not self._stopping.wait(0.1) and process.poll() is None:
            now = time.monotonic()
            if now - checked > ALIVE_S:
                if not remote.alive():
                    raise LinkLost("no answer")
                checked = time.monotonic()
            if now - renewed > RENEW_S:
                lease.take(remote)
                written = remote.run(["sh", "-c", 'cat /proc/uptime > "$1/alive"', "sh", work])
                if written.status != 0:
                    raise not_stored(work, written.stderr)
                renewed = time.monotonic()

    def _end(self, remote: Remote, process: RemoteProcess, pid: str, work: str) -> None:
        """End the agent with its session and remove its folder, if the board still answers."""
        if remote.alive():
            with contextlib.suppress(LinkLost):
                if pid.isdigit() and process.poll() is None:
                    remote.run(["kill", "-TERM", pid])
                    deadline = time.monotonic() + STOP_S
                    while process.poll() is None and time.monotonic() < deadline:
                        time.sleep(0.02)
                    if process.poll() is None:
                        remote.run(["kill", "-KILL", pid])
                remote.run(["rm", "-rf", work])
        process.stop()


def _release(remote: Remote, lease: BoardLease) -> None:
    """Release a board if it answers; otherwise each question would wait for an answer, before the next connection is tried."""
    if remote.alive():
        with contextlib.suppress(LinkLost):
            lease.release(remote)


def check_unused(board: RegisteredBoard, remote: Remote) -> None:
    """Raise `DeviceUnavailable` if a run uses the board."""
    try:
        BoardLease(lease_path(board), board.root, owner="", run="nobody's").check_free(remote)
    except BoardBusy as error:
        raise busy(board, error) from error


def busy(board: RegisteredBoard, error: BoardBusy) -> DeviceUnavailable:
    """Return the error for a board that somebody else uses."""
    return DeviceUnavailable(f"{described(board.address)} is busy: {error}.", "Wait for it, or ask them.")


def lease_path(board: RegisteredBoard) -> str:
    """Return the file on a board that says who uses it, the same for all its users."""
    folder = "/data/local/tmp" if board.facts.api_level is not None else "/tmp"
    return f"{board.root.rstrip('/')}{folder}/tvmmobile.lease"
