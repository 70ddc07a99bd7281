"""The process behind a started device: a tracker and the agents, all of which end with the process that started it.

Run as a process of its own with the standard library alone. It reads its `HostConfig` as one line of JSON from standard input, prints
`{"port": …}` once every agent has registered (or `{"error": …}`), and stops at SIGTERM, at the end of its input, or when its parent is
gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from tvmmobile.devices.agents.tracker import Tracker
from tvmmobile.system.errors import DeviceUnavailable

POLL_S = 0.2
STOP_S = 3.0
MOST_RESTARTS = 5
RESTART_WINDOW_S = 10.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


#: Name of the agent's folder in each work directory.
BUNDLE = "bundle"


@dataclass(frozen=True)
class HostConfig:
    """Configures a host process.

    Attributes:
        command: the agent's command line, run in its work directory; `{work}` is replaced by that directory's path, with commas doubled as
            QEMU's options require, and `{tracker}` by HOST:PORT.
        bundle: the folder with the agent, linked as `bundle` in its work directory, so that its memory contains no path of this machine.
        environment: the agents' whole environment.
        secret: the run's secret, which each agent gets through a pipe.
        agents: number of agents to keep running.
        root: a directory for the agents' work directories; removed at the end.
        parent: the process id of the process this one must not outlive.
        deadline_s: time that all agents together may take to register.
    """

    command: tuple[str, ...]
    bundle: str
    environment: dict[str, str]
    secret: str = field(repr=False)
    agents: int
    root: str
    parent: int
    deadline_s: float

    def to_line(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self)) + "\n"


class StopRequested(Exception):
    """Raised when SIGTERM, SIGINT or SIGHUP arrives."""


class _Agents:
    """The agents' processes, started again when they end."""

    def __init__(self, config: HostConfig, tracker: str) -> None:
        self._config, self._tracker = config, tracker
        self._log_path = Path(config.root, "agents.log")
        self._log: IO[bytes] = self._log_path.open("ab")
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._restarts: list[float] = []
        for index in range(config.agents):
            self._start(index)

    def _work(self, index: int) -> Path:
        return Path(self._config.root, f"agent-{index}")

    def _start(self, index: int) -> None:
        shutil.rmtree(self._work(index), ignore_errors=True)
        self._work(index).mkdir(parents=True)
        (self._work(index) / BUNDLE).symlink_to(self._config.bundle)
        work = str(self._work(index)).replace(",", ",,")
        words = [word.replace("{work}", work).replace("{tracker}", self._tracker) for word in self._config.command]
        process = subprocess.Popen(
            words,
            cwd=self._work(index),
            env=self._config.environment,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._processes[index] = process
        assert process.stdin is not None
        with contextlib.suppress(OSError), process.stdin as pipe:  # agents that have ended are noticed elsewhere
            pipe.write(f"{self._config.secret}\n".encode())

    def restart_ended(self) -> str:
        """Restart agents that ended; return a sentence if that happens too often, else ""."""
        now = time.monotonic()
        for index, process in list(self._processes.items()):
            if process.poll() is None:
                continue
            self._restarts = [then for then in self._restarts if now - then < RESTART_WINDOW_S] + [now]
            if len(self._restarts) > MOST_RESTARTS * self._config.agents:
                return f"the agent keeps ending (status {process.returncode}): {self.last_words()}"
            self._start(index)
        return ""

    def last_words(self) -> str:
        """Return the end of what the agents wrote."""
        return self._log_path.read_text(errors="replace")[-600:].strip()

    def stop(self) -> None:
        """End every agent and with it its session (which dies with its parent)."""
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + STOP_S
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            if process.poll() is None:
                process.kill()
                process.wait()
        self._log.close()


#: The message that an agent's files are on the way to a board; another one follows.
STILL_INSTALLING: dict[str, object] = {"installing": True}


def say(message: dict[str, object]) -> None:
    """Send one line of JSON to the process that started this one."""
    with contextlib.suppress(OSError):  # the reader is gone, which the main loop notices
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def error_message(error: DeviceUnavailable) -> dict[str, object]:
    """Return the message about an error, for `say`; `launch.hosted` reads it."""
    message, remedy = error.as_typed
    return {"error": message, "remedy": remedy, "again": error.again}


class HostLoop:
    """Runs a host process: it keeps a tracker, and announces it once to the process that started this one.

    Attributes:
        tracker: the run's.
        announced: true if the tracker's port was announced.
    """

    def __init__(self, secret: str, parent: int) -> None:
        self._selector, self._parent = selectors.DefaultSelector(), parent
        self.tracker, self.announced = Tracker(self._selector, secret), False
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, "stdin")

    def looks(self) -> Iterator[None]:
        """Serve the tracker's peers, yielding repeatedly, until standard input ends or the parent is gone."""
        while os.getppid() == self._parent:
            for key, _ in self._selector.select(POLL_S if self.announced else 0.02):
                if key.data == "stdin":
                    return
                self.tracker.handle(key.data)
            yield

    def announce(self) -> None:
        """Tell the process that started this one the tracker's port."""
        self.announced = True
        say({"port": self.tracker.port})


def _serve(config: HostConfig) -> None:
    loop = HostLoop(config.secret, config.parent)
    agents = _Agents(config, f"127.0.0.1:{loop.tracker.port}")
    try:
        deadline, checked = time.monotonic() + config.deadline_s, 0.0
        for _ in loop.looks():
            if not loop.announced and loop.tracker.servers() == config.agents:
                loop.announce()
            if time.monotonic() - checked < POLL_S / 2:
                continue
            checked = time.monotonic()
            problem = agents.restart_ended()
            if not loop.announced and checked > deadline:
                problem = problem or f"the agents did not register within {config.deadline_s:g} s: {agents.last_words()}"
            if problem:
                say({"error": problem})
                return
    finally:
        agents.stop()


def _raise_stop(_number: int, _frame: object) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the clean-up must not be interrupted
    raise StopRequested


def stop_on_signals() -> None:
    """Make the first of `STOP_SIGNALS` raise `StopRequested` in the main thread; later ones are ignored."""
    for number in STOP_SIGNALS:
        signal.signal(number, _raise_stop)


def main() -> None:
    """Run the process."""
    stop_on_signals()
    config = HostConfig(**json.loads(sys.stdin.readline()))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # crashing kernels are expected here and need no core file
    try:
        _serve(config)
    except StopRequested:
        pass
    finally:
        shutil.rmtree(config.root, ignore_errors=True)
