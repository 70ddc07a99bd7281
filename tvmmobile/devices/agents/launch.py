"""Starts a device's host process, which owns the tracker and the connections to the agents, and ends it with all its children."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from collections.abc import Iterator, Sequence

from tvmmobile.devices.agents.host import STILL_INSTALLING, STOP_S
from tvmmobile.system.errors import DeviceUnavailable

#: Time for a host process to end everything that it started, also on a slow board.
_STOP_HOST_S = 5 * STOP_S


@contextlib.contextmanager
def hosted(words: Sequence[str], config: str, deadline_s: float, what: str, remedy: str) -> Iterator[int]:
    """Run a host process and yield its tracker's port on 127.0.0.1.

    Args:
        words: its command line.
        config: one line of JSON for its standard input.
        deadline_s: longest time for its agents to register, once their files are on the boards.
        what: the subject of an error's sentence: the thing that did not start.
        remedy: the error's second sentence, if the process gives none.

    Raises:
        DeviceUnavailable: the agents did not come up. One that is raised inside gets the process's own reason and remedy, if that has them.
    """
    host = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process, which then shuts the other one down
    )
    try:
        message = _first_message(host, config, deadline_s)
        if "port" not in message:
            raise DeviceUnavailable(f"{what}: {message['error']}", str(message.get("remedy") or remedy), bool(message.get("again")))
        try:
            yield int(str(message["port"]))
        except DeviceUnavailable as error:  # the measuring code only sees that no agent answers
            host.terminate()
            problem = _message(host, _STOP_HOST_S)
            if "error" in problem:
                cure, rest = "" if problem.get("again") else str(problem.get("remedy") or ""), error.as_typed[1]
                twice = bool(cure) and rest.startswith(cure)  # the measuring code knows it, too
                raise DeviceUnavailable(str(problem["error"]), rest if twice else f"{cure} {rest}".strip(), error.again) from error
            raise
    finally:
        _stop(host)


def _first_message(host: subprocess.Popen[bytes], config: str, deadline_s: float) -> dict[str, object]:
    assert host.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        host.stdin.write(config.encode())
        host.stdin.flush()
    while (message := _message(host, deadline_s + STOP_S)) == STILL_INSTALLING:
        pass
    return message or {"error": "the device host ended without a word."}


def _message(host: subprocess.Popen[bytes], deadline_s: float) -> dict[str, object]:
    """Return the host process's next message, or the last of several; nothing if it ends, or does not send one in time."""
    assert host.stdout is not None
    lines = _read_line(host.stdout.fileno(), deadline_s).splitlines()
    message: dict[str, object] = json.loads(lines[-1]) if lines and lines[-1].startswith(b"{") else {}
    return message


def _read_line(descriptor: int, timeout_s: float) -> bytes:
    deadline, line = time.monotonic() + timeout_s, b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                break
            chunk = os.read(descriptor, 4096)
            if not chunk:
                break
            line += chunk
    return line


def _stop(host: subprocess.Popen[bytes]) -> None:
    host.terminate()
    for pipe in (host.stdin, host.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        host.wait(_STOP_HOST_S)
    except subprocess.TimeoutExpired:
        host.kill()
        host.wait()
